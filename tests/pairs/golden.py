"""Tiny published pairs with what their authors' own code makes of them (see the README there)."""

from __future__ import annotations

from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden"
