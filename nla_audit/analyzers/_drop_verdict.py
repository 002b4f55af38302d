"""What is dropped, in words: the verdict, and what to know before quoting it."""

from __future__ import annotations

import polars as pl

from nla_audit.analyzers._floor import floor_of
from nla_audit.analyzers._reading_error import LARGE_BIAS, LEAST_CLAIMS, ReadingError
from nla_audit.findings import Headline
from nla_audit.table.completions import Completions
from nla_audit.text.reading import Reading


def verdict(
    completions: Completions, reading: Reading, headline: Headline, kinds: pl.DataFrame
) -> str:
    """Who drops claims, of which kinds, and of whom it cannot be told."""
    compared = [model for model in completions.models if model in headline]
    if len(completions.models) == 1:
        return "Only one model is in the table, so nothing can have been dropped."
    if not compared:
        return f"{completions.reference} makes no claims, so nothing can have been dropped."
    lossy = [model for model in compared if _loses(headline[model])]
    sentences = []
    if lossy:
        worst = min(lossy, key=lambda model: headline[model]["claims_retained"] or 0.0)
        first = lossy[0]
        sentences.append(
            f"{first} still makes {_percent(headline[first])} of {completions.reference}'s claims"
            f"{_less(headline[first], ' and says {} less, net of what is new')}"
            + (
                f", {worst} {_percent(headline[worst])}{_less(headline[worst], ' and {} less')}"
                if worst != first
                else ""
            )
            + f" ({_beside(completions, headline, worst, first)})."
        )
        sentences += of_kinds(worst, kinds)
    else:
        sentences.append(
            f"No model is shown to drop more of {completions.reference}'s claims than it adds of "
            "its own" + (", or than a second sample drops." if reading.has_floor else ".")
        )
    most = {
        model: headline[model].get("net_loss_share_high")
        for model in compared
        if model not in lossy
    }
    # What the reading's error allows for is no loss either.
    none = [model for model, high in most.items() if high is not None and high <= 0]
    if none:
        adds, own = ("it adds", "its") if len(none) == 1 else ("they add", "their")
        sentences.append(
            f"{', '.join(none)} leave{'s' if len(none) == 1 else ''} out no more than {adds} of "
            f"{own} own."
        )
    unclear = {model: high for model, high in most.items() if model not in none}
    unknown = [model for model, high in unclear.items() if high is None]
    if unknown:
        sentences.append(
            f"Whether {', '.join(unknown)} drop{'s' if len(unknown) == 1 else ''} anything cannot "
            "be told: there are too few texts."
        )
    unclear = {model: high for model, high in unclear.items() if high is not None}
    limits = [f"{model} at most {high:.0%}" for model, high in unclear.items()]
    if limits:
        sentences.append(
            f"Whether {', '.join(unclear)} drop{'s' if len(unclear) == 1 else ''} anything cannot "
            f"be told: of what {completions.reference} says, net of what is added, "
            f"{', '.join(limits)} can be missing."
        )
    return " ".join(sentences)


def of_kinds(model: str, kinds: pl.DataFrame) -> list[str]:
    """Which kind goes most and which least, where both are known and the intervals lie apart."""
    known = kinds.filter(
        (pl.col("model") == model)
        & (pl.col("claims") >= LEAST_CLAIMS)
        & pl.col("retained_low").is_not_null()
    ).sort("retained", "kind")
    if known.height < 2:
        return []
    least, most = known.row(0, named=True), known.row(-1, named=True)
    if least["retained_high"] >= most["retained_low"]:
        return []
    named = [
        f"{row['retained']:.0%} [{row['retained_low']:.0%}, {row['retained_high']:.0%}] of the "
        f"{row['claims']} {row['kind'].replace('_', ' ')} claims"
        for row in (least, most)
    ]
    return [
        f"Of the kinds whose reading is known to be within {LARGE_BIAS:.0%}, {model} keeps "
        f"{named[0]} and {named[1]}."
    ]


