"""How the documents go on behind the token of an activation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from nla_audit.table.completions import Completions


def continuations(
    completions: Completions, documents: Mapping[str, str], sources: pl.DataFrame | None
) -> dict[int, str]:
    """What follows each activation's source text in its document, by ``idx``.

    Args:
        completions: with ``doc_id`` and ``source_text``.
        documents: whole texts by ``doc_id``. A source that is only the end of what was read is
            found in them too, if it occurs once.
        sources: ``doc_id, source_text`` of further activations: a source that goes on where
            another ends says how that goes on.
    """
    rows = completions.rows.select("idx", "doc_id", "source_text").drop_nulls().unique("idx")
    known = rows if sources is None else pl.concat([rows.select(sources.columns), sources])
    longer: dict[str, list[str]] = {}
    for document, source in known.select("doc_id", "source_text").drop_nulls().iter_rows():
        longer.setdefault(document, []).append(source)
    found = {}
    for idx, document, source in rows.sort("idx").iter_rows():
        rest = _behind(source, documents.get(document)) or _rest(source, longer[document])
        if rest and rest.strip():
            found[idx] = rest
    return found


def _behind(source: str, document: str | None) -> str | None:
    if not source or document is None:
        return None
    if document.startswith(source):
        return document[len(source) :]
    place = document.find(source)
    is_sure = place >= 0 and document.find(source, place + 1) < 0
    return document[place + len(source) :] if is_sure else None


def _rest(source: str, others: Sequence[str]) -> str | None:
    """What the longest of ``others`` that begins with ``source`` says behind it."""
    going_on: Iterable[str] = (other for other in others if other.startswith(source))
    return max(going_on, key=lambda other: (len(other), other), default=source)[len(source) :]
