"""Output that is whole or not there, from one run at a time, and one line where a disk is full.

Everything is written under a temporary name beside its place and then renamed, through symbolic
links. What a killed run leaves under such names goes when the next run locks the same output.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nla_audit.errors import UserError
from nla_audit.unicode_form import well_formed

if TYPE_CHECKING:
    import polars as pl

#: Where libraries define the errors in which they wrap those of the system: a full disk is no
#: ``OSError`` to polars, whose panics are not even ``Exception``, to safetensors or to SQLite.
_LIBRARIES = ("polars", "pyo3_runtime", "safetensors", "safetensors_rust", "sqlite3")
#: What keeps any further byte from being written, wherever that is tried.
_FULL = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EIO})
_FULL_IN_WORDS = re.compile(
    r"no space left on device|file too large|disk quota exceeded|disk is full|disk I/O error"
    r"|read-only file system|no usable temporary directory|\bos error (?:28|27|122|30)\b",
    re.IGNORECASE,
)
#: ``.NAME.writing-ab12cd34``, a file or folder on its way; ``.NAME.former-ab12cd34``, what it is
#: about to replace.
_WRITING, _FORMER = "writing", "former"
_TEMPORARY = re.compile(rf"\.(?P<name>.+)\.(?P<kind>{_WRITING}|{_FORMER})-[0-9a-f]{{8}}")

#: ``.NAME.partial-HASH``, a folder that is filled in several attempts.
_PARTIAL = "partial"
_HASH = re.compile(r"[0-9a-f]{16}")

#: Folders below an output in which anything of ours lies: ``rl/p0.01/av`` of a training run.
_DEEPEST = 4


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn whatever keeps ``path`` from being written into one line.

    Raises:
        UserError: it cannot be written.
    """
    try:
        yield
    except BaseException as error:  # a panic of polars is no Exception
        reason = _reason(error)
        if reason is None:
            raise
        raise _cannot_write(path, reason) from None


@contextmanager
def room(path: Path) -> Iterator[None]:
    """As :func:`writing`, but for a full disk alone: where a network's errors may come as well.

    Raises:
        UserError: there is no room for ``path``.
    """
    try:
        yield
    except Exception as error:
        reason = full_disk(error)
        if reason is None:
            raise
        raise _cannot_write(path, reason) from None


def _cannot_write(path: Path, reason: str) -> UserError:
    what = "free some space or choose" if _FULL_IN_WORDS.search(reason) else "choose"
    return UserError(
        f"{path}: cannot write ({reason}): {what} another place, then run the same command again"
    )


def full_disk(error: BaseException) -> str | None:
    """Why nothing more could be written, where that is what ``error`` or its cause says."""
    seen: BaseException | None = error
    while seen is not None:
        words = _FULL_IN_WORDS.search(str(seen))
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return os.strerror(seen.errno or 0)
        if words is not None:
            return words.group()
        seen = seen.__cause__ or seen.__context__
    return None


