"""What is wrong with a recipe, in one line that names the place."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from nla_audit.strangers import shown


def complaint(error: ValidationError, root: type[BaseModel], above: str = "") -> str:
    """The first problem of ``error``, and how many more there are.

    Args:
        root: the section that was validated.
        above: where that stands in the recipe, with a dot behind it.
    """
    problems = error.errors()
    # An unknown key is often the cause of a missing one, so it is told first.
    first = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{_sentence(first, root, above)}{more}"


def _sentence(problem: Any, root: type[BaseModel], above: str) -> str:
    place = above + ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _known_keys(problem["loc"][:-1], root)
        near = get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        return f"unknown key {place}; {hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        return f"{place} is missing; add it"
    if problem["type"] == "value_error":
        return message
    message = message[0].lower() + message[1:]
    return f"{place}: {message}, found {shown(problem['input'])}"


def _known_keys(location: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    """The keys that the section at ``location`` takes."""
    section = root
    for part in location:
        field = section.model_fields.get(str(part))
        if field is None:
            break
        options = [field.annotation, *get_args(field.annotation)]
        section = next(
            (one for one in options if isinstance(one, type) and issubclass(one, BaseModel)),
            section,
        )
    return list(section.model_fields)
