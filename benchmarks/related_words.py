"""Which English words say nearly the same: builds `related_words.npz`, and what it is worth.

    python -m benchmarks.related_words WORDNET EMBEDDINGS [--paraphrases FILE] > related_words.md

WORDNET is the folder of WordNet 3.0's database files (`index.noun`, `data.noun`, …, `cntlist.rev`;
Debian's `wordnet-base` brings it), EMBEDDINGS a sentence-transformers model (all-MiniLM-L6-v2).

Words are WordNet's single words in lower case (no names) that either its tagged texts or the
embeddings' own vocabulary hold; function words and numbers are not among them. Two words are
related by WordNet as far as their likeliest senses are the same or next to each other, and by the
embeddings as far as they are near, to at most so many neighbours. Antonyms are not related. What is
told is how well the similarity of sentences tells paraphrases from other activations' texts (AUC),
and where paraphrases lie on the scale on which the latter are standard normal.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import mannwhitneyu

from benchmarks.reading_wordings import CHANGED, REFERENCE, VERSIONS, WORDINGS, changed
from nla_audit.text.alignment import Store, align
from nla_audit.text.mixture import normal_scores
from nla_audit.text.numerals import NUMBER_WORDS
from nla_audit.text.pairs import text_of, text_pairs
from nla_audit.text.related_words import FILE, RelatedWords, save
from nla_audit.text.vectors import WordVectors
from nla_audit.text.words import FUNCTION_WORDS, stem

_PARTS = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
_SENSE_PARTS = {1: "n", 2: "v", 3: "a", 4: "r", 5: "a"}
#: Pointers from one sense to another, and how near they are: derived words, participles,
#: pertainyms, like adjectives, see-also, verb groups and hypernyms; 1 is the same sense.
_NEAR = {"+": 0.8, "\\": 0.8, "&": 0.7, "$": 0.7, "^": 0.5, "@": 0.5}
_ANTONYM = "!"
#: Of what relates words, so much counts at most; less than the last is not kept.
_WORDNET_WEIGHT, _EMBEDDING_WEIGHT, _LEAST = 0.6, 0.8, 0.03
#: Embeddings (less their mean) are near from this cosine on, and to so many others at most.
_LEAST_COSINE, _MOST_NEIGHBOURS = 0.3, 60
#: What is just near counts so much of what the same counts.
_JUST_NEAR = 0.1
#: Other activations that each text is set beside.
PARTNERS = 6

Pairs = dict[tuple[int, int], float]


@dataclass
class WordNet:
    """What of WordNet is needed.

    Attributes:
        senses: stem → sense → how likely the stem has it.
        near: sense → senses next to it, and how near.
        antonyms: pairs of stems.
        counts: word → how often WordNet's tagged texts hold it.
    """

    senses: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    near: dict[str, list[tuple[str, float]]] = field(default_factory=lambda: defaultdict(list))
    antonyms: set[tuple[str, str]] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _words: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> WordNet:
        """Read the database files."""
        found = cls()
        tagged: dict[tuple[str, str, int], int] = {}
        for line in (folder / "cntlist.rev").read_text().splitlines():
            key, sense, count = line.split()
            word, where = key.split("%")
            tagged[_SENSE_PARTS[int(where[0])], word, int(sense)] = int(count)
            found.counts[word] += int(count)
        pointers = []
        for part, name in _PARTS.items():
            for line in _lines(folder / f"data.{name}"):
                pointers += found._read_sense(part, line)
        for sense, symbol, other, ends in pointers:
            found._point(sense, symbol, other, ends)
        lower = {word for words in found._words.values() for word in words if word.islower()}
        for part, name in _PARTS.items():
            for line in _lines(folder / f"index.{name}"):
                fields = line.split()
                if _is_word(fields[0]) and fields[0] in lower:
                    offsets = fields[-int(fields[2]) :]
                    for rank, offset in enumerate(offsets, start=1):
                        own = found.senses[stem(fields[0])]
                        count = tagged.get((part, fields[0], rank), 0) + 0.5 / rank
                        own[part + offset] = own.get(part + offset, 0.0) + count
        for own in found.senses.values():
            whole = sum(own.values())
            own.update({sense: count / whole for sense, count in own.items()})
        return found

    def _read_sense(self, part: str, line: str) -> Iterator[tuple[str, str, str, str]]:
        fields = line.split(" | ", maxsplit=1)[0].split()
        count = int(fields[3], 16)
        # "(p)" and the like behind an adjective tell where it may stand.
        self._words[part + fields[0]] = [
            re.sub(r"\(.*\)", "", word) for word in fields[4 : 4 + 2 * count : 2]
        ]
        first = 4 + 2 * count
        for place in range(first + 1, first + 1 + 4 * int(fields[first]), 4):
            symbol, offset, other, ends = fields[place : place + 4]
            yield part + fields[0], symbol, other.replace("s", "a") + offset, ends

    def _point(self, sense: str, symbol: str, other: str, ends: str) -> None:
        if symbol in _NEAR:
            self.near[sense].append((other, _NEAR[symbol]))
        elif symbol == _ANTONYM:
            first = stem(self._words[sense][int(ends[:2], 16) - 1].lower())
            second = stem(self._words[other][int(ends[2:], 16) - 1].lower())
            self.antonyms |= {(first, second), (second, first)}

    def pairs(self, place: Mapping[str, int]) -> Pairs:
        """How near each two of these stems are, from 0 to 1."""
        holders: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for word, own in self.senses.items():
            if word in place:
                for sense, share in own.items():
                    holders[sense].append((place[word], share))
        found: Pairs = defaultdict(float)
        for sense, ours in holders.items():
            # Each sense points to itself once; of two senses mostly one alone points to the other.
            for other, weight in [(sense, 0.5), *((o, w / 2) for o, w in self.near[sense])]:
                for a, first in ours:
                    for b, second in holders.get(other, ()):
                        if a != b:
                            found[min(a, b), max(a, b)] += weight * float(np.sqrt(first * second))
        return {pair: min(weight, 1.0) for pair, weight in found.items()}


def _lines(file: Path) -> Iterator[str]:
    """The lines of a database file; those of its licence begin with a blank."""
    return (line for line in file.read_text().splitlines() if not line.startswith(" "))


def _is_word(text: str) -> bool:
    return (
        len(text) > 2
        and text.isascii()
        and text.isalpha()
        and text not in FUNCTION_WORDS
        and text not in NUMBER_WORDS
    )


def vocabulary(wordnet: WordNet, known: set[str]) -> list[str]:
    """One word for each stem: the commonest."""
    forms: dict[str, list[str]] = defaultdict(list)
    for words in wordnet._words.values():
        for word in words:
            if word.islower() and _is_word(word):
                forms[stem(word)].append(word)
    found = []
    for several in forms.values():
        best = min(set(several), key=lambda word: (-wordnet.counts[word], len(word), word))
        if best in known or any(wordnet.counts[word] for word in several):
            found.append(best)
    return sorted(found)


def near_embeddings(vectors: np.ndarray) -> Pairs:
    """How near each two of these words are, from 0 to 1."""
    vectors = vectors - vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Pairs = {}
    for start in range(0, len(vectors), 1000):
        cosines = vectors[start : start + 1000] @ vectors.T
        cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -1.0
        for row, own in enumerate(cosines, start=start):
            for other in np.argsort(-own, kind="stable")[:_MOST_NEIGHBOURS].tolist():
                share = (float(own[other]) - _LEAST_COSINE) / (1 - _LEAST_COSINE)
                if share > 0:
                    pair = min(row, other), max(row, other)
                    found[pair] = _JUST_NEAR + (1 - _JUST_NEAR) * share
    return found


def joined(parts: list[tuple[Pairs, float]], size: int, never: set[tuple[int, int]]) -> Pairs:
    """The larger of several weights of each pair."""
    found: Pairs = {}
    for pairs, weight in parts:
        for pair, share in pairs.items():
            if pair not in never and weight * share >= _LEAST:
                found[pair] = max(found.get(pair, 0.0), weight * share)
    return found


def tables(paraphrases: str | None) -> Iterator[tuple[str, pl.DataFrame, str]]:
    """Name, lines and version of what is compared with its originals."""
    for file in sorted(WORDINGS.glob("*.jsonl")):
        lines = pl.read_ndjson(file).sort("idx", "line")
        for version in VERSIONS:
            yield f"{file.stem}, {version}", lines, version
    if paraphrases:
        lines = pl.read_parquet(paraphrases).sort("idx", "line")
        lines = lines.filter(pl.col("idx").is_in(paraphrased_whole(lines)))
        every = lines["idx"].unique().sort()
        for name, idx in (("even", every.gather_every(2)), ("odd", every.gather_every(2, 1))):
            yield f"given, {name}", lines.filter(pl.col("idx").is_in(idx.to_list())), "paraphrase"


def paraphrased_whole(lines: pl.DataFrame) -> list[int]:
    """Activations whose paraphrases have at most one sentence fewer than their originals."""
    found = []
    for (idx,), own in lines.group_by("idx", maintain_order=True):
        before, after = (
            sum(len(text_of(text).pieces.sentences) for text in own[column])
            for column in ("original", "paraphrase")
        )
        if before - after < 2:
            found.append(idx)
    return found


def separation(
    lines: pl.DataFrame, version: str, related: RelatedWords
) -> tuple[float, float, float]:
    """AUC of paraphrased sentences against other activations', and where they lie beside these."""
    table, _ = changed(lines, version, 0.0, "deleted", 0)
    pairs = [
        (pair.reference.pieces, pair.other.pieces)
        for pair in text_pairs(table.rows, REFERENCE)
        if pair.model == CHANGED
    ]
    texts = [text for pair in pairs for text in pair]
    vectors = WordVectors(related)
    vectors.fit([sentence for text in texts for sentence in text.sentences])
    vectors.learn([(ours.words, theirs.words) for ours, theirs in pairs], len(pairs))
    store = Store.of(texts, vectors)
    shifted = [
        (ours, pairs[(number + step) % len(pairs)][1])
        for step in range(1, PARTNERS + 1)
        for number, (ours, _) in enumerate(pairs)
    ]
    aligned = align(pairs, store)
    own = aligned.sentences.scores
    null = np.sort(align(shifted, store, aligned.expected.elsewhere()).sentences.scores)
    places = normal_scores(own, null)
    auc = mannwhitneyu(own, null).statistic / len(own) / len(null)
    return float(auc), float(places.mean()), float(places.std())


