"""The reading's own error on this very table, and what it does to the intervals.

What was read of changed twins (:mod:`nla_audit.analyzers._trials`) less what is true is a bias,
which no resampling of activations shows: intervals are widened by it, in the direction in which it
was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.analyzers._twins import DELETED, EXCHANGED
from nla_audit.analyzers._unrecognised import Usual, hidden, unusually_new
from nla_audit.stats import Interval
from nla_audit.table.completions import Completions
from nla_audit.text.reading import OTHER_CLAIMS, READING_ERROR
from nla_audit.text.words import FUNCTION_WORDS, words

Floats = NDArray[np.float64]

#: A kind of claim with a larger bias than this is printed without an interval, and with its error.
LARGE_BIAS = 0.05
#: A bias of one kind of claim is known from so many claims.
LEAST_CLAIMS = 100
#: What deleting and exchanging claims cannot show: the largest bias of each kind on planted truth,
#: where claims are reworded too (``benchmarks/reading_error.md``, which a test holds to this). Bare
#: quotations and claims of no kind are not planted.
PLANTED_BIAS = {
    "final_token": 0.138,
    "repetition": 0.131,
    "genre": 0.082,
    "style": -0.087,
    "momentum": -0.060,
    "structure": 0.100,
    "expectation": -0.205,
    "number": 0.035,
    "entity": 0.019,
}
#: Activations whose texts show how terse a model writes.
_TERSENESS_ACTIVATIONS = 300

#: Those of the candidates for a bias that twins show.
MEASURED = slice(None, -2)
#: The last two, which no twin can show, in words.
_UNSHOWN = (
    "what is read as still said may be another claim about the same subject, as "
    f"{OTHER_CLAIMS:.0%} of it was by judges where sentences match by weak evidence; and where a "
    "text makes more new claims than a twin of the reference would (any, where there is none), or "
    "has more other words than such a twin on lines that say something of the reference, as many "
    "of the claims it lost may be among them, in words too different to be recognised; intervals "
    "reach as far as if all were."
)


@dataclass(frozen=True)
class Bias:
    """By how much shares are read too high, at one level of what is read as kept.

    Each is `[candidates]`: as if all that is gone was deleted; as if as much of it as the length
    of the text allows was exchanged for something else; the first for a text as terse as this one,
    where terse lines hide what they say; as if as much as may be were only about the same subject;
    and as if every claim that may be one that is lost were, in words too different to be
    recognised. Shares of the reference's tokens.

    Attributes:
        kept: of what is still said.
        supported: of the other text's tokens that say something of the reference.
        claims: of the reference's claims that are still made (a share of claims).
    """

    kept: Floats
    supported: Floats
    claims: Floats

    @property
    def measured_claims(self) -> Floats:
        """Of the claims, by what was measured on this table."""
        return self.claims[MEASURED]

    @property
    def omission(self) -> Floats:
        """Of the tokens for what is no longer said."""
        return -self.kept

    @property
    def addition(self) -> Floats:
        """Of the (negative) tokens for what the reference does not say."""
        return self.supported

    @property
    def rewording(self) -> Floats:
        """Of the tokens that terser wording saves."""
        return self.kept - self.supported


@dataclass(frozen=True)
class Level:
    """Where a model's texts lie on the curves of the reading's error.

    Attributes:
        retained: the share of the reference's tokens that is read as kept.
        supported: the model's content tokens that say something of the reference, over those of
            the reference.
        length: the model's content tokens over the reference's. A text can hold other things in the
            place of what it leaves out only as far as it has the length for them.
        terseness: see :func:`terseness`. What is overlooked in texts without any function words is
            overlooked here in proportion.
        unrecognised_kept, unrecognised_supported: a claim that is lost may be said in words too
            different to be recognised, as one that is new or beside others on the same line
            (:mod:`nla_audit.analyzers._unrecognised`). If as many are as can be, one for one in
            each text: their tokens in the reference, and those of the new ones in the text, as
            shares of the reference's.
        unrecognised_claims: how many they are, as a share of the reference's claims.
        beyond_kept, beyond_supported: the tokens again, only of as many as there are in all texts
            together beyond what a twin of the reference would have. What two texts of one model
            leave out of each other unrecognised is as much on either side.
        other_claims: which share of what is read as kept may be other claims about the same subject
            (:meth:`~nla_audit.text.reading.Reading.other_claims`).
    """

    retained: float
    length: float
    terseness: float = 0.0
    unrecognised_kept: float = 0.0
    unrecognised_supported: float = 0.0
    unrecognised_claims: float = 0.0
    other_claims: float = 0.0
    supported: float = 0.0
    beyond_kept: float = 0.0
    beyond_supported: float = 0.0

    @classmethod
    def of(
        cls,
        explanations: pl.DataFrame,
        terseness: float = 0.0,
        usual: Usual | None = None,
        other_claims: float = 0.0,
    ) -> Level:
        """Of one model's explanations, as :attr:`~nla_audit.text.reading.Reading.explanations`.

        Args:
            terseness: see :func:`terseness`.
            usual: what a twin of the reference makes anew; by default as without a twin.
            other_claims: see the attribute.
        """
        usual = usual or Usual()
        tokens, own, kept, supported, lost, new = (
            explanations[name].to_numpy()
            for name in (
                "tokens_reference",
                "tokens_model",
                "kept_tokens",
                "supported_tokens",
                "lost_claims",
                "new_claims",
            )
        )
        whole = float(tokens.sum()) or np.nan
        gone, more = (
            (tokens - kept) / np.maximum(lost, 1e-9),
            (own - supported) / np.maximum(new, 1e-9),
        )

        def unrecognised(anew: Floats, beside: Floats) -> tuple[float, float, float]:
            """Their tokens in the reference, tokens of the new ones, and how many they are."""
            anew = np.minimum(lost, anew)
            every = np.minimum(lost, anew + beside)
            # What is hidden in a line is said in words that count as supported already.
            return float((gone * every).sum()), float((more * anew).sum()), float(every.sum())

        anew, beside = unusually_new(explanations, usual), hidden(explanations, usual)
        found = unrecognised(np.maximum(anew, 0.0), np.maximum(beside, 0.0))
        beyond = unrecognised(_in_all(anew), _in_all(beside))
        return cls(
            float(kept.sum()) / whole,
            float(own.sum()) / whole,
            terseness,
            found[0] / whole,
            found[1] / whole,
            found[2] / (float(explanations["claims_reference"].sum()) or np.nan),
            other_claims,
            float(supported.sum()) / whole,
            beyond[0] / whole,
            beyond[1] / whole,
        )

    def beyond_twins(self) -> Level:
        """The same, where only what a twin does not have as well may be said unrecognised."""
        return replace(
            self,
            unrecognised_kept=self.beyond_kept,
            unrecognised_supported=self.beyond_supported,
        )


def _in_all(beyond: Floats) -> Floats:
    """What goes beyond a twin in each text, brought down to what does in all of them together."""
    above = np.maximum(beyond, 0.0)
    return above * (max(float(beyond.sum()), 0.0) / max(float(above.sum()), 1e-9))


_NO_BIAS = Bias(np.zeros(3), np.zeros(3), np.zeros(3))


@dataclass(frozen=True)
class ReadingError:
    """The reading's error on one table.

    Attributes:
        twins: what it was measured on, in words; ``None`` where it was not measured.
        why: why it was not measured.
        curves: change → `[trials, 4]`: the share read as kept, by which they are sorted, and the
            biases of kept, supported and claims there.
        kinds: kind → change → `[trials, 2]`: the share of its claims read as kept, and its bias;
        kind_claims: kind → how many claims that rests on.
        terseness: model → :func:`terseness`.
        overlooked: which share of the tokens kept, of the tokens supported and of the claims is not
            read where all is said, but run together and without function words.
        spread: standard deviation of what is left when the bias is known.
    """

    twins: str | None
    why: str = ""
    curves: Mapping[str, Floats] = field(default_factory=dict)
    kinds: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict)
    kind_claims: Mapping[str, int] = field(default_factory=dict)
    terseness: Mapping[str, float] = field(default_factory=dict)
    overlooked: tuple[float, float, float] = (0.0, 0.0, 0.0)
    spread: float = READING_ERROR

    @property
    def measured(self) -> bool:
        """Whether this table had twins to measure it on."""
        return self.twins is not None

    def at(self, level: Level) -> Bias:
        """The bias of what is read of texts at this level."""
        unrecognised = (
            -level.unrecognised_kept,
            -level.unrecognised_supported,
            -level.unrecognised_claims,
        )
        if np.isnan(level.retained):
            return _NO_BIAS
        levels = (level.retained, min(level.retained, level.length), level.retained)
        about_the_same = [
            level.other_claims * share
            for share in (level.retained, level.supported, level.retained)
        ]
        if not self.measured:
            return Bias(
                *(np.array([0.0, *both]) for both in zip(about_the_same, unrecognised, strict=True))
            )
        found = []
        for place, (share, overlooked) in enumerate(zip(levels, self.overlooked, strict=True)):
            candidates = self._candidates(self.curves, place + 1, level.retained, level.length)
            hidden = min(level.terseness, 1.0) * overlooked
            # However much is overlooked, no more than all can be there.
            terse = max(candidates[0] - share * hidden / (1 - hidden), share - 1)
            others = [terse, about_the_same[place], unrecognised[place]]
            found.append(np.append(candidates, others))
        return Bias(*found)

    def of_kind(self, kind: str, retained: float, length: float) -> float | None:
        """The largest bias of a kind's retention, of this table's own and of planted truth.

        ``None`` where too few claims show this table's, and that on planted truth is small.
        """
        planted = PLANTED_BIAS.get(kind, 0.0)
        if self.kind_claims.get(kind, 0) < LEAST_CLAIMS or np.isnan(retained):
            return planted if abs(planted) > LARGE_BIAS else None
        found = self._candidates(self.kinds[kind], 1, retained, length)
        return max(*found.tolist(), planted, key=abs)

    @staticmethod
    def _candidates(
        curves: Mapping[str, Floats], place: int, retained: float, length: float
    ) -> Floats:
        deleted, exchanged = (
            float(np.interp(retained, curve[:, 0], curve[:, place]))
            for curve in (curves[DELETED], curves[EXCHANGED])
        )
        return np.array([deleted, deleted + min(length, 1.0) * (exchanged - deleted)])

    def widen(
        self,
        interval: Interval,
        bias: Floats,
        spread: float | None = None,
        lowest: float = -np.inf,
        highest: float = np.inf,
    ) -> Interval:
        """An interval that allows for the reading's error.

        Args:
            interval: from resampling activations.
            bias: `[candidates]`, estimate less truth, in the interval's unit.
            spread: standard deviation of what is left when the bias is known, in that unit; of a
                share by default.
            lowest, highest: possible values.
        """
        wide = interval.widened(self.spread if spread is None else spread)
        return wide.reaching(
            max(0.0, float(bias.max())), max(0.0, -float(bias.min())), lowest, highest
        )

    def widen_share(
        self, interval: Interval, bias: Floats, spread: float | None = None
    ) -> Interval:
        """:meth:`widen`, of a share between 0 and 1."""
        return self.widen(interval, bias, spread, 0.0, 1.0)

    def sentence(self) -> str:
        """What a reader has to know of it."""
        if not self.measured:
            return (
                f"The reading's error on this table is not measured ({self.why}). Intervals allow "
                f"for ±{1.96 * self.spread:.0%}, the error on other real texts, and for no bias "
                f"but these: {_UNSHOWN} Kinds of claim get none."
            )
        worst = {
            change: float(curve[np.abs(curve[:, 1]).argmax(), 1])
            for change, curve in self.curves.items()
        }
        return (
            f"Intervals allow for the reading's error on this table's own texts ({self.twins}): "
            f"what is still said is read up to {_points(worst[DELETED])} points from the truth "
            f"where claims were deleted, and {_points(worst[EXCHANGED])} where they were exchanged "
            "for another activation's; each interval reaches further where its own reading erred, "
            "and is not centred on its estimate. Where all is still said, but three sentences to a "
            f"line and without function words, {self.overlooked[0]:.0%} of it is overlooked: "
            "omission may be too high where lines hold several claims. Intervals allow for that in "
            "proportion to the function words that a model's texts lack beside the reference's. "
            f"And {_UNSHOWN}"
        )


def terseness(completions: Completions) -> dict[str, float]:
    """Model → how far its texts lack function words beside the reference's: 0 no fewer, 1 has none.

    The share of words that are function words, over some activations' texts.
    """
    rows = completions.rows.filter(pl.col("explanation").is_not_null())
    chosen = rows["idx"].unique().sort().head(_TERSENESS_ACTIVATIONS)
    counts: dict[str, list[int]] = {}
    for model, text in (
        rows.filter(pl.col("idx").is_in(chosen.to_list()))
        .select(pl.col("model").cast(pl.String), "explanation")
        .iter_rows()
    ):
        count = counts.setdefault(model, [0, 0])
        said = words(text)
        count[0] += sum(word in FUNCTION_WORDS for word in said)
        count[1] += len(said)
    shares = {model: small / whole if whole else 0.0 for model, (small, whole) in counts.items()}
    usual = shares.get(completions.reference, 0.0)
    return {model: max(0.0, 1 - share / usual) if usual else 0.0 for model, share in shares.items()}


def _points(share: float) -> str:
    return f"{100 * share:+.0f}"
