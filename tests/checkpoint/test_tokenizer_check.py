"""A tokenizer that comes back as another one is refused, before and after training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import LlamaConfig, Qwen2Config

from nla_audit.checkpoint.save import save_ar, save_av
from nla_audit.checkpoint.tokenizer_check import check_survives_saving, save_tokenizer
from nla_audit.errors import UserError
from nla_audit.nla.injection import Injection
from tests.pairs import tiny
from tests.train import miniature

INJECTION = Injection("replace", scale=4.0)
#: One line that says what was encoded and where it differs.
REFUSED = r"loads the tokenizer saved here as a Qwen2Tokenizer that encodes the AV prompt diff"


def word_level_beside(config_class: type) -> None:
    tokenizer = miniature.tokenizer()
    config = config_class(vocab_size=len(tokenizer))
    check_survives_saving(tokenizer, config, miniature.sidecar("av", INJECTION))


def test_the_model_type_decides_what_is_loaded() -> None:
    # Fails with: ids compared with those of the same tokenizer in memory.
    word_level_beside(LlamaConfig)
    with pytest.raises(UserError, match=REFUSED) as caught:
        word_level_beside(Qwen2Config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama", "gemma3_text"])
def test_tokenizers_of_their_own_kind_pass(architecture: str) -> None:
    tokenizer = tiny.make_tokenizer(bos=tiny.has_bos(architecture))
    config = tiny.make_config(architecture, len(tokenizer))
    sidecar = miniature.sidecar("av", INJECTION)
    check_survives_saving(tokenizer, config, sidecar)


@pytest.mark.parametrize(
    ("raised", "seen"),
    # As tokenizers reports a full disk, as Python does, and a bug.
    [(Exception, OSError), (PermissionError, PermissionError), (TypeError, TypeError)],
)
def test_only_what_tokenizers_says_of_a_file_is_one(
    raised: type[Exception], seen: type[Exception], tmp_path: Path
) -> None:
    def save(folder: Path) -> None:
        raise raised("No space left on device (os error 28)")

    with pytest.raises(seen, match="No space left") as caught:
        save_tokenizer(SimpleNamespace(save_pretrained=save), tmp_path)
    assert type(caught.value) is seen


@pytest.mark.parametrize("role", ["av", "ar"])
def test_saving_leaves_no_folder_that_reads_other_tokens(role: str, tmp_path: Path) -> None:
    # Fails with: check_reloads left out of save_av or save_ar.
    half = miniature.verbalizer() if role == "av" else miniature.reconstructor()
    tokenizer = half.tokenizer
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    half.model.config = config
    with pytest.raises(UserError, match=REFUSED):
        save_av(half, tmp_path / "x") if role == "av" else save_ar(half, tmp_path / "x")
    assert not list(tmp_path.iterdir())
