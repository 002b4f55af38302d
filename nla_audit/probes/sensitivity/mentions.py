"""Does an explanation name the concept, and where first?

By words: one of the concept's words or phrases stands in it, up to case and inflection. By
embeddings: one of its claims is as near to what the concept is as few claims of unplanted
explanations are. By a language model: it says so, and quotes the words
(:mod:`nla_audit.probes.sensitivity.asking`). Each way has a false alarm rate, which is measured on
explanations of activations into which nothing was planted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nla_audit.errors import UserError
from nla_audit.text.claims import split_claims
from nla_audit.text.concepts import Concept
from nla_audit.text.sentence_model import sentence_model

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Mention:
    """The first mention in a text.

    Attributes:
        start: its first character.
        claim: number of the claim that holds it, from 0.
        segment: of the segment; ``None`` where the text has none.
    """

    start: int
    claim: int
    segment: int | None = None


@dataclass(frozen=True)
class Sought:
    """The concept that explanations are searched for.

    Attributes:
        name: of the concept.
        what: one sentence that says what it is; empty where nobody wrote one.
        words: those that count as naming it.
    """

    name: str
    what: str
    words: Concept


def sought(name: str, what: str, words: Sequence[str]) -> Sought:
    """The concept called ``name`` that any of ``words`` names.

    Raises:
        UserError: there is no word among them.
    """
    found = Concept.of(name, words)
    if not found.phrases:
        raise UserError(f"{name}: no words say when an explanation names it: list some")
    return Sought(name, what, found)


def first_mention(
    concept: Sought, text: str, segment_ends: Sequence[int] | None = None
) -> Mention | None:
    """Where ``text`` first names the concept in one of its words."""
    start = concept.words.first_in(text)
    return None if start is None else mention_at(start, text, segment_ends)


def mention_at(start: int, text: str, segment_ends: Sequence[int] | None = None) -> Mention:
    """A mention that begins at character ``start`` of ``text``.

    Args:
        segment_ends: characters of the text up to each end of a segment, ascending.
    """
    claims = [claim.start for claim in split_claims(text)]
    return Mention(
        start,
        max(bisect_right(claims, start) - 1, 0),
        None if segment_ends is None else bisect_right(segment_ends, start),
    )


def nearness(concept: Sought, texts: Sequence[str | None], model: str) -> Floats:
    """``[n]`` cosine of the claim of each text that is nearest to what the concept is.

    Args:
        concept: it is represented by its sentence, or by its name where there is none.
        texts: explanations; NaN for a missing or an empty one.
        model: of sentence-transformers, by name or folder.

    Raises:
        UserError: no such model.
    """
    encoder = sentence_model(model)
    claims = [
        [] if text is None else [claim.text for claim in split_claims(text)] for text in texts
    ]
    distinct = sorted({claim for some in claims for claim in some})
    said = [concept.what or concept.name, *distinct]
    vectors = np.asarray(
        encoder.encode(said, normalize_embeddings=True, show_progress_bar=False), dtype=np.float64
    )
    cosine = dict(zip(distinct, (vectors[1:] @ vectors[0]).tolist(), strict=True))
    return np.array([max((cosine[claim] for claim in some), default=np.nan) for some in claims])
