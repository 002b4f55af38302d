"""What each word, each claim and their order are worth to a reader of explanations.

Everything is measured twice over the same texts: against the activation that is explained, and
against *another* activation. What a deletion costs there is not about this activation (a shorter
text, a text of a form the AR is less used to), and is the level that a saliency has to beat. It
costs no reading, as the texts are the same.

The best order of the claims is searched for, and the best of many always looks good. Three
things tell a real gain from that:

- *rejoined* texts. The order is found on the text as written, and judged where the same claims
  are separated in another way. What a reader made of the exact characters of the winner does not
  come back there; what it makes of the order does. This is the number to quote.
- the same search *for another activation*: what searching alone gains, for a vector that the
  claims were not written for.
- the order so found, scored for the own activation: a search that could not know it.

Random orders need no such care, as nothing is selected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from nla_audit.probes.attribution.pieces import (
    ClaimPieces,
    greedy_orders,
    prefixes,
    tokens_of,
    without_token,
)
from nla_audit.probes.causal.worth import without
from nla_audit.probes.transforming.cards import generator_for
from nla_audit.text.claims import split_claims

Floats = npt.NDArray[np.float64]
#: ``(stage, texts, number of the activation of each) → [n] FVE``, NaN where there is none.
ScoreTexts = Callable[[str, Sequence[str], Sequence[int]], Floats]

OWN, GREEDY, REVERSED, GREEDY_ELSEWHERE, RANDOM = ARRANGEMENTS = (
    "own",
    "greedy",
    "greedy reversed",
    "greedy for another activation",
    "random",
)
#: Arrangements whose beginnings are read as well.
CURVES = (OWN, GREEDY, RANDOM)
#: How claims are separated.
WRITTEN, REJOINED = "as written", "rejoined"
#: Orders drawn for each explanation; their mean is what an order at random gives.
RANDOM_ORDERS = 3
#: A longer explanation is not searched: 20 claims take 209 readings for each of two activations.
MOST_CLAIMS = 20
#: No activation: of a score that cannot be.
NOBODY = -1

_KEYS: dict[str, pl.DataType] = {"model": pl.String(), "idx": pl.String(), "cluster": pl.String()}
_TEXTS = _KEYS | {
    "fve": pl.Float64(),
    "elsewhere": pl.Float64(),
    "fve_empty": pl.Float64(),
    "elsewhere_empty": pl.Float64(),
    "tokens": pl.Int64(),
    "claims": pl.Int64(),
}
_TOKENS = _KEYS | {
    "token": pl.Int64(),
    "text": pl.String(),
    "kind": pl.String(),
    "place": pl.String(),
    "saliency": pl.Float64(),
    "saliency_elsewhere": pl.Float64(),
    "fve_prefix": pl.Float64(),
    "elsewhere_prefix": pl.Float64(),
    "marginal": pl.Float64(),
    "marginal_elsewhere": pl.Float64(),
}
_CLAIMS = _KEYS | {
    "claim": pl.Int64(),
    "text": pl.String(),
    "kind": pl.String(),
    "saliency": pl.Float64(),
    "saliency_elsewhere": pl.Float64(),
}
_ORDERS = _KEYS | {
    "arrangement": pl.String(),
    "joints": pl.String(),
    "fve": pl.Float64(),
    "elsewhere": pl.Float64(),
    "kendall_tau": pl.Float64(),
}
_CURVES = _KEYS | {
    "arrangement": pl.String(),
    "claims_read": pl.Int64(),
    "claims": pl.Int64(),
    "fve": pl.Float64(),
}


@dataclass(frozen=True)
class Explanation:
    """An explanation to be taken apart.

    Attributes:
        model: whose it is.
        idx: of the activation.
        cluster: what intervals are resampled by, the document or the activation.
        text: stripped; may be empty.
        target: number of the activation it explains.
        other: number of another activation, :data:`NOBODY` where there is none.
    """

    model: str
    idx: str
    cluster: str
    text: str
    target: int
    other: int


@dataclass(frozen=True)
class Attribution:
    """What was read. All are in units of FVE (1 is all of the variance); null is no score.

    Attributes:
        texts: a row for each explanation: ``fve`` and ``fve_empty`` (of the empty text), and the
            same for another activation (``elsewhere``, ``elsewhere_empty``).
        tokens: a row for each token: ``saliency`` (FVE of the text, less that without it),
            ``fve_prefix`` (of the text up to and with it), ``marginal`` (the same, less that of
            the prefix before it), and the same for another activation.
        claims: a row for each claim: ``saliency``, ``saliency_elsewhere``.
        orders: FVE of each of :data:`ARRANGEMENTS`, by how claims are separated; ``kendall_tau``
            with the own order.
        curves: FVE after the first claims of an arrangement, rejoined.
        texts_read: distinct texts that were scored.
        not_searched: explanations with more than :data:`MOST_CLAIMS` claims.
    """

    texts: pl.DataFrame
    tokens: pl.DataFrame
    claims: pl.DataFrame
    orders: pl.DataFrame
    curves: pl.DataFrame
    texts_read: int
    not_searched: int


def attribute(
    explanations: Sequence[Explanation], score: ScoreTexts, *, seed: int = 0
) -> Attribution:
    """Take the explanations apart and read the pieces, each distinct text once a stage.

    Args:
        explanations: those to read.
        score: the AR; called with all texts that are independent of each other at once, then
            once for each round of the search for orders, and once for the orders found.
        seed: of the random orders.
    """
    book = _Book(score)
    parts = [_Parts(explanation, seed) for explanation in explanations]
    book.read("pieces", [(part, text) for part in parts for text in part.pieces()])
    searched = [part for part in parts if 2 <= len(part.order.claims) <= MOST_CLAIMS]
    for part, own, other in zip(searched, *_searches(book, searched), strict=True):
        part.greedy, part.greedy_elsewhere = own, other
    book.read("orders", [(part, text) for part in searched for text in part.orders_to_read()])
    return Attribution(
        texts=_frame(_TEXTS, (_text_row(part, book) for part in parts)),
        tokens=_frame(_TOKENS, (row for part in parts for row in _token_rows(part, book))),
        claims=_frame(_CLAIMS, (row for part in parts for row in _claim_rows(part, book))),
        orders=_frame(_ORDERS, (row for part in searched for row in _order_rows(part, book))),
        curves=_frame(_CURVES, (row for part in searched for row in _curve_rows(part, book))),
        texts_read=book.texts_read,
        not_searched=sum(len(part.order.claims) > MOST_CLAIMS for part in parts),
    )


class _Parts:
    """An explanation with all texts that are made of it."""

    def __init__(self, explanation: Explanation, seed: int) -> None:
        text = explanation.text
        self.explanation = explanation
        self.tokens = tokens_of(text)
        self.claims = split_claims(text)
        self.without_token = [without_token(text, token) for token in self.tokens]
        self.without_claim = [without(text, claim.start, claim.end) for claim in self.claims]
        self.prefixes = prefixes(text, self.tokens)
        self.order = ClaimPieces.of(text)
        self.own = tuple(range(len(self.order.claims)))
        generator = generator_for(seed, "claim orders", text)
        self.random = _random_orders(len(self.own), generator)
        self.ties = tuple(generator.permutation(len(self.own)).tolist())
        #: Found by the searches.
        self.greedy = self.greedy_elsewhere = self.own

    def pieces(self) -> list[str]:
        """Texts that depend on nothing that is read."""
        return [self.explanation.text, *self.without_token, *self.without_claim, *self.prefixes]

    def arrangements(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and orders; several of one name are averaged."""
        return [
            (OWN, self.own),
            (GREEDY, self.greedy),
            (REVERSED, self.greedy[::-1]),
            (GREEDY_ELSEWHERE, self.greedy_elsewhere),
            *((RANDOM, order) for order in self.random),
        ]

    def orders_to_read(self) -> list[str]:
        """Whole texts in every order, both ways, and the beginnings of those with a curve."""
        named = self.arrangements()
        return [
            *(self.order.arranged(order) for _, order in named),
            *(self.order.arranged(order, rejoined=True) for _, order in named),
            *(text for name, order in named if name in CURVES for text in self.beginnings(order)),
        ]

    def beginnings(self, order: tuple[int, ...]) -> list[str]:
        """Rejoined texts of the first 1, 2, … claims."""
        return [
            self.order.arranged(order[:count], rejoined=True) for count in range(1, len(order) + 1)
        ]


