"""``nla-audit explain`` with another engine: which runs it goes on with, and what it is told."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import polars as pl
import pytest

from nla_audit.checkpoint import in_vllm
from nla_audit.checkpoint.load import load
from nla_audit.errors import UserError
from nla_audit.nla.engine import hand_over
from nla_audit.record import record_path
from nla_audit.runs.activations import Activations, read_activations
from nla_audit.runs.explain import ExplainSettings, explain
from tests.pairs.engines import StandIn, VllmStandIn
from tests.pairs.explaining import FLOAT32, OPTIONS, run

TOKENS = 12


@pytest.fixture(scope="module")
def few(activations: Path, tmp_path_factory: pytest.TempPathFactory) -> Activations:
    path = tmp_path_factory.mktemp("few") / "a.parquet"
    pl.read_parquet(activations).head(6).write_parquet(path)
    return read_activations(path)


class TestExplain:
    SETTINGS = ExplainSettings("m", "r", max_new_tokens=TOKENS, batch_size=2)

    def explain(self, pair_path: Path, given: Activations, out: Path, **options: Any) -> StandIn:
        pair = load(pair_path / "av", pair_path / "ar", placement=FLOAT32)
        assert pair.verbalizer is not None
        # The call before the first batch is the comparison.
        engine = StandIn(copy.deepcopy(pair.verbalizer.model), **options)
        hand_over(pair.verbalizer, lambda: engine)
        self.told: list[str] = []
        explain(pair, given, out, self.SETTINGS, notice=self.told.append)
        return engine

    def test_an_engine_that_died_loses_one_batch(
        self, pair_path: Path, few: Activations, tmp_path: Path
    ) -> None:
        whole, again = tmp_path / "whole.parquet", tmp_path / "again.parquet"
        self.explain(pair_path, few, whole)
        with pytest.raises(UserError, match="the stand-in died"):
            self.explain(pair_path, few, again, dies_at=3)
        assert not again.exists()
        engine = self.explain(pair_path, few, again)
        assert engine.calls == 3  # the comparison, and two batches of three
        assert again.read_bytes() == whole.read_bytes()

    def test_another_version_goes_on_from_nothing(
        self, pair_path: Path, few: Activations, tmp_path: Path
    ) -> None:
        out = tmp_path / "c.parquet"
        with pytest.raises(UserError):
            self.explain(pair_path, few, out, dies_at=3)
        engine = self.explain(pair_path, few, out, version="2")
        assert engine.calls == 4
        assert any("parts of an unfinished run with other settings" in line for line in self.told)
        record = json.loads(out.with_name(f"{out.name}.record.json").read_text())
        assert record["av"]["engine"] == {"name": "stand-in", "version": "2"}
        with pytest.raises(UserError, match="made by another run"):
            self.explain(pair_path, few, out)


@pytest.mark.parametrize("dies", [False, True])
def test_an_engine_ends_with_the_command(
    pair_path: Path,
    few: Activations,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    dies: bool,
) -> None:
    monkeypatch.setattr(in_vllm, "VllmEngine", VllmStandIn)
    monkeypatch.setattr(VllmStandIn, "started", [])
    monkeypatch.setattr(VllmStandIn, "running", [])
    monkeypatch.setattr("nla_audit.nla.vllm_settings.find_spec", lambda name: object())
    if dies:
        died = UserError("the stand-in died")
        monkeypatch.setattr("nla_audit.runs.explain.explain", Mock(side_effect=died))
    asked = ("--engine", "vllm", "--max-new-tokens", TOKENS)
    code = run(pair_path, few.path, "--out", tmp_path / "c.parquet", *asked)
    assert code == (2 if dies else 0)
    assert VllmStandIn.started == [0]
    assert VllmStandIn.running == []


class TestOptions:
    @pytest.fixture(autouse=True)
    def _given(self, pair_path: Path, activations: Path, tmp_path: Path) -> None:
        self.arguments = (pair_path, activations, "--out", tmp_path / "c.parquet")

    @pytest.mark.parametrize(
        ("is_there", "options", "said"),
        [
            (True, ["--engine", "vllm", "--ray", "local"], "leave out --ray"),
            (True, ["--engine-option", "a=1"], "--engine-option needs --engine vllm"),
            (True, ["--engine", "vllm", "--load-in-4bit"], "--load-in-4bit is not for vLLM"),
            (False, ["--engine", "vllm"], "pip install 'nla-audit[vllm]'"),
            *[
                (True, ["--engine", "vllm", "--engine-option", text], f"{text}: expected NAME=")
                for text in ("tensor_parallel_size", "=4", "a b=4", "a={")
            ],
        ],
    )
    def test_one_line_each(
        self,
        is_there: bool,
        options: list[str],
        said: str,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        found = object() if is_there else None
        monkeypatch.setattr("nla_audit.nla.vllm_settings.find_spec", lambda name: found)
        assert run(*self.arguments, *options) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


class TestCompiled:
    """Our own loop compiled; that it says the same is in ``tests/nla/test_compiled.py``."""

    @pytest.mark.usefixtures("as_it_is")
    def test_the_same_table_and_its_record(
        self, pair_path: Path, activations: Path, explained: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "completions.parquet"
        given = (pair_path, activations, "--out", out, *OPTIONS, "--decoding", "compiled")
        assert run(*given) == 0
        texts = [pl.read_parquet(path)["explanation"] for path in (out, explained)]
        assert texts[0].equals(texts[1])
        record = json.loads(record_path(out).read_text(encoding="utf-8"))
        assert record["av"]["decoding"] == "compiled"

    def test_not_with_another_engine(
        self, pair_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        given = (pair_path, "a.parquet", "--out", tmp_path / "c.parquet", "--engine", "vllm")
        assert run(*given, "--decoding", "compiled") == 2
        assert "--decoding compiled is for --engine own" in capsys.readouterr().err
