"""Every number in a verdict of frontier, counted again from the raw table."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nla_audit import cli
from nla_audit.analyzers.frontier import MARGIN, frontier
from nla_audit.table.completions import from_frame, load
from tests.verdicts.recounting import NAME, TRIPLE, assert_limits, bootstrap


def of_models(rows: dict[str, tuple[list[float], list[int]]]) -> pl.DataFrame:
    """A table from each model's FVE and tokens per activation."""
    return pl.DataFrame(
        [
            {
                "model": model,
                "idx": idx,
                "explanation": "a word",
                "extracted": True,
                "n_tokens": n_tokens,
                "content_tokens": float(n_tokens - 5),
                "fve": fve,
                "ar": "one",
            }
            for model, (fves, tokens) in rows.items()
            for idx, (fve, n_tokens) in enumerate(zip(fves, tokens, strict=True))
        ]
    )


def with_change(mean: float, spread: float, n: int, *, tokens: int = 90) -> pl.DataFrame:
    """Two models that differ by ``mean`` with a standard deviation of ``spread``, exactly."""
    generator = np.random.default_rng(n)
    base = generator.normal(0.5, 0.1, n)
    noise = generator.normal(0.0, 1.0, n)
    noise = (noise - noise.mean()) / noise.std() * spread
    lengths = [100 + int(step) for step in generator.integers(-3, 4, n)]
    return of_models(
        {
            "p0.0": (base.tolist(), lengths),
            "p0.01": ((base + mean + noise).tolist(), [tokens] * n),
        }
    )


def recount_frontier(verdict: str, raw: pl.DataFrame, margin: float = MARGIN) -> list[str]:
    """Check every "X saves …" of a verdict against the raw table; the models that were judged."""
    by_model = {
        model: {row["idx"]: row for row in raw.to_dicts() if row["model"] == model}
        for model in raw["model"].unique()
    }
    reference = by_model["p0.0"]
    pattern = re.compile(
        rf"(?:Whether )?{NAME},?(?: which)? saves (?P<saving>\d+)%(?P<between>[^%]*?)(?:{TRIPLE}"
        rf"|for (?P<v>[+-][\d.]+) \[(?P<l>[+-][\d.]+), (?P<h>[+-][\d.]+)\])(?P<after>[^.;]*[.;])"
    )
    judged = []
    for found in pattern.finditer(verdict):
        own = by_model[found["model"]]
        saved = sum(reference[idx]["n_tokens"] - row["n_tokens"] for idx, row in own.items())
        whole = sum(row["n_tokens"] for row in reference.values())
        assert round(100 * saved / whole) == int(found["saving"])
        changes = np.array(
            [
                row["fve"] - reference[idx]["fve"]
                for idx, row in sorted(own.items())
                if row["fve"] is not None and reference[idx]["fve"] is not None
            ]
        )
        value, low, high = (
            float(found[long] or found[short])
            for long, short in (("value", "v"), ("low", "l"), ("high", "h"))
        )
        assert value == pytest.approx(changes.mean(), abs=6e-4)
        counted = bootstrap(lambda rows, changes=changes: changes[rows].mean(), len(changes))
        assert_limits((low, high), counted, rounding=1e-3)
        said = found["between"]
        if "cannot be told" in said:
            assert low < -margin
            assert high >= 0
            assert f"at most {-low:.3f}" in said
            needed = len(changes) * ((high - low) / margin) ** 2
            tail_of_it = verdict[found.start() :]
            number = re.search(r"about ([\d,]+) activations would tell \((\d+) here\)", tail_of_it)
            assert number is not None
            assert int(number[2]) == len(changes)
            assert int(number[1].replace(",", "")) == pytest.approx(needed, rel=0.12)
        elif "loses at most" in said:
            assert -margin <= low <= 0 <= high
            assert f"at most {-low:.3f}" in said
        elif "gains FVE" in said:
            assert low > 0
        else:
            assert high < 0
        judged.append(found["model"])
    return judged


@pytest.mark.parametrize(
    ("mean", "spread", "n", "words"),
    [
        (-0.072, 0.27, 50, "loses FVE cannot be told: at most 0.1"),  # [-0.147, +0.003]
        (-0.001, 0.27, 50, "loses FVE cannot be told: at most 0.0"),
        (-0.004, 0.05, 80, "loses at most 0.0"),
        (0.002, 0.03, 80, "loses at most 0.0"),
        (0.05, 0.08, 80, "gains FVE (+0.050"),
        (-0.15, 0.2, 80, "does cost FVE (-0.150"),
        (-0.015, 0.03, 80, "though less than the margin"),
    ],
)
def test_a_loss_is_excluded_shown_or_not_told(
    mean: float, spread: float, n: int, words: str
) -> None:
    raw = with_change(mean, spread, n)
    verdict = frontier(from_frame(raw, reference="p0.0")).verdict
    assert words in verdict
    assert recount_frontier(verdict, raw) == ["p0.01"]


