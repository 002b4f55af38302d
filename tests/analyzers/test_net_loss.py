"""What a text leaves out net of what it adds, however tersely it says either."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest

from nla_audit.analyzers._net_loss import net_loss
from nla_audit.analyzers._reading_error import Level, ReadingError
from nla_audit.analyzers._twins import DELETED, EXCHANGED
from nla_audit.analyzers.drop_analysis import drop_analysis
from nla_audit.analyzers.rewording import rewording
from nla_audit.table.completions import Completions, from_frame
from nla_audit.text.words import FUNCTION_WORDS
from nla_audit.world.sweep.planted import PlantedModel, plant
from tests.benchmark_module import BENCHMARKS

_NONE = ReadingError(None, spread=0.0)


def read_as(whole: float, own: float, kept: float, said: float, rows: int = 40) -> pl.DataFrame:
    """Explanations that are all read alike."""
    numbers = {
        "tokens_reference": whole,
        "tokens_model": own,
        "kept_tokens": kept,
        "supported_tokens": said,
    }
    return pl.DataFrame({"idx": range(rows), **{k: [v] * rows for k, v in numbers.items()}})


@pytest.mark.parametrize(
    ("own", "kept", "said", "omission"),
    [
        (80, 60, 48, 0),  # a fifth fewer words for what both say, and for what is new
        (100, 60, 60, 0),  # as much new as is left out
        (50, 50, 50, 50),  # half left out, nothing new, nothing terser
        (40, 50, 40, 50),  # half left out, the rest in four fifths of the words
        (120, 60, 60, -20),  # more new than left out
        (0, 0, 0, 100),  # nothing said
    ],
)
def test_what_is_new_counts_in_the_references_wording(
    own: float, kept: float, said: float, omission: float
) -> None:
    found = net_loss(read_as(100, own, kept, said), _NONE, Level(kept / 100, own / 100), 0)
    assert found.omission.value == pytest.approx(omission, abs=0.3)
    assert found.omission.value + found.terser.value == pytest.approx(100 - own)
    assert found.lead.value == pytest.approx(found.omission.value - found.terser.value)
    assert found.share.value == pytest.approx(found.omission.value / 100)
    assert found.omission.low <= omission <= found.omission.high
    assert found.share.high <= 1


@pytest.mark.parametrize(("own", "low", "high"), [(1, 97, 100), (37, 20, 100), (100, -110, 100)])
def test_where_nothing_is_said_by_both_a_token_is_worth_a_token_or_so(
    own: float, low: float, high: float
) -> None:
    found = net_loss(read_as(100, own, 0, 0), _NONE, Level(0.0, own / 100), 0)
    assert found.omission.value == pytest.approx(100 - own)
    assert low < found.omission.low < found.omission.value
    assert np.isfinite([found.error, found.bias, found.terser.low, found.lead.high]).all()
    # Little in common shows little, and what there is by chance anyway shows as good as nothing.
    little = read_as(100, own, 4, own / 50)
    shown, by_chance = (
        net_loss(little, _NONE, Level(0.04, own / 100), 0, by_chance=c) for c in (0.0, 0.3)
    )
    assert shown.omission.value < by_chance.omission.value
    assert by_chance.omission.value == pytest.approx(100 - own, abs=0.05 * own)


def test_a_bias_that_may_take_all_that_both_say_makes_no_interval_narrower() -> None:
    rows = read_as(100, 40, 20, 5)
    widths = []
    for bias in (0.03, 0.049, 0.0499, 0.05, 0.0501, 0.06):
        curve = np.array([[0.0, 0.0, bias, 0.0], [1.0, 0.0, bias, 0.0]])
        error = ReadingError("made up", curves={DELETED: curve, EXCHANGED: curve}, spread=0.0)
        found = net_loss(rows, error, Level(0.2, 0.4), 0)
        widths.append(found.omission.high - found.omission.low)
    assert max(widths) < 400
    assert max(np.abs(np.diff(widths[2:]))) < 20


def test_intervals_are_those_of_a_ratio() -> None:
    """Of texts of very different lengths; reference and text vary together."""
    generator = np.random.default_rng(5)
    inside: list[bool] = []
    drawn = 20 + np.exp(generator.normal(2.5, 1.0, (200, 60)))
    truth = 20 / float(20 + np.exp(2.5 + 0.5))
    for lengths in drawn:
        kept = lengths - 20
        rows = pl.DataFrame(
            {
                "idx": range(60),
                "tokens_reference": lengths,
                "tokens_model": kept,
                "kept_tokens": kept,
                "supported_tokens": kept,
            }
        )
        found = net_loss(rows, _NONE, Level(1.0, 1.0), 0)
        assert found.omission.low < 20 < found.omission.high
        inside.append(found.share.low <= truth <= found.share.high)
    assert np.mean(inside) > 0.9


def test_claims_said_unrecognised_would_make_less_of_the_omission() -> None:
    rows = read_as(100, 50, 50, 50)
    hides = Level(0.5, 0.5, beyond_kept=0.1)
    plain, hidden = (net_loss(rows, _NONE, level, 0) for level in (Level(0.5, 0.5), hides))
    # With ten tokens more of the reference in as many words, the fifty stand for sixty.
    assert hidden.omission.low == pytest.approx(plain.omission.low - 10, abs=0.5)
    assert hidden.lead.low == pytest.approx(plain.lead.low - 20, abs=1)
    assert hidden.omission.high == plain.omission.high
    # So many would make both even: of a lead of fifty less the reading's own error.
    assert plain.evening == pytest.approx(plain.lead.low / 2, rel=0.02)


def test_a_text_that_says_nothing_of_the_reference_any_more_has_dropped_it() -> None:
    activations = 40
    sweep = plant([PlantedModel("p0.0", 0.0)], activations=activations, seed=3, samples=2)
    rows = sweep.completions.select("idx", "sample", "explanation")
    texts = rows.filter(pl.col("sample") == 0).sort("idx")["explanation"].to_list()
    others = dict(enumerate(texts[1:] + texts[:1]))
    both = rows.with_columns(model=pl.lit("p0.0"), length_penalty=0.0)
    changes = {
        "one word": pl.lit("λόγος"),
        "others": pl.col("idx").replace_strict(others, return_dtype=pl.String),
    }
    for name, text in changes.items():
        changed = both.with_columns(model=pl.lit("x"), length_penalty=pl.lit(0.1), explanation=text)
        verdict = drop_analysis(from_frame(pl.concat([both, changed]), reference="p0.0")).verdict
        # As long as it was, it says something else: a second sample shows that it need not.
        assert re.match(r"x still makes [01]% \[", verdict), name
        assert ("less, net of what is new" in verdict) == (name == "one word")


def bare(text: str) -> str:
    """Without function words."""
    return " ".join(
        word for word in text.split() if word.lower().strip(".,;:") not in FUNCTION_WORDS
    )


def beside_the_first(change: bool) -> Completions:
    """Explanations by one writer, and by another one, who left some out and said other things."""
    twins = pl.read_ndjson(BENCHMARKS / "subjects" / "twins.jsonl")
    second = [bare(text) if change else text for text in twins["second"]]
    count = twins.height
    return from_frame(
        pl.DataFrame(
            {
                "model": ["first"] * count + ["second"] * count,
                "length_penalty": [0.0] * count + [0.1] * count,
                "idx": [*range(count)] * 2,
                "explanation": [*twins["first"], *second],
            }
        ),
        reference="first",
    )


def test_function_words_left_out_are_terser_wording_and_no_drop() -> None:
    """Of texts that leave out and add what another writer would: neither may look like omission."""
    before, after = (
        rewording(beside_the_first(change)).headline["second"] for change in (False, True)
    )
    saved = after["saving_tokens"] - before["saving_tokens"]
    assert saved > 15
    moved = {
        part: after[f"{part}_tokens"] - before[f"{part}_tokens"]
        for part in ("net_omission", "terser_wording")
    }
    print(f"\nof {saved:.1f} tokens of function words: {moved}")
    assert abs(moved["net_omission"]) < 0.2 * saved
    assert moved["terser_wording"] > 0.8 * saved
    table = beside_the_first(True)
    assert "by terser wording: more by omission" not in rewording(table).verdict
    assert drop_analysis(table).headline["second"]["net_loss_share_low"] <= 0
