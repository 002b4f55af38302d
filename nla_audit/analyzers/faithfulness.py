"""Do shorter explanations make fewer spurious claims?"""

from __future__ import annotations

import numpy as np
import polars as pl

from nla_audit.completions import Completions
from nla_audit.findings import Figure, Finding, Headline, analyzer
from nla_audit.pairing import clusters, column, resampler
from nla_audit.stats import Resampler, derangement
from nla_audit.text.items import items
from nla_audit.text.words import words

QUESTION = "Do shorter explanations make fewer claims that the source does not support?"
#: Sources that never exceed this many characters, all near one length, look cut to their tail.
_CUT_LENGTH = 400

#: Rows kept as Python objects before they become a frame, which takes a tenth of the memory.
_ROWS_PER_FRAME = 20_000
_COUNTED = ("quotes", "citations", "predictions", "names", "numbers", "hedges", "items")
_CHECKED = ("citations", "predictions", "names", "numbers")
_MEASURES = {
    "model": pl.String, "idx": pl.Int64, "doc_id": pl.String,
    **dict.fromkeys(_COUNTED, pl.Float64),
    **{f"checked_{name}": pl.Float64 for name in (*_CHECKED, "items")},
    **{f"held_{name}": pl.Float64 for name in _CHECKED},
    **{f"held_{name}_by_chance": pl.Float64 for name in _CHECKED},
    "unsupported": pl.Float64,
}  # fmt: skip


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
    order=50,
)
def faithfulness(completions: Completions, *, seed: int = 0) -> Finding:
    """Quotes, names and numbers checked against the source, per explanation and per item."""
    measures = _measure(completions, seed)
    headline: Headline = {}
    for model in completions.models:
        headline[model] = _summary(measures.filter(pl.col("model") == model), seed)
    changes = pl.DataFrame(
        [
            {"model": model, **_change(measures, model, completions.reference, seed)}
            for model in completions.models
            if model != completions.reference
        ],
        infer_schema_length=None,
    )
    table = pl.DataFrame(
        [{"model": model, **summary} for model, summary in headline.items()],
        infer_schema_length=None,
    )
    return Finding(
        analyzer="faithfulness",
        question=QUESTION,
        reference=completions.reference,
        headline=headline,
        verdict=_verdict(completions, headline, changes),
        caveats=_caveats(completions, headline),
        tables={"models": table, "paired_changes": changes},
        figures=[
            Figure(
                "unsupported", "Unsupported items in an explanation", "bar", "models", x="model",
                y="unsupported_per_explanation", x_label="model",
                y_label="names, numbers and citations absent from the source",
                low="unsupported_per_explanation_low", high="unsupported_per_explanation_high",
                caption="Items per explanation that are not in the source text as given.",
            ),
            Figure(
                "verbatim", "Quoted spans that are verbatim in the source", "bar", "models",
                x="model", y="verbatim_quote_rate", x_label="model",
                y_label="share of citations", low="verbatim_quote_rate_low",
                high="verbatim_quote_rate_high", chance="chance_verbatim_quote_rate", percent=True,
                caption="Spans quoted as standing in the source (not as predictions); dashed: the "
                "same spans looked up in another activation's source.",
            ),
        ],
        parameters={"seed": seed},
    )  # fmt: skip


class _Source:
    """A source text, normalised once for many look-ups."""

    def __init__(self, text: str):
        self._joined = f" {' '.join(words(text))} "

    def holds(self, span: str) -> bool:
        """Whether the words of ``span`` (from :func:`_spoken`) stand here in this order, whole.

        A span without any word is held by every source.
        """
        return span in self._joined


def _spoken(span: str) -> str:
    """The words of ``span`` as :class:`_Source` holds them: no case, punctuation, white space."""
    joined = " ".join(words(span))
    return f" {joined} " if joined else ""


