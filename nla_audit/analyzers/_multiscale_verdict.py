"""What FVE by prefix says in words, computed from the headline alone."""

from __future__ import annotations

from collections.abc import Mapping

from nla_audit.findings import Headline

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