def _random_orders(claims: int, generator: np.random.Generator) -> list[tuple[int, ...]]:
    """Orders other than the own one; none for fewer than two claims."""
    orders: list[tuple[int, ...]] = []
    while claims > 1 and len(orders) < RANDOM_ORDERS:
        order = tuple(generator.permutation(claims).tolist())
        if order != tuple(range(claims)):
            orders.append(order)
    return orders


class _Book:
    """Scores that are known, so that none is asked for twice."""

    def __init__(self, score: ScoreTexts) -> None:
        self._score = score
        self._known: dict[tuple[str, int], float] = {}

    @property
    def texts_read(self) -> int:
        return len({text for text, _ in self._known})

    def read(self, stage: str, asked: Iterable[tuple[_Parts, str]]) -> None:
        """Score texts for the own and for the other activation."""
        self.read_for(
            stage,
            (
                (text, target)
                for part, text in asked
                for target in (part.explanation.target, part.explanation.other)
            ),
        )

    def read_for(self, stage: str, asked: Iterable[tuple[str, int]]) -> None:
        """Score texts for the activations named."""
        new = [key for key in dict.fromkeys(asked) if key[1] != NOBODY and key not in self._known]
        if new:
            scores = self._score(stage, [text for text, _ in new], [target for _, target in new])
            self._known |= dict(zip(new, scores.tolist(), strict=True))

    def own(self, part: _Parts, text: str) -> float:
        return self._known[text, part.explanation.target]

    def other(self, part: _Parts, text: str) -> float:
        return self.at(text, part.explanation.other)

    def at(self, text: str, target: int) -> float:
        return np.nan if target == NOBODY else self._known[text, target]


