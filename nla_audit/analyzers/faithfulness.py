"""Do shorter explanations make fewer spurious claims?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import polars as pl

from nla_audit.analyzers._claim_rates import change_tables
from nla_audit.analyzers._faithfulness_verdict import caveats, verdict
from nla_audit.findings import Figure, Finding, Headline, Metric, Unit, analyzer
from nla_audit.stats import derangement
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import clusters, column, resampler
from nla_audit.text.items import items
from nla_audit.text.source_text import SourceText, spoken
from nla_audit.text.words import words

QUESTION = "Do shorter explanations make fewer claims that the source does not support?"
#: Rows kept as Python objects before they become a frame, which takes a tenth of the memory.
_ROWS_PER_FRAME = 20_000
#: Sources kept as they are looked up, 18 KB each; those of more activations are read again.
_KEPT_SOURCES = 1 << 15
#: How far the rate of names may be off beside chance. They are found by a rule, which reads
#: "Leeds Council" as "Council" where it opens a sentence: on planted names its error is up to 0.8
#: points on average, with a standard deviation of 0.9 (``benchmarks/reading_error.md``).
_NAME_ERROR = 0.015
_COUNTED = ("quotes", "citations", "predictions", "names", "numbers", "hedges", "items")
_CHECKED = ("citations", "predictions", "names", "numbers")
#: What is claimed to stand in the source; a prediction is not.
_ASSERTED = ("citations", "names", "numbers")
_PER = {
    "quotes": "quotes",
    "predictions": "predicted_quotes",
    "names": "names",
    "numbers": "numbers",
    "hedges": "hedges",
    "unsupported": "unsupported",
}
_MEASURES = {
    "model": pl.String,
    "idx": pl.Int64,
    "doc_id": pl.String,
    **dict.fromkeys(_COUNTED, pl.Float64),
    **{f"checked_{name}": pl.Float64 for name in (*_CHECKED, "items")},
    **{f"held_{name}": pl.Float64 for name in _CHECKED},
    **{f"held_{name}_by_chance": pl.Float64 for name in _CHECKED},
    "unsupported": pl.Float64,
    "unsupported_by_chance": pl.Float64,
    "words": pl.Float64,
}


_DENSITIES: tuple[tuple[str, Unit, str], ...] = (
    ("explanation", "per explanation", "an explanation"),
    ("100_words", "per 100 words", "100 words of explanations"),
)
METRICS = (
    Metric("n", "count", "neither", "explanations of the model", interval=False),
    Metric("rows_with_source", "count", "neither", "of which the source is known", interval=False),
    *(
        Metric(
            f"{name}_per_{per}", unit, "neither", f"{what} in {text}", chance=name == "unsupported"
        )
        for name, what in {
            "quotes": "quoted spans",
            "predicted_quotes": "quoted spans that are said to come next",
            "names": "distinct names",
            "numbers": "distinct numbers",
            "hedges": "hedging words",
            "unsupported": "quotes, names and numbers that are not in the source",
        }.items()
        for per, unit, text in _DENSITIES
    ),
    *(
        Metric(f"checked_{name}", "count", "neither", f"{name} looked up", interval=False)
        for name in _ASSERTED
    ),
    Metric(
        "verbatim_quote_rate",
        "share",
        "higher",
        "share of the quotes, predictions apart, that stand in the source",
        chance=True,
    ),
    Metric(
        "verbatim_prediction_rate",
        "share",
        "neither",
        "share of what is said to come next that stands in the source",
        chance=True,
    ),
    Metric(
        "unsupported_name_rate",
        "share",
        "lower",
        "share of the names that are not in the source",
        chance=True,
    ),
    Metric(
        "unsupported_number_rate",
        "share",
        "lower",
        "share of the numbers that are not in the source",
        chance=True,
    ),
    Metric(
        "unsupported_item_rate",
        "share",
        "lower",
        "share of quotes, names and numbers that are not in the source",
        chance=True,
    ),
)
_COLUMNS: dict[str, Unit] = dict.fromkeys(
    (
        "predicted_share",
        "predicted_share_reference",
        "same_mix_rate",
        "same_mix_rate_reference",
        "same_mix_chance_rate",
        "absent_rate",
        "absent_rate_reference",
        "absent_chance_rate",
    ),
    "share",
)


@analyzer(
    name="faithfulness",
    question=QUESTION,
    reads=("model", "idx", "explanation"),
    uses={"source_text": "quotes can be counted, but not checked"},
    unit="explanation whose source text is known",
    control="the same explanation checked against another activation's source",
    high_means="verbatim_quote_rate near 1: what is quoted as standing in the source does; "
    "unsupported_name_rate near 1: nearly every name given is absent from the source",
    example="nla-audit faithfulness completions.parquet",
    metrics=METRICS,
    columns=_COLUMNS,
    order=50,
)
def faithfulness(completions: Completions, *, seed: int = 0) -> Finding:
    """Quotes, names and numbers checked against the source, per explanation and per item."""
    measures = _measure(completions, seed)
    headline: Headline = {}
    for model in completions.models:
        headline[model] = _summary(measures.filter(pl.col("model") == model), seed)
    changes, by_kind = change_tables(measures, completions.models, completions.reference, seed)
    table = pl.DataFrame(
        [{"model": model, **summary} for model, summary in headline.items()],
        infer_schema_length=None,
    )
    return Finding(
        analyzer="faithfulness",
        question=QUESTION,
        reference=completions.reference,
        headline=headline,
        verdict=verdict(completions, headline, changes, by_kind),
        caveats=caveats(completions, headline),
        tables={"models": table, "paired_changes": changes, "kinds": by_kind},
        figures=[
            Figure(
                "unsupported",
                "Unsupported items in an explanation",
                "bar",
                "models",
                x="model",
                y="unsupported_per_explanation",
                x_label="model",
                y_label="names, numbers and citations absent from the source",
                low="unsupported_per_explanation_low",
                high="unsupported_per_explanation_high",
                chance="chance_unsupported_per_explanation",
                caption="Items per explanation that are not in the source text as given; dashed: "
                "not in another activation's source.",
            ),
            Figure(
                "verbatim",
                "Quoted spans that are verbatim in the source",
                "bar",
                "models",
                x="model",
                y="verbatim_quote_rate",
                x_label="model",
                y_label="share of citations",
                low="verbatim_quote_rate_low",
                high="verbatim_quote_rate_high",
                chance="chance_verbatim_quote_rate",
                percent=True,
                caption="Spans quoted as standing in the source (not as predictions); dashed: the "
                "same spans looked up in another activation's source.",
            ),
        ],
        parameters={"seed": seed},
    )


def _measure(completions: Completions, seed: int) -> pl.DataFrame:
    sources = dict(
        completions.rows.filter(pl.col("source_text").is_not_null())
        .group_by("idx")
        .agg(pl.col("source_text").sort().first())
        .iter_rows()
    )

    @lru_cache(maxsize=_KEPT_SOURCES)
    def source_of(idx: int | None) -> SourceText | None:
        return SourceText(sources[idx]) if idx in sources else None

    measured: list[pl.DataFrame] = []
    for model in completions.models:
        rows: list[dict] = []
        own = completions.of(model).filter(pl.col("explanation").is_not_null())
        keys = own["idx"].to_list()
        known = [place for place, idx in enumerate(keys) if idx in sources]
        partners = derangement(clusters(own)[known], seed) if known else np.zeros(0, dtype=int)
        other_key = {
            place: keys[known[partner]]
            for place, partner in zip(known, partners, strict=True)
            if partner >= 0
        }
        docs = own["doc_id"].to_list()
        for place, text in enumerate(own["explanation"]):
            idx = keys[place]
            other = source_of(other_key.get(place))
            if len(rows) == _ROWS_PER_FRAME:
                measured.append(pl.DataFrame(rows, schema=_MEASURES))
                rows.clear()
            rows.append(
                {
                    "model": model,
                    "idx": idx,
                    "doc_id": docs[place],
                    **_check(text, source_of(idx), other),
                }
            )
        measured.append(pl.DataFrame(rows, schema=_MEASURES))
    return pl.concat(measured)


def _check(text: str, source: SourceText | None, other: SourceText | None) -> dict[str, float]:
    found = {"citations": [], "predictions": [], "names": [], "numbers": []}  # type: dict[str, list[str]]
    hedges = 0
    for item in items(text):
        if item.kind == "quote":
            found["predictions" if item.predicted else "citations"].append(item.text)
        elif item.kind == "entity":
            found["names"].append(item.text)
        elif item.kind == "number":
            found["numbers"].append(item.text)
        else:
            hedges += 1
    distinct = {name: sorted(set(spans)) for name, spans in found.items()}
    row = {name: float(len(spans)) for name, spans in distinct.items()}
    row["quotes"] = row["citations"] + row["predictions"]
    row["hedges"] = float(hedges)
    row["words"] = float(len(words(text)))
    row["items"] = sum(row[name] for name in _ASSERTED)
    if source is None:
        return row
    for name in _CHECKED:
        spans = distinct[name]
        row[f"checked_{name}"] = row[name]
        row[f"held_{name}"] = _held(source, name, spans)
        if other is not None:
            row[f"held_{name}_by_chance"] = _held(other, name, spans)
    row["checked_items"] = row["items"]
    row["unsupported"] = sum(row[name] - row[f"held_{name}"] for name in _ASSERTED)
    if other is not None:
        row["unsupported_by_chance"] = sum(
            row[name] - row[f"held_{name}_by_chance"] for name in _ASSERTED
        )
    return row


def _held(source: SourceText, sort: str, spans: Sequence[str]) -> float:
    """How many of these spans stand in the source."""
    if not spans:
        return 0.0
    if sort == "names":
        return float(sum(map(source.holds_name, spans)))
    if sort == "numbers":
        return float(sum(map(source.holds_number, spans)))
    return float(sum(map(source.holds, map(spoken, spans))))


def _summary(rows: pl.DataFrame, seed: int) -> dict[str, float | None]:
    draw = resampler(rows, seed)
    summary: dict[str, float | None] = {
        "n": float(rows.height),
        "rows_with_source": float(rows["unsupported"].count()),
    }
    hundreds = column(rows, "words") / 100
    for name, metric in (*_PER.items(), ("unsupported_by_chance", "chance_unsupported")):
        counted = column(rows, name)
        summary |= draw.mean(counted).entries(f"{metric}_per_explanation")
        summary |= draw.ratio(counted, hundreds).entries(f"{metric}_per_100_words")
    for name in _ASSERTED:
        summary[f"checked_{name}"] = float(rows[f"checked_{name}"].sum())
    for name, metric in (
        ("citations", "verbatim_quote_rate"),
        ("predictions", "verbatim_prediction_rate"),
    ):
        checked = column(rows, f"checked_{name}")
        summary |= draw.share_of(column(rows, f"held_{name}"), checked).entries(metric)
        by_chance = draw.share_of(column(rows, f"held_{name}_by_chance"), checked)
        summary |= by_chance.entries(f"chance_{metric}")
    for name, metric, error in (
        ("names", "unsupported_name_rate", _NAME_ERROR),
        ("numbers", "unsupported_number_rate", 0.0),
    ):
        checked = column(rows, f"checked_{name}")
        missing = checked - column(rows, f"held_{name}")
        rate = draw.share_of(missing, checked).reaching(error, error, 0.0, 1.0)
        summary |= rate.entries(metric)
        by_chance = draw.share_of(checked - column(rows, f"held_{name}_by_chance"), checked)
        summary |= by_chance.entries(f"chance_{metric}")
    for name, metric in (("unsupported", ""), ("unsupported_by_chance", "chance_")):
        absent = draw.share_of(column(rows, name), column(rows, "checked_items"))
        summary |= absent.entries(f"{metric}unsupported_item_rate")
    return summary
