"""FVE by prefix: the door, what is read off curves, and the verdict worked out once more."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from nla_audit import cli
from nla_audit.analyzers import registry
from nla_audit.errors import UserError
from nla_audit.findings import Finding
from nla_audit.table.completions import from_frame
from nla_audit.table.prefix_table import prefixes_from_frame, read_prefixes
from nla_audit.world.sweep.curves import PlantedCurve, plant_curves
from tests.declared import absent

#: model → (to FVE 0, to 0.5, peak FVE, peak tokens, full FVE, full tokens) of the published means.
PUBLISHED = {
    "kitft": (52, 84, 0.733, 136, 0.727, 252),
    "v2": (4, 13, 0.699, 93, 0.642, 256),
    "token_fve": (4, 17, 0.706, 133, 0.705, 213),
    "warmstart": (12, None, 0.463, 241, 0.461, 252),
}
CURVES = (
    PlantedCurve("plain", pace=45.0, lengths=(90, 120), length_penalty=0.0),
    PlantedCurve("early", pace=10.0, lengths=(50, 80), length_penalty=0.001),
    PlantedCurve("turns", pace=10.0, turn=40, loss=0.2, lengths=(100,), length_penalty=0.002),
)
NUMBERS = (
    "tokens_to_fve_0",
    "tokens_to_fve_half",
    "tokens_to_80_percent",
    "area",
    "peak_fve",
    "peak_tokens",
    "full_fve",
    "full_tokens",
)


def run(frame: pl.DataFrame, **options: float) -> Finding:
    return registry()["multiscale"].run(prefixes_from_frame(frame), **options)


def means(*fve: float | str | None, lengths: list[int] | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "model": "m",
            "unit": "tokens",
            "length": lengths or list(range(1, len(fve) + 1)),
            "fve": list(fve),
        },
    )


@pytest.fixture(scope="module")
def printed(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("multiscale")
    path = shared / "data" / "prefix_fve"
    if not path.is_dir():
        pytest.skip("no published curves beside the repository")
    assert cli.run(["multiscale", str(path), "--out", str(out)]) == 0
    assert (out / "figures" / "multiscale-curves.svg").exists()
    found: dict = json.loads((out / "multiscale.json").read_text())["findings"][0]
    return found


@pytest.fixture(scope="module")
def noisy() -> Finding:
    return run(plant_curves(CURVES, activations=80, seed=3).table)


class TestPublished:
    @pytest.mark.parametrize("model", PUBLISHED)
    def test_numbers(self, printed: dict, model: str) -> None:
        summary = printed["headline"][model]
        zero, half, peak, peak_tokens, full, full_tokens = PUBLISHED[model]
        assert summary["tokens_to_fve_0"] == zero
        assert summary["tokens_to_fve_half"] == half
        assert (round(summary["peak_fve"], 3), summary["peak_tokens"]) == (peak, peak_tokens)
        assert (round(summary["full_fve"], 3), summary["full_tokens"]) == (full, full_tokens)
        assert 0 <= summary["area"] <= 1
        assert summary["full_fve_low"] is None, "means have no interval"

    def test_only_v2_writes_on_where_it_no_longer_helps(self, printed: dict) -> None:
        said = re.findall(r"(\w+): FVE 0 [^:]*: ([^.]*\.\d*)", printed["verdict"])
        on = {model for model, rest in said if "no longer helps" in rest}
        assert on == {"v2"}
        assert {model for model, _ in said} == set(PUBLISHED)

    def test_lines_are_another_unit(self, printed: dict) -> None:
        lines = {row["model"]: row for row in printed["tables"]["other_units"]}
        assert lines["kitft"]["to_fve_0"] == 2
        assert lines["v2"]["peak_length"] == 11


class TestRule:
    """The headline follows from the means as they stand."""

    @pytest.mark.parametrize(
        ("fve", "lengths", "expected"),
        [
            pytest.param((-0.2, 0.0, 0.5), None, (2, 3, 3, 3), id="a level is reached at it"),
            pytest.param((0.1, -0.1, 0.6, 0.2), None, (1, 3, 3, 3), id="noisy: the first time"),
            pytest.param((0.6, 0.7, 0.7, 0.7), None, (1, 1, 1, 2), id="a tie: the shortest"),
            pytest.param((-0.3, 0.4, 0.55), [1, 8, 64], (8, 64, 64, 64), id="a grid: its lengths"),
            pytest.param((0.7, -0.1, 0.3), [9, 1, 4], (4, 9, 9, 9), id="rows in any order"),
            pytest.param((-0.4, -0.2, -0.3), None, (None, None, None, 2), id="never"),
            pytest.param((-0.4, None, 0.6), None, (3, 3, 3, 3), id="a score is missing"),
            pytest.param(("-20%", "10 %", "60%"), None, (2, 3, 3, 3), id="percentages"),
        ],
    )
    def test_numbers(self, fve: tuple, lengths: list[int] | None, expected: tuple) -> None:
        summary = run(means(*fve, lengths=lengths)).headline["m"]
        names = ("tokens_to_fve_0", "tokens_to_fve_half", "tokens_to_80_percent", "peak_tokens")
        assert tuple(summary[name] for name in names) == expected

    def test_eighty_percent_is_of_its_own_full_fve(self) -> None:
        summary = run(means(0.1, 0.39, 0.41, 0.9, 0.5)).headline["m"]
        assert summary["tokens_to_80_percent"] == 3

    def test_area_is_between_its_ends_at_any_length(self) -> None:
        for n in (10, 300):
            at_once = run(means(*[0.6] * n)).headline["m"]["area"]
            at_last = run(means(*[-0.5] * (n - 1), 0.6)).headline["m"]["area"]
            evenly = run(means(*[0.6 * (k + 1) / n for k in range(n)])).headline["m"]["area"]
            assert at_once == pytest.approx(1 - 0.5 / n)
            assert at_last == pytest.approx(0.5 / n)
            assert evenly == pytest.approx(0.5)

    def test_units_are_kept_apart(self) -> None:
        claims = means(0.2, 0.6).with_columns(unit=pl.lit("claim"))
        finding = run(pl.concat([means(-0.1, 0.3, 0.5), claims]))
        assert finding.headline["m"]["full_tokens"] == 3
        assert finding.tables["other_units"].row(0, named=True)["full_length"] == 2

    def test_without_tokens_nothing_is_said_in_tokens(self) -> None:
        finding = run(means(0.2, 0.6).with_columns(unit=pl.lit("claims")))
        assert {finding.headline["m"][name] for name in NUMBERS} == {None}
        assert "not known" in finding.verdict

    def test_a_shorter_text_counts_whole(self) -> None:
        rows = [("a", 1, 0.0), ("a", 2, 0.8), ("b", 1, 0.2), ("b", 2, 0.2), ("b", 3, 0.4)]
        frame = pl.DataFrame(rows, schema=["idx", "length", "fve"], orient="row")
        finding = run(frame.with_columns(model=pl.lit("m"), unit=pl.lit("tokens")))
        assert finding.tables["fve_by_tokens"]["fve"].to_list() == pytest.approx([0.1, 0.5, 0.6])
        assert finding.headline["m"]["mean_full_tokens"] == 2.5

    def test_texts_that_were_not_read_to_their_end_have_no_full_length(self) -> None:
        rows = [(idx, length, 0.1 * length) for idx in range(12) for length in (1, 2, 4)]
        frame = pl.DataFrame(rows, schema=["idx", "length", "fve"], orient="row")
        frame = frame.with_columns(model=pl.lit("m"), unit=pl.lit("tokens"), text_tokens=9)
        finding = run(frame)
        numbers = finding.headline["m"]
        assert numbers["peak_tokens"] == 4
        assert numbers["full_fve"] is None
        assert numbers["full_tokens"] is None
        assert "(0.400), but none of its texts was read to its end." in finding.verdict

    def test_numbers_of_curves_are_there_as_declared(self) -> None:
        finding = run(plant_curves(CURVES[:2], activations=12, seed=0).table)
        own = [m for m in finding.metrics if m.needs in ("", "--prefixes or --pair")]
        assert absent(finding, own) == []

    def test_samples_are_one_activation(self) -> None:
        planted = plant_curves(CURVES[:1], activations=12, seed=0)
        twice = pl.concat(
            [planted.table, planted.table.with_columns(sample=pl.lit(1, dtype=pl.Int64))]
        )
        once = run(planted.table).headline["plain"]
        again = run(twice).headline["plain"]
        assert {name: again[name] for name in once} == pytest.approx(once)


class TestDoor:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"fve": pl.lit(1.2)}, 'column "fve" holds 1.2, which is more than 1'),
            ({"fve": pl.lit("x")}, 'row 0 (model "m"): column "fve" holds "x"'),
            ({"length": pl.lit(None)}, 'column "length" is empty'),
            ({"length": pl.lit(1.5)}, "not a whole number"),
            ({"length": pl.lit(-1)}, "negative"),
            ({"length": pl.lit(3)}, "twice"),
            ({"length_penalty": pl.lit(math.nan)}, 'column "length_penalty" holds nan'),
            ({"length_penalty": pl.lit(math.inf)}, 'column "length_penalty" holds inf'),
            ({"length_penalty": pl.lit(-0.1)}, 'column "length_penalty" holds -0.1'),
            ({"unit": pl.lit("furlongs")}, "is no unit"),
        ],
    )
    def test_errors_name_row_and_column(self, change: dict, message: str) -> None:
        with pytest.raises(UserError, match=re.escape(message)) as error:
            prefixes_from_frame(means(0.1, 0.2).with_columns(**change), name="t.csv")
        assert str(error.value).startswith("t.csv: row ")

    def test_missing_columns(self) -> None:
        with pytest.raises(UserError, match='"unit" is missing'):
            prefixes_from_frame(means(0.1).drop("unit"))
        with pytest.raises(UserError, match='"fve" is missing'):
            prefixes_from_frame(means(0.1).drop("fve"))

    def test_published_names_say_unit_and_model(self, tmp_path: Path) -> None:
        path = tmp_path / "lines_fve_mine.csv"
        path.write_text("length_lines,fve,n_samples_at_full\n1,0.1,0\n2,0.5,4\n")
        table = read_prefixes([str(path)])
        assert (table.models, table.units("mine")) == (("mine",), ["lines"])
        assert table.means == {"mine"}

    def test_prefixes_beyond_the_text_are_the_text(self) -> None:
        frame = pl.DataFrame(
            {
                "model": "m",
                "idx": [0] * 3,
                "prefix_tokens": [2, 4, 8],
                "text_tokens": [3] * 3,
                "fve": [0.1, 0.4, 0.4],
            }
        )
        assert prefixes_from_frame(frame).rows["length"].to_list() == [2, 3]

    def test_both_kinds_of_table_at_once_are_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        means(0.1).write_csv(tmp_path / "a.csv")
        (tmp_path / "b.csv").write_text("model,idx,explanation\nm,0,one\n")
        assert cli.run(["multiscale", str(tmp_path)]) == 2
        assert "--prefixes" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["-", "/dev/stdin"])
    def test_prefixes_may_be_piped_in(self, name: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "nla_audit.cli", "multiscale", name, "--json"],
            input=means(0.1, 0.5, 0.6).write_csv().encode(),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert set(json.loads(done.stdout)["headline"]) == {"m"}


class TestPlanted:
    def test_every_number_is_recovered(self) -> None:
        planted = plant_curves(CURVES, activations=300, seed=1, noise=0.1)
        headline = run(planted.table).headline
        for model, truth in planted.truth.items():
            for name, value in truth.items():
                found = headline[model][name]
                within = 1.0 if "tokens" in name else 0.01
                if name == "peak_tokens" and model != "turns":
                    continue  # the curve is flat there: any of its last tokens may be the best
                assert (found is None) == (value is None), (model, name)
                assert value is None or found == pytest.approx(value, abs=within), (model, name)

    def test_verdict_follows_from_the_numbers(self, noisy: Finding) -> None:
        """Worked out here from the headline, without the package's rule."""
        for model, numbers in noisy.headline.items():
            low, high = numbers["lost_after_peak_low"], numbers["lost_after_peak_high"]
            if numbers["peak_tokens"] == numbers["full_tokens"]:
                continue
            part = noisy.verdict[noisy.verdict.index(f"{model}: FVE 0") :]
            part = part[: part.index("best at") + 160]
            assert ("no longer helps" in part) == (low > 0), model
            assert ("costs no more than" in part) == (low <= 0 and high <= 0.03)
        more = {m for m, n in noisy.headline.items() if (n.get("area_change_low") or -1) > 0}
        assert more == {"early", "turns"}
        assert "Against plain, early and turns are more front-loaded." in noisy.verdict

    def test_what_intervals_do_not_decide_is_not_told(self) -> None:
        """Few activations, and a loss near nothing."""
        flat = PlantedCurve("flat", pace=10.0, lengths=(60,))
        finding = run(plant_curves([flat], activations=5, seed=0).table)
        numbers = finding.headline["flat"]
        assert numbers["lost_after_peak_low"] is None
        assert "cannot tell" in finding.verdict or numbers["peak_tokens"] == 60

    def test_rows_in_any_order_give_the_same_bytes(self, noisy: Finding) -> None:
        table = plant_curves(CURVES, activations=80, seed=3).table
        assert run(table.sample(fraction=1.0, shuffle=True, seed=1)).to_json() == noisy.to_json()

    def test_one_activation_has_no_interval(self) -> None:
        numbers = run(plant_curves(CURVES, activations=1, seed=0).table).headline["plain"]
        assert [key for key, value in numbers.items() if "_low" in key and value is not None] == []