def _measure(completions: Completions, seed: int) -> pl.DataFrame:
    sources = {
        idx: _Source(text)
        for idx, text in completions.rows.filter(pl.col("source_text").is_not_null())
        .group_by("idx")
        .agg(pl.col("source_text").sort().first())
        .iter_rows()
    }
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
            other = sources.get(other_key.get(place, -1))
            if len(rows) == _ROWS_PER_FRAME:
                measured.append(pl.DataFrame(rows, schema=_MEASURES))
                rows.clear()
            rows.append(
                {
                    "model": model,
                    "idx": idx,
                    "doc_id": docs[place],
                    **_check(text, sources.get(idx), other),
                }
            )
        measured.append(pl.DataFrame(rows, schema=_MEASURES))
    return pl.concat(measured)


def _check(text: str, source: _Source | None, other: _Source | None) -> dict[str, float]:
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
    spoken = {name: [_spoken(span) for span in spans] for name, spans in distinct.items()}
    row = {name: float(len(spans)) for name, spans in distinct.items()}
    row["quotes"] = row["citations"] + row["predictions"]
    row["hedges"] = float(hedges)
    asserted = ("citations", "names", "numbers")
    row["items"] = sum(row[name] for name in asserted)
    if source is None:
        return row
    for name, spans in spoken.items():
        row[f"checked_{name}"] = row[name]
        row[f"held_{name}"] = float(sum(source.holds(span) for span in spans))
        if other is not None:
            row[f"held_{name}_by_chance"] = float(sum(other.holds(span) for span in spans))
    row["checked_items"] = row["items"]
    row["unsupported"] = sum(row[name] - row[f"held_{name}"] for name in asserted)
    return row


def _summary(rows: pl.DataFrame, seed: int) -> dict[str, float | None]:
    draw = resampler(rows, seed)
    summary: dict[str, float | None] = {
        "n": float(rows.height),
        "rows_with_source": float(rows["unsupported"].count()),
    }
    for name, metric in (
        ("quotes", "quotes_per_explanation"),
        ("predictions", "predicted_quotes_per_explanation"),
        ("names", "names_per_explanation"),
        ("numbers", "numbers_per_explanation"),
        ("hedges", "hedges_per_explanation"),
        ("unsupported", "unsupported_per_explanation"),
    ):
        summary |= draw.mean(column(rows, name)).entries(metric)
    for name, metric in (
        ("citations", "verbatim_quote_rate"),
        ("predictions", "verbatim_prediction_rate"),
    ):
        checked = column(rows, f"checked_{name}")
        summary |= draw.ratio(column(rows, f"held_{name}"), checked).entries(metric)
        by_chance = draw.ratio(column(rows, f"held_{name}_by_chance"), checked)
        summary |= by_chance.entries(f"chance_{metric}")
    for name, metric in (
        ("names", "unsupported_name_rate"),
        ("numbers", "unsupported_number_rate"),
    ):
        checked = column(rows, f"checked_{name}")
        missing = checked - column(rows, f"held_{name}")
        summary |= draw.ratio(missing, checked).entries(metric)
        by_chance = draw.ratio(checked - column(rows, f"held_{name}_by_chance"), checked)
        summary |= by_chance.entries(f"chance_{metric}")
    unsupported = draw.ratio(column(rows, "unsupported"), column(rows, "checked_items"))
    summary |= unsupported.entries("unsupported_item_rate")
    return summary


def _change(
    measures: pl.DataFrame, model: str, reference: str, seed: int
) -> dict[str, float | None]:
    """Paired change of unsupported items per explanation, and of the rate per item."""
    per_activation = (
        measures.filter(pl.col("unsupported").is_not_null())
        .group_by("model", "idx")
        .agg(pl.col("doc_id").first(), pl.col("unsupported", "checked_items").mean())
    )
    own = per_activation.filter(pl.col("model") == model)
    other = per_activation.filter(pl.col("model") == reference).select(
        "idx",
        pl.col("unsupported").alias("unsupported_reference"),
        pl.col("checked_items").alias("checked_items_reference"),
    )
    both = own.join(other, on="idx").sort("idx")
    if both.height == 0:
        return {"activations": 0.0, "unsupported_change": None}
    draw = resampler(both, seed)
    change = column(both, "unsupported") - column(both, "unsupported_reference")
    return {
        "activations": float(both.height),
        **draw.mean(change).entries("unsupported_change"),
        **_rate_change(both, draw),
    }


