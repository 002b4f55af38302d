"""Does an explanation name the concept, and where first?

By words: one of the concept's words or phrases stands in it, up to case and inflection. By
embeddings: one of its claims is as near to what the concept is as few claims of unplanted
explanations are. Each way has a false alarm rate, which is measured on explanations of activations
into which nothing was planted.
"""

from __future__ import annotations

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
    """

    start: int
    claim: int


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


def first_mention(concept: Sought, text: str) -> Mention | None:
    """Where ``text`` first names the concept in one of its words."""
    start = concept.words.first_in(text)
    if start is None:
        return None
    claims = [claim.start for claim in split_claims(text)]
    return Mention(start, max(sum(begin <= start for begin in claims) - 1, 0))


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
