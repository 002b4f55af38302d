"""Where tables lie, and how each is opened: files, folders, pipes, the Hub; packed or not.

Whatever a table came as, what its reader gets is one local file of one known format, in UTF-8
where it is text. A stream, a packed file or another encoding is first copied into a temporary
file.
"""

from __future__ import annotations

import codecs
import glob
import hashlib
import os
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import IO
from urllib.parse import unquote

from nla_audit import hub
from nla_audit.errors import UserError
from nla_audit.local_copies import (
    MARKS,
    PACKED,
    PIECE,
    as_utf8,
    holds,
    start_of,
    temporary,
    unpacked,
    with_line_feeds,
)
from nla_audit.unicode_form import composed, half_pair

#: File name suffix → format.
SUFFIXES = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
}
#: Suffix of a packed file, which stands after that of its format.
PACKED_SUFFIXES = (".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz")
#: Endings of the names of files that are taken for tables in a folder.
ENDINGS = (*SUFFIXES, *(suffix + packed for suffix in SUFFIXES for packed in PACKED_SUFFIXES))
_FORMATS = ", ".join(SUFFIXES)
_STREAMS = ("-", "/dev/stdin")
#: How addresses in object storage begin, which polars scans where they are.
_CLOUD = ("s3://", "s3a://", "gs://", "gcs://", "az://", "azure://", "abfs://", "abfss://")
#: Partition value by which writers of partitioned folders say null.
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
#: A stream is copied before it is read, and may have no end.
_MOST_STREAMED = 16 << 30
_ZIP = b"PK\x03\x04"
#: First bytes of what is no table → what it is, and what to do.
_FOREIGN = {
    _ZIP: "a zip archive: unpack it, and name the table in it",
    b"\x93NUMPY": "an array of NumPy, without names of columns: write a table",
    b"SQLite format 3": "a database of SQLite: export the table as Parquet or CSV",
    b"ARROW1": "an Arrow file: write it as Parquet",
    b"\x89HDF": "an HDF5 file: write the table as Parquet or CSV",
    b"Obj\x01": "an Avro file: write it as Parquet",
    b"%PDF": "a PDF: give the table behind it",
    b"\x80\x02": "a pickle, which can run code and is never read: write Parquet",
    b"\x80\x03": "a pickle, which can run code and is never read: write Parquet",
    b"\x80\x04": "a pickle, which can run code and is never read: write Parquet",
    b"\x80\x05": "a pickle, which can run code and is never read: write Parquet",
}


@dataclass(frozen=True)
class InputTable:
    """One input: its name in messages and records, where it lies, and what its path says.

    Attributes:
        name: as the user wrote it, or within the folder that the user named.
        path: the file.
        partitions: column → value, from folders called ``column=value`` above the file.
        stem: the file's name without suffixes; with its folder's where another input has the same.
        is_cloud: whether ``name`` is an address in object storage, of one Parquet file or of many.
    """

    name: str
    path: Path
    partitions: Mapping[str, str | None] = field(default_factory=dict)
    stem: str = ""
    is_cloud: bool = False


@dataclass(frozen=True)
class Opened:
    """A table that can be read: a regular file in UTF-8 or Parquet.

    Attributes:
        path: the table's own file, or a temporary copy.
        format: ``parquet``, ``jsonl``, ``json`` (one array) or ``csv``.
        sha256: of the bytes as they were given.
    """

    path: Path
    format: str
    sha256: str


def find_tables(paths: Sequence[str | Path]) -> list[InputTable]:
    """The table files behind ``paths``, in a fixed order.

    Paths are files, folders, patterns (``runs/*.parquet``), ``hf://`` addresses, or addresses in
    object storage, each of which stays one table.

    Raises:
        UserError: a path that does not exist, a folder without tables.
    """
    if not paths:
        raise UserError("no table given: name a Parquet, JSONL or CSV file, a folder, or hf://…")
    tables: list[InputTable] = []
    for given in paths:
        name = str(given)
        if name in _STREAMS:
            tables.append(InputTable(name, Path("/dev/stdin"), {}, "stdin"))
            continue
        if name.startswith(_CLOUD):
            tables.append(InputTable(name, Path(name), {}, _stem(name.rpartition("/")[2]), True))
            continue
        if name.startswith(hub.PREFIX):
            found = hub.download_tables(name, ENDINGS)
        else:
            found = _local(Path(name))
        tables += [
            InputTable(label, path, _partitions(label), _stem(Path(label).name))
            for label, path in found
        ]
    times = Counter(table.stem for table in tables)
    return [
        table
        if times[table.stem] == 1
        else replace(table, stem=f"{Path(table.name).absolute().parent.name}/{table.stem}")
        for table in tables
    ]


