"""Texts to read activations from, as a stream of documents: .txt, .jsonl, .parquet, the Hub.

A document's id never depends on how the texts are batched or divided, so that its seeded
positions do not either. No file is ever held in memory whole but a ``.txt`` that is one document.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import polars as pl

from nla_audit import hub
from nla_audit.errors import UserError
from nla_audit.files import sha256_of
from nla_audit.unicode_form import half_pair

#: File name suffix → format. A format is a method of :class:`Documents`.
SUFFIXES = {".txt": "txt", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_FORMATS = ", ".join(SUFFIXES)
#: Columns taken for document ids where the user names none.
ID_COLUMNS = ("doc_id", "id")
#: Rows of a Parquet file in memory at once.
_PARQUET_ROWS = 1000
_POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


@dataclass(frozen=True)
class Document:
    """One text.

    Attributes:
        number: its place in the whole stream, from 0; counts documents that are skipped as well.
        doc_id: the id column's value, or else ``file name:row`` (a ``.txt``: ``file name``).
        text: never empty.
    """

    number: int
    doc_id: str
    text: str


@dataclass(frozen=True)
class _DocumentFile:
    """One file: the name that ids begin with, what messages call it, and where it lies."""

    label: str
    name: str
    file: Path | hub.HubFile

    def local(self) -> Path:
        """The file here, fetched from the Hub when it is its turn."""
        return self.file if isinstance(self.file, Path) else self.file.download()


class Documents:
    """All documents of some files, folders and ``hf://`` addresses, in a fixed order.

    Iterating reads them from the beginning, each time; files on the Hub are fetched one by one.
    Only the ids are kept, to tell one that occurs twice.

    Args:
        paths: ``.txt``, ``.jsonl`` or ``.parquet`` files, folders of them, or
            ``hf://datasets/owner/name[@revision]/path``.
        text_column: the column (or JSON key) that holds the text.
        id_column: the column of document ids; by default ``doc_id`` or ``id`` where a file has
            one.
        row_ids: make ids of file name and row even where a file has an id column.
        lines: every non-empty line of a ``.txt`` is a document, not the whole file.
        limit: stop after this many documents.

    Raises:
        UserError: nothing there, an unknown format, or two files that ids could not tell apart.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        text_column: str = "text",
        id_column: str | None = None,
        row_ids: bool = False,
        lines: bool = False,
        limit: int | None = None,
    ) -> None:
        self.text_column = text_column
        self.id_column = id_column
        self.row_ids = row_ids
        self.lines = lines
        self.limit = limit
        self._sources = [source for path in paths for source in _find(str(path))]
        if not self._sources:
            raise UserError(f"no texts given: name a {_FORMATS} file, a folder, or hf://datasets/…")
        labels: dict[str, str] = {}
        for source in self._sources:
            if source.label in labels:
                raise UserError(
                    f"{source.name}: given twice, or called like {labels[source.label]}, and "
                    "document ids begin with the file's name: rename one, or give the folder above"
                )
            labels[source.label] = source.name

    def fingerprint(self) -> list[dict[str, str]]:
        """What decides the documents: for each file its name and a hash, or its commit."""
        return [
            {"name": source.label, "sha256": _sha256(source.file)}
            if isinstance(source.file, Path)
            else {"name": source.label, "commit": str(source.file.revision)}
            for source in self._sources
        ]

    def expected(self) -> int | None:
        """How many documents there will be, where that is known without fetching anything."""
        known = 0
        for source in self._sources:
            if not isinstance(source.file, Path):
                return self.limit
            known += self._count(source.name, source.file)
        return known if self.limit is None else min(known, self.limit)

    def _count(self, name: str, path: Path) -> int:
        format_ = SUFFIXES[path.suffix.lower()]
        if format_ == "parquet":
            try:
                return int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
            except _POLARS_ERRORS:
                return 0  # said in full when the file's turn comes
        if format_ == "txt" and not self.lines:
            return 1
        return sum(bool(line.strip()) or format_ == "txt" for line in _lines(name, path))

    def __iter__(self) -> Iterator[Document]:
        """The documents; empty texts are skipped, though counted.

        Raises:
            UserError: a file is damaged or lacks a column, a text or id is of the wrong type, an
                id occurs twice.
        """
        seen: set[str] = set()
        for number, (source, row, doc_id, text) in enumerate(self._rows()):
            if number == self.limit:
                return
            if doc_id in seen:
                raise UserError(
                    f'{source.name}: row {row}: document id "{doc_id}" occurs twice: name a column '
                    "without repeats with --id-column, or say --row-ids"
                )
            seen.add(doc_id)
            if text:
                yield Document(number, doc_id, text)

    def _rows(self) -> Iterator[tuple[_DocumentFile, int | None, str, str]]:
        for source in self._sources:
            path = source.local()
            read = getattr(self, f"_{SUFFIXES[Path(source.label).suffix.lower()]}")
            for row, given_id, text in read(source.name, path):
                yield source, row, self._doc_id(source, row, given_id), text

    def _doc_id(self, source: _DocumentFile, row: int | None, given: str | None) -> str:
        if given is not None:
            return given
        return source.label if row is None else f"{source.label}:{row}"

    def _txt(self, name: str, path: Path) -> Iterator[tuple[int | None, str | None, str]]:
        if not self.lines:
            yield None, None, _read_text(name, path)
            return
        for row, line in enumerate(_lines(name, path)):
            yield row, None, line.strip()

    def _jsonl(self, name: str, path: Path) -> Iterator[tuple[int | None, str | None, str]]:
        row = 0
        for number, line in enumerate(_lines(name, path), start=1):
            if not line.strip():
                continue
            where = f"{name}: row {row} (line {number})"
            try:
                value = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise UserError(f"{where} is not JSON: correct or remove the line") from error
            except ValueError as error:  # Python reads no number of more than 4,300 digits
                raise UserError(
                    f"{where} holds a number of thousands of digits: correct or remove the line"
                ) from error
            if not isinstance(value, dict):
                raise UserError(f"{where} is not a JSON object: write one object per line")
            if self.text_column not in value:
                raise _no_column(where, self.text_column, "--text-column", list(value))
            id_column = self._id_column(where, list(value))
            doc_id = None if id_column is None else _id(where, id_column, value[id_column])
            yield row, doc_id, _text(where, self.text_column, value[self.text_column])
            row += 1

    def _parquet(self, name: str, path: Path) -> Iterator[tuple[int | None, str | None, str]]:
        try:
            table = pl.scan_parquet(path, glob=False)
            columns = table.collect_schema().names()
            if self.text_column not in columns:
                raise _no_column(name, self.text_column, "--text-column", columns)
            id_column = self._id_column(name, columns)
            wanted = sorted({self.text_column, id_column or self.text_column})
            start = 0
            while True:
                part = table.select(wanted).slice(start, _PARQUET_ROWS).collect()
                for row, value in enumerate(part.iter_rows(named=True), start=start):
                    where = f"{name}: row {row}"
                    doc_id = None if id_column is None else _id(where, id_column, value[id_column])
                    yield row, doc_id, _text(where, self.text_column, value[self.text_column])
                start += len(part)
                if len(part) < _PARQUET_ROWS:
                    return
        except _POLARS_ERRORS as error:
            raise UserError(
                f"{name}: not a whole Parquet file (truncated or damaged): copy or write it again"
            ) from error

    def _id_column(self, where: str, columns: list[str]) -> str | None:
        if self.row_ids:
            return None
        if self.id_column is None:
            return next((name for name in ID_COLUMNS if name in columns), None)
        if self.id_column not in columns:
            raise _no_column(where, self.id_column, "--id-column", columns)
        return self.id_column


