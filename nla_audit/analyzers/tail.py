"""Do explanations merely repeat the end of the input?"""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import polars as pl

from nla_audit.completions import Completions
from nla_audit.findings import Figure, Finding, Headline, analyzer
from nla_audit.pairing import clusters, column, resampler
from nla_audit.stats import derangement
from nla_audit.text.words import words

QUESTION = (
    "Do explanations merely repeat the tail of the input, more than chance and the reference do?"
)
#: Words that make an exact tail: one word is named by most explanations ("Final token …").
EXACT_TAIL_WORDS = 2
_WINDOWS = (5, 10, 20)
#: Window of the headline's ``tail_word_share``.
_HEADLINE_WINDOW = 10
#: Longest run looked for; a longer one is a copy all the same.
_LONGEST = 40
#: A run of this many words that occurs twice in an explanation counts as repeating itself.
_REPEATED_RUN = 4
#: Only the tail of a source is ever compared, so a long one need not be split whole.
_TAIL_CHARACTERS = 2_000
#: Rows kept as Python objects before they become a frame, which takes a tenth of the memory.
_ROWS_PER_FRAME = 20_000
#: Other activations' tails that each explanation meets for the chance level.
_NULL_PARTNERS = 5

_MEASURES = {
    "model": pl.String, "idx": pl.Int64, "failed": pl.Boolean, "empty": pl.Boolean,
    "repeats_itself": pl.Boolean, "run": pl.Float64, "run_by_chance": pl.Float64,
    "exact": pl.Float64, "exact_by_chance": pl.Float64, "final": pl.Float64,
    "final_by_chance": pl.Float64, "whole": pl.Float64, "position": pl.Float64,
    "words": pl.Float64,
    **{f"last_{n}": pl.Float64 for n in _WINDOWS},
    **{f"last_{n}_by_chance": pl.Float64 for n in _WINDOWS},
}  # fmt: skip


@analyzer(
    name="tail",
    question=QUESTION,
    reads=("model", "idx", "explanation"),
    uses={"source_text": "only repetition inside explanations and empty ones can be counted"},
    unit="explanation whose source text is known",
    control="the tail of another activation's source",
    high_means=f"exact_tail_rate near 1: nearly every explanation holds the last "
    f"{EXACT_TAIL_WORDS} words of its input in order",
    example="nla-audit tail completions.parquet",
    order=40,
)
def tail(completions: Completions, *, seed: int = 0) -> Finding:
    """Repetition of the input's tail against chance, and inside explanations."""
    headline: Headline = {}
    runs: list[dict] = []
    measures = _measure(completions, seed)
    for model in completions.models:
        rows = measures.filter(pl.col("model") == model)
        headline[model] = _summary(rows, seed)
        runs += _run_lengths(rows, model)
    table = pl.DataFrame(
        [{"model": model, **summary} for model, summary in headline.items()],
        infer_schema_length=None,
    )
    return Finding(
        analyzer="tail",
        question=QUESTION,
        reference=completions.reference,
        headline=headline,
        verdict=_verdict(completions, headline),
        caveats=_caveats(completions, headline),
        tables={
            "models": table,
            "run_lengths": pl.DataFrame(
                runs,
                schema={
                    "model": pl.String,
                    "run_words": pl.String,
                    "share": pl.Float64,
                    "chance": pl.Float64,
                },
            ),
        },
        figures=[
            Figure(
                "exact_tail", "Explanations that hold the exact tail", "bar", "models", x="model",
                y="exact_tail_rate", x_label="model", y_label="share of explanations",
                low="exact_tail_rate_low", high="exact_tail_rate_high",
                chance="chance_exact_tail_rate", percent=True,
                caption=f"Share of explanations that contain the last {EXACT_TAIL_WORDS} words of "
                "their input as they stand; dashed: the same with another input's tail.",
            ),
            Figure(
                "run_lengths", "Longest run of the input's last words", "heatmap", "run_lengths",
                x="run_words", y="share", group="model", x_label="words of the tail in one run",
                y_label="model", percent=True,
                caption="How many of the input's last words an explanation holds in one run.",
            ),
        ],
        parameters={"seed": seed, "exact_tail_words": EXACT_TAIL_WORDS},
    )  # fmt: skip