def _local(path: Path) -> list[tuple[str, Path]]:
    try:
        if path.is_dir():
            files = _tables_below(path)
            if not files:
                raise UserError(f"{path}: no table in this folder ({_FORMATS}){_deeper(path)}")
            return [(str(file), file) for file in files]
        found = path.exists()
    except (OSError, ValueError) as error:  # a path that no system takes, or no permission
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path}: cannot be read ({reason}): check the path") from None
    if not found and glob.has_magic(str(path)):
        return _matching(path)
    if not found:
        siblings = [entry.name for entry in _entries(path.parent)]
        near = get_close_matches(path.name, siblings, n=1, cutoff=0.75)
        hint = f'did you mean "{path.parent / near[0]}"?' if near else "check the path"
        raise UserError(f"{path}: no such file or folder: {hint}")
    return [(str(path), path)]


def _matching(pattern: Path) -> list[tuple[str, Path]]:
    found = sorted(glob.glob(str(pattern), recursive=True))
    files = [name for name in found if name.lower().endswith(ENDINGS) and os.path.isfile(name)]
    if not files:
        raise UserError(f"{pattern}: no table matches this pattern ({_FORMATS}): check it")
    return [(name, Path(name)) for name in files]


def _tables_below(folder: Path) -> list[Path]:
    """Tables directly in ``folder``, and in folders below that are named ``column=value``."""
    files: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith((".", "_")) and entry.is_dir():
            continue
        if entry.is_file():
            files += [entry] if entry.name.lower().endswith(ENDINGS) else []
        elif entry.is_dir() and not entry.is_symlink() and hub.PARTITION.fullmatch(entry.name):
            files += _tables_below(entry)
    return files


def _deeper(path: Path) -> str:
    deeper = sorted(
        {str(entry.parent) for entry in path.glob("*/*") if entry.name.lower().endswith(ENDINGS)}
    )
    return f"; there are some in {deeper[0]}" if deeper else ""


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _partitions(label: str) -> dict[str, str | None]:
    """Columns that the folders above a file give it; the nearest folder wins."""
    is_address = label.startswith(hub.PREFIX)
    folders = label.split("/")[:-1] if is_address else list(Path(label).absolute().parts[:-1])
    found: dict[str, str | None] = {}
    for folder in reversed(folders):
        match = hub.PARTITION.fullmatch(folder)
        if match is None:
            break
        value = unquote(match[2])
        found.setdefault(unquote(match[1]), None if value == _HIVE_NULL else composed(value))
    return found


def _stem(name: str) -> str:
    lower = name.lower()
    ending = max((end for end in ENDINGS if lower.endswith(end)), key=len, default=None)
    if ending is None:
        return composed(Path(name).stem) or name
    return composed(name[: -len(ending)]) or name


@contextmanager
def opened(table: InputTable) -> Iterator[Opened]:
    """The table as a regular file of a known format; copies are removed afterwards.

    Raises:
        UserError: it cannot be read, is empty, damaged, of no known format, or no text in UTF-8,
            UTF-16 or UTF-32.
    """
    if table.is_cloud:
        raise UserError(
            f"{table.name}: only completions are read from object storage: fetch it, and name the "
            "file"
        )
    with ExitStack() as stack:
        try:
            path, digest = _regular(table, stack)
            path = unpacked(table.name, path, stack)
            path = as_utf8(table.name, path, stack)
            start = start_of(path)
            if not start:
                raise UserError(f"{table.name}: the file is empty: write the table again")
            format_ = _format(table.name, start, path)
            if format_ == "csv" and b"\r" in start and not holds(path, b"\n"):
                path = with_line_feeds(path, stack)
        except OSError as error:
            raise _unreadable(table, error) from error
        yield Opened(path, format_, digest)