def _find(given: str) -> list[_DocumentFile]:
    if given.startswith(hub.PREFIX):
        found = hub.find_files(given, tuple(SUFFIXES), pin_commit=True)
        return [
            _DocumentFile(f"{file.repository}/{file.path}", file.address, file) for file in found
        ]
    path = Path(given)
    if path.is_dir():
        files = sorted(
            entry
            for entry in path.rglob("*")
            if entry.suffix.lower() in SUFFIXES and entry.is_file()
        )
        if not files:
            raise UserError(f"{given}: no texts in this folder ({_FORMATS})")
        return [_DocumentFile(file.relative_to(path).as_posix(), str(file), file) for file in files]
    if not path.exists():
        raise UserError(f"{given}: no such file or folder: check the path")
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{given}: not a known format of texts: give it one of {_FORMATS}")
    return [_DocumentFile(path.name, given, path)]


def _text(where: str, column: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(
            f'{where}: column "{column}" holds {_shown(value)}, not text: name another column '
            "with --text-column"
        )
    _check_encodable(where, column, value)
    return value


def _id(where: str, column: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise UserError(
            f'{where}: column "{column}" holds {_shown(value)}, not a document id (text or whole '
            "number): name another with --id-column"
        )
    _check_encodable(where, column, str(value))
    return str(value)


def _check_encodable(where: str, column: str, value: str) -> None:
    """JSON can say half of a surrogate pair, which is no character and no tokenizer takes."""
    place = half_pair(value)
    if place is not None:
        raise UserError(
            f'{where}: column "{column}" holds half of a surrogate pair (character {place + 1}): '
            "correct or remove the row"
        )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "…"


def _no_column(where: str, column: str, option: str, columns: list[str]) -> UserError:
    near = get_close_matches(column, columns, n=1)
    hint = f'name "{near[0]}"' if near else f"name one of {', '.join(columns[:8])}"
    return UserError(f'{where}: no column "{column}": {hint} with {option}')


def _read_text(name: str, path: Path) -> str:
    return "".join(_lines(name, path)).strip()


def _lines(name: str, path: Path) -> Iterator[str]:
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name}: line {number}, byte {error.start + 1} is not UTF-8: save the file as UTF-8"
        ) from error
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror}): check permissions") from error


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): check permissions") from error
