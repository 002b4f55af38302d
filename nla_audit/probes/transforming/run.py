"""Apply transforms to a table of texts, and check that each kept what it promises."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from nla_audit.probes.transforming.cards import TextTransform, generator_for
from nla_audit.probes.transforming.preservation import broken_promises

#: Columns of :func:`apply_transforms`.
SCHEMA = {
    "row": pl.Int64(),
    "variant": pl.String(),
    "text": pl.String(),
    "changed": pl.Boolean(),
    "reason": pl.String(),
}


def apply_transform(
    card: TextTransform, texts: Sequence[str | None], labels: Sequence[Any], *, seed: int = 0
) -> list[str | None]:
    """``[n]`` transformed texts, ``None`` where there is none.

    Args:
        card: of a transform that no language model writes.
        texts: ``[n]`` explanations, ``None`` where failed.
        labels: ``[n]`` activation (or document) of each.
        seed: of what the transform draws; a text's draw does not depend on its neighbours.

    Raises:
        ValueError: a transform that a language model has to write.
    """
    if card.one is not None:
        done: dict[str, str] = {}
        for text in texts:
            if text is not None and text not in done:
                done[text] = card.one(text, generator_for(seed, card.name, text))
        return [None if text is None else done[text] for text in texts]
    if card.whole is None:
        raise ValueError(f"transform {card.name} is written by a language model")
    known = [place for place, text in enumerate(texts) if text is not None]
    made = card.whole(
        [text for text in texts if text is not None], [labels[place] for place in known], seed
    )
    out: list[str | None] = [None] * len(texts)
    for place, text in zip(known, made, strict=True):
        out[place] = text
    return out


def apply_transforms(
    cards: Iterable[TextTransform],
    texts: Sequence[str | None],
    labels: Sequence[Any],
    *,
    seed: int = 0,
) -> pl.DataFrame:
    """One row for each text and transform: ``row``, ``variant``, ``text``, ``changed``, ``reason``.

    ``text`` is null, and ``reason`` says why, where there is no explanation, no other activation
    to take from, or where a promise was not kept.
    """
    frames = [
        checked_rows(card, texts, apply_transform(card, texts, labels, seed=seed)) for card in cards
    ]
    return pl.concat(frames) if frames else pl.DataFrame(schema=SCHEMA)


def checked_rows(
    card: TextTransform, before: Sequence[str | None], after: Sequence[str | None]
) -> pl.DataFrame:
    """Rows of :func:`apply_transforms` for one transform, promises checked."""
    rows = []
    for row, (old, new) in enumerate(zip(before, after, strict=True)):
        reason = None
        if old is None:
            reason = "no explanation"
        elif new is None:
            reason = "nothing written" if card.is_written else "no other activation"
        else:
            broken = broken_promises(old, new, card.keeps)
            if broken:
                reason = "did not keep: " + ", ".join(broken)
        kept = new if reason is None else None
        rows.append((row, card.name, kept, None if kept is None else kept != old, reason))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")
