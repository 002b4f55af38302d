"""Variant names as people write them, read as the names of our transforms.

``paraphrase_all``, ``LLM paraphrase`` and ``full-paraphrase`` are one change. A name is read only
where every word of it is known and the words together mean one transform; any other name stays
as it is, is shown and not judged, and the caveats say so. Two names of one table that read alike
are told apart by nobody: neither is read, unless one is the transform's own name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from nla_audit.errors import UserError
from nla_audit.probes.transforming.cards import transforms
from nla_audit.table.schema import shown

#: Word → what it stands for.
_WORDS = {
    word: concept
    for concept, words in {
        "": "a the of in within inside into to as by llm full fully all everything whole text "
        "texts explanation explanations version span spans order rewrite rewritten rewriting "
        "sentence sentences each per every is are rest else remaining",
        "unchanged": "original orig unchanged unmodified untouched",
        "floor": "floor another",
        "paraphrase": "paraphrase paraphrased paraphrasing paraphrases para reword reworded "
        "rewording",
        "quotes": "quote quotes quoted quotation quotations",
        "unquoted": "unquoted nonquoted nonquote nonquotes",
        "except": "except excluding but sparing spare spared outside around",
        "non": "non",
        "keep": "keep keeping kept preserve preserving preserved verbatim",
        "only": "only alone just",
        "without": "no without removed remove removing drop dropped strip stripped minus delete "
        "deleted deleting",
        "mask": "mask masked redact redacted",
        "fluent": "fluent fluently prose",
        "shuffle": "shuffle shuffled shuffling scramble scrambled permute permuted jumbled",
        "word": "word words",
        "line": "line lines",
        "claim": "claim claims bullet bullets",
        "translate": "translate translated translation german",
        "back": "back roundtrip",
    }.items()
    for word in words.split()
}
#: What the words of a name stand for, together → transform.
_MEANT: dict[frozenset[str], str] = {
    frozenset(concepts.split()): name
    for concepts, name in {
        "unchanged": "unchanged",
        "floor": "another",
        "paraphrase": "paraphrase",
        "paraphrase line": "paraphrase_lines",
        "paraphrase except quotes": "paraphrase_unquoted",
        "paraphrase keep quotes": "paraphrase_unquoted",
        "paraphrase unquoted": "paraphrase_unquoted",
        "paraphrase non quotes": "paraphrase_unquoted",
        "fluent": "rewrite_fluently",
        "quotes only": "quotes_only",
        "quotes without": "quotes_removed",
        "unquoted only": "quotes_removed",
        "non quotes only": "quotes_removed",
        "quotes mask": "quotes_masked",
        "shuffle word": "words_shuffled",
        "shuffle word line": "words_shuffled",
        "shuffle word claim": "words_shuffled",
        "shuffle line": "shuffle_claims",
        "shuffle claim": "shuffle_claims",
        "translate": "translate",
        "translate back": "translate_back",
    }.items()
}
#: Names whose words say something else than they mean.
_PHRASES = {
    "shuffled_pairing": "another",
    "other_activation": "another",
    "another_activation": "another",
    "shuffle_within_lines": "words_shuffled",
    "shuffled_within_lines": "words_shuffled",
}


def meant_by(name: str) -> str | None:
    """The transform that ``name`` means, ``None`` where that cannot be told."""
    pieces = re.findall(r"[^\W_]+", name.lower())
    plain = "_".join(pieces)
    if plain in transforms():
        return plain
    if plain in _PHRASES:
        return _PHRASES[plain]
    concepts = {_WORDS.get(piece) for piece in pieces} - {""}
    return None if None in concepts else _MEANT.get(frozenset(filter(None, concepts)))


def read_names(
    names: Iterable[str], given: Mapping[str, str] | None = None, *, path: str = "<table>"
) -> tuple[dict[str, str], list[str]]:
    """Every name → the name it is judged by, and what is to be said of that.

    Args:
        names: of the variants of one table.
        given: name → transform, by the user; goes before what is read.
        path: of the table, for messages.

    Raises:
        UserError: a given name is none of the table's, or is given a transform that is not.
    """
    present = sorted(set(names))
    cards = transforms()
    told = dict(given or {})
    for name, target in told.items():
        if name not in present:
            raise UserError(f"{path}: no variant {shown(name)} ({', '.join(map(shown, present))})")
        if target not in cards:
            near = get_close_matches(target, cards, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"name one of {', '.join(cards)}"
            raise UserError(f"{path}: --variant {name}={target}: no such transform: {hint}")
    taken = {*told.values(), *(name for name in present if name in cards and name not in told)}
    guesses = {
        name: meant
        for name in present
        if name not in told and name not in cards and (meant := meant_by(name)) is not None
    }
    often = Counter(guesses.values())
    read = {
        name: meant for name, meant in guesses.items() if often[meant] == 1 and meant not in taken
    }
    whole = {name: name for name in present} | read | told
    return whole, _said(present, whole, guesses)


def _said(present: list[str], whole: Mapping[str, str], guesses: Mapping[str, str]) -> list[str]:
    notes = []
    renamed = [f"{shown(name)} as {whole[name]}" for name in present if whole[name] != name]
    if renamed:
        notes.append(f"Variant names were read: {', '.join(renamed)}.")
    unclear = [
        f"{shown(name)} ({guesses[name]}?)"
        for name in present
        if name in guesses and whole[name] == name
    ]
    if unclear:
        notes.append(
            "Several variants read as one transform and are not judged: "
            f"{', '.join(unclear)}. Say which one is meant with --variant NAME=TRANSFORM."
        )
    cards = transforms()
    unknown = [shown(name) for name in present if whole[name] not in cards and name not in guesses]
    if unknown:
        notes.append(
            f"Variants that are no transform of ours are shown and not judged: "
            f"{', '.join(unknown)}. If one is, say so with --variant NAME=TRANSFORM, of "
            f"{', '.join(name for name, card in cards.items() if card.group != 'control')}."
        )
    return notes
