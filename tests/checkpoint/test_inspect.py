"""``nla-audit inspect``, and the same checks on loading: what cannot be right is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from nla_audit import cli
from nla_audit.checkpoint.health import head_health, scan
from nla_audit.checkpoint.inspection import inspect
from nla_audit.checkpoint.load import Placement, load
from nla_audit.errors import UserError
from tests.pairs import talking, tiny
from tests.pairs.golden import GOLDEN

FLOAT32 = Placement(dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking.save_pair(tmp_path_factory.mktemp("sound") / "pair")


@pytest.fixture
def pair(sound: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(sound, tmp_path / "pair"))


def edit_sidecar(path: Path, **changes: Any) -> None:
    """Set fields of a sidecar; a dot in a name is written ``__``."""
    fields = yaml.safe_load(path.read_text())
    for name, value in changes.items():
        *above, last = name.split("__")
        inner = fields
        for part in above:
            inner = inner[part]
        inner[last] = value
    path.write_text(yaml.safe_dump(fields, allow_unicode=True))


def edit_tensor(path: Path, name: str, edit: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    tensors = load_file(path)
    changed = edit(tensors.pop(name))
    if changed is not None:
        tensors[name] = changed
    save_file(tensors, path, metadata={"format": "pt"})


def with_value(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def edit(tensor: torch.Tensor) -> torch.Tensor:
        tensor[0, 1] = value
        return tensor

    return edit


def nan_head(pair: Path) -> None:
    edit_tensor(pair / "ar" / "value_head.safetensors", "weight", with_value(torch.nan))


def huge_head(pair: Path) -> None:
    edit_tensor(pair / "ar" / "value_head.safetensors", "weight", with_value(1e30))


def nan_weight(pair: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    edit_tensor(pair / "av" / "model.safetensors", name, with_value(torch.inf))


def missing_block(pair: Path) -> None:
    for path in [pair / "ar" / "model.safetensors"]:
        for name in [name for name in load_file(path) if ".layers.1." in name]:
            edit_tensor(path, name, lambda _: None)


def other_tokenizer(pair: Path) -> None:
    other = tiny.make_tokenizer(bos=True, extra="other words, merged in another order " * 9)
    other.save_pretrained(pair / "av")


def other_neighbours(pair: Path) -> None:
    edit_sidecar(pair / "av" / "nla_meta.yaml", tokens__injection_left_neighbor_id=3)


def other_suffix(pair: Path) -> None:
    edit_sidecar(pair / "ar" / "nla_meta.yaml", tokens__critic_suffix_ids=[5, 6])


def other_width(pair: Path) -> None:
    edit_sidecar(pair / "ar" / "nla_meta.yaml", d_model=64)


def other_layer(pair: Path) -> None:
    edit_sidecar(pair / "ar" / "nla_meta.yaml", extraction_layer_index=3)


def no_such_block(pair: Path) -> None:
    edit_sidecar(pair / "av" / "nla_meta.yaml", extraction__injection="add:9")


@dataclass(frozen=True)
class Fault:
    """A way to spoil a pair, what is then said, and whether ``--force`` helps."""

    spoil: Callable[[Path], None]
    half: str
    words: str
    can_force: bool = True


FAULTS = [
    Fault(nan_head, "ar", "of the head's weights are NaN or infinite"),
    Fault(huge_head, "ar", "the head was saved wrongly, take another copy"),
    Fault(
        nan_weight, "av", "weight tensors hold NaN or infinity (first model.layers.1.mlp.up_proj"
    ),
    Fault(missing_block, "ar", "fetch the checkpoint again"),
    Fault(other_tokenizer, "av", "the sidecar says"),
    Fault(other_neighbours, "av", "the marker's neighbours are tokens"),
    Fault(other_suffix, "ar", "the AR prompt ends in tokens"),
    Fault(other_width, "ar", "they do not belong together", can_force=False),
    Fault(other_layer, "ar", "an AR for layer 3 has 4 blocks, this one has 3"),
    Fault(no_such_block, "av", "the AV has only 4 blocks", can_force=False),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.spoil.__name__)
def test_fault_is_found_and_refused(
    fault: Fault, pair: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fault.spoil(pair)
    assert cli.run(["inspect", str(pair), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    problems = {Path(each["path"]).name: each["problems"] for each in found}
    assert any(fault.words in problem for problem in problems.pop(fault.half))
    assert problems == {"ar" if fault.half == "av" else "av": []}
    half: dict[str, Any] = {fault.half: pair / fault.half}
    with pytest.raises(UserError) as refused:
        load(**half, placement=FLOAT32)
    assert fault.words in str(refused.value)
    assert "\n" not in str(refused.value)
    said: list[str] = []
    if fault.can_force:
        assert "--force" in str(refused.value)
        load(**half, placement=FLOAT32, force=True, notice=said.append)
        assert any(sentence.startswith("forced: ") for sentence in said)
    else:
        with pytest.raises(UserError):
            load(**half, placement=FLOAT32, force=True, notice=said.append)


def test_sound_pair(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["inspect", str(sound)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("nothing wrong found") == 2
    facts = {each.path.name: each.facts for each in inspect(sound)}
    assert facts["av"]["injection"].startswith("replace:20 ")
    assert facts["av"]["role"] == "AV (verbalizer)"
    assert "AR trained in RL" not in facts["av"]
    assert facts["ar"]["AR trained in RL"] == "no"
    assert facts["ar"]["MSE scale"] == "5.65685 (√d_model)"
    assert facts["ar"]["layer"] == "2"
    assert facts["ar"]["model"] == "LlamaForCausalLM, 3 blocks, d_model 32"
    assert facts["ar"]["tokenizer"].endswith("agrees with the sidecar")


class TestPublishedFormats:
    @staticmethod
    def facts(path: str) -> dict[str, str]:
        (found,) = inspect(GOLDEN / path)
        assert found.problems == []
        return found.facts

    def test_release(self) -> None:
        facts = self.facts("released_qwen2/av")
        assert facts["format"] == "full checkpoint, model sidecar"
        assert facts["injection"].endswith("(the marker's embedding is replaced; stated)")

    def test_sweep(self) -> None:
        facts = self.facts("nano_qwen3/rl-lora/p0.006")
        assert facts["format"] == "PEFT adapter, no sidecar"
        assert facts["base"].startswith("/workspace/")  # a path on somebody else's machine
        assert facts["base"].endswith("nano_qwen3/av")
        assert facts["injection"].startswith("add:1 ")
        assert "implied" in facts["injection"]
        assert self.facts("nano_qwen3/ar")["AR trained in RL"] == "not recorded"

    def test_ar_lora(self) -> None:
        assert self.facts("nano_lora/ar_lora")["final norm"] == "stripped"
        kept = self.facts("nano_lora/ar_lora_norm_kept")
        assert kept["final norm"] == "kept"
        assert kept["format"] == "AR-LoRA with head, dataset sidecar"
        assert kept["adapter"] == "rsLoRA, r 8, α 16, first 3 blocks"


class TestHealth:
    def test_scan(self) -> None:
        tensors = {
            "fine": torch.tensor([1.0, -3.0]),
            "nan": torch.tensor([torch.nan, 2.0, torch.inf]),
            "absurd": torch.tensor([1e30]),
            "whole": torch.tensor([1, 2]),
            "half": torch.tensor([7.0], dtype=torch.bfloat16),
        }
        health = scan(tensors.items())
        assert health.non_finite == {"nan": 2}
        assert list(health.absurd) == ["absurd"]
        assert (health.tensors, health.parameters) == (5, 9)
        assert scan([("fine", torch.ones(3))]).problem() is None

    def test_head(self) -> None:
        assert head_health(torch.eye(4)).from_identity == 0
        moved = torch.eye(4)
        moved[0, 1] = 2.0  # ‖H − I‖ = 2 and ‖I‖ = 2
        assert head_health(moved).from_identity == pytest.approx(1)
        moved[2] = 0
        assert head_health(moved).dead_rows == 1
        assert head_health(moved).problem() is None
        moved[3] = torch.nan
        assert head_health(moved).non_finite == 0.25


class TestNoCheckpoint:
    """What is no checkpoint, or only half of one."""

    @pytest.fixture
    def fails(self, capsys: pytest.CaptureFixture[str]) -> Callable[[Path], str]:
        def run(path: Path) -> str:
            assert cli.run(["inspect", str(path)]) == 2
            error = capsys.readouterr().err
            assert error.startswith("error: ")
            assert error.count("\n") == 1
            half = "ar" if path.name == "ar" else "av"
            with pytest.raises(UserError) as refused:
                load(**{half: path}, placement=FLOAT32)
            assert str(refused.value) == error.removeprefix("error: ").strip()
            return error

        return run

    def test_not_a_checkpoint(self, fails: Any, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("nothing here")
        assert "no checkpoint here (no config.json" in fails(tmp_path)
        assert "no such folder" in fails(tmp_path / "none")

    def test_pickles_are_refused(self, fails: Any, pair: Path) -> None:
        for half in ("av", "ar"):
            (pair / half / "model.safetensors").unlink()
            (pair / half / "pytorch_model.bin").write_bytes(b"\x80\x04.")
            assert "a pickle that can run code when opened" in fails(pair / half)

    def test_half_a_checkpoint(self, fails: Any, pair: Path) -> None:
        av = pair / "av"
        weights = (av / "model.safetensors").read_bytes()
        (av / "model.safetensors").unlink()
        assert "config.json but no model.safetensors" in fails(av)
        index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
        (av / "model.safetensors.index.json").write_text(json.dumps(index))
        (av / "model-1-of-2.safetensors").write_bytes(weights)
        assert "1 of 2 weight files are missing (model-2-of-2" in fails(av)

    def test_truncated_weights(self, pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = pair / "av" / "model.safetensors"
        path.write_bytes(path.read_bytes()[:1000])
        assert cli.run(["inspect", str(pair / "av")]) == 2
        assert "cannot read" in capsys.readouterr().err
        with pytest.raises(UserError, match="cannot read"):
            load(av=pair / "av", placement=FLOAT32)

    def test_adapter_without_weights(self, fails: Any, tmp_path: Path) -> None:
        adapter = tmp_path / "adapter"
        adapter.mkdir()
        (adapter / "adapter_config.json").write_text("{}")
        assert "adapter_model.safetensors is missing" in fails(adapter)
        (adapter / "adapter_model.bin").write_bytes(b"\x80\x04.")
        assert "a pickle that can run code" in fails(adapter)


class TestDamagedFiles:
    @pytest.mark.parametrize(
        ("file", "text", "words"),
        [
            ("tokenizer.json", "not json", "no usable tokenizer"),
            ("tokenizer.json", '{"x": 1}', "no usable tokenizer"),
            ("config.json", "not json", "not valid JSON"),
            ("config.json", '{"model_type": "nonsense"}', "transformers cannot read config.json"),
            ("nla_meta.yaml", "a: [1", "not valid YAML at line 1"),
            ("nla_meta.yaml", "d_model: 32", "at least one is missing"),
        ],
    )
    def test_one_line_says_which(self, pair: Path, file: str, text: str, words: str) -> None:
        (pair / "av" / file).write_text(text)
        with pytest.raises(UserError) as refused:
            load(av=pair / "av", placement=FLOAT32)
        assert words in str(refused.value)
        assert str(pair / "av") in str(refused.value)
        assert "\n" not in str(refused.value)

    @pytest.mark.parametrize(
        "template",
        [
            "no placeholder",
            "{explanation} {explanation}",
            "{explanation.__class__}",
            "{explanation:>9999999999}",
            "{explanation!r}",
            "{explanation} {",
        ],
    )
    def test_template_that_cannot_be(self, pair: Path, template: str) -> None:
        edit_sidecar(pair / "ar" / "nla_meta.yaml", prompt_templates__ar=template)
        with pytest.raises(UserError, match=r"must contain \{explanation\} once|no valid template"):
            load(ar=pair / "ar", placement=FLOAT32)

    def test_config_of_another_size(self, pair: Path) -> None:
        path = pair / "av" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "intermediate_size": 17}))
        with pytest.raises(UserError, match="the weights disagree about sizes"):
            load(av=pair / "av", placement=FLOAT32)

    def test_adapter_config_that_says_nothing(self, pair: Path, tmp_path: Path) -> None:
        adapter = tmp_path / "adapter"
        adapter.mkdir()
        (adapter / "adapter_config.json").write_text("{}")
        save_file({"x": torch.zeros(1)}, adapter / "adapter_model.safetensors")
        with pytest.raises(UserError, match="the adapter does not fit its base"):
            load(av=pair / "av", adapter=adapter, placement=FLOAT32)

    @pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
    def test_no_such_device(self, sound: Path, device: str) -> None:
        with pytest.raises(UserError, match=f"--device {device}: "):
            load(av=sound / "av", placement=Placement(device=device))


class TestWrongHalf:
    def test_av_given_as_ar(self, sound: Path) -> None:
        with pytest.raises(UserError, match="this is an AV, given as the AR; swap the two"):
            load(ar=sound / "av", placement=FLOAT32)
        with pytest.raises(UserError, match="this is an AR, given as the AV"):
            load(av=sound / "ar", placement=FLOAT32)

    def test_model_without_head_is_no_ar(self, pair: Path) -> None:
        (pair / "ar" / "value_head.safetensors").unlink()
        (pair / "ar" / "nla_meta.yaml").unlink()
        with pytest.raises(UserError, match="without its head it is no AR"):
            load(ar=pair / "ar", placement=FLOAT32)

    def test_adapter_of_another_base(self, pair: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="the adapter does not fit its base"):
            load(av=pair / "av", adapter=GOLDEN / "nano_qwen3/rl-lora/p0.0", placement=FLOAT32)


def test_texts_of_strangers_are_escaped(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_sidecar(pair / "av" / "nla_meta.yaml", stage="\x1b[31mred[bold]x")
    assert cli.run(["inspect", str(pair / "av")]) == 0
    shown = capsys.readouterr().out
    assert "\x1b[31m" not in shown
    assert "[bold]x" in shown


@pytest.mark.parametrize(
    ("name", "content"),
    [("nla_meta.yaml", "a: [1\n"), ("nla_meta.yaml", "- a list"), ("adapter_config.json", "[]")],
)
def test_a_checkpoint_that_cannot_be_read_does_not_hide_the_others(
    pair: Path, name: str, content: str
) -> None:
    (pair / "b").mkdir()
    (pair / "b" / "config.json").write_text("{}")
    (pair / "b" / name).write_text(content)
    if name == "adapter_config.json":  # an adapter without weights is no more than that
        (pair / "b" / "adapter_model.safetensors").write_bytes(b"")
    found = {each.path.name: each for each in inspect(pair)}
    assert {"ar", "av", "b"} <= set(found)
    assert found["b"].problems
    assert name in found["b"].problems[0]
    assert found["av"].facts["role"].startswith("AV")