class _Tail:
    """The last words of a source, prepared for many comparisons."""

    def __init__(self, text: str):
        self.words = [sys.intern(word) for word in words(text[-_TAIL_CHARACTERS:])[-_LONGEST:]]
        self.windows = [frozenset(self.words[-window:]) for window in _WINDOWS]


def suffix_run(explanation: list[str], source: list[str]) -> tuple[int, int]:
    """Longest suffix of ``source`` that stands in ``explanation`` as one run.

    Returns:
        Its length in words and where it begins (0 and −1 when even the last word is missing).
    """
    if not source or source[-1] not in explanation:
        return 0, -1
    best, place = 0, -1
    for end, word in enumerate(explanation):
        if word != source[-1]:
            continue
        length = 1
        while (
            length < min(len(source), _LONGEST)
            and end - length >= 0
            and explanation[end - length] == source[-1 - length]
        ):
            length += 1
        if length > best:
            best, place = length, end - length + 1
    return best, place


def _measure(completions: Completions, seed: int) -> pl.DataFrame:
    """One row per explanation: what of its own and of other inputs' tails it holds."""
    tails = _tails(completions)
    measured: list[pl.DataFrame] = []
    for model in completions.models:
        rows: list[dict] = []
        own = completions.of(model)
        known = [idx in tails for idx in own["idx"]]
        keys = own["idx"].to_list()
        with_source = [place for place, is_known in enumerate(known) if is_known]
        labels = clusters(own)[with_source] if with_source else np.zeros(0)
        partners = [
            derangement(labels, seed * 100 + draw) if len(with_source) else np.zeros(0, int)
            for draw in range(_NULL_PARTNERS)
        ]
        place_in_partners = {place: number for number, place in enumerate(with_source)}
        for place, (idx, text) in enumerate(zip(keys, own["explanation"], strict=True)):
            row: dict = {"model": model, "idx": idx, "failed": text is None}
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
                row |= _against(spoken, tails[idx], others)
            rows.append(row)
            if len(rows) == _ROWS_PER_FRAME:
                measured.append(pl.DataFrame(rows, schema=_MEASURES))
                rows.clear()
        measured.append(pl.DataFrame(rows, schema=_MEASURES))
    return pl.concat(measured)


def _tails(completions: Completions) -> dict[int, _Tail]:
    known = (
        completions.rows.filter(pl.col("source_text").is_not_null())
        .group_by("idx")
        .agg(pl.col("source_text").sort().first())
    )
    return {idx: _Tail(text) for idx, text in known.iter_rows() if text.strip()}


def _against(spoken: list[str], source: _Tail, others: list[_Tail]) -> dict[str, float]:
    run, place = suffix_run(spoken, source.words)
    measured: dict[str, float] = {
        "run": run,
        "exact": float(run >= EXACT_TAIL_WORDS),
        "final": float(run >= 1),
        "whole": float(bool(spoken) and run == len(spoken)),
        "words": len(spoken),
    }
    if run >= EXACT_TAIL_WORDS and len(spoken) > run:
        measured["position"] = place / (len(spoken) - run)
    counts = Counter(spoken)
    for window, recent in zip(_WINDOWS, source.windows, strict=True):
        measured[f"last_{window}"] = float(_spoken_of(counts, recent))
    if others:
        runs = [suffix_run(spoken, other.words)[0] for other in others]
        measured["run_by_chance"] = sum(runs) / len(runs)
        measured["exact_by_chance"] = sum(r >= EXACT_TAIL_WORDS for r in runs) / len(runs)
        measured["final_by_chance"] = sum(r >= 1 for r in runs) / len(runs)
        for number, window in enumerate(_WINDOWS):
            spoken_by_chance = [_spoken_of(counts, other.windows[number]) for other in others]
            measured[f"last_{window}_by_chance"] = sum(spoken_by_chance) / len(others)
    return measured


def _spoken_of(counts: Counter[str], recent: frozenset[str]) -> int:
    """How many of an explanation's words, repeats included, are among ``recent``."""
    return sum(counts[word] for word in counts.keys() & recent)


