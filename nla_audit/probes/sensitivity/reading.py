"""Plant, have the AV explain, have the AR read: a table of every text, in pieces that are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.nla.fve import scaled, unusable
from nla_audit.probes.sensitivity.controls import CONCEPT
from nla_audit.probes.sensitivity.design import Cell, Design
from nla_audit.probes.sensitivity.mentions import Sought, first_mention
from nla_audit.probes.sensitivity.table import SCHEMA
from nla_audit.progress import Progress, silent
from nla_audit.shards import Shards

Floats = NDArray[np.float64]

_STAGE = "planted"


@dataclass(frozen=True)
class Said:
    """What an AV said about ``n`` activations.

    Attributes:
        texts: explanations, ``None`` where it failed.
        n_tokens: everything that was generated.
        content_tokens: of the explanation; ``None`` where it failed.
        failures: why it failed.
        segment_ends: characters of the explanation up to each end of a segment; ``None`` where the
            AV ends none.
    """

    texts: list[str | None]
    n_tokens: list[int]
    content_tokens: list[int | None]
    failures: list[str | None]
    segment_ends: list[list[int] | None]


@dataclass(frozen=True)
class Subject:
    """A pair as this probe uses one.

    Attributes:
        model: its name in the table.
        length_penalty: λ, if it is known.
        ar: the name of its AR.
        speak: from ``[n, d_model]`` activations and ``[n]`` keys to explanations. Equal keys mean
            equal random numbers: texts of one activation then differ by what was planted.
        read: from texts to ``[n, d_model]`` reconstructions, NaN where there is none.
        tokens_in: how many tokens of the AV a text has.
    """

    model: str
    length_penalty: float | None
    ar: str
    speak: Callable[[Floats, Sequence[int]], Said]
    read: Callable[[Sequence[str | None]], Floats]
    tokens_in: Callable[[str], int]


def explained(
    subject: Subject,
    plan: Design,
    keys: pl.DataFrame,
    row_keys: Sequence[int],
    concept: Sought,
    *,
    batch_size: int,
    shards: Shards | None = None,
    progress: Progress = silent,
) -> pl.DataFrame:
    """The rows of one pair, in the columns of :data:`~.table.SCHEMA`.

    Args:
        subject: the pair.
        plan: what is planted into which activation.
        keys: ``idx`` and ``doc_id`` of the activations of ``plan``.
        row_keys: names of the activations for the random generator.
        concept: whose words are looked for.
        batch_size: texts asked for at once, and the most that a killed run loses.
        shards: where finished batches are kept.
        progress: told of texts asked for.
    """
    rows = len(plan.vectors)
    per_row = len(plan.cells_of([0]))
    together = max(1, batch_size // per_row)
    told = f"explaining and reading ({subject.model})"
    pieces = []
    progress(told, 0, rows * per_row)
    for number, start in enumerate(range(0, rows, together)):
        chosen = range(start, min(start + together, rows))
        piece = None if shards is None else shards.get(_STAGE, number)
        if piece is None:
            cells = plan.cells_of(chosen)
            piece = _piece(subject, plan, cells, row_keys, concept)
            if shards is not None:
                shards.put(_STAGE, number, piece)
        pieces.append(piece)
        progress(told, chosen.stop * per_row, rows * per_row)
    found = pl.concat(pieces)
    of_row = keys[found["row"].to_numpy()]
    whole = found.with_columns(
        idx=of_row["idx"].cast(pl.String),
        doc_id=of_row["doc_id"],
        model=pl.lit(subject.model),
        length_penalty=pl.lit(subject.length_penalty, dtype=pl.Float64),
        ar=pl.lit(subject.ar),
        concept=pl.lit(concept.name),
    )
    return whole.select(
        # What other detectors say is added to the whole table.
        (pl.col(name) if name in whole.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in SCHEMA.items()
    )


def _piece(
    subject: Subject, plan: Design, cells: Sequence[Cell], row_keys: Sequence[int], concept: Sought
) -> pl.DataFrame:
    """The rows of ``cells``, each distinct activation explained once."""
    planted = plan.planted(cells)
    asked, text_of = _asked(cells)
    said = subject.speak(planted.vectors[asked], [row_keys[cells[place].row] for place in asked])
    read = subject.read(said.texts)
    mentions = [
        None if text is None else first_mention(concept, text, ends)
        for text, ends in zip(said.texts, said.segment_ends, strict=True)
    ]
    before = [
        None if text is None or found is None else subject.tokens_in(text[: found.start])
        for text, found in zip(said.texts, mentions, strict=True)
    ]
    reasons = [
        failure or (None if why is None else "the AR reconstructs nothing finite")
        for failure, why in zip(said.failures, unusable(read), strict=True)
    ]
    columns: dict[str, list[Any]] = {
        "explanation": said.texts,
        "n_tokens": said.n_tokens,
        "content_tokens": said.content_tokens,
        "segment_ends": said.segment_ends,
        "named": [
            None if text is None else found is not None
            for text, found in zip(said.texts, mentions, strict=True)
        ],
        "first_token": before,
        "first_claim": [None if found is None else found.claim for found in mentions],
        "first_segment": [None if found is None else found.segment for found in mentions],
        "reason": reasons,
    }
    types = {name: SCHEMA[name] for name in columns}
    texts = pl.DataFrame(columns, schema=types)[text_of]
    return pl.DataFrame(
        {
            "row": [cell.row for cell in cells],
            "kind": [cell.kind for cell in cells],
            "direction": [plan.name(cell.kind, cell.row) for cell in cells],
            "strength": [cell.strength for cell in cells],
            "projection": planted.before,
            "planted": planted.gained,
            **_cosines(plan, cells, planted.vectors, _usable(read)[text_of]),
        }
    ).hstack(texts)


def _asked(cells: Sequence[Cell]) -> tuple[list[int], list[int]]:
    """Places of the cells whose activations differ, and for each cell which of these is its own."""
    number: dict[tuple[int, str, float], int] = {}
    asked: list[int] = []
    own: list[int] = []
    for place, cell in enumerate(cells):
        kind = cell.kind if cell.strength > 0 else CONCEPT
        key = (cell.row, kind, cell.strength)
        if key not in number:
            number[key] = len(asked)
            asked.append(place)
        own.append(number[key])
    return asked, own


def _usable(read: Floats) -> Floats:
    """Reconstructions at length 1; NaN where there is none."""
    bad = np.array([reason is not None for reason in unusable(read)], dtype=bool)
    return np.where(bad[:, None], np.nan, scaled(np.nan_to_num(read), 1.0))


def _cosines(
    plan: Design, cells: Sequence[Cell], planted: Floats, read: Floats
) -> dict[str, pl.Series]:
    """Cosines of reconstructions ``[n, d_model]`` of length 1 with what they may hold."""
    rows = np.array([cell.row for cell in cells])
    directions = np.stack([plan.direction(cell.kind, cell.row) for cell in cells])
    has_partner = plan.partner[rows] >= 0
    elsewhere = plan.planted(cells, elsewhere=True).vectors
    against = {
        "component": directions,
        "concept_component": plan.directions[CONCEPT].repeat(len(cells), axis=0),
        "fit": planted,
        "fit_unplanted": plan.vectors[rows],
        "fit_elsewhere": np.where(has_partner[:, None], elsewhere, np.nan),
    }
    return {
        name: pl.Series(name, (read * scaled(targets, 1.0)).sum(axis=1), nan_to_null=True)
        for name, targets in against.items()
    }
