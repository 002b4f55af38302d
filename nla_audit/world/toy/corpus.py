"""Documents of the synthetic language made ready for a trainer: token ids, places, gold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nla_audit.world.toy.explanations import write_explanation
from nla_audit.world.toy.language import WORDS, Language, ToyDocuments


@dataclass(frozen=True)
class Corpus:
    """Documents, the tokens at which activations are taken, and a gold explanation for each.

    Attributes:
        token_ids: of each document.
        positions: of each document, the tokens taken, ascending.
        source_texts: one for each taken token, documents in order: the text up to it.
        explanations: likewise, gold.
        facts: likewise, fact → value: what is true and could be said.
        document_of: likewise, the number of its document.
    """

    token_ids: list[list[int]]
    positions: list[list[int]]
    source_texts: list[str]
    explanations: list[str]
    facts: list[dict[str, str]]
    document_of: list[int]


def make_corpus(
    language: Language,
    tokenizer: Any,
    rng: np.random.Generator,
    *,
    documents: int,
    words: int,
    positions_per_document: int,
    first_position: int,
) -> Corpus:
    """Write ``documents`` of ``words`` words and take positions from the later part of each."""
    written: ToyDocuments = language.write(rng, documents, words)
    ids_of_words = np.array(tokenizer.convert_tokens_to_ids(list(WORDS)))
    corpus = Corpus(ids_of_words[written.words].tolist(), [], [], [], [], [])
    for document in range(documents):
        available = np.arange(min(first_position, words - 1), words)
        taken = rng.choice(available, min(positions_per_document, len(available)), replace=False)
        corpus.positions.append(sorted(taken.tolist()))
        for position in corpus.positions[-1]:
            source = written.text(document, position + 1)
            facts = written.named_facts(document)
            corpus.source_texts.append(source)
            corpus.facts.append(facts)
            corpus.explanations.append(write_explanation(rng, facts, source.split()))
            corpus.document_of.append(document)
    return corpus
