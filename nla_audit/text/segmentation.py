"""Segmentation: which claim of a reference each part of another explanation says again.

An explanation is read as a walk over the claims of the reference: word after word it stays with
one claim, moves to another, or says something that no claim of the reference says. That is a
hidden Markov model in the manner of word alignment (Vogel, Ney & Tillmann 1996, "HMM-based word
alignment in statistical translation"). Its habits (how long a model stays, how it orders claims,
how often it says something else, how many of its words no dictionary explains) are learnt by
expectation maximisation from the texts of each model, so that no threshold has to be picked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: What lies before a unit: another word of its claim, a new claim, a new sentence, nothing.
WORD, CLAUSE, SENTENCE, START = 0, 1, 2, 3
#: Steps between claims are told apart up to three and binned beyond: …, 4 to 7, 8 and more.
_BINS = 11
_NO_STEP = _BINS // 2
#: Pseudo-counts of the step distribution, towards the one before.
_STEP_PRIOR = 5.0
#: Bounds of the learnt probabilities: no habit is ever certain.
_STAY_RANGE = (0.02, 0.98)
_UNSUPPORTED_RANGE = (0.01, 0.9)
_UNEXPLAINED_RANGE = (0.2, 0.9)
_CROSSING_RANGE = (0.01, 100.0)
#: Largest log evidence of one word: a rare word that matches is strong, but not proof.
_MOST_EVIDENCE = 12.0
#: Pairs that are segmented in one batch.
_BATCH = 512


@dataclass(frozen=True)
class LikelihoodRatios:
    """What a similarity says of an explanation beside a reference.

    Attributes:
        ratio: `[units, claims]`, how many times likelier each unit (a word, or a whole claim) is
            in an explanation that says this claim of the reference than anywhere; 0 and above.
        breaks: `[units]`, what lies before each unit.
        owners: `[units]`, the claim of the explanation that each unit belongs to.
        sentences: `[claims]`, the sentence of the reference that each of its claims is in.
    """

    ratio: Floats
    breaks: Integers
    owners: Integers
    sentences: Integers


@dataclass(frozen=True)
class Habits:
    """How a model walks over the reference's claims; the parameters of the hidden Markov model.

    Attributes:
        stay: probability of staying with a claim at the next word, clause, sentence.
        unsupported: probability that a new segment says nothing of the reference.
        unexplained: share of a segment's words that nothing in its claim accounts for.
        step: weight of moving from claim *i* to claim *i + step*, by bin of the step.
        crossing: weight of moving to another sentence of the reference against moving within,
            while inside a sentence and at the start of one.
    """

    stay: Floats = field(default_factory=lambda: np.array([0.85, 0.15, 0.05]))
    unsupported: float = 0.1
    unexplained: float = 0.5
    step: Floats = field(default_factory=lambda: np.where(np.arange(_BINS) == _NO_STEP, 0.0, 1.0))
    crossing: Floats = field(default_factory=lambda: np.ones(2))


@dataclass
class Counts:
    """Expected counts from which new habits are estimated; they add up over batches."""

    stayed: Floats = field(default_factory=lambda: np.zeros(4))
    units: Floats = field(default_factory=lambda: np.zeros(4))
    segments: Floats = field(default_factory=lambda: np.zeros(2))  #: unsupported, supported
    unexplained: Floats = field(default_factory=lambda: np.zeros(2))  #: such words, all words
    steps: Floats = field(default_factory=lambda: np.zeros((2, _BINS)))  #: seen, expected
    crossings: Floats = field(default_factory=lambda: np.zeros((2, 2, 2)))

    def add(self, other: Counts) -> None:
        """Add another batch's counts to these."""
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def improve(self, habits: Habits) -> Habits:
        """Habits under which what was counted is likelier: the maximisation step.

        Steps and crossings are moved by the ratio of what was seen to what was expected
        (generalised iterative scaling; Darroch & Ratcliff 1972), because the two share a norm.
        """
        stay = np.where(
            self.units[:3] > 0,
            np.clip(self.stayed[:3] / np.maximum(self.units[:3], 1e-9), *_STAY_RANGE),
            habits.stay,
        )
        step = habits.step * (self.steps[0] + _STEP_PRIOR) / (self.steps[1] + _STEP_PRIOR)
        ratio = (self.crossings[:, 0] + _STEP_PRIOR) / (self.crossings[:, 1] + _STEP_PRIOR)
        return Habits(
            stay=stay,
            unsupported=_share(self.segments[0], self.segments.sum(), _UNSUPPORTED_RANGE),
            unexplained=_share(self.unexplained[0], self.unexplained[1], _UNEXPLAINED_RANGE),
            step=step / step[step > 0].mean(),
            crossing=np.clip(habits.crossing * ratio[:, 1] / ratio[:, 0], *_CROSSING_RANGE),
        )


def _share(part: float, whole: float, bounds: tuple[float, float]) -> float:
    return float(np.clip(part / whole if whole > 0 else 0.0, *bounds))


