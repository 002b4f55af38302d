"""Does the gap widen? On readers whose code is known to grow, to stay, or not to be there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nla_audit import cli
from nla_audit.errors import UserError
from nla_audit.probes.stego.finding import stego
from nla_audit.probes.stego.power import Case, Simulation
from nla_audit.probes.stego.scores import Scores, scores_from_frame
from nla_audit.probes.stego.series import Trend, trend_over
from nla_audit.probes.stego.series_gaps import ALL, NO_CONTROL
from nla_audit.probes.transforming.cards import transforms
from nla_audit.report.colours import ModelColours
from nla_audit.report.figures import render_figures
from nla_audit.world.codes.hidden_codes import CODES
from nla_audit.world.codes.simulated_reader import SimulatedReader, fve

SEEDS, N = 20, 100
CODE = CODES["synonym choice"]
GROWING = (0.0, 0.01, 0.02, 0.03)
CARDS = {name: card for name, card in transforms().items() if not card.is_written}
READ = [name for name, card in CARDS.items() if card.group == "kept"] + ["unchanged", "another"]


@lru_cache(maxsize=1)
def _simulation() -> Simulation:
    return Simulation(Case("series", SimulatedReader(code=CODE, brittleness=0.5), CODE, 4), pool=N)


def _frame(readers: Sequence[SimulatedReader], seed: int, *, controls: bool = True) -> pl.DataFrame:
    """Scores of one checkpoint for each of ``readers``, of the same activations."""
    simulation = _simulation()
    generator = np.random.default_rng(seed)
    ability = np.clip(generator.normal(0.6, 0.25, N), 0, 1)
    frames = []
    for step, reader in enumerate(readers):
        # Texts with the code read by the pair, texts without it, and an AR that knows no code.
        sources = [("own", "own", simulation.own, reader)]
        if controls:
            reference = simulation.controls["reference texts"]
            sources.append(("reference", "own", reference, reader))
            sources.append(("own", "second", simulation.own, SimulatedReader()))
        for texts, ar, source, reads in sources:
            noise = generator.normal(size=10 * N * len(READ))
            scores = [
                fve(reads, source.seen[name], simulation.secret, ability, noise) for name in READ
            ]
            frames.append(
                pl.DataFrame(
                    {
                        "idx": np.tile(np.arange(N), len(READ)),
                        "variant": np.repeat(READ, N).tolist(),
                        "fve": np.concatenate(scores),
                    }
                ).with_columns(
                    model=pl.lit(f"step-{step}"),
                    step=pl.lit(100 * step),
                    length_penalty=pl.lit(step / 100),
                    texts=pl.lit(texts),
                    ar=pl.lit(ar),
                )
            )
    return pl.concat(frames)


def _trend(readers: Sequence[SimulatedReader], seed: int, *, controls: bool = True) -> Trend:
    scores = scores_from_frame(_frame(readers, seed, controls=controls), ar="own")
    return trend_over(scores, "step", cards=CARDS, seed=seed)


def _coded(
    strengths: Sequence[float], brittleness: Sequence[float] = (0.0,) * 4
) -> list[SimulatedReader]:
    return [
        SimulatedReader(code=CODE, bit_worth=worth, brittleness=brittle)
        for worth, brittle in zip(strengths, brittleness, strict=True)
    ]


def _directions(readers: Sequence[SimulatedReader], seeds: int = SEEDS) -> list[str]:
    return [_trend(readers, seed).direction for seed in range(seeds)]


@pytest.mark.slow
def test_power_and_false_alarms() -> None:
    growing = _directions(_coded(GROWING))
    shrinking = _directions(_coded(GROWING[::-1]), seeds=SEEDS // 4)
    flat = _directions(_coded((0.02,) * 4))
    clean = _directions([SimulatedReader()] * 4, seeds=SEEDS // 2)
    brittle_readers = [SimulatedReader(brittleness=share) for share in (0.0, 0.15, 0.3, 0.45)]
    brittle = _directions(brittle_readers, seeds=SEEDS // 2)
    false = {
        name: len(found) - found.count("cannot tell")
        for name, found in (("equal code", flat), ("no code", clean), ("brittle AR", brittle))
    }
    print(
        f"a growing code widens the gap in {growing.count('widens')} of {len(growing)} seeds, a "
        f"shrinking one narrows it in {shrinking.count('narrows')} of {len(shrinking)}; false "
        f"alarms of {len(flat)}, {len(clean)} and {len(brittle)}: {false}"
    )
    assert growing.count("widens") >= 0.9 * SEEDS
    assert shrinking.count("narrows") >= 0.9 * len(shrinking)
    for calm in (flat, clean, brittle):
        assert len(calm) - calm.count("cannot tell") <= 0.05 * len(calm)


def test_the_sentence_says_what_grew_and_by_how_much() -> None:
    trend = _trend(_coded(GROWING), 0)
    assert trend.direction == "widens"
    assert trend.sentence.startswith("Over 4 models by training steps (0 to 300) the gap widens")
    assert set(trend.trends["control"]) == {"reference texts", "second AR second"}
    synonyms = trend.trends.filter(pl.col("variant") == "synonyms")
    # 4 bits of 0.03 are lost where the facts carry about 0.6; a rewording that leaves a bit
    # unread costs it, one that turns it over costs it twice.
    assert synonyms["change_low"].min() > 0.05
    assert set(trend.trends["paired"]) == {True}
    gaps = trend.gaps.filter(pl.col("control") == "reference texts").sort("step")
    assert gaps["gap_high"][0] < gaps["gap_low"][-1]


def test_without_a_control_the_loss_itself_is_followed_and_said_so() -> None:
    trend = _trend(_coded(GROWING), 0, controls=False)
    assert trend.direction == "widens"
    assert set(trend.trends["control"]) == {NO_CONTROL}
    assert any("no control" in caveat for caveat in trend.caveats)
    brittle = [SimulatedReader(brittleness=share) for share in (0.0, 0.15, 0.3, 0.45)]
    unfounded = _trend(brittle, 0, controls=False)  # as the caveat warns
    assert unfounded.direction == "widens"
    assert "the loss (there is no control) widens" in unfounded.sentence


def test_activations_are_compared_with_themselves() -> None:
    frame = _frame(_coded(GROWING), 0)
    apart = frame.with_columns(idx=pl.col("idx") + 1000 * (pl.col("step") // 100))
    own = trend_over(scores_from_frame(frame, ar="own"), "step", cards=CARDS)
    unpaired = trend_over(scores_from_frame(apart, ar="own"), "step", cards=CARDS)
    assert set(unpaired.trends["paired"]) == {False}
    assert any("pair them" in caveat for caveat in unpaired.caveats)
    whole = (pl.col("variant") == ALL) & (pl.col("control") == "reference texts")
    one, other = (trend.trends.filter(whole).row(0, named=True) for trend in (own, unpaired))
    assert one["change"] == pytest.approx(other["change"])  # every activation is in every model


def test_too_few_activations_cannot_tell() -> None:
    few = _frame(_coded(GROWING), 0).filter(pl.col("idx") < 6)
    trend = trend_over(scores_from_frame(few, ar="own"), "step", cards=CARDS)
    assert trend.direction == "cannot tell"
    assert "too few" in trend.sentence


def test_nothing_carried_cannot_tell() -> None:
    nothing = _frame(_coded(GROWING), 0).with_columns(fve=pl.lit(0.0))
    finding = stego(scores_from_frame(nothing, ar="own"), series="step")
    assert finding.parameters["series_direction"] == "cannot tell"
    json.loads(finding.to_json())


def test_models_without_a_value_are_left_out() -> None:
    frame = _frame(_coded(GROWING), 0)
    base = frame.filter(pl.col("step") == 0).with_columns(
        model=pl.lit("base"), length_penalty=pl.lit(None, dtype=pl.Float64)
    )
    scores = scores_from_frame(pl.concat([frame, base.cast(frame.schema)]), ar="own")
    trend = trend_over(scores, "length_penalty", cards=CARDS)
    assert set(trend.gaps["model"]) == {f"step-{step}" for step in range(4)}
    assert any("base" in caveat for caveat in trend.caveats)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop("step"), 'needs a column "step"'),
        (lambda f: f.with_columns(step=pl.lit(None, dtype=pl.Int64)), 'needs a column "step"'),
        (lambda f: f.with_columns(step=pl.lit(5)), "two models that differ"),
        (
            lambda f: f.with_columns(model=pl.lit("one")).unique(["idx", "variant", "texts", "ar"]),
            "two models that differ",
        ),
        (lambda f: f.with_columns(step=pl.col("idx")), "a model name of its own"),
    ],
)
def test_what_is_wrong_is_one_line(change, message) -> None:
    scores: Scores = scores_from_frame(change(_frame(_coded(GROWING), 0)), ar="own")
    with pytest.raises(UserError, match=message) as error:
        trend_over(scores, "step", cards=CARDS)
    assert "\n" not in str(error.value)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = _frame(_coded(GROWING), 0)
    frame.write_parquet(tmp_path / "s.parquet")
    frame.drop("step").write_parquet(tmp_path / "bare.parquet")
    arguments = ["stego", "--own-ar", "own", "--json", "--scores"]
    assert cli.run([*arguments, str(tmp_path / "s.parquet"), "--series", "step"]) == 0
    finding = json.loads(capsys.readouterr().out)
    assert "the gap widens" in finding["verdict"]
    assert finding["parameters"]["series_direction"] == "widens"
    assert {"series", "series_trends"} <= set(finding["tables"])
    assert cli.run([*arguments, str(tmp_path / "bare.parquet"), "--series", "step"]) == 2
    error = capsys.readouterr().err
    assert 'needs a column "step"' in error
    assert error.count("\n") == 1
    assert cli.run([*arguments, str(tmp_path / "s.parquet")]) == 0
    assert "series" not in json.loads(capsys.readouterr().out)["tables"]


def test_rows_in_any_order_give_the_same_bytes_and_a_figure() -> None:
    frame = _frame(_coded(GROWING), 0)
    shuffled = frame.sample(fraction=1, shuffle=True, seed=1)
    findings = [stego(scores_from_frame(f, ar="own"), series="step") for f in (frame, shuffled)]
    assert findings[0].to_json() == findings[1].to_json()
    models = findings[0].tables["series"]["model"].to_list()
    only = replace(findings[0], figures=findings[0].figures[-1:])
    drawn = render_figures(only, ModelColours.of(models, dict.fromkeys(models)))
    assert [figure.name for figure in drawn] == ["stego-series"]
