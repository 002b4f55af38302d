"""What ``rewording`` says of its numbers: the verdict, and the caveats beside it."""

from __future__ import annotations

import polars as pl

from nla_audit.analyzers._drop_verdict import assumed_chance
from nla_audit.analyzers._floor import floor_of
from nla_audit.analyzers._net_loss import WORDING_ERROR
from nla_audit.analyzers._reading_error import ReadingError
from nla_audit.findings import Headline
from nla_audit.table.completions import Completions
from nla_audit.text.reading import Reading


def verdict(completions: Completions, headline: Headline) -> str:
    """A sentence for each model but the reference."""
    key, name = floor_of(completions, headline)
    floor = ""
    if key and "omission_tokens" in headline[key]:
        floor = f"; {name}: {_content(headline[key])}"
    sentences: list[str] = []
    for model in completions.models:
        if model == completions.reference or "saving_tokens" not in headline.get(model, {}):
            continue
        # Once is enough.
        unsaid = bool(floor) and model != key and not any(floor in said for said in sentences)
        sentences.append(
            _sentence(model, headline[model], completions.reference, floor if unsaid else "")
        )
    return " ".join(sentences) or "There is no second model, so there is no saving to split."


def _sentence(model: str, summary: dict[str, float | None], reference: str, floor: str) -> str:
    """What one model's saving is made of; the larger part is named where the intervals allow it."""
    low, high = summary.get("saving_tokens_low"), summary.get("saving_tokens_high")
    if low is None or high is None:
        return f"{model}: too few activations to tell."
    if low <= 0 <= high:
        return (
            f"{model} is as long as {reference} (it saves {_tokens(summary, 'saving')} tokens), so "
            "there is no saving to split."
        )
    if high < 0:
        return f"{model} saves nothing over {reference}: {_tokens(summary, 'saving')} tokens."
    saves = f"{model} saves {_tokens(summary, 'saving')} tokens"
    lead, lead_low, lead_high = (
        summary.get(f"omission_lead_tokens{end}") or 0.0 for end in ("", "_low", "_high")
    )
    if lead_low > 0 or lead_high < 0:
        larger = f"more by {'omission' if lead_low > 0 else 'terser wording'}"
    elif (evening := summary.get("evening_tokens")) is not None:
        larger = (
            f"more by omission, unless {evening:.1f} or more of the tokens no longer said are said "
            "in words too different to be recognised"
        )
    else:
        nearest = lead_low if lead > 0 else lead_high
        larger = f"which is more cannot be told{_needed(summary, lead, nearest)}"
    return (
        f"{saves}: {_tokens(summary, 'net_omission')} by omission ({_content(summary)}{floor}), "
        f"{_tokens(summary, 'terser_wording')} by terser wording: {larger}."
    )


def _content(summary: dict[str, float | None]) -> str:
    """What is left out and what is added, of which omission is what remains."""
    return (
        f"{_number(summary['omission_tokens'])} no longer said, "
        f"{_number(-(summary['addition_tokens'] or 0.0))} newly said"
    )


def _needed(summary: dict[str, float | None], lead: float, nearest: float) -> str:
    """How many explanations would tell, if more of them can.

    Args:
        summary: of the model.
        lead: of omission over rewording.
        nearest: the end of its interval that lies towards zero, or beyond.
    """
    bias, spread = (
        summary["reading_bias_tokens"] or 0.0,
        1.96 * (summary["reading_error_tokens"] or 0.0),
    )
    room = abs(lead) - bias
    if room <= spread:
        return " at any size: the difference is within the reading's own error"
    by_sampling = max((abs(lead - nearest) - bias) ** 2 - spread**2, 0.0)
    count = (summary["n"] or 0.0) * by_sampling / (room**2 - spread**2)
    return f"; about {count:,.0f} explanations would tell"


def _tokens(summary: dict[str, float | None], part: str) -> str:
    value, low, high = (summary.get(f"{part}_tokens{end}") for end in ("", "_low", "_high"))
    if low is None or high is None:
        return _number(value)
    return f"{_number(value)} [{_number(low)}, {_number(high)}]"


def _number(value: float | None) -> str:
    """To a tenth; nothing is not less than nothing."""
    return f"{round(value or 0.0, 1) + 0.0:.1f}"


def caveats(
    completions: Completions, reading: Reading, error: ReadingError, headline: Headline
) -> list[str]:
    """What to know before quoting the numbers."""
    found = [*completions.notes, *reading.left_out]
    if not reading.has_floor:
        key, name = floor_of(completions, headline)
        found.append(
            "The table has one sample per activation, so how much two samples of "
            f"{completions.reference} differ in is "
            + (
                f"not known: at most what {name} differs in ({_content(headline[key])})."
                if key and "omission_tokens" in headline[key]
                else "unknown: some of what is no longer said and newly said is that."
            )
            + " Omission is net of what is newly said, and so of that."
        )
    found += [*assumed_chance(reading), error.sentence()]
    found.append(
        "How much is omission, net of what is new, and how much terser wording, is read from how "
        "many tokens either text takes for what both say: intervals allow for "
        f"{1.96 * WORDING_ERROR:.0%} of the model's content where both say the same, more where "
        "they share less. What is cut inside a sentence that is still recognised, such as its last "
        "words or a name, counts as terser wording."
    )
    for model, summary in headline.items():
        low, high = summary.get("saving_tokens_low"), summary.get("saving_tokens_high")
        if low is not None and high is not None and low <= 0 <= high:
            found.append(
                f"{model}: its length does not differ from the reference's beyond resampling, so "
                "there are no shares of its saving; read its tokens."
            )
    failed = completions.rows.filter(pl.col("explanation").is_null()).height
    if failed:
        found.append(f"{failed} failed explanations have no text and are left out here.")
    return found
