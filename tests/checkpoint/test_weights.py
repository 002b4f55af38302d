"""Every weight that is loaded is the one that was saved, or the checkpoint is refused.

The faults are those of checkpoints that people published: names with the words of a wrapper,
tensors lost or left over. ``nla-audit inspect`` must agree with loading.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from nla_audit.checkpoint.inspection import inspect
from nla_audit.checkpoint.load import load, load_first_blocks, load_language_model
from nla_audit.checkpoint.save import save_model
from nla_audit.checkpoint.tensors import likeliest_renaming, match, plain_name
from nla_audit.nla.injection import parse_injection
from tests.checkpoint.faults import (
    ADAPTER,
    FLOAT32,
    Edit,
    also,
    each,
    edited,
    inspected,
    logits,
    make_adapter,
    reading,
    refused,
    renaming,
    sound_logits,
    sound_reading,
    without,
)
from tests.pairs import tiny


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text model inside a multimodal one; the adapter changes the text decoder only."""
    root = tiny.save_pair(
        tmp_path_factory.mktemp("wrapped"), "gemma3_wrapper", parse_injection("add:1")
    )
    targets = r".*language_model.*\.(q_proj|v_proj)"
    make_adapter(root / "av", root / "adapter", targets)
    return root


# Adapters ----------------------------------------------------------------------------------------

SAME_ADAPTER: dict[str, Edit] = {
    "torch.compile": renaming("base_model.model.", "base_model.model._orig_mod."),
    "DDP": lambda tensors: {f"module.{name}": one for name, one in tensors.items()},
    "FSDP, twice in a name": lambda tensors: {
        f"_fsdp_wrapped_module.{name}".replace(".self_attn", "._fsdp_wrapped_module.self_attn"): one
        for name, one in tensors.items()
    },
    "activation checkpoints": renaming(".self_attn", "._checkpoint_wrapped_module.self_attn"),
    "without peft's hull": renaming("base_model.model.", ""),
    "with the adapter's name": renaming("lora_A.weight", "lora_A.default.weight"),
    "half renamed": renaming("layers.1.", "_orig_mod.layers.1."),
}
OTHER_ADAPTER: dict[str, tuple[Edit, str]] = {
    "one lost": (without("layers.2.self_attn.q_proj.lora_B"), "and 1 is missing"),
    "a layer lost": (without("layers.0."), "and 4 are missing"),
    "all lost": (lambda _: {}, "0 of its 0 tensors fit nowhere and 16 are missing"),
    "one too many": (
        also("base_model.model.model.layers.9.q_proj.lora_A.weight", 2, 2),
        "1 of its",
    ),
    "twice under two names": (
        lambda tensors: tensors | {f"module.{name}": one.clone() for name, one in tensors.items()},
        "16 of its 32 tensors fit nowhere",
    ),
    "another architecture": (
        renaming("model.model.layers", "net.decoder.blocks"),
        "renaming 'net.decoder.blocks.' to 'model.model.layers.' would place 16 of 16",
    ),
    "one dimension": (each(torch.flatten), "have another shape"),
    "another rank": (each(lambda one: torch.cat([one, one])), "have another shape"),
    "whole numbers": (each(lambda one: one.to(torch.int32)), "holds int32"),
    "complex": (each(lambda one: one.to(torch.complex64)), "holds complex64"),
    "not finite": (each(lambda one: one / 0), "hold NaN or infinity"),
}


