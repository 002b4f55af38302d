"""One file a question. Each registers a function from completions to a Finding."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nla_audit.findings import Card


def registry() -> dict[str, Card]:
    """All analyzers in the order of the report: every module here that is not a shared helper."""
    from nla_audit.findings import registered  # `--help` lists files only

    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}")
    return registered()