@dataclass(frozen=True)
class Segmentation:
    """One explanation, segmented.

    Attributes:
        kept: `[claims of the reference]`, probability that the explanation still makes each.
        units: `[units, claims]`, probability that each unit says each claim; what is missing to
            one is the probability that it says nothing of the reference.
        owners: `[units]`, the claim of the explanation that each unit belongs to.
        other_words: content words of the explanation that stand where something of the reference
            is said, and that the reference does not hold there: other words for it, or something
            else that is said on the same line. Counted by :mod:`nla_audit.text.credit` only.
    """

    kept: Floats
    units: Floats
    owners: Integers
    other_words: float = 0.0

    def supported(self, claims: int) -> Floats:
        """`[claims of the explanation]`: share of each that says something of the reference."""
        words = np.bincount(self.owners, minlength=claims)
        said = np.bincount(self.owners, np.minimum(self.units.sum(axis=1), 1.0), minlength=claims)
        everywhere = said.sum() / max(words.sum(), 1)
        return np.where(words > 0, said / np.maximum(words, 1), everywhere)


def segment(pairs: Sequence[LikelihoodRatios], habits: Habits) -> list[Segmentation]:
    """Segment explanations under known habits, in their order."""
    found: list[Segmentation | None] = [None] * len(pairs)
    for numbers in batches([pair.ratio.shape for pair in pairs]):
        for number, segmentation in zip(
            numbers, segment_and_count([pairs[n] for n in numbers], habits)[0], strict=True
        ):
            found[number] = segmentation
    return [segmentation for segmentation in found if segmentation is not None]


def learn(pairs: Sequence[LikelihoodRatios], habits: Habits, iterations: int) -> Habits:
    """Learn a model's habits from its explanations by expectation maximisation."""
    for _ in range(iterations):
        counts = Counts()
        for numbers in batches([pair.ratio.shape for pair in pairs]):
            counts.add(segment_and_count([pairs[n] for n in numbers], habits)[1])
        habits = counts.improve(habits)
    return habits


