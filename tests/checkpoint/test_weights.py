"""Every weight that is loaded is the one that was saved, or the checkpoint is refused.

The faults are those of checkpoints that people published: names with the words of a wrapper,
tensors lost or left over, heads that can be none. ``nla-audit inspect`` must agree with loading.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from nla_audit.checkpoint.backbone import Placement
from nla_audit.checkpoint.formats import AR_LORA_FILE
from nla_audit.checkpoint.inspection import inspect
from nla_audit.checkpoint.load import load, load_first_blocks, load_language_model
from nla_audit.checkpoint.tensors import likeliest_renaming, match, plain_name
from nla_audit.errors import UserError
from nla_audit.nla.injection import parse_injection
from tests.pairs import tiny
from tests.pairs.golden import GOLDEN

Tensors = dict[str, torch.Tensor]
Edit = Callable[[Tensors], Tensors]

FLOAT32 = Placement(dtype="float32", device="cpu")
VECTORS = np.random.default_rng(0).normal(size=(3, tiny.D_MODEL)).astype(np.float32)
ADAPTER = "adapter_model.safetensors"
HEAD = "value_head.safetensors"


def make_adapter(base: Path, folder: Path, targets: str | list[str], seed: int = 0) -> Path:
    """A PEFT adapter on ``base`` that changes what it says."""
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(seed)
    lora = LoraConfig(r=2, lora_alpha=8, target_modules=targets, init_lora_weights=False)
    get_peft_model(model, lora).save_pretrained(folder)
    (folder / "README.md").unlink()
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tiny.save_pair(tmp_path_factory.mktemp("llama"), "llama", parse_injection("add:1"))
    make_adapter(root / "av", root / "adapter", ["q_proj", "v_proj"])
    return root


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text model inside a multimodal one; the adapter changes the text decoder only."""
    root = tiny.save_pair(
        tmp_path_factory.mktemp("wrapped"), "gemma3_wrapper", parse_injection("add:1")
    )
    targets = r".*language_model.*\.(q_proj|v_proj)"
    make_adapter(root / "av", root / "adapter", targets)
    return root


def edited(source: Path, folder: Path, file: str, edit: Edit) -> Path:
    """A copy of the checkpoint ``source`` whose tensors in ``file`` are changed."""
    shutil.copytree(source, folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)  # what is copied may be read-only
    tensors = {name: one.contiguous() for name, one in edit(load_file(folder / file)).items()}
    save_file(tensors, folder / file, metadata={"format": "pt"})
    return folder


def logits(av: Path, **options: Any) -> torch.Tensor:
    verbalizer = load(av=av, placement=FLOAT32, notice=lambda _: None, **options).verbalizer
    assert verbalizer is not None
    return verbalizer.first_logits(VECTORS)


def reading(ar: Path) -> np.ndarray:
    reconstructor = load(ar=ar, placement=FLOAT32, notice=lambda _: None).reconstructor
    assert reconstructor is not None
    return reconstructor.reconstruct(["a quoted word", "a story"])


@cache
def sound_logits(av: Path, adapter: Path | None = None) -> torch.Tensor:
    """Of checkpoints of a fixture, which no test changes."""
    return logits(av) if adapter is None else logits(av, adapter=adapter)


@cache
def sound_reading(ar: Path) -> np.ndarray:
    return reading(ar)


def refused(run: Callable[[], object]) -> str:
    """The one line with which loading refuses."""
    with pytest.raises(UserError) as error:
        run()
    assert "\n" not in str(error.value)
    return str(error.value)


def inspected(path: Path, base: Path | None = None) -> list[str]:
    (found,) = inspect(path, base=base)
    return found.problems


def inspected_or_refused(path: Path, base: Path | None, said: str) -> list[str]:
    """Problems; or the line ``said``, where even the door to inspecting refuses with it."""
    try:
        return inspected(path, base)
    except UserError as error:
        return [said] if str(error) == said else []


def renaming(old: str, new: str) -> Edit:
    return lambda tensors: {name.replace(old, new): one for name, one in tensors.items()}


def each(change: Callable[[torch.Tensor], torch.Tensor]) -> Edit:
    return lambda tensors: {name: change(one) for name, one in tensors.items()}


def without(*words: str) -> Edit:
    return lambda tensors: {
        name: one for name, one in tensors.items() if not any(word in name for word in words)
    }


