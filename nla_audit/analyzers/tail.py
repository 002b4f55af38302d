"""Do explanations merely repeat the end of the input?"""

from __future__ import annotations

import numpy as np
import polars as pl

from nla_audit.analyzers._tail_measures import HELD, REPEATED_RUN, STRICT, WINDOWS, measures_of
from nla_audit.analyzers._tail_verdict import LAST_WORDS, caveats, verdict
from nla_audit.findings import Figure, Finding, Headline, Metric, analyzer
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import column, resampler
from nla_audit.text.tails import TAIL_WORDS

QUESTION = (
    "Do explanations merely repeat the tail of the input, more than chance and the reference do?"
)
_DIFFERENCES = {
    "model": pl.String,
    "metric": pl.String,
    "activations": pl.Int64,
    "own_rate": pl.Float64,
    "own_strict_rate": pl.Float64,
    "own_chance_rate": pl.Float64,
    "reference_rate": pl.Float64,
    "reference_chance_rate": pl.Float64,
    "difference": pl.Float64,
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
    "beyond_chance": pl.Float64,
    "beyond_chance_low": pl.Float64,
    "beyond_chance_high": pl.Float64,
}


METRICS = (
    Metric("n", "count", "neither", "explanations of the model", interval=False),
    Metric("rows_with_source", "count", "neither", "of which the source is known", interval=False),
    Metric("failed", "count", "lower", "outputs without an explanation", interval=False),
    *(
        Metric(f"{name}_rate", "share", "lower", f"share of the explanations {what}", chance=True)
        for name, what in {
            "holds_last_word": "that hold the input's last word",
            "holds_tail": f"that hold the input's last {TAIL_WORDS} words somewhere",
            "ends_with_tail": f"that end with the input's last {TAIL_WORDS} words",
            "is_nothing_but_tail": "that are the end of the input and nothing else",
        }.items()
    ),
    *(
        Metric(f"{name}_tail_strict_rate", "share", "lower", f"{name}_tail_rate, to the letter")
        for name in ("holds", "ends_with", "is_nothing_but")
    ),
    Metric(
        "self_repetition_rate",
        "share",
        "lower",
        f"share of the explanations that say {REPEATED_RUN} words in a row twice",
    ),
    Metric("empty_rate", "share", "lower", "share of the explanations that say nothing"),
    Metric(
        "mean_run_words",
        "words",
        "lower",
        "how many of the input's last words an explanation repeats in a row",
        chance=True,
    ),
    Metric(
        "position_in_explanation",
        "place",
        "neither",
        "where in the explanation that run lies, from 0 to 1",
    ),
    *(
        Metric(
            "tail_word_share" + ("" if window == LAST_WORDS else f"_{window}"),
            "share",
            "lower",
            f"share of the words that are among the input's last {window}",
            chance=True,
        )
        for window in WINDOWS
    ),
)


