"""What is credited: which claims of one text another says again, by everything that was matched.

Nothing here knows which of the two texts is the reference (:mod:`nla_audit.text.alignment`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nla_audit.text.alignment import Aligned, PiecesPair, others
from nla_audit.text.details import UNMATCHED, Details
from nla_audit.text.pieces import Pieces
from nla_audit.text.segmentation import Segmentation
from nla_audit.text.words import unheld

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: A link that is likelier than not.
_LIKELY = 0.5


def repunctuated(
    aligned: Aligned, sentence_matched: Floats, details: Details, detailed: Floats
) -> tuple[float, float]:
    """Which share of either side's partnerless pieces goes back to mere punctuation.

    The same sentence may be cut into more pieces here and there, and then drops nothing. That
    happens to both sides alike; where one side has more such pieces than the other, the excess was
    left out. So of the pieces that have no partner in a matched sentence, as many are taken for
    said as the other side has. Those that are found in other words' places are said, and do not
    count.

    Args:
        sentence_matched: how likely each match of sentences is.
        details, detailed: pieces without a partner that were found, and how likely each find is.
    """
    alone = aligned.alone.copy()
    held = details.match != UNMATCHED
    np.subtract.at(alone, (details.match[held], details.side[held]), detailed[held])
    ours, theirs = sentence_matched @ np.maximum(alone, 0.0)
    least = min(ours, theirs)
    return (
        float(least / ours) if ours > 0 else 0.0,
        float(least / theirs) if theirs > 0 else 0.0,
    )


def segmentations(
    pairs: Sequence[PiecesPair],
    claims: Sequence[tuple[int, int]],
    aligned: Aligned,
    sentence_matched: Floats,
    piece_matched: Floats,
    *,
    details: Details,
    detailed: Floats,
    said_alone: tuple[float, float],
) -> list[Segmentation]:
    """Which claims of the first text each claim of the second says again, pair by pair.

    Args:
        claims: how many claims the two texts of each pair have.
        sentence_matched, piece_matched: the probability of each match of sentences, and of
            pieces that are left over.
        details, detailed: see :mod:`nla_audit.text.details`.
        said_alone: see :func:`repunctuated`.
    """
    inside, over = aligned.inside, aligned.left_over
    by_sentence = np.searchsorted(aligned.sentences.pair, np.arange(len(pairs) + 1))
    by_match = np.searchsorted(aligned.inside_of, np.arange(len(aligned.sentences.pair) + 1))
    by_over = np.searchsorted(over.pair, np.arange(len(pairs) + 1))
    by_detail = np.searchsorted(details.pair, np.arange(len(pairs) + 1))
    found = []
    for number, ((ours, theirs), (m, n)) in enumerate(zip(pairs, claims, strict=True)):
        there = slice(by_over[number], by_over[number + 1])
        # `[their pieces, our pieces]`: the probability that the one says the other again.
        links = np.zeros((len(theirs.pieces), len(ours.pieces)))
        links[over.theirs[there], over.ours[there]] = piece_matched[there]
        for match in range(by_sentence[number], by_sentence[number + 1]):
            here = slice(by_match[match], by_match[match + 1])
            partners = inside.ours[here], inside.theirs[here]
            _link_sentences(links, (ours, theirs), partners, sentence_matched[match], said_alone)
        for find in range(by_detail[number], by_detail[number + 1]):
            ends = details.piece[find], details.partner[find]
            cell = ends[::-1] if details.side[find] == 0 else ends
            links[cell] = max(links[cell], detailed[find])
        _link_final_tokens(links, ours, theirs)
        # Not their sum: several parts of a sentence that say the same thing once more keep no
        # more of it.
        kept = links.max(axis=0, initial=0.0)
        units = _units(links, ours, theirs, (m, n))
        other_words = _other_words(links, ours, theirs)
        found.append(Segmentation(_by_claim(ours, kept, m), units, np.arange(n), other_words))
    return found


def _link_sentences(
    links: Floats,
    texts: PiecesPair,
    partners: tuple[Integers, Integers],
    matched: float,
    said_alone: tuple[float, float],
) -> None:
    """Link the pieces of two sentences that match with some probability."""
    (ours, theirs), (a, b) = texts, partners
    links[b, a] = np.maximum(links[b, a], matched)
    if len(ours.places[ours.sentence_of[a[0]]]) > len(a):
        alone = others(ours.sentence_of == ours.sentence_of[a[0]], a)
        links[b[0], alone] = np.maximum(links[b[0], alone], matched * said_alone[0])
    if len(theirs.places[theirs.sentence_of[b[0]]]) > len(b):
        alone = others(theirs.sentence_of == theirs.sentence_of[b[0]], b)
        links[alone, a[0]] = np.maximum(links[alone, a[0]], matched * said_alone[1])


def _link_final_tokens(links: Floats, ours: Pieces, theirs: Pieces) -> None:
    """Link what names the same final token, in however different words: a text ends only once.

    One of the two says that it is the final one, neither is likely to say again another piece that
    quotes this word, and there is but one of either.
    """
    ends = np.flatnonzero(ours.quotes_a_word), np.flatnonzero(theirs.quotes_a_word)
    final = np.logical_or.outer(theirs.of_final_token[ends[1]], ours.of_final_token[ends[0]])
    if not final.any():
        return
    quoting = np.array(
        [[not ours.mentions[a].isdisjoint(theirs.mentions[b]) for a in ends[0]] for b in ends[1]]
    )
    here = np.ix_(ends[1], ends[0])
    said = quoting & (links[here] >= _LIKELY)
    is_said = np.logical_or.outer(said.any(axis=1), said.any(axis=0))
    wanted = quoting & final & ~is_said
    is_only = np.logical_and.outer(wanted.sum(axis=1) == 1, wanted.sum(axis=0) == 1)
    links[here] = np.where(wanted & is_only, 1.0, links[here])


def _units(links: Floats, ours: Pieces, theirs: Pieces, claims: tuple[int, int]) -> Floats:
    """`[their claims, our claims]`: the share of each of their claims that says each of ours."""
    m, n = claims
    # What is said once is said at most once, as for the other side.
    share = links.max(axis=1, initial=0.0) / np.maximum(links.sum(axis=1), 1e-9)
    weight = links * (theirs.tokens * share)[:, None]
    units = np.zeros((n, m))
    np.add.at(units, (theirs.claim_of[:, None], ours.claim_of[None, :]), weight)
    return units / np.maximum(np.bincount(theirs.claim_of, theirs.tokens, n), 1e-9)[:, None]


def _other_words(links: Floats, ours: Pieces, theirs: Pieces) -> float:
    """Content words of their sentences that say something of ours, in which ours do not hold them.

    Args:
        links: `[their pieces, our pieces]`, the probability that the one says the other again.
    """
    count = 0.0
    for place, said in enumerate(theirs.sentence_words):
        own = links[theirs.places[place]]
        likely = (own >= _LIKELY).any(axis=0)
        if likely.any():
            partners = np.unique(ours.sentence_of[likely])
            held = [word for partner in partners for word in ours.sentence_words[partner]]
            count += float(own.max()) * len(unheld(said, held))
    return count


def _by_claim(text: Pieces, share: Floats, claims: int) -> Floats:
    """Share of each claim's tokens that is said."""
    said = np.bincount(text.claim_of, share * text.tokens, minlength=claims)
    whole = np.bincount(text.claim_of, text.tokens, minlength=claims)
    return np.minimum(said / np.maximum(whole, 1e-9), 1.0)
