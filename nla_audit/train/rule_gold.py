"""Gold explanations made by rule, for those who have no labeler: what kind of document it is, its
key words, and its last words.

They are no insight into an activation, but true of its text, and need no model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nla_audit.text.words import FUNCTION_WORDS, words

#: Shorter ones, and numbers, are seldom what a text is about.
_SHORTEST_KEY_WORD = 3


def rule_explanations(
    texts: Sequence[str],
    doc_ids: Sequence[str],
    *,
    key_words: int = 5,
    last_words: int = 10,
    half_life: float | None = None,
) -> list[str]:
    """An explanation of each text.

    Args:
        texts: source texts up to the activation's token.
        doc_ids: of their documents. What stands before the first slash (of a file in a folder:
            the folder's name) is taken for the kind of document.
        key_words: at most so many.
        last_words: so many are quoted; 1 or more.
        half_life: so many words before the end a word counts half for a key word; all alike
            where there is none.
    """
    counts = [_weights(words(text), half_life) for text in texts]
    known_in: dict[str, set[str]] = {}
    for found, name in zip(counts, doc_ids, strict=True):
        for word in found:
            known_in.setdefault(word, set()).add(name)
    documents = len(set(doc_ids))
    rarity = {word: math.log(1 + documents / len(names)) for word, names in known_in.items()}
    return [
        _explanation(text, name, _key_words(found, rarity, key_words), last_words)
        for text, name, found in zip(texts, doc_ids, counts, strict=True)
    ]


def _may_be_key(word: str) -> bool:
    return word.isalpha() and len(word) >= _SHORTEST_KEY_WORD and word not in FUNCTION_WORDS


def _weights(found: Sequence[str], half_life: float | None) -> dict[str, float]:
    """How often each word that may be a key word stands there, or how often lately."""
    weights: dict[str, float] = {}
    for place, word in enumerate(found):
        if _may_be_key(word):
            age = len(found) - 1 - place
            weight = 1.0 if half_life is None else 0.5 ** (age / half_life)
            weights[word] = weights.get(word, 0.0) + weight
    return weights


def _key_words(weights: dict[str, float], rarity: dict[str, float], most: int) -> list[str]:
    """Those that are frequent here and rare elsewhere (tf-idf), the earliest where alike."""
    ranked = sorted(weights, key=lambda word: -weights[word] * rarity[word])
    return ranked[:most]


def _explanation(text: str, doc_id: str, key_words: list[str], last_words: int) -> str:
    kind, slash, _ = doc_id.partition("/")
    sentences = [f"Kind of text: {kind}."] if slash else []
    if key_words:
        sentences.append(f"Key words: {', '.join(key_words)}.")
    sentences.append(f"It ends with: {' '.join(text.split()[-last_words:])}")
    return " ".join(sentences)
