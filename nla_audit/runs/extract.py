"""Extract activations: raw vectors of a target model at seeded positions of documents.

Which positions a document gives depends on its id and the seed only, so that neither its place
in the stream, nor the batches, nor the division among machines changes them. Columns as in the
Parquets that trainers of NLAs publish (docs/formats.md), with ``idx`` and ``position`` added.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from nla_audit.errors import UserError
from nla_audit.files import must_be_parquet
from nla_audit.nla.batching import Notice, by_token_budget, halving
from nla_audit.nla.fve import unusable
from nla_audit.nla.reconstructor import TOKEN_BUDGETS
from nla_audit.progress import Progress, silent
from nla_audit.record import MODELS, record_path, run_record
from nla_audit.runs.activations import LAYER_COLUMN, VECTOR_COLUMN
from nla_audit.runs.documents import Document, Documents
from nla_audit.runs.made_from import is_done, table_and_record
from nla_audit.runs.remote import AnyTarget, RemoteTarget, record_of
from nla_audit.runs.target import TargetModel
from nla_audit.shards import Shards, digest_of
from nla_audit.strangers import read_json_object
from nla_audit.wording import count

#: Documents whose batches are formed together, and that are kept as one piece. Not a choice of
#: the user's: which documents share a batch decides the last digits of a vector.
DOCUMENTS_PER_SHARD = 256
#: Rows of the output that a reader must hold at once.
_ROW_GROUP = 8192
_OTHER_TOKEN_BUDGET = 16384
_SHARD = "shard"


@dataclass(frozen=True)
class Sampling:
    """Which positions of a document are read.

    Attributes:
        positions_per_document: how many, or as many as there are.
        minimum_position: none before this one; with little text to the left there is little in
            an activation. 50 is what the published data sets use.
        max_tokens: documents are cut to this many tokens first.
        seed: with the document's id decides the draw.
    """

    positions_per_document: int = 5
    minimum_position: int = 50
    max_tokens: int = 2048
    seed: int = 0

    def draw(self, doc_id: str, candidates: Sequence[int]) -> list[int]:
        """Some of ``candidates``, ascending, without repeats."""
        digest = hashlib.sha256(doc_id.encode()).digest()
        generator = np.random.default_rng([self.seed, *np.frombuffer(digest, dtype="<u4")])
        size = min(self.positions_per_document, len(candidates))
        return sorted(int(p) for p in generator.choice(candidates, size=size, replace=False))


@dataclass(frozen=True)
class Extraction:
    """What came out of a run.

    Attributes:
        rows: activations written.
        documents: documents read.
        too_short: documents among them without a position to read.
        unusable: activations left out because they are zero or not finite.
        d_model: width of the vectors.
    """

    rows: int
    documents: int
    too_short: int
    unusable: int
    d_model: int


@dataclass(frozen=True)
class _Reading:
    """A document's tokens up to the last position that is read, and those positions."""

    document: Document
    ids: list[int]
    positions: list[int]


def extract(
    target: AnyTarget,
    documents: Documents,
    out: Path,
    *,
    sampling: Sampling | None = None,
    part: int = 0,
    parts: int = 1,
    token_budget: int | None = None,
    arguments: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    notice: Notice = warnings.warn,
) -> Extraction:
    """Write a Parquet file of activations, in pieces that a later run goes on from.

    Columns: ``idx`` (document number × positions per document + which of them: the same in every
    division of the documents), ``doc_id``, ``position``, ``activation_layer``, ``n_raw_tokens``
    (``position`` + 1, special tokens included), ``detokenized_text_truncated`` (the source up to
    and including the token) and ``activation_vector``. Sorted by ``idx``. A record is written
    beside the file; where it shows that the same run was finished, nothing is done.

    Args:
        documents: the texts.
        out: the file to write.
        part: with ``parts``, read every ``parts``-th document only, from the ``part``-th on;
            the parts together hold exactly the rows of an undivided run.
        token_budget: tokens of a batch, padding included; halved where memory runs out.
        arguments: as passed on the command line, for the record.
        progress: told of the stage, of documents done, and of how many there are (0: not known).
        notice: told of what is left out and of halved batches.

    Raises:
        UserError: ``out`` was made by another run or cannot be written, damaged texts, no
            position to read, or no activation that is finite.
    """
    must_be_parquet(out, "activations")
    rule = sampling or Sampling()
    progress("hashing the model and the texts", 0, 0)
    settings = _settings(target, documents, rule, part, parts)
    key = digest_of(settings)
    if is_done(out, key):
        return Extraction(**read_json_object(record_path(out))["result"])
    shards = Shards(out, key)
    if others := shards.others():
        notice(f"{others[0]}: parts of an unfinished run with other settings; not used")
    budget = token_budget or TOKEN_BUDGETS.get(target.device.type, _OTHER_TOKEN_BUDGET)
    expected = documents.expected()
    total = 0 if expected is None else len(range(part, expected, parts))
    groups = _Groups(documents, part, parts, shards)
    progress("documents", 0, total)
    if isinstance(target, RemoteTarget):
        asked = ((number, (group, rule, budget)) for number, group in groups)
        for number, piece in target.each(_read_shard, asked, notice):
            shards.put(_SHARD, number, piece)
            groups.done(number)
            progress("documents", groups.documents_done, total)
    else:
        reading = _Reader(target, rule, budget, notice)
        for number, group in groups:
            before = groups.documents_done
            for done in _extract_shard(reading, shards, number, group):
                progress("documents", before + done, total)
            groups.done(number)
            progress("documents", groups.documents_done, total)
    record = {**run_record("extract", arguments, MODELS), "key": key, "settings": settings}
    return _finish(target, rule, shards, out, read=groups.documents_done, record=record)


