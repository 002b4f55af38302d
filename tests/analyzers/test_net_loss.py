"""What a text leaves out net of what it adds, however tersely it says either."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from nla_audit.analyzers._net_loss import net_loss
from nla_audit.analyzers._reading_error import Level, ReadingError
from nla_audit.analyzers.drop_analysis import drop_analysis
from nla_audit.analyzers.rewording import rewording
from nla_audit.table.completions import Completions, from_frame
from nla_audit.text.words import FUNCTION_WORDS
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
    assert found.omission.value == pytest.approx(omission)
    assert found.omission.value + found.terser.value == pytest.approx(100 - own)
    assert found.lead.value == pytest.approx(found.omission.value - found.terser.value)
    assert found.share.value == pytest.approx(omission / 100)
    assert found.omission.low <= omission <= found.omission.high <= max(100, omission)


def test_where_next_to_nothing_is_said_by_both_nothing_is_told() -> None:
    found = net_loss(read_as(100, 80, 0.5, 0.5), _NONE, Level(0.005, 0.8), 0)
    assert np.isnan([found.omission.low, found.lead.high, found.share.low]).all()
    assert found.evening is None
    nothing = net_loss(read_as(100, 80, 0, 0), _NONE, Level(0.0, 0.8), 0)
    assert np.isnan(nothing.omission.value)


def test_claims_said_unrecognised_would_make_less_of_the_omission() -> None:
    rows = read_as(100, 50, 50, 50)
    hides = Level(0.5, 0.5, beyond_kept=0.1)
    plain, hidden = (net_loss(rows, _NONE, level, 0) for level in (Level(0.5, 0.5), hides))
    # With ten tokens more of the reference in as many words, the fifty stand for sixty.
    assert hidden.omission.low == pytest.approx(plain.omission.low - 10)
    assert hidden.lead.low == pytest.approx(plain.lead.low - 20)
    assert hidden.omission.high == plain.omission.high
    # So many would make both even: of a lead of fifty less the reading's own error.
    assert plain.evening == pytest.approx(plain.lead.low / 2)


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
