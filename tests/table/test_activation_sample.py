"""Tables larger than memory: some activations of them are read, whole, and the report says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from nla_audit import cli
from nla_audit.errors import UserError
from nla_audit.table.activation_sample import COPIES, choose_activations
from nla_audit.table.completions import Completions, load
from nla_audit.table.sources import find_tables
from tests.object_storage import serving

MODELS = ("base", "p0.0", "p0.01")
ACTIVATIONS = 60
WORDS = "harbour morning register formal clause quoted noun tide ship number".split()


def planted(first: int, last: int, models: tuple[str, ...] = MODELS) -> pl.DataFrame:
    """A row for each activation and model."""
    draw = np.random.default_rng(first)
    rows = [
        {
            "model": model,
            "idx": idx,
            "explanation": " ".join(draw.choice(WORDS, size=12)),
            "n_tokens": 15,
            "fve": float(draw.normal(0.5, 0.1)),
            "doc_id": f"d{idx // 2}",
            "ar": "warm-start",
            "extracted": True,
        }
        for model in models
        for idx in range(first, last)
    ]
    return pl.DataFrame(rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Several files; the rows of one activation lie in two of them."""
    folder = tmp_path / "tables"
    folder.mkdir()
    for number, first in enumerate(range(0, ACTIVATIONS, 20)):
        table = planted(first, first + 20)
        table.filter(pl.col("model") == "base").write_parquet(folder / f"{number}-base.parquet")
        table.filter(pl.col("model") != "base").write_parquet(folder / f"{number}-rl.parquet")
    return folder


def read(folder: Path | str, **options: object) -> Completions:
    return load([folder], **options)  # type: ignore[arg-type]


