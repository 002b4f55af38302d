"""What a path holds, and which of its files belong on the Hub.

Only files that a reader needs go up, and only checkpoints that can be loaded: no pickles, no
optimizer states, no half a checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nla_audit.checkpoint import suffixes
from nla_audit.errors import UserError
from nla_audit.record import record_path
from nla_audit.report.folder import RECORD, WRITTEN_BY
from nla_audit.table.readers import SUFFIXES as TABLE_SUFFIXES

Kind = Literal["completions", "pair", "report"]
RepositoryType = Literal["model", "dataset"]

#: Endings of the files that a pair, a table or a report consists of.
PUBLIC_SUFFIXES = (
    *TABLE_SUFFIXES,
    *suffixes.DATA,
    ".md",
    ".html",
    ".svg",
    ".png",
)
CARD = "README.md"
#: How deep below a pair's folder its checkpoints may lie: ``rl-lora/p0.006``.
_DEPTH = 2
_HELP = "name a table of completions, a checkpoint, a folder of checkpoints, or a report"


@dataclass(frozen=True)
class Contents:
    """What there is to publish.

    Attributes:
        kind: what it is.
        root: the file or folder that was named.
        files: path in the repository → file here, in order of path; without the card.
        checkpoints: for a pair, the folders of its checkpoints, relative to ``root``.
        left_out: what stays here, as sentences.
    """

    kind: Kind
    root: Path
    files: dict[str, Path]
    checkpoints: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def repository_type(self) -> RepositoryType:
        """Pairs are models on the Hub; tables and reports are data sets."""
        return "model" if self.kind == "pair" else "dataset"


def contents_of(path: Path, *, with_base: bool = False) -> Contents:
    """Recognise what ``path`` holds.

    Args:
        with_base: also take plain language models that lie among a pair's checkpoints.

    Raises:
        UserError: nothing there, nothing that can be published, or a damaged checkpoint.
    """
    if path.is_file():
        if path.suffix.lower() not in TABLE_SUFFIXES:
            raise UserError(f"{path}: not a table ({', '.join(TABLE_SUFFIXES)}): {_HELP}")
        return _tables(path, [path])
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder: check the path")
    record = _report_record(path)
    if record is not None:
        return _report(path, record)
    folders = _checkpoint_folders(path)
    if folders:
        return _pair(path, folders, with_base)
    tables = sorted(file for file in path.iterdir() if file.suffix.lower() in TABLE_SUFFIXES)
    if tables:
        return _tables(path, tables)
    raise UserError(f"{path}: nothing to publish in this folder: {_HELP}")


def table_paths(contents: Contents) -> dict[str, Path]:
    """The tables among the files of completions: path in the repository → file."""
    return {
        name: file for name, file in contents.files.items() if file.suffix.lower() in TABLE_SUFFIXES
    }


def read_record(table: Path) -> dict[str, Any] | None:
    """The record that the command which wrote ``table`` left beside it, if there is one."""
    path = record_path(table)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _tables(root: Path, tables: list[Path]) -> Contents:
    files = {}
    for table in tables:
        files[table.name] = table
        record = record_path(table)
        if record.is_file():
            files[record.name] = record
    return Contents("completions", root, dict(sorted(files.items())))


def _report_record(folder: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    written = isinstance(record, dict) and record.get("written_by") == WRITTEN_BY
    return record if written else None


def _report(folder: Path, record: dict[str, Any]) -> Contents:
    names = sorted(str(name) for name in record.get("files", []))
    outside = [name for name in names if ".." in Path(name).parts or Path(name).is_absolute()]
    if outside:
        raise UserError(f"{folder}: {RECORD} names {outside[0]}, which is not in this folder")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: {missing[0]} is missing from the report: write it again")
    others = sum(path.is_file() for path in folder.rglob("*")) - len(names)
    left_out = (f"{others} files that are not of the report",) if others > 0 else ()
    return Contents("report", folder, {name: folder / name for name in names}, (), left_out)


def _checkpoint_folders(root: Path) -> list[Path]:
    """The folders at or below ``root`` that hold a checkpoint, whole or not."""
    from nla_audit.checkpoint.find_pair import is_checkpoint  # few uploads are pairs

    if is_checkpoint(root):
        return [root]
    found: list[Path] = []
    level = [root]
    for _ in range(_DEPTH):
        below = [child for folder in level for child in sorted(folder.iterdir()) if child.is_dir()]
        below = [child for child in below if not child.name.startswith(".")]
        found += [child for child in below if is_checkpoint(child)]
        level = [child for child in below if child not in found]
    return sorted(found)


def _pair(root: Path, folders: list[Path], with_base: bool) -> Contents:
    from nla_audit.checkpoint.formats import recognise
    from nla_audit.checkpoint.read_sidecar import SIDECAR_NAME

    files: dict[str, Path] = {}
    checkpoints, left_out = [], []
    for folder in folders:
        name = folder.relative_to(root).as_posix()
        if recognise(folder).role is None and not with_base:
            left_out.append(f"{name}: a plain language model (--with-base to publish it too)")
            continue
        checkpoints.append(name)
        for file in sorted(entry for entry in folder.iterdir() if entry.is_file()):
            place = file.relative_to(root).as_posix()
            if file.suffix in PUBLIC_SUFFIXES and file.name != CARD:
                files[place] = file
            elif file.name != CARD:
                left_out.append(f"{place}: not needed to load the checkpoint")
        for above in folder.parents:
            if above == root.parent or folder == root:
                break
            if (above / SIDECAR_NAME).is_file():
                files[(above / SIDECAR_NAME).relative_to(root).as_posix()] = above / SIDECAR_NAME
    if not checkpoints:
        raise UserError(
            f"{root}: no half of an NLA here, only {left_out[0].split(' (')[0]}: {_HELP}"
        )
    return Contents("pair", root, dict(sorted(files.items())), tuple(checkpoints), tuple(left_out))
