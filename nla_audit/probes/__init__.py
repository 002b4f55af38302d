"""Questions that an AR answers about changed texts: one file each, or a folder where it takes more.

A folder's question is registered by its ``card.py``; ``transforming/`` and ``transforms/`` hold
the changes of texts, and ``causal/`` what questions about edited texts of a table share.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nla_audit.findings import Card


def registry() -> dict[str, Card]:
    """All probes: every file here that is no shared helper, and every folder with a card."""
    from nla_audit.findings import registered_probes  # `--help` lists files only

    for module in pkgutil.iter_modules(__path__):
        name = f"{__name__}.{module.name}"
        if module.ispkg:
            name += ".card"
            if importlib.util.find_spec(name) is None:
                continue
        if not module.name.startswith("_"):
            importlib.import_module(name)
    return registered_probes()