@dataclass(frozen=True)
class _Reader:
    """What reads documents, and how."""

    target: TargetModel
    sampling: Sampling
    budget: int
    notice: Notice


class _Groups:
    """The documents of this part that are still to be read, in numbered groups."""

    def __init__(self, documents: Documents, part: int, parts: int, shards: Shards) -> None:
        self._documents, self._part, self._parts, self._shards = documents, part, parts, shards
        self._sizes: dict[int, int] = {}
        #: Those of former runs included.
        self.documents_done = 0

    def __iter__(self) -> Iterator[tuple[int, list[Document]]]:
        own = (one for one in self._documents if one.number % self._parts == self._part)
        for number, group in enumerate(_groups(own, DOCUMENTS_PER_SHARD)):
            self._sizes[number] = len(group)
            if self._shards.get(_SHARD, number) is None:
                yield number, group
            else:
                self.done(number)

    def done(self, number: int) -> None:
        """A group is finished."""
        self.documents_done += self._sizes.pop(number)


def _settings(
    target: AnyTarget, documents: Documents, sampling: Sampling, part: int, parts: int
) -> dict[str, Any]:
    """All that decides the answer. The budget does not: it moves roundings only."""
    return {
        **record_of(target),
        "texts": documents.fingerprint(),
        "text_column": documents.text_column,
        "id_column": documents.id_column,
        "row_ids": documents.row_ids,
        "lines": documents.lines,
        "documents": documents.limit,
        "sampling": asdict(sampling),
        "part": part,
        "parts": parts,
    }


def _groups(documents: Iterable[Document], size: int) -> Iterator[list[Document]]:
    stream = iter(documents)
    while group := list(islice(stream, size)):
        yield group


def _extract_shard(
    reader: _Reader, shards: Shards, number: int, documents: Sequence[Document]
) -> Iterator[int]:
    """Read one shard batch by batch; batches that an interrupted run has kept are not redone.

    Yields:
        After each batch, how many documents of the shard are done.
    """
    readings = _readings(reader, documents)
    stage = f"{_SHARD}{number:06d}-{reader.budget}"
    pieces = []
    done = len(documents) - len(readings)
    for batch, group in enumerate(_batches(reader, readings)):
        piece = shards.get(stage, batch)
        if piece is None:
            piece = _extract_batch(reader, group)
            shards.put(stage, batch, piece)
        pieces.append(piece)
        done += len(group)
        yield done
    shards.put(_SHARD, number, _joined(reader, pieces))
    for leftover in shards.folder.glob(f"{_SHARD}{number:06d}-*"):
        leftover.unlink(missing_ok=True)


def _read_shard(
    target: TargetModel, asked: tuple[Sequence[Document], Sampling, int], notice: Notice
) -> pl.DataFrame:
    """One shard at a stroke: what a worker elsewhere does."""
    documents, sampling, budget = asked
    reader = _Reader(target, sampling, budget, notice)
    readings = _readings(reader, documents)
    return _joined(reader, [_extract_batch(reader, one) for one in _batches(reader, readings)])


def _batches(reader: _Reader, readings: Sequence[_Reading]) -> list[list[_Reading]]:
    groups = by_token_budget([len(one.ids) for one in readings], reader.budget)
    return [[readings[place] for place in group] for group in groups]