def also(name: str, *shape: int) -> Edit:
    return lambda tensors: {**tensors, name: torch.ones(shape)}


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
    def test_known_words_in_names_are_read(self, edit: Edit, pair: Path, tmp_path: Path) -> None:
        adapter = edited(pair / "adapter", tmp_path / "adapter", ADAPTER, edit)
        sound = sound_logits(pair / "av", pair / "adapter")
        assert torch.equal(logits(pair / "av", adapter=adapter), sound)
        assert not torch.allclose(sound_logits(pair / "av"), sound, atol=0.1)
        assert inspected(adapter, pair / "av") == []

    @pytest.mark.parametrize(("edit", "words"), OTHER_ADAPTER.values(), ids=OTHER_ADAPTER.keys())
    def test_others_are_refused(self, edit: Edit, words: str, pair: Path, tmp_path: Path) -> None:
        adapter = edited(pair / "adapter", tmp_path / "adapter", ADAPTER, edit)
        assert words in refused(lambda: logits(adapter, base=pair / "av"))
        assert any(words in problem for problem in inspected(adapter, pair / "av"))

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

    def test_tokens_before_the_prompt_are_refused(self, pair: Path, tmp_path: Path) -> None:
        adapter = Path(shutil.copytree(pair / "adapter", tmp_path / "adapter"))
        settings_ = {
            "peft_type": "PROMPT_TUNING",
            "task_type": "CAUSAL_LM",
            "num_virtual_tokens": 4,
        }
        (adapter / "adapter_config.json").write_text(json.dumps(settings_))
        words = "puts tokens of its own before the prompt"
        assert words in refused(lambda: logits(pair / "av", adapter=adapter))
        assert any(words in problem for problem in inspected(adapter, pair / "av"))

    def test_an_untrained_one_is_said(self, pair: Path, tmp_path: Path) -> None:
        adapter = edited(pair / "adapter", tmp_path / "adapter", ADAPTER, each(torch.zeros_like))
        said: list[str] = []
        load(av=pair / "av", adapter=adapter, placement=FLOAT32, notice=said.append)
        (found,) = inspect(adapter, base=pair / "av")
        assert [sentence for sentence in said if "changes nothing" in sentence] == found.oddities

    def test_module_saved_whole(self, pair: Path, tmp_path: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(pair / "av")
        lora = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
        trained = get_peft_model(model, lora)
        with torch.no_grad():
            trained.get_output_embeddings().modules_to_save["default"].weight.mul_(-1)
        trained.save_pretrained(tmp_path / "sound")
        sound = logits(pair / "av", adapter=tmp_path / "sound")
        assert torch.allclose(sound, -sound_logits(pair / "av"), atol=1e-4)
        wrap = renaming("base_model.model.", "base_model.model._orig_mod.")
        renamed = edited(tmp_path / "sound", tmp_path / "renamed", ADAPTER, wrap)
        assert torch.equal(logits(pair / "av", adapter=renamed), sound)
        lacking = edited(tmp_path / "sound", tmp_path / "lacking", ADAPTER, without("lm_head"))
        assert "1 is missing" in refused(lambda: logits(pair / "av", adapter=lacking))


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
    def test_known_words_in_names_are_read(self, edit: Edit, pair: Path, tmp_path: Path) -> None:
        av = edited(pair / "av", tmp_path / "av", "model.safetensors", edit)
        assert torch.equal(logits(av), sound_logits(pair / "av"))
        assert inspected(av) == []

    @pytest.mark.parametrize(("edit", "words"), OTHER_MODEL.values(), ids=OTHER_MODEL.keys())
    def test_others_are_refused(self, edit: Edit, words: str, pair: Path, tmp_path: Path) -> None:
        av = edited(pair / "av", tmp_path / "av", "model.safetensors", edit)
        assert words in refused(lambda: logits(av))
        assert any(words in problem for problem in inspected(av))
        # Training begins from a target by the same door.
        assert words in refused(lambda: load_language_model(av, placement=FLOAT32))

    def test_fewer_blocks_than_weights(self, pair: Path, tmp_path: Path) -> None:
        av = Path(shutil.copytree(pair / "av", tmp_path / "av"))
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
        self, blocks: int, words: str, pair: Path, tmp_path: Path
    ) -> None:
        av = Path(shutil.copytree(pair / "av", tmp_path / "av"))
        config = json.loads((av / "config.json").read_text())
        (av / "config.json").write_text(json.dumps({**config, "num_hidden_layers": blocks}))
        start = monotonic()
        assert words in refused(lambda: logits(av))
        assert any(words in problem for problem in inspected(av))
        assert monotonic() - start < 10  # building a thousand takes longer

    def test_more_blocks_than_any_model_has(self, pair: Path, tmp_path: Path) -> None:
        av = Path(shutil.copytree(pair / "av", tmp_path / "av"))
        config = json.loads((av / "config.json").read_text())
        (av / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 100_000}))
        start = monotonic()
        said = refused(lambda: logits(av))
        assert "num_hidden_layers: must be a whole number from 1 to 1,024, found 100000" in said
        assert refused(lambda: inspected(av)) == said
        assert monotonic() - start < 10  # building them takes minutes

    def test_blocks_left_out_on_purpose(self, pair: Path) -> None:
        model, _ = load_first_blocks(pair / "base", layer_index=1, placement=FLOAT32)
        assert model.config.num_hidden_layers == 2

    def test_an_ar_needs_no_output_matrix(self, pair: Path, tmp_path: Path) -> None:
        edit = without("lm_head", "model.norm")
        ar = edited(pair / "ar", tmp_path / "ar", "model.safetensors", edit)
        assert np.array_equal(reading(ar), sound_reading(pair / "ar"))
        assert inspected(ar) == []


