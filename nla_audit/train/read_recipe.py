"""Read a recipe from YAML, and say in one line what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nla_audit.errors import UserError
from nla_audit.strangers import read_yaml
from nla_audit.train.complaints import complaint
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
        raise UserError(f"{where}: {complaint(error, Recipe)}") from None