def main() -> None:
    """Build the file, and print the table."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("wordnet", type=Path)
    arguments.add_argument("embeddings")
    arguments.add_argument("--paraphrases", help="idx, line, original, paraphrase")
    arguments.add_argument("--out", type=Path, default=FILE)
    given = arguments.parse_args()
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(given.embeddings)
    wordnet = WordNet.read(given.wordnet)
    words = vocabulary(wordnet, set(model.tokenizer.get_vocab()))
    place = {stem(word): number for number, word in enumerate(words)}
    never = {(place[a], place[b]) for a, b in wordnet.antonyms if a in place and b in place}
    by_senses = wordnet.pairs(place)
    by_embedding = near_embeddings(model.encode(words, normalize_embeddings=True))
    parts = {
        "neither": [],
        "WordNet": [(by_senses, _WORDNET_WEIGHT)],
        "embeddings": [(by_embedding, _EMBEDDING_WEIGHT)],
        "both": [(by_senses, _WORDNET_WEIGHT), (by_embedding, _EMBEDDING_WEIGHT)],
    }
    print("| explanations | " + " | ".join(parts) + " |")
    print("|---|" + "---|" * len(parts))
    built = {
        name: RelatedWords.of(words, joined(part, len(words), never))
        for name, part in parts.items()
    }
    every = list(tables(given.paraphrases))
    for name, lines, version in every:
        cells = []
        for related in built.values():
            auc, mean, deviation = separation(lines, version, related)
            cells.append(f"{auc:.3f} ({mean:.1f}, {deviation:.1f})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    save(given.out, words, built["both"])
    print(f"{len(words)} words, {built['both'].weights.nnz // 2} pairs", file=sys.stderr)


if __name__ == "__main__":
    main()
