"""Completions at ``hf://datasets/…``, which lie in LFS there."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from nla_audit.errors import UserError
from nla_audit.table.completions import from_frame, load
from tests.hub_contents import FakeHub, parquet_bytes
from tests.table.test_completions import same

pytestmark = pytest.mark.usefixtures("sweep")


@pytest.fixture
def sweep(hub: FakeHub, table: pl.DataFrame) -> None:
    first, rest = parquet_bytes(table[:12]), parquet_bytes(table[12:])
    files = {"README.md": b"# a sweep", "data/0.parquet": first, "data/1.parquet": rest}
    hub.add("lab/sweep", {"data/0.parquet": first}, kind="dataset", revision="v1")
    hub.add("lab/sweep", files, kind="dataset")
    hub.add("lab/gated", files, kind="dataset", access="gated")
    hub.add("lab/secret", files, kind="dataset", access="private")


def test_a_folder_is_the_table(table: pl.DataFrame) -> None:
    completions = load(["hf://datasets/lab/sweep/data"])
    assert same(completions, from_frame(table))
    assert completions.sources[0].path == "hf://datasets/lab/sweep/data/0.parquet"


def test_nothing_is_printed_beside_our_own_progress(capfd: pytest.CaptureFixture[str]) -> None:
    load(["hf://datasets/lab/sweep/data"])
    assert capfd.readouterr() == ("", "")


def test_folder_file_and_revision(hub: FakeHub) -> None:
    assert load(["hf://datasets/lab/sweep/data"]).rows.height == 36
    assert load(["hf://datasets/lab/sweep/data/1.parquet"]).rows.height == 24
    assert load(["hf://datasets/lab/sweep@v1/data"]).rows.height == 12
    assert len(hub.asked("^/cdn/", "GET")) == 2  # v1's file is the same as main's
    assert load(["hf://datasets/lab/sweep@v1/data/0.parquet"]).models == ("base",)


def test_a_connection_that_breaks_off(hub: FakeHub) -> None:
    hub.breaks["data/1.parquet"] = 2
    assert load(["hf://datasets/lab/sweep/data"]).rows.height == 36
    assert len(hub.asked("^/cdn/", "GET")) == 4


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://datasets/lab/sweep/data/9.parquet", "no such file or folder in this data set"),
        ("hf://datasets/lab/sweep@v9/data/0.parquet", "no such revision"),
        ("hf://datasets/lab/sweep@v9/data", "no such revision"),
        ("hf://datasets/lab/gated/data", "access is restricted: ask for it on its page"),
        ("hf://datasets/lab/gated/data/0.parquet", "access is restricted: ask for it on its page"),
        ("hf://datasets/lab/secret/data", "no such data set, or it is private"),
        ("hf://datasets/lab/secret/data/0.parquet", "no such data set, or it is private"),
        ("hf://datasets/lab/absent/data", "no such data set"),
        ("hf://datasets/lab/sweep", "no table in folder"),
        ("hf://datasets/lab", "not a data set address"),
        ("hf://models/lab/sweep/x.parquet", "not a data set address"),
        ("hf://datasets/la b/sweep/x.parquet", "not a valid data set name"),
    ],
)
def test_what_is_not_there_is_one_line(address: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load([address])
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("hf://")


@pytest.mark.parametrize("place", ["data", "data/0.parquet"])
def test_no_connection(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9 cannot be reached"):
        load([f"hf://datasets/lab/sweep/{place}"])


def test_a_connection_that_never_comes_back(hub: FakeHub) -> None:
    hub.breaks["data/0.parquet"] = 1000
    with pytest.raises(UserError, match=r"data/0\.parquet: the connection broke off"):
        load(["hf://datasets/lab/sweep/data"])


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    cache = str(tmp_path / "file" / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", cache)
    with pytest.raises(UserError, match="cannot write the local Hub cache"):
        load(["hf://datasets/lab/sweep/data"])
