"""Publishing: a Hub on this machine, somebody logged in there, and things to publish."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from nla_audit.nla.injection import Injection
from nla_audit.report.audit import run_audit
from nla_audit.table.completions import load as load_completions
from tests.hub_contents import TOKEN, FakeHub
from tests.pairs import tiny


@pytest.fixture(autouse=True)
def logged_in(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def completions(table: pl.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "sweep.parquet"
    table.write_parquet(path)
    record = {
        "command": "explain",
        "av": {"injection": "add:1"},
        "ar": {"layer": 24},
        "baselines": {"chosen": "raw_variance"},
    }
    (tmp_path / "sweep.parquet.record.json").write_text(json.dumps(record))
    return path


@pytest.fixture(scope="session")
def saved_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_pair(tmp_path_factory.mktemp("pair"), "qwen3", Injection("add", block=1))


@pytest.fixture
def pair(saved_pair: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(saved_pair, tmp_path / "pair")
    (folder / "av" / "optimizer.pt").write_bytes(b"x")
    return folder


@pytest.fixture(scope="session")
def written_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    rows = [
        {"model": model, "idx": idx, "explanation": text, "fve": 0.5}
        for model, text in (("p0.0", "a cold harbour"), ("p0.03", "cold"))
        for idx in range(4)
    ]
    pl.DataFrame(rows).write_parquet(folder / "sweep.parquet")
    run_audit(load_completions([folder / "sweep.parquet"]), folder / "report", seed=3)
    return folder / "report"


@pytest.fixture
def report(written_report: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written_report, tmp_path / "report")
