"""What the viewer embeds: every model's explanations of the activations it steps through."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from nla_audit.report.colours import ModelColours

if TYPE_CHECKING:
    from nla_audit.table.completions import Completions

#: A browser holds the texts of this many activations at ease; larger tables are sampled.
MAX_ACTIVATIONS = 1000
#: Beyond this a text is cut in the viewer, so that one runaway explanation cannot freeze it.
MAX_CHARACTERS = 20_000
#: Of several samples of one activation by one model the viewer shows the first few.
MAX_SAMPLES = 4
#: Characters of the source, counted from its end, that the viewer shows.
SOURCE_TAIL = 400
#: Order of the numbers by which embedded spans name their fate.
FATES = ("kept", "reworded", "omitted", "added", "quote")


def choose_viewed(
    completions: Completions,
    read: Collection[int],
    *,
    seed: int,
    limit: int = MAX_ACTIVATIONS,
) -> tuple[list[int], str]:
    """The ``idx`` that the viewer shows, in order, and a sentence that says how they were chosen.

    Args:
        read: those whose claims were read, a random draw of a larger table. Of such a table the
            viewer shows no others: each would have to be read for it alone.
        seed: of a further draw, where too many were read.
    """
    every = completions.rows["idx"].unique().sort()
    if len(every) <= limit:
        return every.to_list(), f"All {len(every):,} activations are in the viewer."
    chosen = np.sort(np.fromiter(read, dtype=np.int64))
    if len(chosen) > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, limit, replace=False))
    return chosen.tolist(), (
        f"The viewer holds {len(chosen):,} of {len(every):,} activations, drawn at random "
        f"(seed {seed}) among those whose claims were read."
    )


def viewer_data(
    completions: Completions,
    activations: list[int],
    fates: pl.DataFrame | None,
) -> dict[str, Any]:
    """The plain data that the page's script reads.

    Args:
        completions: the table.
        activations: the ``idx`` to embed, in the order of the viewer.
        fates: claim spans with columns ``idx, model, sample, start, end, fate, against``;
            ``start`` and ``end`` count Unicode code points in that row's explanation, and
            ``against`` names, on rows of the reference, the model whose selection shows them.

    Returns:
        ``models`` (name, λ), ``reference`` (position in ``models``), ``fates`` (names)
        and ``activations``, each with ``idx``, ``id``, ``source`` and, per model, the list of
        its samples: ``[text, tokens, content tokens, fve, failed, spans]`` where ``spans`` are
        ``[start, end, fate, against]`` in UTF-16 units, as JavaScript counts.
    """
    models = list(completions.models)
    wanted = completions.rows.filter(pl.col("idx").is_in(activations))
    spans = _spans_by_row(fates, activations, models)
    by_idx: dict[int, dict[str, Any]] = {
        idx: {"idx": idx, "id": None, "source": None, "models": [[] for _ in models]}
        for idx in activations
    }
    position = {name: place for place, name in enumerate(models)}
    columns = ("idx", "activation_id", "model", "sample", "source_text", "explanation", "n_tokens")
    measures = ("content_tokens", "fve")
    for row in wanted.select(*columns, *measures).iter_rows(named=True):
        entry = by_idx[row["idx"]]
        entry["id"] = row["activation_id"] if entry["id"] is None else entry["id"]
        if row["source_text"] is not None and entry["source"] is None:
            entry["source"] = row["source_text"][-SOURCE_TAIL:]
        samples = entry["models"][position[row["model"]]]
        if len(samples) < MAX_SAMPLES:
            own = spans.get((row["idx"], row["model"], row["sample"]), [])
            samples.append(_embedded(row, own))
    penalties = completions.length_penalties
    return {
        "models": [{"name": name, "penalty": penalties.get(name)} for name in models],
        "reference": position[completions.reference],
        "fates": list(FATES),
        "hasFates": fates is not None and fates.height > 0,
        "activations": list(by_idx.values()),
    }


def coloured(viewer: Mapping[str, Any], colours: ModelColours) -> dict[str, Any]:
    """The data of :func:`viewer_data` with each model's colour."""
    models = [{**model, "colour": colours.get(model["name"])} for model in viewer["models"]]
    return {**viewer, "models": models}


def _embedded(row: Mapping[str, Any], spans: list[list[int]]) -> list[Any]:
    text = row["explanation"]
    if text is None:
        return [None, row["n_tokens"], None, None, "", []]
    note = ""
    if len(text) > MAX_CHARACTERS:
        note = f"shown: the first {MAX_CHARACTERS:,} of {len(text):,} characters"
        text = text[:MAX_CHARACTERS]
    own = [
        [_utf16(text, start), _utf16(text, end), *rest]
        for start, end, *rest in spans
        if start < len(text)
    ]
    content, fve = row["content_tokens"], row["fve"]
    return [
        text,
        row["n_tokens"],
        None if content is None else round(content, 1),
        None if fve is None else round(fve, 4),
        note,
        own,
    ]


def _utf16(text: str, code_points: int) -> int:
    """UTF-16 units before the given code point: astral characters take two in JavaScript."""
    if text.isascii():
        return min(code_points, len(text))
    return len(text[:code_points].encode("utf-16-le")) // 2


def _spans_by_row(
    fates: pl.DataFrame | None, activations: list[int], models: list[str]
) -> dict[tuple[int, str, int], list[list[int]]]:
    """``(idx, model, sample)`` → ``[start, end, fate, against]``, against −1 for "any"."""
    grouped: dict[tuple[int, str, int], list[list[int]]] = {}
    if fates is None:
        return grouped
    number = {name: place for place, name in enumerate(FATES)}
    position = {name: place for place, name in enumerate(models)}
    chosen = fates.filter(pl.col("idx").is_in(activations)).select(
        "idx", "model", "sample", "start", "end", "fate", "against"
    )
    for idx, model, sample, start, end, fate, against in chosen.sort(
        "idx", "model", "sample", "start", "end"
    ).iter_rows():
        # A fate towards a model that is not shown has no place in the viewer.
        if against is None or against in position:
            span = [start, end, number[fate], -1 if against is None else position[against]]
            grouped.setdefault((idx, model, sample), []).append(span)
    return grouped
