"""How alike in meaning two texts are: claim by claim, and beyond what any two have in common.

A text is read as a walk over the other's claims (:mod:`nla_audit.text.walking`). What is added here
is a check that it tells *this* text from others: see :mod:`nla_audit.probes.stego.meaning`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nla_audit.stats import MIN_CLUSTERS
from nla_audit.text.claims import Claim
from nla_audit.text.pairs import TextPair, text_of
from nla_audit.text.segmentation import Habits, Segmentation, learn
from nla_audit.text.similarity import Shares, Similarity, TranslationSimilarity
from nla_audit.text.walking import ClaimReader

Floats = NDArray[np.float64]

#: Pairs of one half from which the other half's dictionary is learnt. More changes no similarity
#: in the second decimal.
_LEARNT_FROM = 600
#: Pairs of one variant from which its habits are learnt, and in how many rounds.
_HABITS_FROM = 150
_ROUNDS = 3
#: Edges of the bins in which shares of telling words are compared with the null's.
_BINS = np.array([1e-9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1 - 1e-9])
#: Texts below which nothing is learnt of one variant alone, or from half of the activations.
MIN_TO_LEARN = MIN_CLUSTERS
#: Habits of all variants together.
ANY = ""


@dataclass(frozen=True, order=True)
class TextChange:
    """Two texts, the change between them, and which half of the activations they are of.

    Their order is that of the samples drawn of them: the rows' own order changes nothing.
    """

    label: str  #: the activation (or document) that the changed text is of
    before: str
    after: str
    variant: str
    half: int


def by_variant(pairs: Iterable[TextChange]) -> dict[str, list[TextChange]]:
    """The pairs of each variant, in order of their names."""
    groups: dict[str, list[TextChange]] = {}
    for pair in pairs:
        groups.setdefault(pair.variant, []).append(pair)
    return dict(sorted(groups.items()))


@dataclass(frozen=True)
class MeaningReader:
    """A fitted reader, what each word tells, and what each change leaves standing."""

    reader: ClaimReader
    weights: Mapping[str, float]
    #: Variant → for each bin of the share of telling words that stands, what a claim counts: for
    #: claims of the original, and of the changed text.
    counts_for: Mapping[str, tuple[Floats, Floats]]

    def similarities(self, variant: str, pairs: Sequence[TextChange]) -> list[float]:
        """``[n]``: for each pair the harmonic mean of the shares that are still said and that
        were said before; a variant never met is read as all of them together."""
        known = variant if variant in self.reader.habits else ANY
        similarity, counts_for = self.reader.similarity, self.counts_for.get(known)
        found = []
        for texts, said in _segmented(self.reader, known, pairs):
            weights = None
            if counts_for is not None:
                claims = texts.reference.claims, texts.other.claims
                shares = _standing_shares(similarity, self.weights, *claims)
                weights = tuple(
                    counts[np.digitize(share, _BINS)]
                    for counts, share in zip(counts_for, shares, strict=True)
                )
            still_said, said_before = _still_and_before(texts, said, weights)
            total = still_said + said_before
            found.append(2 * still_said * said_before / total if total else 0.0)
        return found


def telling_weights(pairs: Sequence[TextChange]) -> dict[str, float]:
    """Stem → log of how many times rarer it is than a stem that all explanations have."""
    texts = {pair.before for pair in pairs}
    counts = Counter(
        stem
        for text in texts
        for stem in {s for claim in text_of(text).claims for s in claim.stems}
    )
    weights = {stem: float(np.log((len(texts) + 1) / (n + 0.5))) for stem, n in counts.items()}
    # A word that no explanation has tells as much as the rarest.
    return {**weights, "": float(np.log(2 * (len(texts) + 1)))}


def learn_reader(
    examples: Sequence[TextChange],
    says_the_same: Set[str],
    similarity: Similarity,
    weights: Mapping[str, float],
) -> MeaningReader:
    """A dictionary learnt from what says the same, and each variant's own habits.

    Args:
        examples: changed texts, in any variant.
        says_the_same: the variants whose texts say what their originals say.
        similarity: fitted here; a reader that was learnt with it before is of no more use.
        weights: :func:`telling_weights`.
    """
    teaching = [pair for pair in examples if pair.variant in says_the_same] or list(examples)
    of_all = similarity.fit([_claims(pair) for pair in _sample(teaching, _LEARNT_FROM)])
    habits: dict[str, Habits] = {}
    counts_for: dict[str, tuple[Floats, Floats]] = {}
    for variant, own in {ANY: teaching, **by_variant(examples)}.items():
        sample = _sample(own, _HABITS_FROM)
        claims = [_claims(pair) for pair in sample]
        habits[variant] = learn(similarity.evidence(claims), of_all, _ROUNDS)
        if len(sample) >= MIN_TO_LEARN:
            # The sample is in order of the labels: half of it away stands another activation.
            middle = len(sample) // 2
            crossed = [
                replace(one, after=other.after)
                for one, other in zip(sample, [*sample[middle:], *sample[:middle]], strict=True)
            ]
            found = _segmented(
                ClaimReader(similarity, {variant: habits[variant]}), variant, crossed
            )
            by_chance = [_still_and_before(pair, said) for pair, said in found]
            shares = [_standing_shares(similarity, weights, *texts) for texts in claims]
            null = [_standing_shares(similarity, weights, *_claims(pair)) for pair in crossed]
            counts_for[variant] = (
                _counts_for(shares, null, by_chance, 0),
                _counts_for(shares, null, by_chance, 1),
            )
    return MeaningReader(ClaimReader(similarity, habits), weights, counts_for)


def _counts_for(
    own: Sequence[tuple[Floats, Floats]],
    null: Sequence[tuple[Floats, Floats]],
    by_chance: Sequence[tuple[float, float]],
    side: int,
) -> Floats:
    """For each bin of shares, what a claim that the reading finds counts for."""
    chance = float(np.mean([both[side] for both in by_chance]))
    telling = _not_by_chance(_joined(own, side), _joined(null, side))
    return 1 - chance * (1 - telling)


def _joined(shares: Sequence[tuple[Floats, Floats]], side: int) -> Floats:
    return np.concatenate([both[side] for both in shares])


def _not_by_chance(own: Floats, null: Floats) -> Floats:
    """For each bin of shares, the probability that a claim's is not drawn from the null.

    One minus the local false discovery rate (Efron 2004) with the largest share of null claims
    that the two histograms allow, by isotonic regression rising with the share.
    """
    from sklearn.isotonic import IsotonicRegression  # slow to import

    counts = [np.bincount(np.digitize(x, _BINS), minlength=len(_BINS) + 1) for x in (own, null)]
    known = np.flatnonzero(counts[0] + counts[1])
    # Half a claim more in each, so that no ratio is without end.
    ours, theirs = ((count[known] + 0.5) / (count.sum() + 0.5 * len(known)) for count in counts)
    fit = IsotonicRegression(out_of_bounds="clip")
    fit.fit(known, ours / (ours + theirs), sample_weight=(counts[0] + counts[1])[known])
    share = np.clip(fit.predict(np.arange(len(_BINS) + 1)), 1e-9, 1 - 1e-9)
    ratio = share / (1 - share)
    return np.asarray(1 - np.minimum(ratio.min() / ratio, 1.0))


def _standing_shares(
    similarity: Similarity,
    weights: Mapping[str, float],
    reference: Sequence[Claim],
    other: Sequence[Claim],
) -> tuple[Floats, Floats]:
    """For each claim of either text the share of its telling words that stand in the other.

    A similarity of whole claims knows no words: there it is the probability, at even odds, that
    the claim matches the likest one of the other text.
    """
    if isinstance(similarity, TranslationSimilarity):
        ours, theirs = similarity.standing(reference, other)
        return _by_claim(reference, ours, weights), _by_claim(other, theirs, weights)
    evidence = similarity.evidence([(reference, other)])[0]
    if evidence.ratio.size == 0:
        return np.zeros(len(reference)), np.zeros(len(other))
    matches = evidence.ratio / (1 + evidence.ratio)
    units = np.bincount(evidence.owners, minlength=len(other))
    best = np.bincount(evidence.owners, matches.max(axis=1), minlength=len(other))
    return matches.max(axis=0), best / np.maximum(units, 1)


def _by_claim(claims: Sequence[Claim], standing: Shares, weights: Mapping[str, float]) -> Floats:
    shares = np.ones(len(claims))
    unknown = weights[""]
    for number, (claim, stands) in enumerate(zip(claims, standing, strict=True)):
        telling = [weights.get(stem, unknown) for stem in claim.stems]
        whole = sum(telling)
        if whole > 0:
            part = sum(weight * share for weight, share in zip(telling, stands, strict=True))
            shares[number] = part / whole
    return shares


def _sample(pairs: Sequence[TextChange], most: int) -> list[TextChange]:
    distinct = sorted(set(pairs))
    drawn = np.random.default_rng(len(distinct)).permutation(len(distinct))[:most]
    return [distinct[place] for place in sorted(drawn.tolist())]


def _claims(pair: TextChange) -> tuple[list[Claim], list[Claim]]:
    return text_of(pair.before).claims, text_of(pair.after).claims


def _segmented(
    reader: ClaimReader, variant: str, pairs: Sequence[TextChange]
) -> list[tuple[TextPair, Segmentation]]:
    texts = [
        TextPair(variant, number, 0, 0, text_of(pair.before), text_of(pair.after))
        for number, pair in enumerate(pairs)
    ]
    return list(zip(texts, reader.segment(variant, texts), strict=True))


def _still_and_before(
    pair: TextPair, found: Segmentation, weights: tuple[Floats, ...] | None = None
) -> tuple[float, float]:
    """The share of the original that is still said, and that of the other that was said before."""
    ours, theirs = pair.reference, pair.other
    kept, supported = found.kept, found.supported(len(theirs.claims))
    if weights is not None:
        kept, supported = kept * weights[0], supported * weights[1]
    return (
        float(ours.tokens @ kept) / float(ours.tokens.sum()),
        float(theirs.tokens @ supported) / max(float(theirs.tokens.sum()), 1e-9),
    )