@analyzer(
    name="tail",
    question=QUESTION,
    reads=("model", "idx", "explanation"),
    uses={
        "source_text": "only repetition inside explanations and empty ones can be counted",
        "doc_id": "intervals resample activations instead of documents",
    },
    unit="explanation whose source text is known; differences are paired by activation",
    control="the tail of another activation's source, and the reference's explanation of the same",
    high_means="is_nothing_but_tail_rate near 1: nearly every explanation is the end of its input "
    f"and says nothing else; ends_with: its last words are the input's last {TAIL_WORDS}; holds: "
    "they stand in it somewhere; strict: to the letter, else case, quotes, punctuation and a cut "
    f"last word do not count; tail_word_share near 1: nearly every word is one of the input's last "
    f"{LAST_WORDS}",
    example="nla-audit tail completions.parquet",
    metrics=METRICS,
    columns={
        "own_rate": "share",
        "own_strict_rate": "share",
        "own_chance_rate": "share",
        "reference_rate": "share",
        "reference_chance_rate": "share",
        "share": "share",
        "chance": "share",
    },
    order=40,
)
def tail(completions: Completions, *, seed: int = 0) -> Finding:
    """Repetition of the input's tail against chance, and inside explanations."""
    headline: Headline = {}
    runs: list[dict] = []
    measures = measures_of(completions, seed)
    for model in completions.models:
        rows = measures.filter(pl.col("model") == model)
        headline[model] = _summary(rows, seed)
        runs += _run_lengths(rows, model)
    table = pl.DataFrame(
        [{"model": model, **summary} for model, summary in headline.items()],
        infer_schema_length=None,
    )
    differences = _differences(completions, measures, seed)
    return Finding(
        analyzer="tail",
        question=QUESTION,
        reference=completions.reference,
        headline=headline,
        verdict=verdict(completions, headline, differences),
        caveats=caveats(completions, headline),
        tables={
            "models": table,
            "paired_differences": differences,
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
        figures=_figures(),
        parameters={"seed": seed, "tail_words": TAIL_WORDS, "last_words": LAST_WORDS},
    )


def _figures() -> list[Figure]:
    return [
        Figure(
            "tail_words",
            "Words that are the input's last",
            "bar",
            "models",
            x="model",
            y="tail_word_share",
            x_label="model",
            y_label="share of words",
            low="tail_word_share_low",
            high="tail_word_share_high",
            chance="chance_tail_word_share",
            percent=True,
            caption=f"Share of an explanation's words that are among the last {LAST_WORDS} "
            "of its input; dashed: the same with another input's tail.",
        ),
        Figure(
            "nothing_but_tail",
            "Explanations that are nothing but the tail",
            "bar",
            "models",
            x="model",
            y="is_nothing_but_tail_rate",
            x_label="model",
            y_label="share of explanations",
            low="is_nothing_but_tail_rate_low",
            high="is_nothing_but_tail_rate_high",
            chance="chance_is_nothing_but_tail_rate",
            percent=True,
            caption="Share of explanations that are the end of their input and nothing else, but "
            "for case, quotes, punctuation or a cut last word; dashed: of another input.",
        ),
        Figure(
            "run_lengths",
            "Longest run of the input's last words",
            "heatmap",
            "run_lengths",
            x="run_words",
            y="share",
            group="model",
            x_label="words of the tail in one run",
            y_label="model",
            percent=True,
            caption="How many of the input's last words an explanation holds in one run.",
        ),
    ]


def _summary(rows: pl.DataFrame, seed: int) -> dict[str, float | None]:
    draw = resampler(rows, seed)
    summary: dict[str, float | None] = {
        "n": float(rows.height),
        "rows_with_source": float(rows["run"].count()),
        "failed": float(rows["failed"].sum()),
    }
    for measure, metric in HELD.items():
        summary |= draw.share(column(rows, measure)).entries(metric)
        by_chance = draw.share(column(rows, f"{measure}_by_chance"))
        summary |= by_chance.entries(f"chance_{metric}")
    for measure, metric in (
        *STRICT.items(),
        ("repeats_itself", "self_repetition_rate"),
        ("empty", "empty_rate"),
    ):
        summary |= draw.share(column(rows, measure)).entries(metric)
    for measure, metric in (
        ("run", "mean_run_words"),
        ("run_by_chance", "chance_mean_run_words"),
        ("position", "position_in_explanation"),
    ):
        summary |= draw.mean(column(rows, measure)).entries(metric)
    spoken = column(rows, "words")
    for window in WINDOWS:
        suffix = "" if window == LAST_WORDS else f"_{window}"
        own = draw.ratio(column(rows, f"last_{window}"), spoken)
        chance = draw.ratio(column(rows, f"last_{window}_by_chance"), spoken)
        summary |= own.entries(f"tail_word_share{suffix}")
        summary |= chance.entries(f"chance_tail_word_share{suffix}")
    return summary


def _differences(completions: Completions, measures: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Each model less the reference within the same activation, per metric.

    ``beyond_chance`` is the difference of what each holds beyond another input's tail.
    """
    recent = f"last_{LAST_WORDS}"
    names = [*HELD, *(f"{name}_by_chance" for name in HELD), *STRICT]
    names += ["words", recent, f"{recent}_by_chance"]
    means = (
        measures.filter(pl.col("run").is_not_null())
        .group_by("model", "idx")
        .agg(pl.col("doc_id").first(), *(pl.col(name).mean() for name in names))
    )
    reference = means.filter(pl.col("model") == completions.reference)
    reference = reference.select("idx", *(pl.col(name).alias(f"{name}_ref") for name in names))
    rows = []
    for model in completions.models:
        both = means.filter(pl.col("model") == model).join(reference, on="idx").sort("idx")
        if model == completions.reference or both.height == 0:
            continue
        rows.append({"model": model, **_word_share_difference(both, recent, seed)})
        rows += [
            {"model": model, "metric": metric, **_share_difference(both, measure, seed)}
            for measure, metric in HELD.items()
        ]
    return pl.DataFrame(rows, schema=_DIFFERENCES)


def _share_difference(both: pl.DataFrame, measure: str, seed: int) -> dict[str, object]:
    draw = resampler(both, seed)
    own, other = column(both, measure), column(both, f"{measure}_ref")
    own_chance = column(both, f"{measure}_by_chance")
    other_chance = column(both, f"{measure}_by_chance_ref")
    strict = None
    if f"{measure}_strict" in STRICT:
        strict = draw.mean(column(both, f"{measure}_strict")).value
    return {
        "activations": both.height,
        "own_rate": draw.mean(own).value,
        "own_strict_rate": strict,
        "own_chance_rate": draw.mean(own_chance).value,
        "reference_rate": draw.mean(other).value,
        "reference_chance_rate": draw.mean(other_chance).value,
        **draw.share_difference(own - other).entries("difference"),
        **draw.share_difference((own - own_chance) - (other - other_chance)).entries(
            "beyond_chance"
        ),
    }


def _word_share_difference(both: pl.DataFrame, recent: str, seed: int) -> dict[str, object]:
    draw = resampler(both, seed)
    spoken, other_spoken = column(both, "words"), column(both, "words_ref")
    own, other = column(both, recent), column(both, f"{recent}_ref")
    own_chance = column(both, f"{recent}_by_chance")
    other_chance = column(both, f"{recent}_by_chance_ref")
    return {
        "metric": "tail_word_share",
        "activations": both.height,
        "own_rate": draw.ratio(own, spoken).value,
        "own_chance_rate": draw.ratio(own_chance, spoken).value,
        "reference_rate": draw.ratio(other, other_spoken).value,
        "reference_chance_rate": draw.ratio(other_chance, other_spoken).value,
        **draw.ratio_difference(own, spoken, other, other_spoken).entries("difference"),
        **draw.ratio_difference(
            own - own_chance, spoken, other - other_chance, other_spoken
        ).entries("beyond_chance"),
    }


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
