"""Transforms that a language model writes: texts become requests, answers become texts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nla_audit.llm.interface import Paraphraser, Progress, Request, silent
from nla_audit.probes.parts import with_quotes
from nla_audit.probes.registry import Transform

_PLACEHOLDER = re.compile(r"⟦(\d+)⟧")


def write_transform(
    card: Transform,
    texts: Sequence[str | None],
    writer: Paraphraser,
    *,
    progress: Progress = silent,
) -> list[str | None]:
    """``[n]`` written texts; ``None`` where there is no text or where writing failed.

    A failure is never replaced by the original. An empty text stays empty.
    """
    asked: list[tuple[int, Request, list[str], list[int]]] = []
    out: list[str | None] = [
        text if text is not None and not text.strip() else None for text in texts
    ]
    for row, text in enumerate(texts):
        if text is None or not text.strip():
            continue
        masked, spans = _masked(text) if card.spares_quotes else (text, [])
        if spans is None:
            continue
        lines = masked.split("\n")
        # Empty lines are nothing to write; they come back where they were.
        places = [place for place, line in enumerate(lines) if line.strip()]
        request = Request(
            card.name,
            card.instruction or "",
            tuple(lines[place] for place in places),
            changes_language=card.name == "translate",
        )
        asked.append((row, request, [*spans], places))
    answers = writer.write([request for _, request, _, _ in asked], progress=progress)
    for (row, _, spans, places), answer in zip(asked, answers, strict=True):
        if answer.lines is None:
            continue
        count = (texts[row] or "").count("\n") + 1
        lines = [""] * count
        for place, line in zip(places, answer.lines, strict=True):
            lines[place] = line
        out[row] = _unmasked("\n".join(lines), spans)
    return out


def _masked(text: str) -> tuple[str, list[str] | None]:
    """The text with ``⟦n⟧`` for its quoted spans; no spans where the text has such marks itself."""
    if _PLACEHOLDER.search(text):
        return text, None
    spans: list[str] = []

    def placeholder(span: str) -> str:
        spans.append(span)
        return f"⟦{len(spans)}⟧"

    return with_quotes(text, placeholder), spans


def _unmasked(text: str, spans: Sequence[str]) -> str:
    return _PLACEHOLDER.sub(lambda match: spans[int(match[1]) - 1], text) if spans else text