def _searches(
    book: _Book, parts: Sequence[_Parts]
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """The greedy order of each, for its own activation and for another one."""
    searches = [(part, part.explanation.target) for part in parts]
    searches += [(part, part.explanation.other) for part in parts]
    rounds = 0

    def score(texts: list[str], numbers: list[int]) -> Floats:
        nonlocal rounds
        rounds += 1
        keys = [(text, searches[number][1]) for text, number in zip(texts, numbers, strict=True)]
        book.read_for(f"order-{rounds}", keys)
        return np.array([book.at(*key) for key in keys])

    orders = greedy_orders(
        [part.order for part, _ in searches], [part.ties for part, _ in searches], score
    )
    return orders[: len(parts)], orders[len(parts) :]


def _text_row(part: _Parts, book: _Book) -> tuple[object, ...]:
    text = part.explanation.text
    return (
        *_keys(part),
        book.own(part, text),
        book.other(part, text),
        book.own(part, ""),
        book.other(part, ""),
        len(part.tokens),
        len(part.claims),
    )


def _token_rows(part: _Parts, book: _Book) -> list[tuple[object, ...]]:
    text = part.explanation.text
    own = [book.own(part, prefix) for prefix in part.prefixes]
    other = [book.other(part, prefix) for prefix in part.prefixes]
    return [
        (
            *_keys(part),
            number,
            token.text,
            token.kind,
            token.place,
            book.own(part, text) - book.own(part, left),
            book.other(part, text) - book.other(part, left),
            own[number + 1],
            other[number + 1],
            own[number + 1] - own[number],
            other[number + 1] - other[number],
        )
        for number, (token, left) in enumerate(zip(part.tokens, part.without_token, strict=True))
    ]


def _claim_rows(part: _Parts, book: _Book) -> list[tuple[object, ...]]:
    text = part.explanation.text
    return [
        (
            *_keys(part),
            number,
            claim.text,
            claim.kind,
            book.own(part, text) - book.own(part, left),
            book.other(part, text) - book.other(part, left),
        )
        for number, (claim, left) in enumerate(zip(part.claims, part.without_claim, strict=True))
    ]


def _order_rows(part: _Parts, book: _Book) -> list[tuple[object, ...]]:
    rows = []
    for name, orders in _by_name(part).items():
        # Without another activation there is no order found for it.
        is_known = name != GREEDY_ELSEWHERE or part.explanation.other != NOBODY
        for joints in (WRITTEN, REJOINED):
            texts = [part.order.arranged(order, rejoined=joints == REJOINED) for order in orders]
            found = (
                np.mean([book.own(part, text) for text in texts]),
                np.mean([book.other(part, text) for text in texts]),
                np.mean([_kendall_tau(order) for order in orders]),
            )
            rows.append((*_keys(part), name, joints, *(found if is_known else [np.nan] * 3)))
    return rows


def _curve_rows(part: _Parts, book: _Book) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for name, orders in _by_name(part).items():
        if name not in CURVES:
            continue
        curves = [[book.own(part, text) for text in part.beginnings(order)] for order in orders]
        for place, fve in enumerate(np.mean(curves, axis=0)):
            rows.append((*_keys(part), name, place + 1, len(part.own), fve))
    return rows


def _by_name(part: _Parts) -> dict[str, list[tuple[int, ...]]]:
    named: dict[str, list[tuple[int, ...]]] = {}
    for name, order in part.arrangements():
        named.setdefault(name, []).append(order)
    return named


def _kendall_tau(order: Sequence[int]) -> float:
    """Rank correlation of ``order`` with 0, 1, 2, …: 1 the same, −1 reversed."""
    ranks = np.array(order)
    above = np.triu_indices(len(ranks), 1)
    return float(np.mean(np.sign(ranks[above[1]] - ranks[above[0]])))


def _keys(part: _Parts) -> tuple[str, str, str]:
    return part.explanation.model, part.explanation.idx, part.explanation.cluster


def _frame(schema: dict[str, pl.DataType], rows: Iterable[tuple[object, ...]]) -> pl.DataFrame:
    floats = [name for name, dtype in schema.items() if dtype == pl.Float64()]
    made = pl.DataFrame([list(map(_plain, row)) for row in rows], schema=schema, orient="row")
    return made.with_columns(pl.col(floats).fill_nan(None))


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value
