"""What an explanation holds of the end of its input, and of the ends of others."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl

from nla_audit.analyzers._tail_verdict import LAST_WORDS
from nla_audit.stats import derangement
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import clusters
from nla_audit.text.tails import TAIL_WORDS, HeldTail, Tail, held, held_strictly
from nla_audit.text.words import words

#: Numbers of the input's last words among which an explanation's are counted.
WINDOWS = (5, LAST_WORDS, 20)
#: A run of this many words that occurs twice in an explanation counts as repeating itself.
REPEATED_RUN = 4
#: Rows kept as Python objects before they become a frame, which takes a tenth of the memory.
_ROWS_PER_FRAME = 20_000
#: Other activations' tails that each explanation meets for the chance level.
_NULL_PARTNERS = 5

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
    tails = _tails(completions)
    measured: list[pl.DataFrame] = []
    for model in completions.models:
        rows: list[dict] = []
        own = completions.of(model)
        known = [idx in tails for idx in own["idx"]]
        keys, documents = own["idx"].to_list(), own["doc_id"].to_list()
        with_source = [place for place, is_known in enumerate(known) if is_known]
        labels = clusters(own)[with_source] if with_source else np.zeros(0)
        partners = [
            derangement(labels, seed * 100 + draw) if len(with_source) else np.zeros(0, int)
            for draw in range(_NULL_PARTNERS)
        ]
        place_in_partners = {place: number for number, place in enumerate(with_source)}
        for place, (idx, text) in enumerate(zip(keys, own["explanation"], strict=True)):
            row: dict = {"model": model, "idx": idx, "doc_id": documents[place]}
            row["failed"] = text is None
            spoken = words(text) if text is not None else []
            if text is not None:
                row["empty"] = not text.strip()
                row["repeats_itself"] = _repeats_itself(spoken)
            if text is not None and known[place]:
                others = [
                    tails[keys[with_source[draw[place_in_partners[place]]]]]
                    for draw in partners
                    if draw[place_in_partners[place]] >= 0
                ]
                row |= _against(text, spoken, tails[idx], others)
            rows.append(row)
            if len(rows) == _ROWS_PER_FRAME:
                measured.append(pl.DataFrame(rows, schema=_MEASURES))
                rows.clear()
        measured.append(pl.DataFrame(rows, schema=_MEASURES))
    return pl.concat(measured)


def _tails(completions: Completions) -> dict[int, Tail]:
    known = (
        completions.rows.filter(pl.col("source_text").is_not_null())
        .group_by("idx")
        .agg(pl.col("source_text").sort().first())
    )
    return {idx: Tail(text, WINDOWS) for idx, text in known.iter_rows() if text.strip()}


def _against(text: str, spoken: list[str], source: Tail, others: list[Tail]) -> dict[str, float]:
    counts = dict(Counter(spoken))
    own = held(spoken, source.words, counts)
    strict = held_strictly(text, source) if spoken else (False, False, False)
    measured: dict[str, float] = {
        "words": len(spoken),
        "run": max(own.run, own.at_end),
        "last_word": float(own.run >= 1 or own.at_end >= 1),
        "holds": float(own.holds),
        "ends_with": float(own.ends_with),
        "is_nothing_but": float(own.is_nothing_but),
        **{name: float(value) for name, value in zip(STRICT, strict, strict=True)},
    }
    if own.run >= TAIL_WORDS and len(spoken) > own.run:
        measured["position"] = own.place / (len(spoken) - own.run)
    measured |= zip(_LAST, _spoken_last(spoken, counts, own, source), strict=True)
    if others:
        found = [held(spoken, other.words, counts) for other in others]
        n = len(others)
        measured["run_by_chance"] = sum([max(one.run, one.at_end) for one in found]) / n
        measured["last_word_by_chance"] = (
            sum([one.run >= 1 or one.at_end >= 1 for one in found]) / n
        )
        measured["holds_by_chance"] = sum([one.holds for one in found]) / n
        measured["ends_with_by_chance"] = sum([one.ends_with for one in found]) / n
        measured["is_nothing_but_by_chance"] = sum([one.is_nothing_but for one in found]) / n
        several = [
            _spoken_last(spoken, counts, one, other)
            for one, other in zip(found, others, strict=True)
        ]
        for name, by_chance in zip(_LAST, zip(*several, strict=True), strict=True):
            measured[f"{name}_by_chance"] = sum(by_chance) / n
    return measured


def _spoken_last(
    spoken: list[str], counts: dict[str, int], found: HeldTail, tail: Tail
) -> list[float]:
    """How many of an explanation's words are among the tail's last, for each of WINDOWS.

    With one more where the explanation ends in the source's last word, one of the two being cut.
    """
    numbers = tail.spoken(counts)
    if not found.at_end:
        return [float(number) for number in numbers]
    return [
        float(number + (spoken[-1] not in recent))
        for number, recent in zip(numbers, tail.windows, strict=True)
    ]


def _repeats_itself(spoken: list[str]) -> bool:
    runs = zip(*(spoken[start:] for start in range(REPEATED_RUN)), strict=False)
    return len(set(runs)) < len(spoken) - REPEATED_RUN + 1