def _loses(summary: dict[str, float | None]) -> bool:
    """Whether a model drops more than it adds, or more than what shows the resampling floor."""
    lows = (summary.get(f"{name}_low") for name in ("net_loss_share", "retained_below_floor"))
    return any(low is not None and low > 0 for low in lows)


def _less(summary: dict[str, float | None], words: str) -> str:
    """How much less a model says net of what it adds, where it does."""
    loss, low, high = (summary.get(f"net_loss_share{end}") for end in ("", "_low", "_high"))
    if loss is None or low is None or high is None or low <= 0:
        return ""
    return words.format(f"{loss:.0%} [{low:.0%}, {high:.0%}]")


def _beside(completions: Completions, headline: Headline, model: str, first: str) -> str:
    """What a rate of claims retained is to be held against: chance, and the resampling floor.

    Args:
        model: whose chance it is.
        first: which model is compared with the floor, activation by activation.
    """
    chance = headline[model].get("chance_match")
    parts = [] if chance is None else [f"chance: {chance:.0%}"]
    floor, name = floor_of(completions, headline)
    if floor:
        parts.append(f"{name}: {_percent(headline[floor])}{_than(headline, first)}")
    return "; ".join(parts) or "chance is not known"


def _than(headline: Headline, first: str) -> str:
    """By how much more the floor keeps than a model, in pairs."""
    more, low, high = (
        headline[first].get(f"retained_below_floor{end}") for end in ("", "_low", "_high")
    )
    if more is None or low is None or high is None:
        return ""
    points = f"{100 * more:.0f} points [{100 * low:.0f}, {100 * high:.0f}]"
    return f", {points} more than {first}"


def _percent(summary: dict[str, float | None]) -> str:
    value, low = summary["claims_retained"], summary.get("claims_retained_low")
    if low is None:
        return f"{value:.0%}"
    return f"{value:.0%} [{low:.0%}, {summary['claims_retained_high']:.0%}]"


def caveats_of(
    completions: Completions, reading: Reading, error: ReadingError, kinds: pl.DataFrame
) -> list[str]:
    """What the rates stand on."""
    caveats = [*completions.notes, *reading.left_out]
    if not reading.has_floor:
        caveats.append(
            "The table has one sample per activation, so the resampling floor is unknown: two "
            "samples of the reference would not keep all of each other's claims either. A model "
            "counts as dropping claims where it leaves out more than it adds."
        )
    caveats += assumed_chance(reading)
    failed = completions.rows.filter(pl.col("explanation").is_null()).height
    if failed:
        caveats.append(f"{failed} failed explanations have no text and are left out here.")
    caveats.append(
        "Kinds are told by English cue words; claims in other languages fall under content, "
        "entity or number."
    )
    caveats.append(
        f"Claims are read by {reading.reader.vectors.name}. chance_match is what the same reading "
        "finds in another activation's explanation."
    )
    caveats.append(error.sentence())
    bare = kinds.filter(pl.col("retained_low").is_null())
    if error.measured and bare.height:
        worst = bare.group_by("kind", maintain_order=True).agg(
            pl.col("known_error").sort_by(pl.col("known_error").abs()).last()
        )
        said = [
            f"{kind.replace('_', ' ')} "
            + ("(too few claims to measure)" if bias is None else f"({100 * bias:+.0f} points)")
            for kind, bias in worst.iter_rows()
        ]
        caveats.append(
            "Kinds of claim that have no interval in some model because of their known error: "
            f"{', '.join(said)}."
        )
    return caveats


def assumed_chance(reading: Reading) -> list[str]:
    """What to say where the null was not measured."""
    if not reading.assumed:
        return []
    return [
        f"Too little text of {', '.join(reading.assumed)} to measure what matches by chance: a "
        "usual level is taken, and what is read as kept is a guess."
    ]
