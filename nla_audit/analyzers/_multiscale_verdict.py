"""What FVE by prefix says in words: the verdict, and what to know before quoting it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nla_audit.analyzers._curve_numbers import LEVELS, TO_SHARE
from nla_audit.analyzers._curve_studies import Study
from nla_audit.findings import Headline
from nla_audit.table.completions import Completions
from nla_audit.table.prefix_table import PrefixTable

HURTS, NO_MATTER, CANNOT_TELL = "hurts", "costs nothing that matters", "cannot tell"
MORE, LESS = "more front-loaded", "less front-loaded"

_Numbers = Mapping[str, float | None]


def reading_on(numbers: _Numbers, margin: float) -> str | None:
    """Whether a model writes on where it no longer helps; ``None`` where nothing is known.

    Of means alone the loss is compared with the margin; else its interval decides.
    """
    loss, low, high = (numbers.get(f"lost_after_peak{end}") for end in ("", "_low", "_high"))
    if loss is None:
        return None
    if low is None or high is None:
        if numbers.get("is_means") != 1.0:
            return CANNOT_TELL
        return HURTS if loss > margin else NO_MATTER
    if low > 0:
        return HURTS
    return NO_MATTER if high <= margin else CANNOT_TELL


def front_loading(numbers: _Numbers) -> str | None:
    """A model's area against the reference's; ``None`` where they are not compared."""
    low, high = (numbers.get(f"area_change{end}") for end in ("_low", "_high"))
    if numbers.get("area_change") is None:
        return None
    if low is None or high is None or low <= 0 <= high:
        return CANNOT_TELL
    return MORE if low > 0 else LESS


def verdict(headline: Headline, reference: str, margin: float) -> str:
    """A sentence for each model, and what is compared with the reference."""
    silent = [name for name, numbers in headline.items() if numbers.get("peak_tokens") is None]
    parts = [
        sentence(model, numbers, margin)
        for model, numbers in headline.items()
        if model not in silent
    ]
    if silent:
        whose = "any model" if len(silent) == len(headline) else _listed(silent)
        parts.append(
            f"FVE by prefix in tokens is not known of {whose}, so that it cannot be told how much "
            "first tokens carry (score --prefixes measures it)."
        )
    compared = {
        model: front_loading(numbers)
        for model, numbers in headline.items()
        if model != reference and front_loading(numbers) is not None
    }
    for answer in (MORE, LESS):
        models = [model for model, found in compared.items() if found == answer]
        if models:
            word = "is" if len(models) == 1 else "are"
            parts.append(f"Against {reference}, {_listed(models)} {word} {answer}.")
    unknown = [model for model, found in compared.items() if found == CANNOT_TELL]
    if unknown:
        parts.append(
            f"Whether {_listed(unknown)} {'is' if len(unknown) == 1 else 'are'} more or less "
            f"front-loaded than {reference}: cannot tell."
        )
    return " ".join(parts)


def sentence(model: str, numbers: _Numbers, margin: float) -> str:
    """What is said of a model whose FVE by prefix is known."""
    levels = ", ".join(
        f"{name} {_after(numbers.get(key))}"
        for key, name in (
            ("tokens_to_fve_0", "FVE 0"),
            ("tokens_to_fve_half", "0.5"),
            ("tokens_to_80_percent", "80 % of its full FVE"),
        )
    )
    best, peak = numbers["peak_tokens"], numbers["peak_fve"]
    area = numbers.get("area")
    loaded = "" if area is None else f" (area {area:.2f})"
    return (
        f"{model}: {levels}{loaded}; best at {best:.0f} tokens ({peak:.3f})"
        f"{_at_full_length(numbers, margin)}."
    )


def _at_full_length(numbers: _Numbers, margin: float) -> str:
    if numbers["full_tokens"] is None:
        return ", but none of its texts was read to its end"
    tokens, full = numbers["full_tokens"], numbers["full_fve"]
    return f", at full length ({tokens:.0f}) {full:.3f}{_on(numbers, margin)}"


def _on(numbers: _Numbers, margin: float) -> str:
    answer, loss = reading_on(numbers, margin), numbers.get("lost_after_peak")
    if numbers["peak_tokens"] == numbers["full_tokens"]:
        return ": it is best read whole"
    if answer == HURTS:
        return f": it writes on where it no longer helps, which costs {loss:.3f}"
    if answer == NO_MATTER:
        return f": what it writes after that costs no more than {margin:g}"
    return ": cannot tell whether what it writes after that costs anything" if answer else ""


def _after(tokens: float | None) -> str:
    if tokens is None:
        return "never"
    return f"after {tokens:.0f} token{'' if tokens == 1 else 's'}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def caveats(
    table: Completions | PrefixTable,
    curves: PrefixTable | None,
    studies: Mapping[str, Study],
) -> list[str]:
    """What the curves stand on."""
    caveats = list(table.notes)
    if curves is None:
        caveats.append(
            "The table has no FVE by prefix, so that only texts are judged here: give --pair and "
            "--activations, or the table that `nla-audit score --prefixes` writes."
        )
    elif curves is not table:
        caveats += curves.notes
    if curves is not None:
        named = curves.fve_baseline or "not named in the table"
        caveats.append(
            f"FVE is by one ruler ({curves.ar or 'not named in the table'}), its baseline "
            f"{named}; two are in use that differ by about 10 points."
        )
    means = [model for model, study in studies.items() if study.curve.is_means]
    if means:
        caveats.append(
            f"Means alone, so that no interval is possible and nothing is paired: "
            f"{', '.join(means)}. Whether they differ cannot be told."
        )
    for model, study in studies.items():
        caveats += _of_curve(model, study)
    return caveats


def _of_curve(model: str, study: Study) -> list[str]:
    curve, caveats = study.curve, []
    if curve.is_means and not curve.knows_length:
        caveats.append(
            f"{model}: the mean length of its texts is not known; its area is over that of the "
            "longest, which flatters it."
        )
    gaps = np.diff(curve.lengths)
    if len(gaps) and gaps.max() > 1:
        caveats.append(
            f"{model}: read at {len(curve.lengths)} lengths of 1 to {curve.lengths[-1]} tokens; a "
            "number of tokens is the first of these at which the level is reached."
        )
    if curve.left_out:
        caveats.append(
            f"{model}: {curve.left_out} lengths at which few texts were read are not in its curve."
        )
    if curve.interpolated:
        caveats.append(
            f"{model}: {curve.interpolated} values lie between two lengths at which the text was "
            "read, and are interpolated."
        )
    unread = int(np.isnan(curve.full).sum())
    if unread and not curve.is_means:
        caveats.append(f"{model}: {unread} activations whose whole text was not read.")
    for name in (*LEVELS, TO_SHARE):
        share = study.numbers.reached.get(name, 1.0)
        if 0 < share < 1 and study.numbers.limits.get(name) is None:
            caveats.append(
                f"{model}: {name} is reached in {share:.0%} of the bootstrap's curves, so that "
                "its interval has no end."
            )
    return caveats