@pytest.mark.parametrize("column", ["ar", "AR", None])
def test_prefixes_of_completions_are_those_by_their_ar(column: str | None, tmp_path: Path) -> None:
    """A table that names no AR, as training writes it, is by one only."""
    path = tmp_path / "prefixes.csv"
    table = means(0.1, 0.5)
    if column is not None:
        own, other = table, means(0.2, 0.3)
        table = pl.concat(
            [
                own.with_columns(pl.lit("own").alias(column)),
                other.with_columns(pl.lit("other").alias(column)),
            ]
        )
    table.write_csv(path)
    texts = pl.DataFrame({"model": "m", "idx": [0], "explanation": "one two", "ar": "own"})
    finding = registry()["multiscale"].run(from_frame(texts), prefixes=str(path))
    assert finding.tables["fve_by_tokens"]["fve"].to_list() == [0.1, 0.5]


def test_ends_of_segments_within_a_word_are_told() -> None:
    rows = [("m", 0, "one of them", [5, 9, 11]), ("m", 1, "a second", [1, 8])]
    texts = pl.DataFrame(
        rows, schema=["model", "idx", "explanation", "segment_ends"], orient="row"
    )  # "one o|f th|em" and "a| second"; the whole text does not count
    finding = registry()["multiscale"].run(from_frame(texts))
    broken = finding.tables["broken_words"].select("unit", "length", "prefixes", "broken").rows()
    assert broken == [("segments", 1, 2, 0.5), ("segments", 2, 1, 1.0)]


class TestSegmentEnds:
    @pytest.mark.parametrize("ends", [[4, 2], [-1, 3], [3, 99]])
    def test_places_that_are_not_in_the_text_are_refused(self, ends: list[int]) -> None:
        frame = pl.DataFrame(
            {"model": "m", "idx": 7, "explanation": "one two", "segment_ends": [ends]}
        )
        with pytest.raises(UserError, match="no ascending places"):
            from_frame(frame)

    def test_places_move_with_the_text_when_it_is_stripped(self) -> None:
        frame = pl.DataFrame(
            {
                "model": "m",
                "idx": [0, 1],
                "explanation": ["  one two ", "three"],
                "segment_ends": [[0, 5, 10], None],
            }
        )
        assert from_frame(frame).rows["segment_ends"].to_list() == [[0, 3, 7], None]