def _reason(error: BaseException) -> str | None:
    """What ``error`` says of a file, in one line; ``None`` where it is of another kind."""
    if isinstance(error, OSError):
        return error.strerror or str(error).strip() or type(error).__name__
    if type(error).__module__.partition(".")[0] in _LIBRARIES:
        return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    # Of tokenizers, for one, which raises a bare Exception.
    return None if isinstance(error, UserError) else full_disk(error)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name to write to; the file becomes ``path`` when the block ends well.

    Raises:
        UserError: it cannot be written; a file that was there before is untouched.
    """
    place = real(path)
    with writing(path):
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = temporary_name(place)
        try:
            yield partial
            os.replace(partial, place)
        finally:
            with suppress(OSError):
                partial.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``path``, new or empty so far, when the block ends well.

    Raises:
        UserError: there is something already, or it cannot be written.
    """
    place = real(path)
    with writing(path):
        must_be_new(path)
        partial = temporary_name(place)
        try:
            partial.mkdir(parents=True)
            yield partial
            os.replace(partial, place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def resumable_folder(path: Path, holds: str) -> Iterator[Path]:
    """A folder that becomes ``path``, new or empty so far, when the block ends well.

    Where the block fails the folder stays, and the next block for the same ``path`` and ``holds``
    gets it again; one that ends well removes those that were to hold something else.

    Args:
        path: the output.
        holds: everything that decides what the folder holds when it is whole.

    Raises:
        UserError: there is something already, or it cannot be written.
    """
    place = real(path)
    stem = f".{place.name}.{_PARTIAL}-"
    partial = place.with_name(stem + hashlib.sha256(holds.encode()).hexdigest()[:16])
    with writing(path):
        must_be_new(path)
        partial.mkdir(parents=True, exist_ok=True)
    yield partial
    with writing(path):
        os.replace(partial, place)
    for entry in place.parent.iterdir():
        if entry.name.startswith(stem) and _HASH.fullmatch(entry.name.removeprefix(stem)):
            _delete(entry)


def must_be_new(path: Path) -> None:
    """Refuse an output folder in which something lies.

    Raises:
        UserError: it does.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: exists already: name another folder")


def write_json(value: Mapping[str, Any], path: Path) -> None:
    """Write ``value`` as indented JSON.

    Raises:
        UserError: it cannot be written; a file that was there before is untouched.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Write ``frame`` as Parquet.

    Raises:
        UserError: it cannot be written; a file that was there before is untouched.
    """
    with whole_file(path) as partial:
        frame.write_parquet(partial)


def must_be_parquet(path: Path, what: str) -> None:
    """Refuse an output that no Parquet file could be: said before the work, not after it.

    Args:
        what: will be written, in the plural.

    Raises:
        UserError: a folder, or a name that readers would not take for Parquet, or cannot be given.
    """
    if path.is_dir():
        raise UserError(
            f"{path}: is a folder, and {what} are written as one Parquet file: name a file in it"
        )
    if path.suffix.lower() != ".parquet":
        raise UserError(f"{path}: {what} are written as Parquet: end the name in .parquet")
    if well_formed(str(path)) != str(path):
        raise UserError(
            f"{well_formed(str(path))}: not a UTF-8 name, and no Parquet file can be written "
            "there: choose another place"
        )


def write_text(path: Path, text: str) -> None:
    """UTF-8 with ``\\n`` on every system, so that the bytes are the same everywhere.

    A file's name need not be UTF-8, and is named in reports: its bytes are written as escapes.

    Raises:
        UserError: it cannot be written.
    """
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_into(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write several files into ``folder``, by relative name; other files in it stay.

    All are written before any takes its name. The last takes it last: let it be the record, so
    that a folder without one was not finished.

    Raises:
        UserError: one cannot be written; then none is there, or the former ones are.
    """
    place = real(folder)
    if not place.exists():
        with whole_folder(folder) as partial:
            for name, content in contents.items():
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                (partial / name).write_bytes(content)
        return [folder / name for name in contents]
    staged: dict[Path, Path] = {}
    with writing(folder):
        try:
            for name, content in contents.items():
                target = real(place / name)
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = temporary_name(target)
                staged[partial] = target
                partial.write_bytes(content)
            for partial, target in staged.items():
                os.replace(partial, target)
        finally:
            for partial in staged:
                with suppress(OSError):
                    partial.unlink()
    return [folder / name for name in contents]


def real(path: Path) -> Path:
    """Where ``path`` leads: an output that is a symbolic link is written through."""
    return Path(os.path.realpath(path))


def temporary_name(place: Path, kind: str = _WRITING) -> Path:
    """A name beside ``place`` that no other run uses, and that the next one knows as left over."""
    return place.with_name(f".{place.name}.{kind}-{secrets.token_hex(4)}")


def former_name(place: Path) -> Path:
    """Where what is at ``place`` lies for the moment in which something else takes its place."""
    return temporary_name(place, _FORMER)


@contextmanager
def only_run(out: Path) -> Iterator[None]:
    """While the block runs no other run of ours writes to ``out``, a file or a folder.

    The lock is the system's, on a file beside ``out``, so that it goes with its process however
    that ends. What a killed run left under temporary names is cleaned up first.

    Raises:
        UserError: another run writes there, or nothing can be written there.
    """
    place = real(out)
    missing = [folder for folder in place.parents if not folder.exists()]
    try:
        with writing(out):
            place.parent.mkdir(parents=True, exist_ok=True)
            descriptor, lock = _locked(out, place)
        try:
            with writing(out):
                _sweep(place)
            yield
        finally:
            # In this order: who opened the file meanwhile finds its name gone, and makes another.
            with suppress(OSError):
                lock.unlink()
            os.close(descriptor)
    finally:
        with suppress(OSError):  # of a run that wrote nothing
            for folder in missing:
                folder.rmdir()


def _locked(out: Path, place: Path) -> tuple[int, Path]:
    """A locked file beside ``place``; inside of it where a folder lies in a forbidden one."""
    lock = place.parent / f".{place.name}.lock"
    while True:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except PermissionError:
            if lock.parent == place or not place.is_dir():
                raise
            lock = place / ".lock"
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                return descriptor, lock
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(
                f"{out}: another run writes there: wait for its end, or choose another place"
            ) from None
        except FileNotFoundError:  # the run that had it has just ended
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _sweep(place: Path) -> None:
    """Delete what killed runs left; put back what one had just moved away."""
    beside = [entry for entry in place.parent.iterdir() if _name_in(entry) == place.name]
    for entry in beside:
        found = _TEMPORARY.fullmatch(entry.name)
        if found is not None and found["kind"] == _FORMER and not place.exists():
            os.replace(entry, place)
        else:
            _delete(entry)
    for folder, folders, files in os.walk(place):
        if len(Path(folder).relative_to(place).parts) >= _DEEPEST:
            folders.clear()
        for name in [name for name in (*folders, *files) if _TEMPORARY.fullmatch(name)]:
            _delete(Path(folder, name))


def _name_in(entry: Path) -> str | None:
    """Whose temporary name ``entry`` bears."""
    found = _TEMPORARY.fullmatch(entry.name)
    return None if found is None else found["name"]


def _delete(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with suppress(OSError):
            entry.unlink()
