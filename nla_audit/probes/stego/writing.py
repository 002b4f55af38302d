"""Transforms that a language model writes: texts become requests, answers become texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nla_audit.errors import UserError
from nla_audit.llm.interface import Paraphraser, Progress, Request, silent
from nla_audit.probes.transforming.cards import TextTransform, transforms
from nla_audit.text.parts import with_quotes

_ENDED = re.compile(r"[.,:;!?…。！？][\"”’'»)\]]*$")
_PLACEHOLDER = re.compile(r"⟦(\d+)⟧")


def written_changes(names: Sequence[str] = ()) -> list[TextTransform]:
    """The transforms that a language model writes: those of these names, or all.

    Raises:
        UserError: one is none of them.
    """
    cards = {name: card for name, card in transforms().items() if card.is_written}
    for name in names:
        if name not in cards:
            raise UserError(
                f"--written {name}: no such change is written; name one of {', '.join(cards)}"
            )
    return [card for name, card in cards.items() if not names or name in names]


def write_transform(
    card: TextTransform,
    texts: Sequence[str | None],
    writer: Paraphraser,
    *,
    progress: Progress = silent,
) -> list[str | None]:
    """``[n]`` written texts; ``None`` where there is no text or where writing failed.

    A failure is never replaced by the original. An empty text stays empty. A language model
    writes in two passes what starts from another transform's texts (equal requests are asked
    once, so that the first pass is that transform's own).
    """
    if card.first is not None and writer.is_language_model:
        texts = write_transform(transforms()[card.first], texts, writer, progress=progress)
    asked = [
        _ask(card, row, text, is_whole=writer.is_language_model and not card.by_line)
        for row, text in enumerate(texts)
        if text is not None and text.strip() and not (card.spares_quotes and _is_marked(text))
    ]
    out: list[str | None] = [
        text if text is not None and not text.strip() else None for text in texts
    ]
    answers = writer.write([part.request for part in asked], progress=progress)
    for part, answer in zip(asked, answers, strict=True):
        if answer.lines is None:
            continue
        lines = [""] * part.line_count
        for place, line in zip(part.places, answer.lines, strict=True):
            lines[place] = line
        out[part.row] = _unmasked("\n".join(lines), part.spans)
    return out


@dataclass(frozen=True)
class _AskedText:
    """A request, and how its answer becomes a text: where its lines and quoted spans belong."""

    row: int
    request: Request
    spans: list[str]
    line_count: int
    places: list[int]


def _ask(card: TextTransform, row: int, text: str, *, is_whole: bool) -> _AskedText:
    masked, spans = _masked(text) if card.spares_quotes else (text, [])
    # Told to keep the lines apart, a model could not say the whole in its own way.
    lines = [_on_one_line(masked)] if is_whole else masked.split("\n")
    # Empty lines are nothing to write; they come back where they were.
    places = [place for place, line in enumerate(lines) if line.strip()]
    request = Request(
        card.name,
        card.instruction or "",
        tuple(lines[place] for place in places),
        changes_language=card.changes_language or card.first is not None,
    )
    return _AskedText(row, request, spans, len(lines), places)


def _on_one_line(text: str) -> str:
    """The lines of ``text`` as sentences: a line that ends in no punctuation gets a full stop."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    ended = [line if _ENDED.search(line) else f"{line}." for line in lines[:-1]]
    return " ".join([*ended, lines[-1]])


def _is_marked(text: str) -> bool:
    """Whether a text holds placeholders of its own, which could not be told from ours."""
    return _PLACEHOLDER.search(text) is not None


def _masked(text: str) -> tuple[str, list[str]]:
    """The text with ``⟦n⟧`` for its quoted spans, and these."""
    spans: list[str] = []

    def placeholder(span: str) -> str:
        spans.append(span)
        return f"⟦{len(spans)}⟧"

    return with_quotes(text, placeholder), spans


def _unmasked(text: str, spans: Sequence[str]) -> str:
    return _PLACEHOLDER.sub(lambda match: spans[int(match[1]) - 1], text) if spans else text