def batches(shapes: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Numbers of pairs of like size together, so that little is padded."""
    order = sorted(range(len(shapes)), key=lambda n: (shapes[n], n))
    for start in range(0, len(order), _BATCH):
        yield order[start : start + _BATCH]


class _Batch:
    """Padded arrays of a batch: time first, then pair, then state (0 is "unsupported")."""

    def __init__(self, pairs: Sequence[LikelihoodRatios], habits: Habits):
        units = max((pair.ratio.shape[0] for pair in pairs), default=0)
        claims = max((pair.ratio.shape[1] for pair in pairs), default=0)
        count = len(pairs)
        self.emission = np.zeros((units, count, claims + 1))
        self.breaks = np.full((units, count), START)
        self.is_unit = np.zeros((units, count), dtype=bool)
        self.is_claim = np.zeros((count, claims), dtype=bool)
        sentences = np.full((count, claims), -1)
        for number, pair in enumerate(pairs):
            m, n = pair.ratio.shape
            self.is_claim[number, :n] = True
            sentences[number, :n] = pair.sentences
            mixed = (1 - habits.unexplained) * pair.ratio + habits.unexplained
            self.emission[:m, number, 1 : n + 1] = np.minimum(mixed, np.exp(_MOST_EVIDENCE))
            self.emission[:m, number, 0] = 1.0
            self.breaks[:m, number] = pair.breaks
            self.is_unit[:m, number] = True
        self.opens_sentence = self.breaks == SENTENCE
        self.stay = np.append(habits.stay, 0.0)[self.breaks]
        #: Without claims, everything is unsupported.
        self.aside = np.where(self.is_claim.any(axis=1), habits.unsupported, 1.0)[:, None]
        self.bins = _bin(np.subtract.outer(np.arange(claims), np.arange(claims)).T)
        self.crosses = sentences[:, :, None] != sentences[:, None, :]
        self.moves = [self._moves(habits, place) for place in (0, 1)]
        first = habits.step[_bin(np.arange(claims) + 1)][None] * self.is_claim
        self.first = first / np.maximum(first.sum(axis=1, keepdims=True), 1e-12)
        self.anywhere = self.is_claim / np.maximum(self.is_claim.sum(axis=1, keepdims=True), 1)

    def _moves(self, habits: Habits, place: int) -> Floats:
        """`[pairs, from claim, to claim]`, each row a distribution."""
        weight = habits.step[self.bins][None] * np.where(self.crosses, habits.crossing[place], 1.0)
        weight = weight * self.is_claim[:, None, :] * self.is_claim[:, :, None]
        return weight / np.maximum(weight.sum(axis=2, keepdims=True), 1e-12)

    def move(self, time: int, state: Floats) -> Floats:
        """Where a walk goes if it leaves its state before unit ``time``."""
        claims = np.matmul(state[:, None, 1:], self.moves[0])[:, 0]
        opens = np.flatnonzero(self.opens_sentence[time])
        claims[opens] = np.matmul(state[opens, None, 1:], self.moves[1][opens])[:, 0]
        gone = np.empty_like(state)
        gone[:, :1] = state.sum(axis=1, keepdims=True) * self.aside
        gone[:, 1:] = (1 - self.aside) * (claims + state[:, :1] * self.anywhere)
        return gone

    def move_back(self, time: int, state: Floats) -> Floats:
        """The transpose of :meth:`move`."""
        claims = np.matmul(self.moves[0], state[:, 1:, None])[:, :, 0]
        opens = np.flatnonzero(self.opens_sentence[time])
        claims[opens] = np.matmul(self.moves[1][opens], state[opens, 1:, None])[:, :, 0]
        come = np.empty_like(state)
        come[:, 1:] = self.aside * state[:, :1] + (1 - self.aside) * claims
        come[:, :1] = self.aside * state[:, :1] + (1 - self.aside) * (
            self.anywhere * state[:, 1:]
        ).sum(axis=1, keepdims=True)
        return come


def _bin(step: Integers) -> Integers:
    size = np.abs(step)
    return np.sign(step) * np.select([size <= 3, size <= 7], [size, 4], 5) + _NO_STEP


def segment_and_count(
    pairs: Sequence[LikelihoodRatios], habits: Habits
) -> tuple[list[Segmentation], Counts]:
    """One expectation step over a batch: segmentations, in order, and the counts they imply.

    Forward and backward passes (Rabiner 1989), scaled at each unit.
    """
    batch = _Batch(pairs, habits)
    times, count, states = batch.emission.shape
    forward, left = np.zeros_like(batch.emission), np.zeros_like(batch.emission)
    scale = np.ones((times, count, 1))
    for time in range(times):
        if time == 0:
            left[0] = np.concatenate([batch.aside, (1 - batch.aside) * batch.first], axis=1)
            came = left[0]
        else:
            left[time] = batch.move(time, forward[time - 1])
            stay = batch.stay[time][:, None]
            came = stay * forward[time - 1] + (1 - stay) * left[time]
        joint = came * batch.emission[time]
        total = joint.sum(axis=1, keepdims=True)
        scale[time] = np.where(total > 0, total, 1.0)
        forward[time] = joint / scale[time]
    posterior, arrived = np.zeros_like(forward), np.zeros_like(forward)
    entries = np.zeros((count, states))
    counts = Counts()
    backward = np.ones((count, states))
    for time in reversed(range(times)):
        live = batch.is_unit[time][:, None]
        posterior[time] = forward[time] * backward * live
        reached = batch.emission[time] * backward / scale[time] * live
        stay = batch.stay[time][:, None]
        arrived[time] = (1 - stay) * reached
        entries += arrived[time] * left[time]
        if time > 0:
            stayed = (stay * forward[time - 1] * reached).sum(axis=1)
            counts.stayed += np.bincount(batch.breaks[time], stayed, minlength=4)
            counts.units += np.bincount(batch.breaks[time], live[:, 0], minlength=4)
            before = stay * reached + batch.move_back(time, arrived[time])
            backward = np.where(live, before, 1.0)
    counts.segments = np.array([entries[:, 0].sum(), entries[:, 1:].sum()])
    _count_words(batch, posterior, habits, counts)
    _count_moves(batch, forward, arrived, counts)
    kept = np.minimum(entries[:, 1:], 1.0)
    found = [
        Segmentation(kept[k, :n].copy(), posterior[:m, k, 1 : n + 1].copy(), pair.owners)
        for k, pair in enumerate(pairs)
        for m, n in [pair.ratio.shape]
    ]
    return found, counts


def _count_words(batch: _Batch, posterior: Floats, habits: Habits, counts: Counts) -> None:
    said, emission = posterior[:, :, 1:], batch.emission[:, :, 1:]
    by_nothing = said * habits.unexplained / np.maximum(emission, habits.unexplained)
    counts.unexplained = np.array([by_nothing.sum(), said.sum()])


def _count_moves(batch: _Batch, forward: Floats, arrived: Floats, counts: Counts) -> None:
    """Steps between claims, seen and expected, from all units at once."""
    if len(forward) < 2:
        return
    before = (forward[:-1, :, 1:] * (1 - batch.aside)).transpose(1, 2, 0)
    after = arrived[1:, :, 1:].transpose(1, 0, 2)
    for place in (0, 1):
        at = (batch.opens_sentence[1:] == bool(place)).T[:, :, None]
        seen = np.matmul(before, after * at) * batch.moves[place]
        expected = seen.sum(axis=2, keepdims=True) * batch.moves[place]
        for row, moved in enumerate((seen, expected)):
            counts.steps[row] += np.bincount(
                batch.bins.ravel(), moved.sum(axis=0).ravel(), minlength=_BINS
            )
            counts.crossings[place, row] += (
                moved[~batch.crosses].sum(),
                moved[batch.crosses].sum(),
            )