def test_as_many_activations_as_are_named_do_tell() -> None:
    verdict = frontier(from_frame(with_change(-0.01, 0.27, 50), reference="p0.0")).verdict
    number = re.search(r"about ([\d,]+) activations would tell", verdict)
    assert number is not None
    more = with_change(-0.01, 0.27, int(number[1].replace(",", "")))
    assert "cannot be told" not in frontier(from_frame(more, reference="p0.0")).verdict


def test_the_margin_is_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = with_change(-0.004, 0.05, 80)
    raw.write_parquet(tmp_path / "t.parquet")
    path = str(tmp_path / "t.parquet")
    assert cli.run(["frontier", path, "--reference", "p0.0", "--margin", "0.005"]) == 0
    assert "cannot be told" in " ".join(capsys.readouterr().out.split())
    strict = frontier(from_frame(raw, reference="p0.0"), margin=0.005)
    assert recount_frontier(strict.verdict, raw, margin=0.005) == ["p0.01"]
    assert strict.parameters["margin"] == 0.005
    assert cli.run(["frontier", path, "--margin", "0"]) == 2
    assert "--margin 0: give the FVE that may be lost" in capsys.readouterr().err


def four_on_a_front(first: float, second: float, spread: float, n: int = 80) -> pl.DataFrame:
    """A front from (10 tokens, FVE 0) to (110, 1) with inner members at 40 and 70 tokens."""
    generator = np.random.default_rng(5)
    common = generator.normal(0.0, 0.1, n)
    members = {"p0.3": (10, 0.0), "p0.2": (40, first), "p0.1": (70, second), "p0.0": (110, 1.0)}
    rows = {}
    for model, (tokens, fve) in members.items():
        noise = generator.normal(0.0, spread, n)
        rows[model] = ((common + fve + noise - noise.mean()).tolist(), [tokens] * n)
    return of_models(rows)


def recount_knee(verdict: str, raw: pl.DataFrame) -> None:
    """Heights above the chord and their difference, from the raw table."""
    wide = {
        model: np.array([row["fve"] for row in raw.sort("idx").to_dicts() if row["model"] == model])
        for model in raw["model"].unique()
    }
    tokens = {model: raw.filter(pl.col("model") == model)["n_tokens"].mean() for model in wide}
    ends = min(tokens, key=lambda name: tokens[name]), max(tokens, key=lambda name: tokens[name])

    def height(model: str, rows: np.ndarray) -> float:
        low, high = (wide[end][rows].mean() for end in ends)
        share = (tokens[model] - tokens[ends[0]]) / (tokens[ends[1]] - tokens[ends[0]])
        return float(wide[model][rows].mean() - low - share * (high - low))

    everything = np.arange(len(wide["p0.0"]))
    sentence = verdict[verdict.index("The knee") :]
    if "tie of" not in sentence:
        found = re.search(rf"The knee of the front is {NAME} \((?P<height>[\d.]+) FVE", sentence)
        assert found is not None
        assert float(found["height"]) == pytest.approx(height(found["model"], everything), abs=6e-4)
        return
    found = re.search(
        r"tie of ([\w.]+) and ([\w.]+) \(([\d.]+), ([\d.]+) FVE above its chord; \1 and \2 differ "
        r"by ([\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\], and (?:about|not even) ([\d,]+) activations",
        sentence,
    )
    assert found is not None, sentence
    one, other = found[1], found[2]
    assert float(found[3]) == pytest.approx(height(one, everything), abs=6e-4)
    assert float(found[4]) == pytest.approx(height(other, everything), abs=6e-4)
    difference = height(one, everything) - height(other, everything)
    assert float(found[5]) == pytest.approx(difference, abs=6e-5)
    limits = bootstrap(lambda rows: height(one, rows) - height(other, rows), len(everything))
    assert_limits((float(found[6]), float(found[7])), limits, rounding=1e-3)
    assert limits[0] <= 0 <= limits[1]


def test_a_tie_is_called_a_tie() -> None:
    raw = four_on_a_front(0.601, 0.9, 0.3)  # 0.301 and 0.300 above the chord
    verdict = frontier(from_frame(raw, reference="p0.0")).verdict
    assert "a tie of p0.2 and p0.1" in verdict
    recount_knee(verdict, raw)


def test_a_knee_that_stands_out_is_the_knee() -> None:
    raw = four_on_a_front(0.75, 0.85, 0.1)
    finding = frontier(from_frame(raw, reference="p0.0"))
    assert "The knee of the front is p0.2" in finding.verdict
    recount_knee(finding.verdict, raw)
    assert finding.tables["knee"]["is_tied"].to_list() == [False, False]


def test_a_straight_front_has_no_knee() -> None:
    raw = four_on_a_front(0.3, 0.6, 0.3)
    verdict = frontier(from_frame(raw, reference="p0.0")).verdict
    assert "no knee can be told" in verdict


def test_the_verdict_on_the_published_sweep(sweep_path: Path) -> None:
    completions = load(sweep_path)
    said = frontier(completions).verdict
    assert set(recount_frontier(said, pl.read_parquet(sweep_path))) == {"p0.002", "p0.006", "p0.03"}
    assert "a tie of p0.015 and p0.006" in said
    assert completions.baseline.value == pytest.approx(0.6704, abs=5e-5)
