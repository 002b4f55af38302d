"""``nla_meta.yaml``: what a published checkpoint says about itself, whichever way it says it.

Two kinds of sidecar are in use, a *model* sidecar (``kind: nla_model``) and the *dataset*
sidecar that trainers copy beside their checkpoints (``kind: nla_dataset``), and most fields
have two names (``av``/``actor``, ``ar``/``critic``). Both become one :class:`Sidecar` here, so
that nothing above this module knows the variants. Source: docs/formats.md, the release's and
nanoNLA's sidecars.
"""

from __future__ import annotations

import math
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from nla_audit.errors import UserError
from nla_audit.nla.sidecar import Sidecar, Tokens
from nla_audit.strangers import read_yaml, shown

SIDECAR_NAME = "nla_meta.yaml"

#: The layout our own checkpoints are written in.
SCHEMA_VERSION = 2

_ROLE_NAMES: dict[str, Literal["av", "ar"]] = {
    "av": "av",
    "actor": "av",
    "ar": "ar",
    "critic": "ar",
}
_UNSCALED = ("raw", "none")
#: No width, layer or token id is this large.
_LARGEST_NUMBER = 1 << 31
#: The largest in use is 80,000 (Gemma-3-12B); beyond this float32 overflows when squared.
_LARGEST_SCALE = 1e15
_LONGEST_TEXT = 100_000
_MOST_SUFFIX_IDS = 10_000
_SQRT_D_MODEL = "sqrt_d_model"


def read_sidecar(path: Path) -> Sidecar:
    """Read a sidecar file.

    Raises:
        UserError: the file is missing, is no YAML mapping, or lacks a field that has no default.
    """
    return parse_sidecar(read_fields(path), path)


def read_fields(path: Path) -> Mapping[str, Any]:
    """The fields of a sidecar file, as they stand in it.

    Raises:
        UserError: the file is missing, or is no YAML mapping.
    """
    raw = read_yaml(path, advice="the sidecar is damaged, fetch or name another")
    if not isinstance(raw, Mapping):
        raise UserError(f"{path}: expected a mapping of fields, found {type(raw).__name__}")
    return raw


def parse_sidecar(raw: Mapping[str, Any], path: Path) -> Sidecar:
    """Turn a sidecar's fields into a :class:`Sidecar`; ``path`` serves error messages only."""
    fields = _Fields(raw, path)
    kind = fields.text("kind") or "nla_model"
    if kind not in ("nla_model", "nla_dataset"):
        raise UserError(f"{path}: kind is {shown(kind)}, expected nla_model or nla_dataset")
    role_name = fields.text("role")
    if role_name is not None and role_name not in _ROLE_NAMES:
        raise UserError(
            f"{path}: role is {shown(role_name)}, expected one of {', '.join(_ROLE_NAMES)}"
        )
    d_model = fields.whole("d_model", "extraction.d_model")
    if d_model is None or d_model <= 0:
        raise UserError(f"{path}: d_model is missing; add the width of the activations")
    injection = fields.get("extraction.injection_scale", "injection_scale")
    unscaled = isinstance(injection, str) and injection in _UNSCALED
    return Sidecar(
        path=path,
        kind=kind,
        role=_ROLE_NAMES[role_name] if role_name is not None else None,
        d_model=d_model,
        layer_index=fields.whole(
            "extraction_layer_index",
            "extraction.layer_index",
            "extraction.extraction_layer_index",
            "ar.extraction_layer_index",
            "critic.extraction_layer_index",
            # The release writes K, not K + 1, under this name (golden/released_qwen2).
            "ar.num_hidden_layers",
            "critic.num_hidden_layers",
        ),
        injection_scale=None if unscaled else fields.scale(injection, d_model, "injection_scale"),
        injection_text=fields.text("extraction.injection"),
        inject_unscaled=unscaled,
        mse_scale=_mse_scale(fields, d_model),
        tokens=_tokens(fields),
        av_template=_template(fields, "injection_char", "av", "actor"),
        ar_template=_template(fields, "explanation", "ar", "critic"),
        base_model=fields.text("base_checkpoint", "base_model", "extraction.base_model"),
        stage=fields.text("stage"),
        ar_trained_in_rl=fields.flag(
            "ar_trained_in_rl", "ar.trained_in_rl", "critic.trained_in_rl", "ar.co_trained"
        ),
        raw=raw,
    )


def _mse_scale(fields: _Fields, d_model: int) -> float | None:
    """Absent is √d_model and an explicit null is raw MSE (docs/failures.md)."""
    for name in ("extraction.mse_scale", "mse_scale"):
        if fields.has(name):
            value = fields.get(name)
            if value in _UNSCALED:
                return None
            return fields.scale(value, d_model, "mse_scale")
    return math.sqrt(d_model)


