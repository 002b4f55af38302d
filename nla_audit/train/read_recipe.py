"""Read a recipe from YAML, and say in one line what is wrong with it."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from nla_audit.errors import UserError
from nla_audit.strangers import read_yaml, shown
from nla_audit.train.recipe import Recipe


def read_recipe(path: Path) -> Recipe:
    """The recipe in ``path``.

    Raises:
        UserError: no such file, no YAML, an unknown key (with the nearest known one), or a value
            that cannot be; the first problem is named with its place.
    """
    raw = read_yaml(path, advice="mend the recipe, or name another")
    return parse_recipe(raw, str(path))


def parse_recipe(raw: Any, where: str) -> Recipe:
    """Validate plain data; ``where`` begins error messages."""
    if not isinstance(raw, dict):
        raise UserError(f"{where}: expected a mapping of settings, found {type(raw).__name__}")
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        problems = error.errors()
        # An unknown key is often the cause of a missing one, so it is told first.
        first = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{where}: {_sentence(first)}{more}") from None


def _sentence(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _known_keys(problem["loc"][:-1])
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


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the section at ``location`` takes."""
    section: type[BaseModel] = Recipe
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