class TestSample:
    def test_all_rows_of_some_activations(self, folder: Path) -> None:
        whole, some = read(folder), read(folder, at_most_activations=7)
        chosen = some.rows["idx"].unique()
        assert len(chosen) == 7
        assert_frame_equal(some.rows, whole.rows.filter(pl.col("idx").is_in(chosen.implode())))
        assert some.notes[0] == (
            "Only 7 of 60 activations in 180 rows were read, drawn with seed 0: at most 7 were "
            "asked for."
        )
        assert sum(source.rows for source in some.sources) == 21

    def test_it_depends_on_ids_and_seed_alone(self, folder: Path, tmp_path: Path) -> None:
        some = read(folder, at_most_activations=7)
        table = pl.concat([pl.read_parquet(path) for path in sorted(folder.iterdir())])
        shuffled = table.sample(fraction=1, shuffle=True, seed=3)
        spelled = {
            "one": shuffled,
            "text": shuffled.with_columns(pl.format(" {} ", "idx").alias("idx")),
            "float": shuffled.with_columns(pl.col("idx").cast(pl.Float64)),
            "alias": shuffled.rename({"idx": "activation_idx"}),
        }
        for name, frame in spelled.items():
            frame.write_parquet(tmp_path / f"{name}.parquet")
            again = read(tmp_path / f"{name}.parquet", at_most_activations=7)
            assert_frame_equal(again.rows, some.rows)
        other = read(folder, at_most_activations=7, seed=1).rows["idx"].unique()
        assert set(other) != set(some.rows["idx"])

    def test_each_activation_is_as_likely_as_another(self, folder: Path) -> None:
        times = np.zeros(ACTIVATIONS)
        tables = find_tables([folder])
        for seed in range(30):
            sample = choose_activations(tables, at_most=15, seed=seed)
            assert sample is not None
            times[sample.idx.cast(pl.Int64)] += 1
        # 30 draws of a quarter: 7.5 ± 2.4; five deviations.
        assert times.sum() == 30 * 15
        assert np.abs(times - 7.5).max() < 12

    def test_a_bound_that_holds_already_changes_nothing(self, folder: Path) -> None:
        whole, bound = read(folder), read(folder, at_most_activations=ACTIVATIONS)
        assert_frame_equal(whole.rows, bound.rows)
        assert bound.notes == whole.notes
        assert bound.sources == whole.sources

    def test_what_memory_holds(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = pl.concat([pl.read_parquet(path) for path in folder.iterdir()]).estimated_size()
        free = rows * COPIES  # half of it holds half of the activations
        monkeypatch.setattr("nla_audit.table.activation_sample.free_memory", lambda: float(free))
        some = read(folder)
        assert some.rows["idx"].n_unique() == pytest.approx(ACTIVATIONS / 2, abs=2)
        assert "all would take about 0.0 GB of memory, of which 0.0 GB are free" in some.notes[0]
        assert "--at-most-activations" in some.notes[0]
        monkeypatch.setattr("nla_audit.table.activation_sample.free_memory", lambda: 2.1 * free)
        assert read(folder).rows["idx"].n_unique() == ACTIVATIONS


class TestErrors:
    def test_a_wrong_value_is_named_by_its_own_row(self, folder: Path) -> None:
        path = folder / "1-base.parquet"
        table = pl.read_parquet(path)
        table.with_columns(
            n_tokens=pl.when(pl.col("idx") == 33).then(-1).otherwise("n_tokens")
        ).write_parquet(path)
        # The other activations of that file are not chosen.
        seed = next(seed for seed in range(99) if 33 in _chosen_ids(folder, seed))
        with pytest.raises(UserError, match=r"1-base\.parquet: row 13 \(model \"base\", idx 33\)"):
            read(folder, at_most_activations=5, seed=seed)

    def test_an_empty_id_is_refused_as_ever(self, folder: Path) -> None:
        path = folder / "2-rl.parquet"
        table = pl.read_parquet(path)
        table.with_columns(idx=pl.when(pl.int_range(pl.len()) != 5).then("idx")).write_parquet(path)
        with pytest.raises(UserError, match=r"2-rl\.parquet: row 5 .*\"idx\" is empty"):
            read(folder, at_most_activations=5)

    def test_of_parquet_only(self, tmp_path: Path) -> None:
        planted(0, 9).write_csv(tmp_path / "t.csv")
        with pytest.raises(UserError, match=r"t\.csv: activations can be chosen in Parquet files"):
            read(tmp_path / "t.csv", at_most_activations=5)

    def test_damaged(self, tmp_path: Path) -> None:
        (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
        with pytest.raises(UserError, match=r"t\.parquet: cannot be read as Parquet .*again"):
            read(tmp_path / "t.parquet", at_most_activations=5)

    def test_a_pattern_that_nothing_matches(self, folder: Path) -> None:
        with pytest.raises(UserError, match="no table matches this pattern"):
            read(folder / "x*.parquet")


def _chosen_ids(folder: Path, seed: int) -> set[int]:
    whole = pl.concat([pl.read_parquet(path) for path in folder.iterdir()])
    copy = folder.parent / "copy.parquet"
    whole.with_columns(n_tokens=15).write_parquet(copy)
    return set(read(copy, at_most_activations=5, seed=seed).rows["idx"])


def test_patterns(folder: Path) -> None:
    some = read(folder / "[01]-*.parquet")
    assert some.rows["idx"].n_unique() == 40
    assert [Path(source.path).name for source in some.sources] == [
        "0-base.parquet",
        "0-rl.parquet",
        "1-base.parquet",
        "1-rl.parquet",
    ]


def test_reports_say_what_was_read(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "finding"
    asked = ["frontier", str(folder), "--at-most-activations", "20", "--out", str(out), "--json"]
    assert cli.run(asked) == 0
    finding = json.loads(capsys.readouterr().out)
    assert any("Only 20 of 60 activations in 180 rows" in note for note in finding["caveats"])
    page = (out / "frontier.html").read_text(encoding="utf-8")
    assert "Only 20 of 60 activations in 180 rows were read" in page


class TestObjectStorage:
    @pytest.fixture(autouse=True)
    def storage(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> object:
        with serving(folder.parent) as endpoint:
            for name, value in {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ALLOW_HTTP": "true",
                "AWS_ACCESS_KEY_ID": "nobody",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_REGION": "us-east-1",
            }.items():
                monkeypatch.setenv(name, value)
            yield

    def test_a_folder_of_files(self, folder: Path) -> None:
        here = read(folder)
        for address in ("s3://bucket/tables/*.parquet", "s3://bucket/tables/"):
            there = read(address)
            assert_frame_equal(there.rows, here.rows)
            (source,) = there.sources
            assert (source.path, source.rows) == (address, 180)
        some, chosen = read(address, at_most_activations=7), read(folder, at_most_activations=7)
        assert_frame_equal(some.rows, chosen.rows)
        assert some.notes[0] == chosen.notes[0]
        assert some.sources[0].sha256 != source.sha256

    def test_nothing_there(self) -> None:
        with pytest.raises(UserError, match=r"s3://bucket/none/x\.parquet: cannot be read as Par"):
            read("s3://bucket/none/x.parquet")

    def test_of_completions_only(self, capsys: pytest.CaptureFixture[str]) -> None:
        asked = ["stego", "--scores", "s3://bucket/tables/0-rl.parquet"]
        assert cli.run(asked) == 2
        assert "only completions are read from object storage" in capsys.readouterr().err


#: Peak memory in MB of reading some activations of a folder. Not by getrusage, whose peak begins
#: with that of the process that started this one.
PEAK = """
import sys
from pathlib import Path
from nla_audit.table.completions import load
read = load([sys.argv[1]], at_most_activations=int(sys.argv[2]))
status = Path("/proc/self/status").read_text()
peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
print(peak, read.rows.height, read.notes[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read in /proc")
def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    """Three million rows in sixty files, made one by one, none of which is ever whole in memory."""
    models = (*MODELS, "p0.03", "p0.1")
    per_file = 10_000
    peaks = []
    for files in (6, 60):
        folder = tmp_path / str(files)
        folder.mkdir()
        for number in range(files):
            _write_lazily(folder / f"{number:03d}.parquet", number * per_file, per_file, models)
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(folder), "1000"],
            capture_output=True,
            text=True,
            check=True,
        )
        peak, height, note = done.stdout.split(maxsplit=2)
        rows = files * per_file * len(models)
        assert int(height) == 1000 * len(models)
        assert f"1,000 of {files * per_file:,} activations in {rows:,} rows" in note
        peaks.append(float(peak))
    # Ten times the rows are 1.1 GB of text more; the ids of them all are a few MB.
    assert peaks[1] < peaks[0] + 150
    assert peaks[1] < 500


def _write_lazily(path: Path, first: int, activations: int, models: tuple[str, ...]) -> None:
    row = pl.int_range(activations * len(models))
    word = pl.format("{} {} of the harbour, a formal clause that opens with a noun; ", row, row * 7)
    lazy = pl.LazyFrame({"model": models}).join(
        pl.LazyFrame({"idx": range(first, first + activations)}), how="cross"
    )
    lazy.select(
        "model",
        "idx",
        explanation=pl.concat_str([word] * 6),
        n_tokens=pl.lit(99),
        fve=(row % 97) / 97,
        ar=pl.lit("warm-start"),
        extracted=pl.lit(True),
    ).sink_parquet(path)