def _repeats_itself(spoken: list[str]) -> bool:
    runs = [
        tuple(spoken[place : place + _REPEATED_RUN])
        for place in range(len(spoken) - _REPEATED_RUN + 1)
    ]
    return len(set(runs)) < len(runs)


def _summary(rows: pl.DataFrame, seed: int) -> dict[str, float | None]:
    draw = resampler(rows, seed)
    summary: dict[str, float | None] = {
        "n": float(rows.height),
        "rows_with_source": float(rows["run"].count()),
        "failed": float(rows["failed"].sum()),
    }
    for measure, metric in (
        ("exact", "exact_tail_rate"),
        ("exact_by_chance", "chance_exact_tail_rate"),
        ("final", "final_token_rate"),
        ("final_by_chance", "chance_final_token_rate"),
        ("whole", "nothing_but_tail_rate"),
        ("run", "mean_run_words"),
        ("run_by_chance", "chance_mean_run_words"),
        ("position", "position_in_explanation"),
        ("repeats_itself", "self_repetition_rate"),
        ("empty", "empty_rate"),
    ):
        summary |= draw.mean(column(rows, measure)).entries(metric)
    spoken = column(rows, "words")
    for window in _WINDOWS:
        suffix = "" if window == _HEADLINE_WINDOW else f"_{window}"
        own = draw.ratio(column(rows, f"last_{window}"), spoken)
        chance = draw.ratio(column(rows, f"last_{window}_by_chance"), spoken)
        summary |= own.entries(f"tail_word_share{suffix}")
        summary |= chance.entries(f"chance_tail_word_share{suffix}")
    return summary


def _run_lengths(rows: pl.DataFrame, model: str) -> list[dict]:
    own = rows["run"].drop_nulls().to_numpy()
    chance = rows["run_by_chance"].drop_nulls().to_numpy()
    if len(own) == 0:
        return []
    bins = [(0, 0, "0"), (1, 1, "1"), (2, 2, "2"), (3, 3, "3"), (4, 5, "4-5"), (6, 10**9, "6+")]
    return [
        {
            "model": model,
            "run_words": label,
            "share": float(np.mean((own >= low) & (own <= high))),
            "chance": (
                float(np.mean((np.round(chance) >= low) & (np.round(chance) <= high)))
                if len(chance)
                else None
            ),
        }
        for low, high, label in bins
    ]


def _verdict(completions: Completions, headline: Headline) -> str:
    known = {m: s for m, s in headline.items() if s.get("exact_tail_rate") is not None}
    if not known:
        return (
            "The table has no source text, so repetition of the input's tail cannot be told; only "
            "repetition inside explanations and empty ones are counted."
        )
    above = [
        model
        for model, summary in known.items()
        if (summary.get("exact_tail_rate_low") or 0.0)
        > (summary.get("chance_exact_tail_rate_high") or 0.0)
    ]
    if not above:
        return "No model holds the exact tail of its input more often than that of another input."
    most = max(known, key=lambda model: known[model]["nothing_but_tail_rate"] or 0.0)
    highest = max(above, key=lambda model: known[model]["exact_tail_rate"] or 0.0)
    summary = known[highest]
    sentence = (
        f"{highest} holds the last {EXACT_TAIL_WORDS} words of its input in "
        f"{summary['exact_tail_rate']:.0%} of explanations (chance "
        f"{summary['chance_exact_tail_rate'] or 0:.0%})"
    )
    reference = known.get(completions.reference)
    if reference is not None and highest != completions.reference:
        sentence += f", {completions.reference} in {reference['exact_tail_rate']:.0%}"
    share = known[most]["nothing_but_tail_rate"] or 0.0
    return sentence + f". {most} says nothing else in {share:.0%} of explanations."


def _caveats(completions: Completions, headline: Headline) -> list[str]:
    caveats = list(completions.notes)
    n = sum(summary["n"] or 0 for summary in headline.values())
    known = sum(summary["rows_with_source"] or 0 for summary in headline.values())
    if known < n:
        caveats.append(
            f"{n - known:.0f} of {n:.0f} explanations have no source text (or failed) and are left "
            f"out of the tail rates; those stand on {known:.0f}."
        )
    return caveats
