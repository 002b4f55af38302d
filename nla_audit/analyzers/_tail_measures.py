"""What an explanation holds of the end of its input, and of the ends of others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.analyzers._tail_verdict import LAST_WORDS
from nla_audit.stats import derangement
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import clusters
from nla_audit.text.tails import TAIL_WORDS, HeldTail, LastWords, Tail, held, held_strictly
from nla_audit.text.words import words

#: Numbers of the input's last words among which an explanation's are counted.
WINDOWS = (5, LAST_WORDS, 20)
#: A run of this many words that occurs twice in an explanation counts as repeating itself.
REPEATED_RUN = 4
#: Explanations whose words are in memory at once.
_ROWS_AT_A_TIME = 2_000
#: Other activations' tails that each explanation meets for the chance level.
_NULL_PARTNERS = 5

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_LAST = tuple(f"last_{n}" for n in WINDOWS)
#: Measure of an explanation → metric. Each is 0 or 1, and has a chance level.
HELD = {
    "last_word": "holds_last_word_rate",
    "holds": "holds_tail_rate",
    "ends_with": "ends_with_tail_rate",
    "is_nothing_but": "is_nothing_but_tail_rate",
}
#: The same to the letter.
STRICT = {
    "holds_strict": "holds_tail_strict_rate",
    "ends_with_strict": "ends_with_tail_strict_rate",
    "is_nothing_but_strict": "is_nothing_but_tail_strict_rate",
}
_MEASURES = {
    "model": pl.String,
    "idx": pl.Int64,
    "doc_id": pl.String,
    "failed": pl.Boolean,
    "empty": pl.Boolean,
    "repeats_itself": pl.Boolean,
    "position": pl.Float64,
    "words": pl.Float64,
    "run": pl.Float64,
    "run_by_chance": pl.Float64,
    **dict.fromkeys(HELD, pl.Float64),
    **{f"{name}_by_chance": pl.Float64 for name in HELD},
    **dict.fromkeys(STRICT, pl.Float64),
    **dict.fromkeys(_LAST, pl.Float64),
    **{f"{name}_by_chance": pl.Float64 for name in _LAST},
}


def measures_of(completions: Completions, seed: int) -> pl.DataFrame:
    """One row per explanation: what of its own and of other inputs' tails it holds."""
    tails = _Tails(completions)
    measured: list[pl.DataFrame] = []
    for model in completions.models:
        rows = completions.of(model).select("model", "idx", "doc_id", "explanation")
        own = tails.places(rows)
        others = _others(rows, own, seed)
        for first in range(0, rows.height, _ROWS_AT_A_TIME):
            part = slice(first, first + _ROWS_AT_A_TIME)
            measured.append(_measured(rows[part], own[part], others[:, part], tails))
    return pl.concat(measured)


class _Tails:
    """The tails of all inputs that are known.

    Attributes:
        each: the tails.
        initials: `[tails]`, the first letter of each one's last word; empty where it has none.
        last_words: what texts say of their last word alone, and of the last in :data:`WINDOWS`.
    """

    def __init__(self, completions: Completions):
        known = (
            completions.rows.filter(pl.col("source_text").is_not_null())
            .group_by("idx")
            .agg(pl.col("source_text").sort().first())
        )
        tails = {idx: Tail(text) for idx, text in known.iter_rows() if text.strip()}
        self._places = {idx: place for place, idx in enumerate(tails)}
        self.each = list(tails.values())
        self.initials = _initials([tail.words for tail in self.each])
        self.last_words = LastWords(self.each, (1, *WINDOWS))

    def places(self, rows: pl.DataFrame) -> Integers:
        """`[rows]`: which of the tails is that of each row's input; −1 where it is not known."""
        return np.array([self._places.get(idx, -1) for idx in rows["idx"]], dtype=np.int64)


def _others(rows: pl.DataFrame, own: Integers, seed: int) -> Integers:
    """`[draws, rows]`: tails of other inputs for each row; −1 where there are none."""
    others = np.full((_NULL_PARTNERS, len(own)), -1)
    known = np.flatnonzero(own >= 0)
    for draw in range(_NULL_PARTNERS):
        partners = derangement(clusters(rows)[known], seed * 100 + draw)
        others[draw, known] = np.where(partners >= 0, own[known[partners]], -1)
    return others