def _rate_change(both: pl.DataFrame, draw: Resampler) -> dict[str, float | None]:
    """Change of the unsupported share of items, by the delta method on paired cluster ratios."""
    own_items, reference_items = (
        column(both, "checked_items"),
        column(both, "checked_items_reference"),
    )
    if own_items.sum() == 0 or reference_items.sum() == 0:
        return {"unsupported_rate_change": None}
    own = column(both, "unsupported").sum() / own_items.sum()
    reference = column(both, "unsupported_reference").sum() / reference_items.sum()
    influence = (column(both, "unsupported") - own * own_items) / own_items.mean() - (
        column(both, "unsupported_reference") - reference * reference_items
    ) / reference_items.mean()
    interval = draw.mean(influence + (own - reference))
    return interval.entries("unsupported_rate_change")


def _verdict(completions: Completions, headline: Headline, changes: pl.DataFrame) -> str:
    if not any((summary["rows_with_source"] or 0) > 0 for summary in headline.values()):
        return (
            "The table has no source text, so quotes, names and numbers can be counted but not "
            "checked."
        )
    fewer, rate_lower, rate_higher = [], [], []
    for row in changes.iter_rows(named=True):
        if (row.get("unsupported_change_high") or 0.0) < 0:
            fewer.append(row["model"])
        if (row.get("unsupported_rate_change_high") or 0.0) < 0:
            rate_lower.append(row["model"])
        if (row.get("unsupported_rate_change_low") or 0.0) > 0:
            rate_higher.append(row["model"])
    reference = completions.reference
    per_explanation = (
        f"{_list(fewer)} make{'s' if len(fewer) == 1 else ''} fewer unsupported claims per "
        f"explanation than {reference}"
        if fewer
        else f"No model makes fewer unsupported claims per explanation than {reference} beyond "
        "its interval"
    )
    if rate_lower and not rate_higher:
        per_item = f"and per claim {_list(rate_lower)} are more often right."
    elif rate_higher and not rate_lower:
        per_item = f"but per claim {_list(rate_higher)} are more often wrong."
    elif rate_higher and rate_lower:
        per_item = (
            f"and per claim {_list(rate_lower)} are more often right, {_list(rate_higher)} more "
            "often wrong."
        )
    else:
        per_item = "and per claim no model differs from it beyond its interval."
    return f"{per_explanation}, {per_item}"


def _list(models: list[str]) -> str:
    return models[0] if len(models) == 1 else ", ".join(models[:-1]) + " and " + models[-1]


def _caveats(completions: Completions, headline: Headline) -> list[str]:
    caveats = list(completions.notes)
    n = sum(summary["n"] or 0 for summary in headline.values())
    known = sum(summary["rows_with_source"] or 0 for summary in headline.values())
    if known < n:
        caveats.append(
            f"{n - known:.0f} of {n:.0f} explanations have no source text; rates stand on the "
            f"other {known:.0f}."
        )
    lengths = completions.rows["source_text"].drop_nulls().str.len_chars().to_numpy()
    if len(lengths) and lengths.max() <= _CUT_LENGTH:
        caveats.append(
            f"No source text is longer than {lengths.max()} characters, so sources are probably "
            "cut to their tail: what is absent from them may stand earlier in the input, and "
            "unsupported rates are upper bounds. Differences between models are comparable."
        )
    caveats.append(
        "Names are found by capitalisation, and a prediction is told from a citation by the words "
        "before it; both are rules, not a model."
    )
    return caveats
