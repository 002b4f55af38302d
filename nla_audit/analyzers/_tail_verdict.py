"""The tail analyzer in words: the largest difference first, each with its chance level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from nla_audit.findings import Headline
from nla_audit.stats import MIN_CLUSTERS
from nla_audit.table.completions import Completions
from nla_audit.text.tails import TAIL_WORDS

#: Metric → what a model's explanations do in that share, for "{model}'s explanations …".
_SAID = {
    "is_nothing_but_tail_rate": "are nothing but the tail of their input",
    "ends_with_tail_rate": f"end with the input's last {TAIL_WORDS} words",
    "holds_tail_rate": f"hold the input's last {TAIL_WORDS} words",
    "holds_last_word_rate": "hold the input's last word",
}
#: Words of an input's end among which an explanation's words are counted, for the headline.
LAST_WORDS = 10
#: Differences that are spelled out; the table has all.
_SENTENCES = 3


def verdict(completions: Completions, headline: Headline, differences: pl.DataFrame) -> str:
    """At most four sentences, computed from the table of paired differences."""
    if not any(summary["rows_with_source"] for summary in headline.values()):
        return (
            "The table has no source text, so repetition of the input's tail cannot be told; only "
            "repetition inside explanations and empty ones are counted."
        )
    known = differences.filter(pl.col("difference_low").is_not_null()).to_dicts()
    sentences = []
    largest = _largest_per_metric([row for row in known if _is_real(row)])
    for place, row in enumerate(largest[:_SENTENCES]):
        sentences.append(_difference(row, completions.reference, is_first=place == 0))
    held = [row for row in known if row["metric"] == "holds_tail_rate"]
    if held and not any(row["metric"] == "holds_tail_rate" for row in largest):
        sentences.append(_no_difference(held, completions.reference))
    return " ".join([*sentences, _beside_chance(headline)])


def _is_real(row: Mapping[str, Any]) -> bool:
    """Whether the difference, and that of what is held beyond chance, is beyond its interval."""
    return any(
        all(sign * row[f"{name}_{end}"] > 0 for name in ("difference", "beyond_chance"))
        for sign, end in ((1, "low"), (-1, "high"))
    )


def _largest_per_metric(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    largest: dict[str, dict[str, Any]] = {}
    for row in rows:
        best = largest.get(row["metric"])
        if best is None or abs(row["difference"]) > abs(best["difference"]):
            largest[row["metric"]] = row
    # Of equal ones, to the point, the one that says most of what is repeated.
    order = ["tail_word_share", *_SAID]
    return sorted(
        largest.values(),
        key=lambda row: (-abs(round(100 * row["difference"])), order.index(row["metric"])),
    )


def _difference(row: Mapping[str, Any], reference: str, *, is_first: bool) -> str:
    own = f"{row['own_rate']:.0%} (chance {row['own_chance_rate']:.0%})"
    other = f"{row['reference_rate']:.0%} (chance {row['reference_chance_rate']:.0%})"
    points = _points(row, "over " + _activations(row) if is_first else "")
    if row["metric"] == "tail_word_share":
        return (
            f"Of {row['model']}'s words {own} are among the input's last {LAST_WORDS}, of "
            f"{reference}'s {other}: a difference of {points}."
        )
    strict = row["own_strict_rate"]
    to_the_letter = "" if strict is None else f", {strict:.0%} to the letter"
    return (
        f"{own[:-1]}{to_the_letter}) of {row['model']}'s explanations {_SAID[row['metric']]}, of "
        f"{reference}'s {other}: {points}."
    )


def _no_difference(held: list[dict[str, Any]], reference: str) -> str:
    def reach(one: Mapping[str, Any]) -> float:
        return max(abs(one["difference_low"]), abs(one["difference_high"]))

    row = max(held, key=reach)
    return (
        f"No model differs from {reference} in how many {_SAID['holds_tail_rate']} beyond its "
        f"interval; by at most {100 * reach(row):.0f} points they may ({row['model']}: "
        f"{row['own_rate']:.0%} and {row['reference_rate']:.0%}, {_points(row)})."
    )


def _beside_chance(headline: Headline) -> str:
    """Whether the tail is held more often than that of another input, by which models."""
    known = {
        model: summary
        for model, summary in headline.items()
        if summary.get("holds_tail_rate_low") is not None
    }
    if not known:
        return (
            f"Fewer than {MIN_CLUSTERS} activations have a source text, too few to say whether "
            "the tail is held more often than chance."
        )
    above = [
        model
        for model, summary in known.items()
        if (summary["holds_tail_rate_low"] or 0.0) > (summary["chance_holds_tail_rate_high"] or 0.0)
    ]
    if not above:
        return "No model holds the tail of its input more often than that of another input."
    rates = [known[model]["holds_tail_rate"] or 0.0 for model in above]
    chance = max(known[model]["chance_holds_tail_rate"] or 0.0 for model in above)
    who = "All models" if len(above) == len(headline) > 1 else ", ".join(above)
    verb = "hold" if len(above) > 1 else "holds"
    low, high = (f"{rate:.0%}" for rate in (min(rates), max(rates)))
    return (
        f"{who} {verb} the input's last {TAIL_WORDS} words more often than another input's "
        f"({low if low == high else f'{low} to {high}'} of explanations, chance at most "
        f"{chance:.0%})."
    )


def _points(row: Mapping[str, Any], where: str = "") -> str:
    low, high = (f"{100 * row[f'difference_{end}']:+.0f}" for end in ("low", "high"))
    inside = f"[{low}, {high}]" + (f" {where}" if where else "")
    return f"{100 * row['difference']:+.0f} points {inside}"


def _activations(row: Mapping[str, Any]) -> str:
    return f"{row['activations']} activations that both explain"


def caveats(completions: Completions, headline: Headline) -> list[str]:
    """What the rates stand on."""
    found = list(completions.notes)
    n = sum(summary["n"] or 0 for summary in headline.values())
    known = sum(summary["rows_with_source"] or 0 for summary in headline.values())
    if known < n:
        found.append(
            f"{n - known:.0f} of {n:.0f} explanations have no source text (or failed) and are left "
            f"out of the tail rates; those stand on {known:.0f}."
        )
    if known:
        found.append(
            f"A tail is the input's last {TAIL_WORDS} words, or more; case, quotes, punctuation, "
            "the encoding of characters and a cut last word do not count, but in the strict rates."
        )
    return found
