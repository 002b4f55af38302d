"""What ``rewording`` says of its numbers: the verdict, and the caveats beside it."""

from __future__ import annotations

import polars as pl

from nla_audit.analyzers._drop_verdict import assumed_chance
from nla_audit.analyzers._reading_error import ReadingError
from nla_audit.findings import Headline
from nla_audit.table.completions import Completions
from nla_audit.text.reading import Reading

#: Of the omission, from here on what may be said in other words is named.
_LARGE_PART = 0.1


def verdict(completions: Completions, headline: Headline) -> str:
    """A sentence for each model but the reference."""
    sentences = [
        _sentence(model, headline[model], completions.reference)
        for model in completions.models
        if model != completions.reference and "saving_tokens" in headline.get(model, {})
    ]
    return " ".join(sentences) or "There is no second model, so there is no saving to split."


def _sentence(model: str, summary: dict[str, float | None], reference: str) -> str:
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
    parts = (
        f"{model} saves {_tokens(summary, 'saving')} tokens: {_tokens(summary, 'omission')} by "
        f"omission{_unrecognised(summary)}, {_tokens(summary, 'rewording')} by terser wording"
    )
    if (summary.get("addition_tokens_high") or 0.0) < 0:
        parts += f", less {-(summary['addition_tokens'] or 0.0):.1f} spent on additions"
    lead, lead_low, lead_high = (
        summary.get(f"omission_lead_tokens{end}") for end in ("", "_low", "_high")
    )
    if lead is None or lead_low is None or lead_high is None:
        larger = "which is more is not known"
    elif lead_low > 0 or lead_high < 0:
        larger = f"more by {'omission' if lead_low > 0 else 'terser wording'}"
    elif (evening := summary.get("evening_tokens")) is not None:
        larger = (
            f"more by omission, unless {evening:.1f} or more of its tokens are said in words too "
            "different to be recognised"
        )
    else:
        nearest = lead_low if lead > 0 else lead_high
        larger = f"which is more cannot be told{_needed(summary, lead, nearest)}"
    return f"{parts}: {larger}."


def _unrecognised(summary: dict[str, float | None]) -> str:
    """How much of the omission may be said unrecognised, where that is more than a tenth of it."""
    hidden, omitted = summary["unrecognised_tokens"] or 0.0, summary["omission_tokens"] or 0.0
    if hidden < 1 or hidden < _LARGE_PART * omitted:
        return ""
    return f" (up to {hidden:.1f} of them may be said in other words)"


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
    value, low = summary[f"{part}_tokens"], summary.get(f"{part}_tokens_low")
    if low is None:
        return f"{value:.1f}"
    return f"{value:.1f} [{low:.1f}, {summary[f'{part}_tokens_high']:.1f}]"


def caveats(
    completions: Completions, reading: Reading, error: ReadingError, headline: Headline
) -> list[str]:
    """What to know before quoting the numbers."""
    found = [*completions.notes, *reading.left_out]
    if not reading.has_floor:
        found.append(
            "The table has one sample per activation, so the resampling floor is unknown: some of "
            "what counts as omission and addition is what two samples of one model differ in."
        )
    found += [*assumed_chance(reading), error.sentence()]
    for model, summary in headline.items():
        low, high = summary.get("saving_tokens_low"), summary.get("saving_tokens_high")
        if low is not None and high is not None and low <= 0 <= high:
            found.append(
                f"{model}: its length does not differ from the reference's beyond resampling, so "
                "its shares divide by almost nothing; read its tokens instead."
            )
    failed = completions.rows.filter(pl.col("explanation").is_null()).height
    if failed:
        found.append(f"{failed} failed explanations have no text and are left out here.")
    return found
