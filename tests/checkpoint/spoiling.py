"""Files of a checkpoint to be spoiled, and how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ONE_LINE = r"^[^\n]*$"


def rewrite(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)  # the original is linked
    path.write_text(text, encoding="utf-8")


def changed(path: Path, **fields: Any) -> None:
    rewrite(path, json.dumps({**json.loads(path.read_text(encoding="utf-8")), **fields}))
