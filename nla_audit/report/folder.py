"""A report folder appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nla_audit.errors import UserError
from nla_audit.files import former_name, real, temporary_name, writing

RECORD = "record.json"
#: Written into the record, and how a former report of ours is told from a stranger's folder.
WRITTEN_BY = "nla-audit audit"


@contextmanager
def replaced_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that takes its place when the block ends well.

    Files that the user added to a former report stay; those that the former report wrote go.
    When the block fails or is interrupted ``out`` is as it was before.

    Raises:
        UserError: ``out`` is a file, holds something that is no report of ours, or it or the
            folder above cannot be written.
    """
    out = real(out)
    former = _former_files(out)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(out)
        temporary.mkdir()
    try:
        yield temporary
        with writing(out):
            _swap(temporary, out, former)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _former_files(out: Path) -> set[str]:
    """What a former report wrote in ``out``; empty for a new or empty folder."""
    try:
        if not os.path.lexists(out):
            return set()
        if not out.is_dir():
            raise UserError(f"{out} is a file; choose a folder for --out")
        if os.path.ismount(out):
            raise UserError(f"{out} is a mount point; choose a folder inside it for --out")
        if not os.access(out, os.W_OK | os.X_OK):
            raise UserError(f"cannot write {out}: permission denied; choose another --out")
        if not any(out.iterdir()):
            return set()
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
        if record["written_by"] == WRITTEN_BY:
            return {str(name) for name in record["files"]}
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            raise UserError(f"cannot read {out}: {error.strerror}; choose another --out") from None
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{out} holds files that are no report of nla-audit; choose an empty --out")


def _swap(temporary: Path, out: Path, former: set[str]) -> None:
    if not out.exists():
        temporary.rename(out)
        return
    extras = [
        path.relative_to(out)
        for path in sorted(out.rglob("*"))
        if not path.is_dir() and path.relative_to(out).as_posix() not in former
    ]
    clash = [name.as_posix() for name in extras if (temporary / name).exists()]
    if clash:
        raise UserError(f"{out} holds {clash[0]}, which is not of the former report; move it away")
    previous = former_name(out)
    out.rename(previous)
    try:
        temporary.rename(out)
    except BaseException:
        previous.rename(out)
        raise
    for name in extras:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(previous / name, out / name)
    shutil.rmtree(previous)
