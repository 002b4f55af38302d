"""Hostile configs, sidecars, indexes and adapters: one line and exit code 2, before building."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import CONFIG_MAPPING

from nla_audit import cli
from nla_audit.checkpoint import declared_size
from nla_audit.checkpoint.backbone import Placement, read_config
from nla_audit.checkpoint.declared_size import check_size
from nla_audit.checkpoint.door import check_adapter_files, check_model_files, check_tokenizer_files
from nla_audit.checkpoint.formats import ADAPTER_CONFIG, ADAPTER_FILE, check_weight_files, recognise
from nla_audit.errors import UserError
from tests.checkpoint.published_configs import PUBLISHED
from tests.checkpoint.spoiling import ONE_LINE, changed, rewrite
from tests.pairs.golden import GOLDEN


@pytest.fixture
def av(saved: Path, tmp_path: Path) -> Path:
    """An AV to be spoiled; its weights are linked."""
    return shutil.copytree(saved / "av", tmp_path / "av", copy_function=os.link)


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    # absurd sizes
    "hidden_size": ({"hidden_size": 10**9}, "hidden_size: must be a whole number from 1"),
    "layers": ({"num_hidden_layers": 10**5}, "num_hidden_layers: must be a whole number"),
    "no layers": ({"num_hidden_layers": 0}, "num_hidden_layers: must be a whole number"),
    "more layers than weights": (
        {"num_hidden_layers": 1000, "layer_types": None},
        "config.json describes 1,000 blocks, its weights hold 4",
    ),
    "vocabulary": ({"vocab_size": 10**12}, "vocab_size: must be"),
    "a wide vocabulary": ({"vocab_size": 16_000_000}, "16000000 × 32"),
    "intermediate": ({"intermediate_size": 10**6}, "mlp.gate_proj.weight, 1000000 × 32"),
    "intermediate, slightly": ({"intermediate_size": 49}, "disagree about sizes"),
    "experts": ({"model_type": "qwen3_moe", "num_experts": 60_000}, "mlp.experts"),
    "experts, many": ({"num_experts": 10**9}, "num_experts: must be"),
    "negative": ({"hidden_size": -32}, "hidden_size: must be"),
    "heads": ({"num_attention_heads": 0}, "num_attention_heads: must be"),
    "heads that do not divide": ({"num_key_value_heads": 3}, "no multiple of"),
    "an unknown depth": ({"encoder_layers": 10**8}, "encoder_layers is 100000000"),
    "nested": ({"vision_config": {"num_hidden_layers": 10**6}}, "vision_config.num_hidden_layers"),
    "positions": ({"max_position_embeddings": -5}, "max_position_embeddings: must be"),
    # wrong types
    "type": ({"model_type": ["qwen3"]}, "model_type must be a name"),
    "no type": ({"model_type": None}, "model_type must be a name"),
    "unknown type": ({"model_type": "frobnicator"}, "frobnicator"),
    "dtype": ({"dtype": "system"}, "dtype: must be a floating type"),
    "dtype, older": ({"torch_dtype": 7}, "torch_dtype: must be a floating type"),
    "text": ({"hidden_size": "32"}, "hidden_size: must be"),
    "truth": ({"num_hidden_layers": True}, "num_hidden_layers: must be"),
    "list": ({"hidden_size": [32]}, "hidden_size"),
    "architectures": ({"architectures": 5}, "architectures: must be"),
    "end token": ({"eos_token_id": [[1]]}, "eos_token_id: must be"),
    "padding token": ({"pad_token_id": 10**8}, "Padding_idx"),
    "activation": ({"hidden_act": "nope"}, "cannot build what config.json describes"),
    "activation, number": ({"hidden_act": 5}, "hidden_act: must be"),
    "kinds of layers": ({"layer_types": ["nope"] * 4}, "config.json"),
    "rope": ({"rope_scaling": "x"}, "rope_scaling: must be an object"),
    "rope, unknown": ({"rope_parameters": {"rope_type": ["a"]}}, "cannot"),
    "nested, number": ({"text_config": 5}, "text_config must be an object"),
    # numbers that cannot be
    "NaN": ({"rms_norm_eps": float("nan")}, "rms_norm_eps: must be"),
    "infinite": ({"rope_theta": float("inf")}, "rope_theta: must be"),
    "no theta": ({"rope_theta": 0}, "rope_theta: must be"),
    "factor": ({"rope_scaling": {"rope_type": "linear", "factor": -1}}, "rope_scaling.factor"),
    "dropout": ({"attention_dropout": 5.0}, "attention_dropout must be a number from 0 to 1"),
    # code
    "kernel": ({"attn_implementation": "somebody/kernel"}, "code to be fetched from the Hub"),
}


def _fails(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    before = time.process_time()
    assert cli.run(arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    assert message in err
    assert len(err) < 1000
    assert time.process_time() - before < 5


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_that_cannot_be_is_one_line(case: str, av: Path) -> None:
    fields, message = CONFIGS[case]
    changed(av / "config.json", **fields)
    before = time.process_time()
    with pytest.raises(UserError, match=ONE_LINE) as caught:
        check_size(av, read_config(recognise(av).path, Placement()))
    assert message in str(caught.value)
    assert len(str(caught.value)) < 600
    assert time.process_time() - before < 5


def test_from_the_command_line(av: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(av / "config.json", num_hidden_layers=10**5)
    _fails(capsys, ["inspect", str(av)], "num_hidden_layers: must be a whole number")
    texts = av.parent / "t.jsonl"
    texts.write_text('{"text": "a story about a fair"}\n')
    out = ["--layer", "1", "--out", str(av.parent / "x.parquet")]
    _fails(capsys, ["extract", str(av), str(texts), *out], "num_hidden_layers: must be")


@pytest.mark.parametrize("case", ["intermediate", "activation", "intermediate, slightly"])
def test_inspect_says_what_loading_would_refuse(
    case: str, av: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields, message = CONFIGS[case]
    changed(av / "config.json", **fields)
    assert cli.run(["inspect", str(av)]) == 1
    assert message in capsys.readouterr().out


def test_harmless_fields_of_others_are_accepted(av: Path) -> None:
    changed(
        av / "config.json",
        time_step_limit=[0.0, float("inf")],
        n_params=8_030_261_248,
        unsloth_version="2026.1",
        training={"loss": float("nan"), "notes": [None, {"x": "…" * 1000}]},
    )
    check_size(av, read_config(av, Placement()))


@pytest.mark.parametrize("name", PUBLISHED)
def test_large_published_configs_pass(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[name]))
    read_config(tmp_path, Placement())


_DECODERS = [
    *("llama", "qwen2", "qwen3", "qwen3_moe", "qwen3_next", "gemma", "gemma2", "gemma3", "gemma3n"),
    *("mistral", "mixtral", "phi3", "gpt2", "gpt_neox", "gpt_oss", "opt", "bloom", "falcon"),
    *("falcon_h1", "lfm2", "olmo2", "cohere2", "deepseek_v3", "glm4", "granite", "mamba2", "t5"),
    *("qwen2_5_vl", "qwen3_vl", "llava", "llama4", "mllama", "starcoder2", "stablelm", "smollm3"),
]


@pytest.mark.parametrize("family", [name for name in _DECODERS if name in CONFIG_MAPPING])
def test_default_configs_of_families_pass(family: str, tmp_path: Path) -> None:
    config = CONFIG_MAPPING[family]()
    (tmp_path / "config.json").write_text(config.to_json_string(use_diff=False))
    check_model_files(tmp_path)


def test_golden_checkpoints_pass() -> None:
    for config in GOLDEN.rglob("config.json"):
        check_size(config.parent, read_config(config.parent, Placement()))
        check_tokenizer_files(config.parent)
    for config in GOLDEN.rglob(ADAPTER_CONFIG):
        check_adapter_files(config.parent, ADAPTER_CONFIG, ADAPTER_FILE)


ADAPTERS: dict[str, tuple[dict[str, Any], str]] = {
    "rank": ({"r": 10**9}, "r: must be a whole number"),
    "more rank than weights": ({"r": 60_000}, "the rank is 60,000, but the largest"),
    "rank of a pattern": ({"rank_pattern": {"q_proj": 60_000}}, "the rank is 60,000"),
    "alpha": ({"lora_alpha": float("nan")}, "lora_alpha: must be"),
    "endless target": ({"target_modules": "(.*)*(.*)*(.*)*!"}, "takes more than"),
    "endless words": ({"target_modules": r"(model|layers|[a-z_.0-9]+)+$!"}, "takes more than"),
    "endless layers": ({"layers_pattern": "(a|a|[a-z.]*)*(.*)*!"}, "takes more than"),
    "endless key": ({"rank_pattern": {"(.*)*(.*)*(.*)*!": 2}}, "takes more than"),
    "endless exclusion": ({"exclude_modules": "(.*)*(.*)*(.*)*!"}, "takes more than"),
    "endless saving": ({"modules_to_save": ["(.*)*(.*)*(.*)*!"]}, "takes more than"),
    "no pattern": ({"target_modules": "("}, "a pattern in it is not valid"),
    "targets": ({"target_modules": [["q_proj"]]}, "target_modules: must be"),
    "repeated blocks": ({"layer_replication": [[0, 10**9]]}, "layer_replication"),
    "base": ({"base_model_name_or_path": ["x"]}, "base_model_name_or_path: must be"),
    "base, NUL": ({"base_model_name_or_path": "a\0b"}, "base_model_name_or_path: must be"),
    "import": ({"megatron_config": {"a": 1}, "megatron_core": "this"}, "megatron_config"),
    "start": ({"init_lora_weights": "pissa_niter_999999"}, "init_lora_weights"),
    "scaling": ({"use_rslora": "yes"}, "use_rslora: must be true or false"),
}


@pytest.mark.parametrize("case", ADAPTERS)
def test_an_adapter_that_cannot_be_is_one_line(
    case: str, adapter_saved: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(adapter_saved, tmp_path / "adapter", copy_function=os.link)
    fields, message = ADAPTERS[case]
    changed(folder / ADAPTER_CONFIG, **fields)
    with pytest.raises(UserError, match=ONE_LINE) as caught:
        recognise(folder)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "targets",
    [
        ["q_proj", "v_proj"],
        "all-linear",
        r".*\.(q_proj|v_proj)",
        r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj|v_proj).*?)"
        r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|v_proj)))",
    ],
)
def test_adapters_in_use_pass(targets: Any, adapter_saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(adapter_saved, tmp_path / "adapter", copy_function=os.link)
    changed(folder / ADAPTER_CONFIG, target_modules=targets, somebody="else", rank_pattern={})
    assert recognise(folder).layout == "adapter"


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "../../secret.safetensors"}, "no file beside it"),
        ({"a": "/etc/passwd"}, "no file beside it"),
        ({"a": ["x"]}, "no file beside it"),
        ({"a": 5}, "no file beside it"),
        ([], "must be an object"),
        ("x", "must be an object"),
        ({}, "0 of 0 weight files"),
    ],
)
def test_an_index_that_cannot_be_is_one_line(weight_map: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UserError, match=ONE_LINE) as caught:
        check_weight_files(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("tokenizer_config.json", {"tokenizer_class": 5}),
        ("tokenizer_config.json", {"eos_token": 5}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"99999999999": {"content": "x"}}}),
        ("tokenizer_config.json", {"model_max_length": -1}),
        ("special_tokens_map.json", {"pad_token": ["x"]}),
        ("generation_config.json", {"eos_token_id": {"a": 1}}),
        ("generation_config.json", {"pad_token_id": 1e300}),
    ],
)
def test_settings_that_cannot_be_are_one_line(name: str, fields: dict[str, Any], av: Path) -> None:
    rewrite(av / name, json.dumps(fields))
    with pytest.raises(UserError, match=f"^[^\n]*{name}[^\n]*$"):
        (check_model_files if name.startswith("generation") else check_tokenizer_files)(av)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/var/tmp']"),
        OSError(28, "No space left on device"),
    ],
)
def test_a_full_disk_is_not_blamed_on_the_config(
    error: OSError, av: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(declared_size, "model_class", fail)
    texts, out = av / "t.jsonl", av / "o.parquet"
    texts.write_text('{"text": "a b c"}\n')
    _fails(
        capsys,
        ["extract", str(av), str(texts), "--layer", "1", "--force", "--out", str(out)],
        "free some space and run the same command again",
    )


SIDECARS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "width": (lambda raw: raw.update(d_model=-3), "d_model must be a whole number"),
    "wide": (lambda raw: raw.update(d_model=10**39), "d_model must be a whole number"),
    "layer": (lambda raw: raw.update(extraction_layer_index=-1), "extraction_layer_index"),
    "layer elsewhere": (
        lambda raw: raw["extraction"].update(layer_index=1.5),
        "extraction.layer_index must be a whole number",
    ),
    "layer elsewhere, absurd": (
        lambda raw: raw["extraction"].update(layer_index=1e30),
        "extraction.layer_index must be a whole number",
    ),
    "width elsewhere": (
        lambda raw: raw["extraction"].update(d_model=True),
        "extraction.d_model must be a whole number",
    ),
    "scale": (lambda raw: raw["extraction"].update(mse_scale=float("nan")), "mse_scale"),
    "scale, infinite": (
        lambda raw: raw["extraction"].update(injection=None, injection_scale=float("inf")),
        "injection_scale",
    ),
    "token": (lambda raw: raw["tokens"].update(injection_token_id=10**30), "injection_token_id"),
    "suffix": (lambda raw: raw["tokens"].update(critic_suffix_ids=[-1]), "critic_suffix_ids"),
    "template": (
        lambda raw: raw["prompt_templates"].update(av="x" * 10**6),
        "characters long",
    ),
    "kind": (lambda raw: raw.update(kind=["x"] * 1000), "kind must be text"),
}


@pytest.mark.parametrize("case", SIDECARS)
def test_a_sidecar_that_cannot_be_is_one_line(
    case: str, av: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, message = SIDECARS[case]
    path = av / "nla_meta.yaml"
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    spoil(raw)
    rewrite(path, yaml.safe_dump(raw))
    _fails(capsys, ["inspect", str(av)], message)


def test_an_endless_tokenizer_is_ended(av: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = av / "tokenizer.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    doubling = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    raw["normalizer"] = {"type": "Sequence", "normalizers": [doubling] * 40}
    rewrite(path, json.dumps(raw))
    assert cli.run(["inspect", str(av)]) == 1
    assert "encoding a short text " in capsys.readouterr().out
