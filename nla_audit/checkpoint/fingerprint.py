"""Hashes of the files a model was loaded from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nla_audit.checkpoint import suffixes
from nla_audit.files import sha256_of


def file_hashes(paths: Iterable[Path]) -> list[dict[str, str]]:
    """SHA-256 of each file in ``paths`` and in the folders among them (not below these).

    All that is fetched of a checkpoint is hashed, its code included: what it computes may change
    with any of it.

    Returns:
        One ``{"file": "<folder>/<file>", "sha256": …}`` a file, in order of ``paths`` and name.
        Only the folder's own name is kept, so that the same checkpoint has the same entry
        wherever it lies.
    """
    files: list[Path] = []
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        files += [
            file
            for file in inside
            if file.is_file() and file.suffix in suffixes.ALL and file not in files
        ]
    return [
        {"file": f"{file.parent.name}/{file.name}", "sha256": sha256_of(file)} for file in files
    ]
