"""AVs handed over one after the other: which share a vLLM, and that each says what is its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from nla_audit.checkpoint import in_vllm
from nla_audit.checkpoint.in_vllm import VllmHost
from nla_audit.checkpoint.load import load
from nla_audit.nla.engine import COMPARED_TOKENS, refuse_difference
from nla_audit.nla.injection import parse_injection
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.nla.vllm_settings import VllmSettings
from tests.checkpoint.faults import ADAPTER, FLOAT32, also, edited, make_adapter, refused
from tests.pairs.engines import VllmStandIn

TOKENS = 12


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ranks that a vLLM was started with room for."""
    monkeypatch.setattr(in_vllm, "VllmEngine", VllmStandIn)
    monkeypatch.setattr(VllmStandIn, "started", [])
    return VllmStandIn.started


@pytest.fixture(scope="module")
def adapters(pair_path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of ranks 2, 1 and 3, strong enough to be told apart."""
    root, layers = tmp_path_factory.mktemp("adapters"), ["q_proj", "down_proj"]
    return [
        make_adapter(pair_path / "av", root / str(rank), layers, rank, r=rank, lora_alpha=64)
        for rank in (2, 1, 3)
    ]


def av_of(pair: Path, adapter: Path | None, host: VllmHost | None = None) -> Verbalizer:
    verbalizer = load(av=pair / "av", adapter=adapter, placement=FLOAT32, engine=host).verbalizer
    assert verbalizer is not None
    return verbalizer


def test_adapters_of_one_base_share_it(
    pair_path: Path, adapters: list[Path], started: list[int]
) -> None:
    host, ours = VllmHost(VllmSettings(TOKENS)), [*adapters[:2], None]
    engines = [av_of(pair_path, adapter, host).engine for adapter in ours]
    assert started == [2]
    for adapter in ours:
        own = av_of(pair_path, adapter)
        for of, engine in zip(ours, engines, strict=True):
            assert engine is not None
            if of == adapter:
                refuse_difference(own, engine)
            else:
                assert "computes something else" in refused(partial(refuse_difference, own, engine))
    assert [record_of(engine) for engine in engines] == ["by request", "by request", None]
    av_of(pair_path, adapters[2], host)
    assert started == [2, 3]
    host.close()


def record_of(engine: Any) -> str | None:
    return engine.record().get("adapters")


def test_merged_where_that_is_asked_for(
    pair_path: Path, adapters: list[Path], started: list[int]
) -> None:
    host = VllmHost(VllmSettings(TOKENS, {"enable_lora": False}))
    for adapter in adapters[:2]:
        engine = av_of(pair_path, adapter, host).engine
        assert engine is not None
        refuse_difference(av_of(pair_path, adapter), engine)
        assert record_of(engine) is None
    assert started == [0, 0]


def test_a_longer_prompt_of_the_same_weights_is_given_room(
    pair_path: Path, started: list[int], tmp_path: Path
) -> None:
    sidecar = yaml.safe_load((pair_path / "av" / "nla_meta.yaml").read_text())
    templates = sidecar["prompt_templates"]
    templates["av"] = "Say it at more length. " * 9 + templates["av"]
    longer = tmp_path / "nla_meta.yaml"
    longer.write_text(yaml.safe_dump(sidecar))
    host = VllmHost(VllmSettings(TOKENS))
    rooms = []
    for options in ({}, {"sidecar": longer}, {}):
        av = load(av=pair_path / "av", placement=FLOAT32, engine=host, **options).verbalizer
        assert av is not None
        assert isinstance(av.engine, VllmStandIn)
        rooms.append(av.engine.max_model_len - len(av.prompt.ids))
    least = max(TOKENS, COMPARED_TOKENS)
    assert rooms[:2] == [least, least]
    assert rooms[2] > least  # what has room for more goes on
    assert started == [0, 0]


def test_one_that_adds_at_blocks_serves_both_kinds(pair_path: Path, started: list[int]) -> None:
    host, ways = VllmHost(VllmSettings(TOKENS)), ("replace:20", "add:1", "add:0", "replace:20")
    for way in ways:
        given: dict[str, Any] = {"injection": parse_injection(way), "placement": FLOAT32}
        av = load(av=pair_path / "av", engine=host, **given).verbalizer
        own = load(av=pair_path / "av", **given).verbalizer
        assert av is not None
        assert own is not None
        assert av.engine is not None
        refuse_difference(own, av.engine)
    # The first has no place for the second's vectors.
    assert started == [0, 0]


def test_more_than_lora_is_refused(
    pair_path: Path, adapters: list[Path], started: list[int], tmp_path: Path
) -> None:
    name = "base_model.model.model.embed_tokens.weight"
    shape = av_of(pair_path, None).model.lm_head.weight.shape
    adapter = edited(adapters[0], tmp_path / "adapter", ADAPTER, also(name, *shape))
    host = VllmHost(VllmSettings(TOKENS))
    assert f"holds {name} whole" in refused(lambda: av_of(pair_path, adapter, host))
    assert started == []
