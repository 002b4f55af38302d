"""Gold explanations made by rule, for those who have no labeler: what kind of document it is, its
key words, and its last words.

They are no insight into an activation, but true of its text, and need no model.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from nla_audit.text.words import FUNCTION_WORDS, words

_KEY_WORDS = 5
_LAST_WORDS = 10
#: Shorter ones, and numbers, are seldom what a text is about.
_SHORTEST_KEY_WORD = 3


def rule_explanations(texts: Sequence[str], doc_ids: Sequence[str]) -> list[str]:
    """An explanation of each text.

    Args:
        texts: source texts up to the activation's token.
        doc_ids: of their documents. What stands before the first slash (of a file in a folder:
            the folder's name) is taken for the kind of document.
    """
    counts = [Counter(filter(_may_be_key, words(text))) for text in texts]
    known_in: dict[str, set[str]] = {}
    for found, name in zip(counts, doc_ids, strict=True):
        for word in found:
            known_in.setdefault(word, set()).add(name)
    documents = len(set(doc_ids))
    rarity = {word: math.log(1 + documents / len(names)) for word, names in known_in.items()}
    return [
        _explanation(text, name, _key_words(found, rarity))
        for text, name, found in zip(texts, doc_ids, counts, strict=True)
    ]


def _may_be_key(word: str) -> bool:
    return word.isalpha() and len(word) >= _SHORTEST_KEY_WORD and word not in FUNCTION_WORDS


def _key_words(counts: Counter[str], rarity: dict[str, float]) -> list[str]:
    """Those that are frequent here and rare elsewhere (tf-idf), the earliest where alike."""
    ranked = sorted(counts, key=lambda word: -counts[word] * rarity[word])
    return ranked[:_KEY_WORDS]


def _explanation(text: str, doc_id: str, key_words: list[str]) -> str:
    kind, slash, _ = doc_id.partition("/")
    sentences = [f"Kind of text: {kind}."] if slash else []
    if key_words:
        sentences.append(f"Key words: {', '.join(key_words)}.")
    last = " ".join(text.split()[-_LAST_WORDS:])
    return " ".join([*sentences, f"It ends with: {last}"])