class TestAdapters:
    @pytest.mark.parametrize("edit", SAME_ADAPTER.values(), ids=SAME_ADAPTER.keys())
    def test_known_words_in_names_are_read(self, edit: Edit, llama: Path, tmp_path: Path) -> None:
        adapter = edited(llama / "adapter", tmp_path / "adapter", ADAPTER, edit)
        sound = sound_logits(llama / "av", llama / "adapter")
        assert torch.equal(logits(llama / "av", adapter=adapter), sound)
        assert not torch.allclose(sound_logits(llama / "av"), sound, atol=0.1)
        assert inspected(adapter, llama / "av") == []

    @pytest.mark.parametrize(("edit", "words"), OTHER_ADAPTER.values(), ids=OTHER_ADAPTER.keys())
    def test_others_are_refused(self, edit: Edit, words: str, llama: Path, tmp_path: Path) -> None:
        adapter = edited(llama / "adapter", tmp_path / "adapter", ADAPTER, edit)
        assert words in refused(lambda: logits(adapter, base=llama / "av"))
        assert any(words in problem for problem in inspected(adapter, llama / "av"))

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("model.language_model.layers", "model.layers"),  # trained on the text model alone
            ("model.language_model.layers", "language_model.model.layers"),  # transformers 4
        ],
    )
    def test_text_model_inside_a_multimodal_one(
        self, old: str, new: str, wrapped: Path, tmp_path: Path
    ) -> None:
        adapter = edited(wrapped / "adapter", tmp_path / "adapter", ADAPTER, renaming(old, new))
        # A text-only config names the modules alone, and then the tower has them too.
        path = adapter / "adapter_config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "target_modules": ["q_proj", "v_proj"]}))
        sound = sound_logits(wrapped / "av", wrapped / "adapter")
        assert torch.equal(logits(wrapped / "av", adapter=adapter), sound)
        assert inspected(adapter, wrapped / "av") == []

    def test_one_that_only_changes_the_eyes(self, wrapped: Path, tmp_path: Path) -> None:
        eyes = make_adapter(wrapped / "av", tmp_path / "eyes", r".*vision_tower.*\.q_proj")
        words = "changes nothing that a text reaches"
        assert words in refused(lambda: logits(wrapped / "av", adapter=eyes))
        assert any(words in problem for problem in inspected(eyes, wrapped / "av"))

    def test_tokens_before_the_prompt_are_refused(self, llama: Path, tmp_path: Path) -> None:
        adapter = Path(shutil.copytree(llama / "adapter", tmp_path / "adapter"))
        settings_ = {
            "peft_type": "PROMPT_TUNING",
            "task_type": "CAUSAL_LM",
            "num_virtual_tokens": 4,
        }
        (adapter / "adapter_config.json").write_text(json.dumps(settings_))
        words = "puts tokens of its own before the prompt"
        assert words in refused(lambda: logits(llama / "av", adapter=adapter))
        assert any(words in problem for problem in inspected(adapter, llama / "av"))

    def test_an_untrained_one_is_said(self, llama: Path, tmp_path: Path) -> None:
        adapter = edited(llama / "adapter", tmp_path / "adapter", ADAPTER, each(torch.zeros_like))
        said: list[str] = []
        load(av=llama / "av", adapter=adapter, placement=FLOAT32, notice=said.append)
        (found,) = inspect(adapter, base=llama / "av")
        assert [sentence for sentence in said if "changes nothing" in sentence] == found.oddities

    def test_module_saved_whole(self, llama: Path, tmp_path: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(llama / "av")
        lora = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
        trained = get_peft_model(model, lora)
        with torch.no_grad():
            trained.get_output_embeddings().modules_to_save["default"].weight.mul_(-1)
        trained.save_pretrained(tmp_path / "sound")
        sound = logits(llama / "av", adapter=tmp_path / "sound")
        assert torch.allclose(sound, -sound_logits(llama / "av"), atol=1e-4)
        verbalizer = load(av=llama / "av", adapter=tmp_path / "sound", placement=FLOAT32).verbalizer
        assert verbalizer is not None
        for with_lora, wanted in ((True, sound), (False, sound_logits(llama / "av"))):
            merged = tmp_path / f"merged-{with_lora}"
            shutil.copytree(llama / "av", merged)
            save_model(verbalizer.model, merged, with_lora=with_lora)
            assert torch.allclose(logits(merged), wanted, atol=1e-5)
        wrap = renaming("base_model.model.", "base_model.model._orig_mod.")
        renamed = edited(tmp_path / "sound", tmp_path / "renamed", ADAPTER, wrap)
        assert torch.equal(logits(llama / "av", adapter=renamed), sound)
        lacking = edited(tmp_path / "sound", tmp_path / "lacking", ADAPTER, without("lm_head"))
        assert "1 is missing" in refused(lambda: logits(llama / "av", adapter=lacking))


# Whole models ------------------------------------------------------------------------------------

SAME_MODEL: dict[str, Edit] = {
    "torch.compile": lambda tensors: {f"_orig_mod.{name}": one for name, one in tensors.items()},
    "two wrappers": lambda tensors: {
        f"module._orig_mod.{name}": one for name, one in tensors.items()
    },
    "the same wrapper twice": lambda tensors: {
        f"_fsdp_wrapped_module.{name}".replace(".mlp", "._fsdp_wrapped_module.mlp"): one
        for name, one in tensors.items()
    },
}
OTHER_MODEL: dict[str, tuple[Edit, str]] = {
    "norm lost": (without("model.norm.weight"), "1 weight of the model is in none of its files"),
    "output matrix lost": (without("lm_head"), "(first lm_head.weight), and would be random"),
    "a block lost": (without("layers.3."), "no weights for 1 of 4 blocks (first 3)"),
    "a block too many": (also("model.layers.4.mlp.up_proj.weight", 48, 32), "would be ignored"),
    "a bias too many": (also("model.layers.0.mlp.up_proj.bias", 48), "would be ignored"),
    "other names": (renaming("mlp.", "ffn."), "renaming 'ffn.' to 'mlp.' would place 12 of 12"),
    "whole numbers": (
        lambda tensors: tensors | {"lm_head.weight": tensors["lm_head.weight"].to(torch.int64)},
        "1 weight is saved as I64",
    ),
    "another shape": (
        lambda tensors: tensors | {"model.norm.weight": torch.ones(7)},
        "disagree about sizes",
    ),
}


class TestWholeModels:
    @pytest.mark.parametrize("edit", SAME_MODEL.values(), ids=SAME_MODEL.keys())
    def test_known_words_in_names_are_read(self, edit: Edit, llama: Path, tmp_path: Path) -> None:
        av = edited(llama / "av", tmp_path / "av", "model.safetensors", edit)
        assert torch.equal(logits(av), sound_logits(llama / "av"))
        assert inspected(av) == []

    @pytest.mark.parametrize(("edit", "words"), OTHER_MODEL.values(), ids=OTHER_MODEL.keys())
    def test_others_are_refused(self, edit: Edit, words: str, llama: Path, tmp_path: Path) -> None:
        av = edited(llama / "av", tmp_path / "av", "model.safetensors", edit)
        assert words in refused(lambda: logits(av))
        assert any(words in problem for problem in inspected(av))
        # Training begins from a target by the same door.
        assert words in refused(lambda: load_language_model(av, placement=FLOAT32))

    def test_fewer_blocks_than_weights(self, llama: Path, tmp_path: Path) -> None:
        av = Path(shutil.copytree(llama / "av", tmp_path / "av"))
        config = json.loads((av / "config.json").read_text())
        (av / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
        words = "9 tensors of its files are no weights of the model that config.json describes"
        assert words in refused(lambda: logits(av))
        assert any(words in problem for problem in inspected(av))

    @pytest.mark.parametrize(
        ("blocks", "words"),
        [
            (16, "no weights for 12 of 16 blocks (first 4)"),
            (1000, "describes 1,000 blocks, its weights hold 4"),
        ],
    )
    def test_blocks_that_no_file_has_are_not_built(
        self, blocks: int, words: str, llama: Path, tmp_path: Path
    ) -> None:
        av = Path(shutil.copytree(llama / "av", tmp_path / "av"))
        config = json.loads((av / "config.json").read_text())
        (av / "config.json").write_text(json.dumps({**config, "num_hidden_layers": blocks}))
        start = monotonic()
        assert words in refused(lambda: logits(av))
        assert any(words in problem for problem in inspected(av))
        assert monotonic() - start < 10  # building a thousand takes longer

    def test_more_blocks_than_any_model_has(self, llama: Path, tmp_path: Path) -> None:
        av = Path(shutil.copytree(llama / "av", tmp_path / "av"))
        config = json.loads((av / "config.json").read_text())
        (av / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 100_000}))
        start = monotonic()
        said = refused(lambda: logits(av))
        assert "num_hidden_layers: must be a whole number from 1 to 1,024, found 100000" in said
        assert refused(lambda: inspected(av)) == said
        assert monotonic() - start < 10  # building them takes minutes

    def test_blocks_left_out_on_purpose(self, llama: Path) -> None:
        model, _ = load_first_blocks(llama / "base", layer_index=1, placement=FLOAT32)
        assert model.config.num_hidden_layers == 2

    def test_an_ar_needs_no_output_matrix(self, llama: Path, tmp_path: Path) -> None:
        edit = without("lm_head", "model.norm")
        ar = edited(llama / "ar", tmp_path / "ar", "model.safetensors", edit)
        assert np.array_equal(reading(ar), sound_reading(llama / "ar"))
        assert inspected(ar) == []


class TestNames:
    def test_plain_name(self) -> None:
        assert plain_name("base_model.model.model._orig_mod.layers.0.q.lora_A.default.weight") == (
            "layers.0.q.lora_A.weight"
        )
        assert plain_name("base_model.model.lm_head.modules_to_save.default.weight") == (
            "lm_head.weight"
        )
        assert plain_name("module.weight") == "weight"

    def test_ambiguous_names_fit_nowhere(self) -> None:
        wanted = {"model.a.weight": (1,), "language_model.a.weight": (1,)}
        assert match({"module.a.weight": (1,)}, wanted).unmatched == ["module.a.weight"]

    def test_numbers_must_agree(self) -> None:
        missing = ["model.layers.0.attn.q.weight", "model.layers.1.attn.q.weight"]
        assert likeliest_renaming(["h.1.attn.q.weight"], missing) == (
            "renaming 'h.' to 'model.layers.' would place 1 of 1"
        )
        assert likeliest_renaming(["h.7.attn.q.weight"], missing) is None
        assert likeliest_renaming(["other.bias"], missing) is None
        # Another module is no renaming.
        wanted = ["layers.0.q_proj.lora_A.weight"]
        assert likeliest_renaming(["layers.0.k_proj.lora_A.weight"], wanted) is None