def _regular(table: InputTable, stack: ExitStack) -> tuple[Path, str]:
    """The file itself, or a copy of what a pipe holds; and the SHA-256 of its bytes."""
    if table.name in _STREAMS:
        stream: IO[bytes] = stack.enter_context(os.fdopen(os.dup(0), "rb"))
        mode = os.fstat(0).st_mode
        if stat.S_ISREG(mode):  # may be read before, for its columns
            stack.callback(os.lseek, 0, os.lseek(0, 0, os.SEEK_CUR), os.SEEK_SET)
    else:
        mode = table.path.stat().st_mode
        if stat.S_ISREG(mode):
            with table.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            return _plainly_named(table.path, stack), digest
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISDIR(mode):
        raise UserError(f"{table.name}: a device, not a table: name a file, or pipe a table in")
    if table.name not in _STREAMS:
        stream = stack.enter_context(table.path.open("rb"))
    first = stream.read(4096)
    if first and not first.startswith((*PACKED, *MARKS)):
        _format(table.name, first, None)  # an endless stream that is no table ends here
    copy, streamed, size = temporary(stack), hashlib.sha256(), 0
    with copy.open("wb") as file:
        while first:
            size += len(first)
            if size > _MOST_STREAMED:
                raise UserError(
                    f"{table.name}: more than {_MOST_STREAMED >> 30} GiB: write it to a file, and "
                    "name the file"
                )
            streamed.update(first)
            file.write(first)
            first = stream.read(PIECE)
    return copy, streamed.hexdigest()


def keep_piped(table: InputTable) -> None:
    """Put what is piped in behind a file that can be read again; nothing for other tables.

    Raises:
        UserError: it cannot be read, or is no table.
    """
    if table.name not in _STREAMS:
        return
    with ExitStack() as stack:
        try:
            mode = os.fstat(0).st_mode
            if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
                return
            path, _ = _regular(table, stack)
            with path.open("rb") as file:
                os.dup2(file.fileno(), 0)  # outlives the copy's name, which goes with the stack
        except OSError as error:
            raise _unreadable(table, error) from error


def _unreadable(table: InputTable, error: OSError) -> UserError:
    return UserError(
        f"{table.name}: cannot be read ({error.strerror or error}): check the file, its "
        "permissions and the room for temporary files"
    )


def _plainly_named(path: Path, stack: ExitStack) -> Path:
    """The file, under another name where its own is not UTF-8, which polars does not take."""
    if half_pair(str(path)) is None:
        return path
    link = temporary(stack)
    link.unlink()
    link.symlink_to(path.absolute())
    return link


def _format(name: str, start: bytes, path: Path | None) -> str:
    """The format by the first bytes where they are plain, else by the suffix of ``name``.

    Args:
        path: where the bytes are, to look further into an archive; ``None`` in a stream.
    """
    if start.startswith(b"PAR1"):
        return "parquet"
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            raise UserError(f"{name}: {_archive(path) if magic == _ZIP else what}")
    ending = max((end for end in ENDINGS if name.lower().endswith(end)), key=len, default="")
    known = next((form for suffix, form in SUFFIXES.items() if ending.startswith(suffix)), None)
    if known == "parquet":
        return known
    text = start.removeprefix(codecs.BOM_UTF8).lstrip(b" \t\r\n")
    if text.startswith(b"["):
        return "json"
    if known == "jsonl" or text.startswith(b"{"):
        return "jsonl"
    header = re.split(rb"[\r\n]", text, maxsplit=1)[0]
    if len(header) > 8 and header.count(b"\x00") > len(header) // 3:
        raise UserError(f"{name}: not UTF-8 (every other byte is zero): save it as UTF-8")
    if known == "csv" or any(mark in header for mark in (b",", b"\t", b";")):
        return "csv"
    raise UserError(
        f"{name}: not a table of a known format: give it one of the suffixes {_FORMATS}"
    )


def _archive(path: Path | None) -> str:
    """What a zip archive is; those of NumPy are told by what they hold."""
    if path is None:
        return _FOREIGN[_ZIP]
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        names = []
    if names and all(name.endswith(".npy") for name in names):
        arrays = ", ".join(name.removesuffix(".npy") for name in names[:8])
        return f"an archive of NumPy arrays ({arrays}), not a table: write the rows as Parquet"
    if any(name.startswith("xl/") for name in names):
        return "a workbook of Excel: save the sheet as CSV"
    return _FOREIGN[_ZIP]
