"""What faithfulness says in words, and where the table cannot tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from nla_audit.analyzers._claim_rates import KINDS, MAX_PREDICTED_SHIFT, MIN_CLAIMS
from nla_audit.findings import Headline
from nla_audit.stats import MIN_CLUSTERS
from nla_audit.table.completions import Completions

#: Sources that never exceed this many characters look cut to their tail.
_CUT_LENGTH = 400
#: Unit → columns of the table of changes: the change, and what both come to.
_UNITS = {
    "explanation": ("unsupported_change", "unsupported_per_explanation"),
    "100 words": ("unsupported_per_100_words_change", "unsupported_per_100_words"),
}


def verdict(
    completions: Completions, headline: Headline, changes: pl.DataFrame, by_kind: pl.DataFrame
) -> str:
    """Claims that the source does not show: per explanation, per 100 words, per claim."""
    if not any((summary["rows_with_source"] or 0) > 0 for summary in headline.values()):
        return (
            "The table has no source text, so quotes, names and numbers can be counted but not "
            "checked."
        )
    rows = changes.to_dicts()
    if not rows:
        summary = headline[completions.reference]
        return (
            f"Of the claims of {completions.reference} the source does not show "
            f"{_level(summary, 'unsupported_per_explanation')} an explanation; there is no other "
            "model to compare it with."
        )
    length = _cut_length(completions)
    return " ".join(
        [
            *_counted(rows, completions.reference, "explanation"),
            *_counted(rows, completions.reference, "100 words"),
            _per_claim(rows, by_kind, completions.reference, length),
        ]
    )


def _counted(rows: list[dict[str, Any]], reference: str, unit: str) -> list[str]:
    """Who makes fewer and who makes more claims that the source does not show, in one unit."""
    change, level = _UNITS[unit]
    said = []
    for sign, word in ((-1, "fewer"), (1, "more")):
        changed = sorted(
            (row for row in rows if _beyond(row, change, sign)), key=lambda row: -abs(row[change])
        )
        if not changed:
            continue
        row, others = changed[0], [other["model"] for other in changed[1:]]
        said.append(
            f"Per {unit} {row['model']} makes {word} claims that the source does not show than "
            f"{reference}: {_level(row, level)} against {_level(row, level, '_reference')}, "
            f"{_signed(row, change)}" + (f" ({word} too: {_list(others)})." if others else ".")
        )
    if all(row[f"{change}_low"] is None for row in rows):
        return [
            f"Per {unit} it cannot be told whether any model makes fewer or more claims that the "
            f"source does not show than {reference}: an interval takes at least {MIN_CLUSTERS} "
            "activations (documents, where the table names them)."
        ]
    if said:
        return said
    widest = max(
        (row for row in rows if row[f"{change}_low"] is not None),
        key=lambda row: max(abs(row[f"{change}_low"]), abs(row[f"{change}_high"])),
    )
    return [
        f"Per {unit} no model makes fewer or more claims that the source does not show than "
        f"{reference} beyond its interval (the widest: {widest['model']} "
        f"{_signed(widest, change)})."
    ]


def _per_claim(
    rows: list[dict[str, Any]], by_kind: pl.DataFrame, reference: str, cut_length: int | None
) -> str:
    """Whether a claim is more often right, where what is claimed can be held equal."""
    cannot = "Whether a claim is more often right cannot be told: "
    if cut_length is not None:
        return (
            f"{cannot}no source is longer than {cut_length} characters, and in the end of an input "
            "a shorter explanation, which says less of what came before, finds more of what it "
            "says."
        )
    compared = [row for row in rows if row["same_mix_change_low"] is not None]
    if not compared:
        return cannot + _why_not(rows, by_kind)
    wrong = [row for row in compared if _beyond(row, "same_mix_change", 1)]
    right = [row for row in compared if _beyond(row, "same_mix_change", -1)]
    if not wrong and not right:
        return (
            f"At {reference}'s mix of kinds no model's claims are more often right or wrong than "
            f"its own beyond the interval ({_list([row['model'] for row in compared])} compared)."
        )
    said = []
    for word, changed in (("wrong", wrong), ("right", right)):
        if not changed:
            continue
        row = max(changed, key=lambda one: abs(one["same_mix_change"]))
        others = [other["model"] for other in changed if other is not row]
        low, high = (100 * row[f"same_mix_change_{end}"] for end in ("low", "high"))
        said.append(
            f"at {reference}'s mix of {row['kinds_compared']} {row['model']}'s claims are more "
            f"often {word}: {row['same_mix_rate']:.0%} of them are absent from the source (chance "
            f"{row['same_mix_chance_rate']:.0%}), {row['same_mix_rate_reference']:.0%} of "
            f"{reference}'s ({100 * row['same_mix_change']:+.0f} points [{low:+.0f}, {high:+.0f}])"
            + (f"; so are those of {_list(others)}" if others else "")
        )
    sentence = "; ".join(said) + "."
    return sentence[0].upper() + sentence[1:]


def _why_not(rows: list[dict[str, Any]], by_kind: pl.DataFrame) -> str:
    both = by_kind.with_columns(both=pl.min_horizontal("claims", "claims_reference"))
    most = {name: both.filter(pl.col("kind") == name)["both"] for name in KINDS.values()}
    shifted = [
        row["model"]
        for row in rows
        if abs((row["predicted_share"] or 0.0) - (row["predicted_share_reference"] or 0.0))
        > MAX_PREDICTED_SHIFT
    ]
    known = ", ".join(f"{max(counts, default=0):.0f} {name}" for name, counts in most.items())
    because = (
        f"of the kinds that make up most claims, fewer than {MIN_CLAIMS} could be checked in both "
        f"a model and the reference (at most {known})"
    )
    if shifted:
        because += (
            f", and {_list(shifted)} predict{'s' if len(shifted) == 1 else ''} in another share of "
            "what is quoted, so that quotations are not compared"
        )
    return because + "."


def _level(row: Mapping[str, Any], name: str, whose: str = "") -> str:
    own, chance = row[f"{name}{whose}"], row[f"chance_{name}{whose}"]
    level = "none known" if own is None else f"{own:.2f}"
    return level if chance is None else f"{level} (chance {chance:.2f})"


def _beyond(row: Mapping[str, Any], name: str, sign: int) -> bool:
    end = row["_".join((name, "low" if sign > 0 else "high"))]
    return end is not None and sign * end > 0


def _signed(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:+.2f} [{row[f'{name}_low']:+.2f}, {row[f'{name}_high']:+.2f}]"


def _list(models: list[str]) -> str:
    return models[0] if len(models) == 1 else ", ".join(models[:-1]) + " and " + models[-1]


def _cut_length(completions: Completions) -> int | None:
    """Characters of the longest source where all of them look cut to their tail."""
    longest = completions.rows["source_text"].drop_nulls().str.len_chars().max()
    return longest if isinstance(longest, int) and longest <= _CUT_LENGTH else None


def caveats(completions: Completions, headline: Headline) -> list[str]:
    """What the rates stand on, and what they cannot show."""
    found = list(completions.notes)
    n = sum(summary["n"] or 0 for summary in headline.values())
    known = sum(summary["rows_with_source"] or 0 for summary in headline.values())
    if known < n:
        found.append(
            f"{n - known:.0f} of {n:.0f} explanations have no source text; rates stand on the "
            f"other {known:.0f}."
        )
    length = _cut_length(completions)
    if known and length is not None:
        found.append(
            f"No source text is longer than {length} characters, so sources are probably cut to "
            "their tail: what is absent from them may stand earlier in the input. Unsupported "
            "rates are upper bounds, the higher the more of the input a model speaks of."
        )
    found.append(
        "Chance is the same explanation against another input's source. Names are found by "
        "capitalisation, and a prediction is told from a quotation by the words before it; both "
        "are rules, not a model, right within 2 points on planted text and not measured on yours."
    )
    return found
