"""Small tables and findings that the report tests share."""

from __future__ import annotations

import re

import polars as pl

from nla_audit.findings import Card, Figure, Finding, Metric
from nla_audit.table.completions import Completions, from_frame

#: Looks like markup, and would run if a renderer let it.
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)> & </script>"
#: A sentence; the point in a model's name does not end it.
SENTENCE = re.compile(r"\S.*?\.(?=\s|$)")
METRICS = (
    Metric("fve_mean", "FVE", "higher", "mean FVE"),
    Metric("token_saving", "tokens", "higher", "tokens saved", interval=False),
    Metric("extraction_rate", "share", "higher", "share that could be read", interval=False),
)
MODELS = ("base", "p0.0", "p0.001", "p0.002", "p0.006", "p0.015", "p0.03")


def completions(
    activations: int = 12, *, models: tuple[str, ...] = MODELS, samples: int = 1
) -> Completions:
    """A table whose texts and numbers say where they belong.

    Activation 3 of the last model failed, activation 4 of it is empty, activation 5 quotes
    markup, and only even activations have a source.
    """
    rows = []
    for idx in range(activations):
        for place, model in enumerate(models):
            for sample in range(samples):
                text: str | None = (
                    f"Claim one of {idx}. Claim two of {model}. "
                    f'The final token is "word{idx}" 🙂. Sample {sample}.'
                )
                if model == models[-1] and idx in (3, 4):
                    text = None if idx == 3 else ""
                if idx == 5:
                    text = f"{HOSTILE} in {model}."
                rows.append(
                    {
                        "model": model,
                        "idx": idx,
                        "sample": sample,
                        "source_text": f"source of {idx} ends word{idx}" if idx % 2 == 0 else None,
                        "explanation": text,
                        "extracted": text is not None,
                        "n_tokens": 100 - 10 * place + idx % 7,
                        "fve": None if text is None else 0.6 - 0.05 * place * ((idx % 5) - 1),
                    }
                )
    return from_frame(
        pl.DataFrame(rows, infer_schema_length=None), name="sweep.parquet", overhead_tokens=10
    )


def finding(name: str = "frontier") -> Finding:
    """A finding with an interval, a missing value, every kind of figure and a private table."""
    models = list(MODELS[1:])
    headline: dict[str, dict[str, float | None]] = {
        model: {
            "fve_mean": 0.6 - 0.05 * place,
            "fve_mean_low": 0.58 - 0.05 * place,
            "fve_mean_high": 0.62 - 0.05 * place,
            "token_saving": None if place == 0 else 10.25 * place,
            "extraction_rate": 1 - 0.01 * place,
        }
        for place, model in enumerate(models)
    }
    per_model = pl.DataFrame(
        [
            {"model": model, "length_penalty": float(model[1:]), "chance": 0.1, **headline[model]}
            for model in models
        ],
        infer_schema_length=None,
    )
    by_kind = pl.DataFrame(
        [
            {"model": model, "kind": kind, "retained": 0.9 - 0.1 * place - 0.05 * number}
            for place, model in enumerate(models)
            for number, kind in enumerate(["genre", "quoted span", "number $x^2$"])
        ]
    )
    quotes = pl.DataFrame({"model": ["p0.03"], "example": [f"{HOSTILE} | `pipe` \x1b[31mred"]})
    whiskers = {"low": "fve_mean_low", "high": "fve_mean_high"}
    return Finding(
        analyzer=name,
        question="What does a length penalty cost?",
        reference="p0.0",
        headline=headline,
        verdict=f"The verdict of {name}: it costs 0.05 FVE [0.04, 0.06] a step.",
        caveats=["One sample per activation.", f"A caveat that quotes {HOSTILE}"],
        tables={"per_model": per_model, "by_kind": by_kind, "quotes": quotes},
        figures=[
            Figure(
                "line",
                "FVE by λ",
                "line",
                "per_model",
                "length_penalty",
                "fve_mean",
                "λ",
                "FVE",
                "With intervals.",
                chance="chance",
                log_x=True,
                **whiskers,
            ),
            Figure(
                "bar", "FVE", "bar", "per_model", "model", "fve_mean", "model", "FVE", **whiskers
            ),
            Figure(
                "stacked",
                "Kinds",
                "stacked",
                "by_kind",
                "model",
                "retained",
                "model",
                "share",
                group="kind",
                percent=True,
            ),
            Figure(
                "scatter",
                "Front",
                "scatter",
                "per_model",
                "token_saving",
                "fve_mean",
                "tokens",
                "FVE",
                label="model",
                **whiskers,
            ),
            Figure(
                "heatmap",
                "Retained",
                "heatmap",
                "by_kind",
                "model",
                "retained",
                "model",
                "share",
                group="kind",
                percent=True,
            ),
        ],
        parameters={"seed": 0},
        private_tables=frozenset({"quotes"}),
        metrics=METRICS,
    )


def card(name: str = "frontier", *, reads: tuple[str, ...] = (), figures: int = 1) -> Card:
    """A registered analyzer that answers with :func:`finding` and its first few figures."""

    def run(table: Completions, *, seed: int = 0) -> Finding:
        answer = finding(name)
        answer.figures = answer.figures[:figures]
        answer.parameters["seed"] = seed
        return answer

    def signed(table: Completions, *, seed: int = 0) -> Finding:
        return made.sign(run(table, seed=seed))

    example = f"nla-audit {name}"
    made = Card(name, "?", reads, {}, "activation", "chance", "more", example, signed, METRICS)
    return made


def fate_spans(table: Completions, *, seed: int = 0) -> pl.DataFrame:
    """Every sentence gets a fate in turn; spans count code points, as the contract says."""
    rows: list[tuple[int, str, int, int, int, str, str | None]] = []
    for idx, model, sample, text in table.rows.select(
        "idx", "model", "sample", "explanation"
    ).iter_rows():
        for number, found in enumerate(SENTENCE.finditer(text or "")):
            place = (idx, model, sample, found.start(), found.end())
            if model == table.reference:
                fates = ("kept", "reworded", "omitted")
                rows += [
                    (*place, fates[(number + turn) % 3], other)
                    for turn, other in enumerate(table.models)
                    if other != table.reference
                ]
            else:
                rows.append((*place, ("kept", "reworded", "added")[number % 3], None))
    columns = ["idx", "model", "sample", "start", "end", "fate", "against"]
    return pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)
