"""Texts on the Hub are streamed: file by file, as they are needed, of one commit."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from nla_audit import cli
from nla_audit.hub import HubFile
from tests.hub_contents import FakeHub, files_in, parquet_bytes


@pytest.fixture
def command(hub: FakeHub, qwen: Path, tmp_path: Path) -> list[str]:
    hub.add("lab/base", files_in(qwen))
    frames = [
        pl.DataFrame({"text": [f"a story about a fair {n} and {m}" for n in range(3)]})
        for m in range(3)
    ]
    files = {f"data/{number}.parquet": parquet_bytes(frame) for number, frame in enumerate(frames)}
    hub.add("lab/texts", files, kind="dataset")
    options = ["--layer", "1", "--minimum-position", "2", "--out", str(tmp_path / "a.parquet")]
    return ["extract", "lab/base", "hf://datasets/lab/texts/data", *options]


def test_all(hub: FakeHub, command: list[str], tmp_path: Path) -> None:
    assert cli.run(command) == 0
    table = pl.read_parquet(tmp_path / "a.parquet")
    assert table["doc_id"].n_unique() == 9
    assert table["doc_id"][0] == "lab/texts/data/0.parquet:0"
    record = json.loads((tmp_path / "a.parquet.record.json").read_text())
    commit = hub.repositories["dataset", "lab/texts"].branches["main"]
    assert {text["commit"] for text in record["settings"]["texts"]} == {commit}


def test_files_that_are_not_needed_are_not_fetched(hub: FakeHub, command: list[str]) -> None:
    assert cli.run([*command, "--documents", "2"]) == 0
    asked = hub.asked("/datasets/lab/texts/resolve/")
    assert [request.path.rpartition("/")[2] for request in asked] == ["0.parquet"]


def test_a_commit_in_between_changes_nothing(
    hub: FakeHub, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = HubFile.download

    def download(self: HubFile) -> Path:
        hub.add("lab/texts", {"data/0.parquet": b"other"}, kind="dataset")
        return original(self)

    monkeypatch.setattr(HubFile, "download", download)
    assert cli.run(command) == 0
    assert pl.read_parquet(tmp_path / "a.parquet")["doc_id"].n_unique() == 9


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://datasets/lab/texts", "add the subfolder or file to the address"),
        ("hf://datasets/lab/absent/data", "no such data set"),
        ("hf://datasets/lab/texts@v9/data", "no such revision"),
        ("hf://datasets/lab/texts/absent", "no such file or folder in this data set"),
        ("hf://datasets/lab/texts/absent.parquet", "no such file or folder in this data set"),
    ],
)
def test_one_line(
    address: str,
    message: str,
    command: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.run([*command[:2], address, *command[3:]]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith(f"error: {address}")
    assert error.count("\n") == 1
