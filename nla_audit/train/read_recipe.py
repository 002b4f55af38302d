"""Read a recipe from YAML, and say in one line what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nla_audit.errors import UserError
from nla_audit.strangers import parse_yaml, read_yaml
from nla_audit.train.complaints import complaint
from nla_audit.train.recipe import Recipe


def read_recipe(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """The recipe in ``path``.

    Args:
        settings: ``KEY=VALUE`` each, put in the place of what the file says: a dotted key, as
            ``rl.steps``, and a value as YAML has it.

    Raises:
        UserError: no such file, no YAML, an unknown key (with the nearest known one), or a value
            that cannot be; the first problem is named with its place.
    """
    raw = read_yaml(path, advice="mend the recipe, or name another")
    for setting in settings:
        _put(raw, setting)
    return parse_recipe(raw, str(path))


def _put(raw: Any, setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not (key and equals):
        raise UserError(f"--set {setting}: write KEY=VALUE, as --set rl.steps=10")
    value = parse_yaml(text, f"--set {setting}", advice="quote the value")
    *sections, name = key.split(".")
    inner = raw
    for section in sections:
        inner = _below(inner, setting).setdefault(section, {})
    _below(inner, setting)[name] = value


def _below(section: Any, setting: str) -> dict[str, Any]:
    if not isinstance(section, dict):
        raise UserError(f"--set {setting}: the recipe has no sections at this place")
    return section


def parse_recipe(raw: Any, where: str) -> Recipe:
    """Validate plain data; ``where`` begins error messages."""
    if not isinstance(raw, dict):
        raise UserError(f"{where}: expected a mapping of settings, found {type(raw).__name__}")
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{where}: {complaint(error, Recipe)}") from None