# Heads -------------------------------------------------------------------------------------------

SAME_HEAD: dict[str, Edit] = {
    "nanoNLA's name": renaming("weight", "value_head.weight"),
    "torch.compile": renaming("weight", "_orig_mod.weight"),
    "DDP": renaming("weight", "module.value_head.weight"),
    "twice the same": lambda tensors: tensors | {"value_head.weight": tensors["weight"].clone()},
}
OTHER_HEAD: dict[str, tuple[Edit, str]] = {
    "empty file": (lambda _: {}, "no tensor called weight or value_head.weight, found none"),
    "empty": (each(lambda one: one[:0, :0]), "the head is empty (shape [0, 0])"),
    "empty rows": (each(lambda one: one[:, :0]), "the head is empty (shape [32, 0])"),
    "rectangular": (each(lambda one: one[:5]), "the head has shape [5, 32]"),
    "one dimension": (each(torch.flatten), "the head has shape [1024]"),
    "three dimensions": (each(lambda one: one[None]), "the head has shape [1, 32, 32]"),
    "one number": (each(lambda one: one[0, 0]), "the head has shape []"),
    "another width": (each(lambda one: one[:8, :8]), "the model needs [32, 32]"),
    "whole numbers": (each(lambda one: one.to(torch.int8)), "the head holds int8"),
    "true or false": (each(lambda one: one > 0), "the head holds bool"),
    "complex": (each(lambda one: one.to(torch.complex64)), "the head holds complex64"),
    "not finite": (each(lambda one: one / 0), "of the head's weights are NaN or infinite"),
    "absurd": (each(lambda one: one * 1e20), "the head was saved wrongly"),
    "two heads": (also("value_head.weight", 32, 32), "holds 2 heads"),
    "a head a layer": (
        lambda tensors: {f"heads.{layer}": tensors["weight"].clone() for layer in (1, 2, 3)},
        "heads.2 [32, 32], heads.3 [32, 32]; an AR has one head",
    ),
    "a bias": (also("bias", 32), "besides the head it holds bias [32]"),
    "another name": (renaming("weight", "projection"), "rename projection, if that is it"),
}


class TestHeads:
    @pytest.mark.parametrize("edit", SAME_HEAD.values(), ids=SAME_HEAD.keys())
    def test_known_names_are_read(self, edit: Edit, pair: Path, tmp_path: Path) -> None:
        ar = edited(pair / "ar", tmp_path / "ar", HEAD, edit)
        assert np.array_equal(reading(ar), sound_reading(pair / "ar"))
        assert inspected(ar) == []

    @pytest.mark.parametrize(("edit", "words"), OTHER_HEAD.values(), ids=OTHER_HEAD.keys())
    def test_others_are_refused(self, edit: Edit, words: str, pair: Path, tmp_path: Path) -> None:
        ar = edited(pair / "ar", tmp_path / "ar", HEAD, edit)
        assert words in refused(lambda: reading(ar))
        assert any(words in problem for problem in inspected(ar))


# AR-LoRA -----------------------------------------------------------------------------------------