def _tokens(fields: _Fields) -> Tokens:
    char = fields.text("tokens.injection_char", "injection_char")
    token_id = fields.whole("tokens.injection_token_id", "injection_token_id")
    left = fields.whole("tokens.injection_left_neighbor_id", "injection_left_neighbor_id")
    right = fields.whole("tokens.injection_right_neighbor_id", "injection_right_neighbor_id")
    if char is None or token_id is None or left is None or right is None:
        raise UserError(
            f"{fields.path}: tokens.injection_char, injection_token_id and both neighbor ids "
            "are needed to place the vector; at least one is missing"
        )
    suffix = fields.get("tokens.critic_suffix_ids", "tokens.ar_suffix_ids") or ()
    if (
        not isinstance(suffix, list | tuple)
        or len(suffix) > _MOST_SUFFIX_IDS
        or not all(type(item) is int and 0 <= item < _LARGEST_NUMBER for item in suffix)
    ):
        raise UserError(f"{fields.path}: tokens.critic_suffix_ids must be a list of token ids")
    return Tokens(char, token_id, left, right, tuple(suffix))


def _template(fields: _Fields, placeholder: str, *roles: str) -> str | None:
    """A prompt template that has exactly the placeholder it should have."""
    names = [f"prompt_templates.{role}" for role in roles]
    template = fields.text(*names)
    if template is None:
        return None
    fault = template_fault(template, placeholder)
    if fault is not None:
        raise UserError(f"{fields.path}: {names[0]} {fault}")
    return template


def template_fault(template: str, placeholder: str) -> str | None:
    """What is wrong with a template that should have one placeholder; ``None``: nothing is."""
    try:
        # With format and conversion: "{explanation:>9999999999}" would fill the memory.
        fields_found = [
            (name, spec, conversion)
            for _, name, spec, conversion in string.Formatter().parse(template)
            if name is not None
        ]
    except ValueError as error:
        return f"is no valid template ({error})"
    if fields_found == [(placeholder, "", None)]:
        return None
    found = [f"{name}:{spec}" if spec else name for name, spec, _ in fields_found]
    return f"must contain {{{placeholder}}} once and no other placeholder, found {found}"


class _Fields:
    """Look-up by dotted name, first of several names, with the type checked."""

    def __init__(self, raw: Mapping[str, Any], path: Path) -> None:
        self.raw = raw
        self.path = path

    def _find(self, name: str) -> tuple[bool, Any]:
        value: Any = self.raw
        for part in name.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return False, None
            value = value[part]
        return True, value

    def has(self, name: str) -> bool:
        return self._find(name)[0]

    def get(self, *names: str) -> Any:
        """The first of ``names`` that is present and not null."""
        for name in names:
            value = self._find(name)[1]
            if value is not None:
                return value
        return None

    def _typed(self, kind: type, words: str, names: tuple[str, ...]) -> Any:
        value = self.get(*names)
        if value is None:
            return None
        wrong_bool = isinstance(value, bool) and kind is not bool
        if wrong_bool or not isinstance(value, kind):
            raise UserError(f"{self.path}: {names[0]} must be {words}, found {shown(value)}")
        return value

    def text(self, *names: str) -> str | None:
        value = self._typed(str, "text", names)
        if value is not None and len(value) > _LONGEST_TEXT:
            raise UserError(
                f"{self.path}: {names[0]} is {len(value):,} characters long, far more than can be "
                "meant"
            )
        return value

    def whole(self, *names: str) -> int | None:
        """The first of ``names`` that is there; what stands under the others must be one too."""
        found = []
        for name in names:
            value = self._typed(int, "a whole number", (name,))
            if value is None:
                continue
            if not 0 <= value < _LARGEST_NUMBER:
                raise UserError(
                    f"{self.path}: {name} must be a whole number from 0 to "
                    f"{_LARGEST_NUMBER - 1:,}, found {shown(value)}"
                )
            found.append(value)
        return found[0] if found else None

    def flag(self, *names: str) -> bool | None:
        return self._typed(bool, "true or false", names)

    def scale(self, value: Any, d_model: int, name: str) -> float | None:
        """A norm: a positive number, ``sqrt_d_model``, or null."""
        if value is None:
            return None
        if value == _SQRT_D_MODEL:
            return math.sqrt(d_model)
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not 0 < number < _LARGEST_SCALE:
            raise UserError(f"{self.path}: {name} must be a positive number, found {shown(value)}")
        return number
