"""What a checkpoint is known by: any file that can change what it computes."""

from __future__ import annotations

from pathlib import Path

import pytest

from nla_audit.checkpoint import suffixes
from nla_audit.checkpoint.fingerprint import file_hashes


@pytest.mark.parametrize("suffix", suffixes.ALL)
def test_whatever_is_fetched_is_hashed(suffix: str, tmp_path: Path) -> None:
    """Remote code and a table of whitening parameters as much as weights."""
    file = tmp_path / f"part{suffix}"
    file.write_bytes(b"before")
    before = file_hashes([tmp_path])
    file.write_bytes(b"after")
    assert [entry["file"] for entry in before] == [f"{tmp_path.name}/{file.name}"]
    assert file_hashes([tmp_path]) != before


def test_what_is_not_fetched_is_not_hashed(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("A card says nothing of what is computed.")
    assert file_hashes([tmp_path]) == []