NANO = GOLDEN / "nano_lora"
SAME_AR_LORA: dict[str, Edit] = {
    "torch.compile": renaming("backbone.", "backbone._orig_mod."),
    "DDP": lambda tensors: {f"module.{name}": one for name, one in tensors.items()},
}
OTHER_AR_LORA: dict[str, tuple[Edit, str]] = {
    "one lost": (without("layers.0.self_attn.q_proj.lora_A"), "0 of its 23 tensors fit nowhere"),
    "one too many": (also("backbone.model.layers.9.x.lora_A.default.weight", 2), "1 of its 25"),
    "another shape": (
        lambda tensors: {name: one[..., :5] for name, one in tensors.items() if one.ndim},
        "have another shape",
    ),
    "whole numbers": (each(lambda one: one.int()), "holds int32"),
    "no head": (without("value_head"), "found only LoRA; an AR has one head"),
    "two heads": (also("weight", 64, 64), "holds 2 heads"),
}


class TestArLora:
    @staticmethod
    def reading(ar: Path) -> np.ndarray:
        half = load(ar=ar, base=NANO / "base", placement=FLOAT32, notice=lambda _: None)
        assert half.reconstructor is not None
        return half.reconstructor.reconstruct(["a quoted word"])

    @staticmethod
    def edited(folder: Path, edit: Edit) -> Path:
        shutil.copytree(NANO / "base", folder / "base")
        return edited(NANO / "ar_lora", folder / "ar_lora", AR_LORA_FILE, edit)

    @pytest.mark.parametrize("edit", SAME_AR_LORA.values(), ids=SAME_AR_LORA.keys())
    def test_known_words_in_names_are_read(self, edit: Edit, tmp_path: Path) -> None:
        ar = self.edited(tmp_path, edit)
        assert np.array_equal(self.reading(ar), self.reading(NANO / "ar_lora"))
        assert inspected(ar) == []

    @pytest.mark.parametrize(("edit", "words"), OTHER_AR_LORA.values(), ids=OTHER_AR_LORA.keys())
    def test_others_are_refused(self, edit: Edit, words: str, tmp_path: Path) -> None:
        ar = self.edited(tmp_path, edit)
        assert words in refused(lambda: self.reading(ar))
        assert any(words in problem for problem in inspected(ar))


# Anything at all ---------------------------------------------------------------------------------

_WORDS = ["_orig_mod", "module", "base_model", "model", "weight", "lora_A", "default", "x", "", "9"]
_CHANGES: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda one: one[:1],
    lambda one: one[:0],
    torch.flatten,
    lambda one: one[None],
    lambda one: one.to(torch.int16),
    lambda one: one.to(torch.complex64),
    lambda one: one.to(torch.bfloat16),
    lambda one: one * torch.nan,
    lambda one: one != 0,
]


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    """A few renamings, losses, additions and changes of shape or type, of some tensors or all."""
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["insert", "delete", "lose", "copy", "change"]),
                st.integers(0, 40) | st.just(-1),  # which tensor; −1 is all of them
                st.integers(0, 5),
                st.sampled_from(_WORDS),
                st.sampled_from(_CHANGES),
            ),
            min_size=1,
            max_size=3,
        )
    )

    def edit(tensors: Tensors) -> Tensors:
        for kind, which, place, word, change in steps:
            names = sorted(tensors)
            chosen = names if which < 0 else names[which % max(1, len(names)) :][:1]
            for name in chosen:
                words = name.split(".")
                one = tensors[name]
                if kind != "copy":
                    del tensors[name]
                if kind == "lose":
                    continue
                if kind in ("insert", "copy"):
                    words.insert(place, word)
                elif kind == "delete" and len(words) > 1:
                    words.pop(place % len(words))
                tensors[".".join(words)] = change(one) if kind == "change" else one.clone()
        return tensors

    return edit


@pytest.mark.parametrize("part", [pytest.param("adapter", marks=pytest.mark.slow), "head"])
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(edit=edits())
def test_a_result_or_one_line(
    part: str, edit: Edit, pair: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Loading gives a result or a one-line error, and inspecting says the same."""
    folder = tmp_path_factory.mktemp("any") / part
    source, file = ("adapter", ADAPTER) if part == "adapter" else ("ar", HEAD)
    checkpoint = edited(pair / source, folder, file, edit)
    base = pair / "av" if part == "adapter" else None
    half: dict[str, Any] = {"av" if part == "adapter" else "ar": checkpoint}
    try:
        load(**half, base=base, placement=FLOAT32, notice=lambda _: None)
    except UserError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert "\n" not in said
        assert inspected_or_refused(checkpoint, base, said) != []
    else:
        assert inspected(checkpoint, base) == []
        if part == "adapter":  # what is loaded is applied
            assert not torch.equal(sound_logits(pair / "av"), logits(checkpoint, base=base))


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
