"""What the tests of reading tables share: rows, files of them, and what a refusal is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nla_audit.errors import UserError
from nla_audit.table.completions import Completions, load

ROW = {"model": "a", "idx": 0, "explanation": "x"}


def refused(path: Path, *words: str) -> str:
    """The one line with which ``path`` is refused, which names it and holds ``words``."""
    with pytest.raises(UserError) as caught:
        load([path])
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    for word in words:
        assert word in line
    return line


def same_rows(one: Completions, other: Completions) -> bool:
    return one.rows.equals(other.rows) and one.models == other.models


def json_lines(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path
