"""What a recipe says of who generates: our own loop, or vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from nla_audit.errors import UserError
from nla_audit.nla.vllm_settings import VllmSettings

EngineName = Literal["own", "vllm"]


def check_engine_options(section: str, engine: EngineName, options: Mapping[str, Any]) -> None:
    """Refuse options of vLLM that nobody reads, or that are not the user's to set.

    Args:
        section: of the recipe, where ``engine`` and ``engine_options`` stand.

    Raises:
        ValueError: as pydantic wants it.
    """
    if options and engine == "own":
        raise ValueError(f"{section}.engine_options are for {section}.engine: vllm")
    try:
        VllmSettings(1, options)
    except UserError as error:
        raise ValueError(f"{section}.engine_options: {error}") from None