def _joined(reader: _Reader, pieces: Sequence[pl.DataFrame]) -> pl.DataFrame:
    nothing = _frame(reader, [], np.empty((0, reader.target.d_model), np.float32))
    return pl.concat([nothing, *pieces]).sort("idx")


def _readings(reader: _Reader, documents: Sequence[Document]) -> list[_Reading]:
    """What to read of each document; documents without a candidate are left out."""
    readings = []
    cut = reader.target.token_ids([one.text for one in documents], reader.sampling.max_tokens)
    for document, ids in zip(documents, cut, strict=True):
        candidates = reader.target.candidates(ids, reader.sampling.minimum_position)
        if candidates:
            positions = reader.sampling.draw(document.doc_id, candidates)
            # What follows the last position cannot reach it.
            readings.append(_Reading(document, ids[: positions[-1] + 1], positions))
    return readings


def _extract_batch(reader: _Reader, readings: Sequence[_Reading]) -> pl.DataFrame:
    def work(some: Sequence[_Reading]) -> npt.NDArray[np.float32]:
        return reader.target.activations([one.ids for one in some], [one.positions for one in some])

    vectors = np.concatenate(halving(readings, work, reader.notice))
    frame = _frame(reader, readings, vectors)
    bad = frame.filter(pl.col(VECTOR_COLUMN).is_null())
    if bad.height:
        reader.notice(
            f"{count(bad.height, 'activation')} left out, zero or not finite; the first is "
            f"document {bad['doc_id'][0]}, position {bad['position'][0]}"
        )
    return frame


def _frame(
    reader: _Reader, readings: Sequence[_Reading], vectors: npt.NDArray[np.float32]
) -> pl.DataFrame:
    """Rows of the output; a vector that is zero or not finite is null."""
    places = [(one, which) for one in readings for which in range(len(one.positions))]
    positions = [one.positions[which] for one, which in places]
    usable = pl.Series([reason is None for reason in unusable(vectors)], dtype=pl.Boolean)
    width = pl.Array(pl.Float32, reader.target.d_model)
    per_document = reader.sampling.positions_per_document
    return pl.DataFrame(
        {
            "idx": [one.document.number * per_document + which for one, which in places],
            "doc_id": [one.document.doc_id for one, _ in places],
            "position": positions,
            LAYER_COLUMN: [reader.target.layer_index] * len(places),
            "n_raw_tokens": [position + 1 for position in positions],
            "detokenized_text_truncated": [
                reader.target.text_up_to(one.ids, one.positions[which]) for one, which in places
            ],
            VECTOR_COLUMN: pl.Series(vectors, dtype=width),
        },
        schema_overrides={
            "idx": pl.Int64,
            "doc_id": pl.String,
            "position": pl.Int64,
            LAYER_COLUMN: pl.Int64,
            "n_raw_tokens": pl.Int64,
            "detokenized_text_truncated": pl.String,
        },
    ).with_columns(pl.when(usable).then(pl.col(VECTOR_COLUMN)))


def _finish(
    target: AnyTarget,
    sampling: Sampling,
    shards: Shards,
    out: Path,
    *,
    read: int,
    record: dict[str, Any],
) -> Extraction:
    """Put the shards together, one after the other, write the record, and delete the shards."""
    pieces = sorted(shards.folder.glob(f"{_SHARD}-*.parquet"))
    per_document = sampling.positions_per_document
    table = (
        pl.scan_parquet(pieces, glob=False) if pieces else pl.LazyFrame(schema={"idx": pl.Int64})
    )
    total, chosen = (
        table.select(rows=pl.len(), documents=(pl.col("idx") // per_document).n_unique())
        .collect()
        .row(0)
    )
    if total == 0:
        shards.remove()
        raise UserError(
            f"no position to read in {count(read, 'document')}: none has a token at position "
            f"{sampling.minimum_position} or later: lower --minimum-position "
            "or give longer texts"
        )
    usable = table.filter(pl.col(VECTOR_COLUMN).is_not_null())
    rows = int(usable.select(pl.len()).collect().item())
    if rows == 0:
        raise UserError(
            f"none of {count(total, 'activation')} is finite in {record_of(target)['dtype']}: "
            "say --dtype float32 or bfloat16"
        )
    result = Extraction(
        rows=rows,
        documents=read,
        too_short=read - chosen,
        unusable=total - rows,
        d_model=target.d_model,
    )
    with table_and_record(out, {**record, "result": asdict(result)}) as partial:
        usable.sink_parquet(partial, row_group_size=_ROW_GROUP)
    shards.remove()
    return result