def _measured(rows: pl.DataFrame, own: Integers, others: Integers, tails: _Tails) -> pl.DataFrame:
    """The measures of some explanations of one model.

    Args:
        own: `[rows]`, see :meth:`_Tails.places`.
        others: see :func:`_others`.
    """
    texts = rows["explanation"].to_list()
    spoken = [None if text is None else words(text) for text in texts]
    columns = rows.select("model", "idx", "doc_id").to_dict() | {
        "failed": [text is None for text in texts],
        "empty": [None if text is None else not text.strip() for text in texts],
        "repeats_itself": [None if said is None else _repeats_itself(said) for said in spoken],
    }
    beside = np.flatnonzero(rows["explanation"].is_not_null().to_numpy() & (own >= 0))
    found = _against(
        [texts[row] for row in beside],
        [spoken[row] or [] for row in beside],
        own[beside],
        [draw for draw in others[:, beside] if (draw >= 0).all()],
        tails,
    )
    for name in sorted(_MEASURES.keys() - columns.keys()):
        column = np.full(rows.height, np.nan)
        column[beside] = found.get(name, np.nan)
        columns[name] = pl.Series(column, nan_to_null=True)
    return pl.DataFrame(columns, schema=_MEASURES)


def _against(
    texts: Sequence[str],
    spoken: Sequence[list[str]],
    own: Integers,
    others: Sequence[Integers],
    tails: _Tails,
) -> dict[str, Floats]:
    """`[texts]` for each measure, of texts beside their own tails and beside others'."""
    several = [own, *others]
    counts = tails.last_words.spoken(spoken, several)
    initials = _initials(spoken)
    found, *by_chance = [
        _held(spoken, initials, places, tails, counted)
        for places, counted in zip(several, counts, strict=True)
    ]
    strict = [
        held_strictly(text, tails.each[place]) if said else (False, False, False)
        for text, said, place in zip(texts, spoken, own, strict=True)
    ]
    return {
        "words": np.array([len(said) for said in spoken], dtype=np.float64),
        **found,
        **dict(zip(STRICT, np.array(strict).reshape(-1, len(STRICT)).T, strict=True)),
        **{
            f"{name}_by_chance": np.mean([draw[name] for draw in by_chance], axis=0)
            for name in ("run", *HELD, *_LAST)
            if by_chance
        },
    }


def _held(
    spoken: Sequence[list[str]],
    initials: NDArray[np.str_],
    places: Integers,
    tails: _Tails,
    counts: Integers,
) -> dict[str, Floats]:
    """`[texts]` for each measure of what texts hold of one tail each.

    Args:
        initials: see :func:`_initials`.
        places: `[texts]`, of the tails.
        counts: `[1 + windows, texts]`, what :attr:`_Tails.last_words` found.
    """
    found = np.zeros((len(spoken), len(HeldTail._fields)))
    # Most tails of others are done with here: their last word is nowhere, and not even cut.
    may_hold = (counts[0] > 0) | (initials == tails.initials[places])
    for row in np.flatnonzero(may_hold).tolist():
        found[row] = held(spoken[row], tails.each[places[row]].words)
    run, place, at_end, holds, ends_with, is_nothing_but = found.T
    for row in np.flatnonzero(at_end).tolist():
        # One more where it is the last word of both, one of the two being cut.
        for counted, window in zip(counts[1:], WINDOWS, strict=True):
            counted[row] += spoken[row][-1] not in tails.each[places[row]].words[-window:]
    rest = np.array([len(said) for said in spoken], dtype=np.float64) - run
    return {
        "run": np.maximum(run, at_end),
        "position": np.where((run >= TAIL_WORDS) & (rest > 0), place / np.maximum(rest, 1), np.nan),
        "last_word": np.maximum(run, at_end) >= 1,
        "holds": holds,
        "ends_with": ends_with,
        "is_nothing_but": is_nothing_but,
        **dict(zip(_LAST, counts[1:], strict=True)),
    }


def _initials(texts: Sequence[list[str]]) -> NDArray[np.str_]:
    """`[texts]`: the first letter of each one's last word; empty where it has no words."""
    return np.array([said[-1][0] if said else "" for said in texts], dtype="U1")


def _repeats_itself(spoken: list[str]) -> bool:
    runs = zip(*(spoken[start:] for start in range(REPEATED_RUN)), strict=False)
    return len(set(runs)) < len(spoken) - REPEATED_RUN + 1
