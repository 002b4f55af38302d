"""Coverage of the intervals that frontier, tail and faithfulness print, on planted populations.

Each seed draws a table from a population whose rates are set, with few and with more activations,
and asks of every interval whether it holds the population's value: what the rates say, or a table
of very many activations counted here without the package. ``verdict_coverage.md`` has one row per
quantity, with the bias of its estimate.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
import polars as pl
from rich.console import Console
from rich.progress import track

from nla_audit.analyzers import registry
from nla_audit.findings import Finding
from nla_audit.table.completions import from_frame

#: Coverage that an interval of 95 % is to have over 200 seeds.
COVERAGE = (0.90, 0.99)
#: Activations of the planted tables: as many as the given sweep has with a source, and more.
SIZES = (50, 200)
#: Activations of the population of which rates are counted, where they do not follow from it.
_POPULATION = 400_000
_MODELS = ("p0.0", "p0.002", "p0.03")
_PENALTIES = {"p0.0": 0.0, "p0.002": 0.002, "p0.03": 0.03}

Truth = dict[tuple[str, str], float]


# -- frontier -------------------------------------------------------------------------------------


def draw_frontier(n: int, generator: np.random.Generator) -> dict[str, dict[str, np.ndarray]]:
    """Tokens, FVE (heavy low tail, alike between models), failures and empties, `[n]` each."""
    hard = generator.gamma(1.3, 0.18, n)  # what no model explains of an activation
    columns = {}
    for model, content, level, slope, failed, empty, cjk in (
        ("p0.0", 110.0, 0.80, 1.0, 0.02, 0.0, 0.001),
        ("p0.002", 60.0, 0.79, 1.0, 0.01, 0.0, 0.002),
        ("p0.03", 6.0, 0.45, 1.1, 0.005, 0.05, 0.03),
    ):
        length = generator.poisson(content * generator.gamma(20.0, 0.05, n)) + 1
        fve = level - slope * hard + generator.normal(0.0, 0.08, n)
        is_failed, is_empty = generator.random(n) < failed, generator.random(n) < empty
        fve = np.where(is_empty, 0.02, fve)
        length = np.where(is_failed, 150, np.where(is_empty, 0, length))
        columns[model] = {
            "content": np.where(is_failed, np.nan, length),
            "tokens": length + 11.0,
            "fve": np.where(is_failed, np.nan, fve),
            "failed": is_failed.astype(float),
            "empty": np.where(is_failed, np.nan, is_empty),
            "cjk": np.where(generator.random(n) < cjk, 0.4, 0.0),
        }
    return columns


def frontier_table(n: int, generator: np.random.Generator) -> pl.DataFrame:
    """The draw as a table of completions."""
    frames = []
    for model, drawn in draw_frontier(n, generator).items():
        failed = drawn["failed"] > 0
        frames.append(
            pl.DataFrame(
                {
                    "model": [model] * n,
                    "length_penalty": [_PENALTIES[model]] * n,
                    "idx": np.arange(n),
                    "explanation": [
                        None if is_failed else "" if is_empty == 1 else "word"
                        for is_failed, is_empty in zip(failed, drawn["empty"], strict=True)
                    ],
                    "extracted": ~failed,
                    "n_tokens": drawn["tokens"].astype(int),
                    "content_tokens": pl.Series(drawn["content"], nan_to_null=True),
                    "fve": pl.Series(drawn["fve"], nan_to_null=True),
                    "cjk": drawn["cjk"],
                    "ar": ["one"] * n,
                }
            )
        )
    return pl.concat(frames)


def frontier_truth() -> Truth:
    """Rates of the population, by (model, metric)."""
    drawn = draw_frontier(_POPULATION, np.random.default_rng(2**31))
    truth: Truth = {}
    reference = drawn["p0.0"]
    for model, own in drawn.items():
        truth[model, "mean_tokens"] = own["tokens"].mean()
        truth[model, "mean_content_tokens"] = np.nanmean(own["content"])
        truth[model, "fve_mean"] = np.nanmean(own["fve"])
        truth[model, "fve_median"] = np.nanmedian(own["fve"])
        truth[model, "extraction_rate"] = 1 - own["failed"].mean()
        truth[model, "empty_rate"] = np.nanmean(own["empty"])
        truth[model, "cjk_share"] = own["cjk"].mean()
        for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
            value = np.nanquantile(own["fve"], quantile)
            truth[model, f"fve at quantile {quantile}"] = value
        if model == "p0.0":
            continue
        saved = reference["tokens"].mean() - own["tokens"].mean()
        truth[model, "token_saving"] = saved / reference["tokens"].mean()
        change = own["fve"] - reference["fve"]
        truth[model, "fve_change"] = np.nanmean(change)
        good = (change >= 0) & (own["tokens"] < reference["tokens"])
        truth[model, "as_good_with_fewer_tokens"] = np.mean(good[~np.isnan(change)])
    known = ~np.any([np.isnan(drawn[model]["fve"]) for model in _MODELS], axis=0)
    tokens = {model: drawn[model]["tokens"][known].mean() for model in _MODELS}
    fve = {model: drawn[model]["fve"][known].mean() for model in _MODELS}
    for shorter, longer in (("p0.03", "p0.002"), ("p0.002", "p0.0")):
        price = 100 * (fve[longer] - fve[shorter]) / (tokens[longer] - tokens[shorter])
        truth[longer, "fve_points_per_token"] = price
    slope = (fve["p0.0"] - fve["p0.03"]) / (tokens["p0.0"] - tokens["p0.03"])
    height = fve["p0.002"] - fve["p0.03"] - slope * (tokens["p0.002"] - tokens["p0.03"])
    truth["p0.002", "height_above_chord"] = height
    return truth


def frontier_intervals(finding: Finding) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """``(model, metric, row, column)`` of all that has an interval."""
    yield from _headline(finding)
    for row in finding.tables["fve_distribution"].to_dicts():
        yield row["model"], f"fve at quantile {row['quantile']:g}", row, "fve"
    for row in finding.tables["paired_changes"].to_dicts():
        yield row["model"], "as_good_with_fewer_tokens", row, "as_good_with_fewer_tokens"
    for row in finding.tables["marginal_prices"].to_dicts():
        yield row["longer"], "fve_points_per_token", row, "fve_points_per_token"
    for row in finding.tables["knee"].to_dicts():
        yield row["model"], "height_above_chord", row, "height_above_chord"


# -- tail -----------------------------------------------------------------------------------------

_SPOKEN = [f"{first}{last}" for first in "bdfgklmnprst" for last in ("aro", "elin", "ista", "ovun")]
_FILLER = [f"{first}{last}" for first in "bdfgklmnprst" for last in ("eux", "iyx", "oax", "uix")]
#: Model → shares that are nothing but the tail, end with it, hold it; fillers of the others.
_TAILED = {
    "p0.0": (0.0, 0.02, 0.35, 60),
    "p0.002": (0.01, 0.10, 0.30, 30),
    "p0.03": (0.50, 0.05, 0.03, 3),
}
_WRITINGS: tuple[Callable[[str], str], ...] = (
    lambda tail: tail,
    lambda tail: f'"{tail}"',
    lambda tail: f"{tail.capitalize()}.",
    lambda tail: tail[:-1],
)


def tail_table(
    n: int, generator: np.random.Generator
) -> tuple[pl.DataFrame, dict[str, np.ndarray]]:
    """Explanations made of fillers and of the tail; what they hold is returned, `[models, n]`."""
    sources = [generator.choice(_SPOKEN, 30).tolist() for _ in range(n)]
    rows = []
    held = {
        name: np.zeros((len(_MODELS), n))
        for name in ("is", "strict", "ends", "holds", "recent", "words")
    }
    for place, model in enumerate(_MODELS):
        only, ends, inside, fillers = _TAILED[model]
        for idx, source in enumerate(sources):
            k = int(generator.integers(2, 6))
            tail, draw = " ".join(source[-k:]), generator.random()
            filler = generator.choice(_FILLER, generator.poisson(fillers) + 1).tolist()
            writing = int(generator.integers(len(_WRITINGS)))
            parts = {"is": draw < only, "ends": draw < only + ends}
            parts["holds"] = draw < only + ends + inside
            if parts["is"]:
                text, spoken = _WRITINGS[writing](tail), k
                held["strict"][place, idx] = writing == 0
                held["recent"][place, idx] = k
            elif parts["holds"]:
                start = len(filler) if parts["ends"] else int(generator.integers(len(filler)))
                text = " ".join([*filler[:start], tail, *filler[start:]])
                spoken = k + len(filler)
                held["recent"][place, idx] = k
            else:
                text, spoken = " ".join(filler), len(filler)
            held["words"][place, idx] = spoken
            for name, value in parts.items():
                held[name][place, idx] = value
            rows.append(
                {
                    "model": model,
                    "length_penalty": _PENALTIES[model],
                    "idx": idx,
                    "source_text": " ".join(source),
                    "explanation": text,
                }
            )
    return pl.DataFrame(rows), held


def tail_truth() -> Truth:
    """Rates that were set; shares of words from a large draw."""
    truth: Truth = {}
    _, held = tail_table(_POPULATION // 20, np.random.default_rng(2**31))
    recent = held["recent"].sum(axis=1) / held["words"].sum(axis=1)
    for place, model in enumerate(_MODELS):
        only, ends, inside, _ = _TAILED[model]
        rates = {
            "is_nothing_but_tail_rate": only,
            "is_nothing_but_tail_strict_rate": only / len(_WRITINGS),
            "ends_with_tail_rate": only + ends,
            "holds_tail_rate": only + ends + inside,
            "tail_word_share": float(recent[place]),
        }
        truth |= {(model, metric): rate for metric, rate in rates.items()}
        if model != "p0.0":
            truth |= {
                (model, f"difference: {metric}"): rate - truth["p0.0", metric]
                for metric, rate in rates.items()
            }
    return truth


def tail_intervals(finding: Finding) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    yield from _headline(finding)
    for row in finding.tables["paired_differences"].to_dicts():
        yield row["model"], f"difference: {row['metric']}", row, "difference"


# -- faithfulness ---------------------------------------------------------------------------------

_NAMES = [f"{first}{last}" for first in "BDFGKLMNPRST" for last in ("arolen", "elinor", "istafel")]
#: Model → claims of each kind an explanation, and shares of them that are absent.
_CLAIMED = {
    "p0.0": {"quotes": (2.0, 0.3), "names": (1.5, 0.2), "numbers": (0.8, 0.1)},
    "p0.002": {"quotes": (1.0, 0.3), "names": (1.2, 0.35), "numbers": (0.6, 0.1)},
    "p0.03": {"quotes": (0.3, 0.1), "names": (0.1, 0.1), "numbers": (0.1, 0.5)},
}


def faithfulness_table(n: int, generator: np.random.Generator) -> pl.DataFrame:
    """Explanations that quote, name and number, each rightly or not at the rates set."""
    rows = []
    for idx in range(n):
        names = generator.permutation(_NAMES).tolist()
        figures = generator.permutation(np.arange(100, 1000)).tolist()
        phrases = [" ".join(pair) for pair in generator.choice(_SPOKEN, (24, 2)).tolist()]
        here = [*phrases[:12], *(f"by {name}" for name in names[:6])]
        here += [f"of {figure}" for figure in figures[:6]]
        source = " while ".join([*here, *[" ".join(generator.choice(_FILLER, 60).tolist())]])
        # How much of what is said of an activation is wrong is alike between models.
        harder = generator.beta(2.0, 2.0) * 2
        for model in _MODELS:
            said = ["the text goes on " + " ".join(generator.choice(_FILLER, 8).tolist())]
            for kind, pool, absent, form in (
                ("quotes", phrases[:12], phrases[12:], 'here "{}" stands'),
                ("names", names[:6], names[6:12], "there we meet {} again"),
                ("numbers", figures[:6], figures[6:12], "there we count {} again"),
            ):
                rate, wrong = _CLAIMED[model][kind]
                number = min(int(generator.poisson(rate)), 6)
                right = (generator.random(number) >= wrong * harder).tolist()
                said += [
                    form.format((pool if is_right else absent)[place])
                    for place, is_right in enumerate(right)
                ]
            rows.append(
                {
                    "model": model,
                    "length_penalty": _PENALTIES[model],
                    "idx": idx,
                    "source_text": source,
                    "explanation": " and ".join(said),
                }
            )
    return pl.DataFrame(rows)


def faithfulness_truth() -> Truth:
    """Rates that were set. Per explanation, the numbers are cut at 6, which is 1 in 10,000."""
    truth: Truth = {}
    for model, kinds in _CLAIMED.items():
        truth[model, "verbatim_quote_rate"] = 1 - kinds["quotes"][1]
        truth[model, "unsupported_name_rate"] = kinds["names"][1]
        truth[model, "unsupported_number_rate"] = kinds["numbers"][1]
        for kind in ("names", "numbers", "quotes"):
            truth[model, f"{kind}_per_explanation"] = kinds[kind][0]
        absent = sum(rate * wrong for rate, wrong in kinds.values())
        claims = sum(rate for rate, _ in kinds.values())
        truth[model, "unsupported_per_explanation"] = absent
        truth[model, "unsupported_item_rate"] = absent / claims
        words = 12 + sum(kinds[kind][0] * per for kind, per in _WORDS.items())
        truth[model, "unsupported_per_100_words"] = 100 * absent / words
        if model == "p0.0":
            continue
        for metric, change in (
            ("unsupported_per_explanation", "unsupported_change"),
            ("unsupported_per_100_words", "unsupported_per_100_words_change"),
            ("unsupported_item_rate", "unsupported_rate_change"),
        ):
            truth[model, change] = truth[model, metric] - truth["p0.0", metric]
        reference = _CLAIMED["p0.0"]
        total = sum(rate for rate, _ in reference.values())
        truth[model, "same_mix_change"] = sum(
            reference[kind][0] / total * (kinds[kind][1] - reference[kind][1]) for kind in kinds
        )
        rates = truth[model, "unsupported_rate_change"] - truth[model, "same_mix_change"]
        truth[model, "mix_change"] = rates
    return truth


#: Words that a claim of each kind costs, its "and" included.
_WORDS = {"quotes": 5, "names": 6, "numbers": 6}


def faithfulness_intervals(finding: Finding) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    yield from _headline(finding)
    for row in finding.tables["paired_changes"].to_dicts():
        for name in row:
            if f"{name}_low" in row:
                yield row["model"], name, row, name


# -- all ------------------------------------------------------------------------------------------


def _headline(finding: Finding) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    for model, summary in finding.headline.items():
        for metric in summary:
            if f"{metric}_low" in summary:
                yield model, metric, summary, metric


_ANALYZERS: dict[str, tuple[Callable[..., Any], Callable[[], Truth], Callable[..., Any]]] = {
    "frontier": (frontier_table, frontier_truth, frontier_intervals),
    "tail": (lambda *given: tail_table(*given)[0], tail_truth, tail_intervals),
    "faithfulness": (faithfulness_table, faithfulness_truth, faithfulness_intervals),
}


def measure(seed: int, sizes: tuple[int, ...] = SIZES) -> list[dict[str, Any]]:
    """Every interval of one seed whose truth is known: where it lies, and the estimate."""
    rows = []
    for number, (name, (table, _, intervals)) in enumerate(_ANALYZERS.items()):
        for n in sizes:
            drawn = table(n, np.random.default_rng([seed, n, number]))
            finding = registry()[name].run(from_frame(drawn, reference="p0.0"), seed=seed)
            rows += [
                {
                    "analyzer": name,
                    "activations": n,
                    "model": model,
                    "quantity": metric,
                    "estimate": row[column],
                    "low": row[f"{column}_low"],
                    "high": row[f"{column}_high"],
                }
                for model, metric, row, column in intervals(finding)
            ]
    return rows


def truths() -> pl.DataFrame:
    """`analyzer, model, quantity, truth` of the populations."""
    return pl.DataFrame(
        [
            {"analyzer": name, "model": model, "quantity": metric, "truth": float(value)}
            for name, (_, truth, _) in _ANALYZERS.items()
            for (model, metric), value in truth().items()
        ]
    )


def coverage_table(rows: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
    """`analyzer, quantity, activations, model, truth, bias, printed, coverage`.

    ``printed`` is the share of seeds in which there was an interval, of which ``coverage`` is.
    """
    holds = (pl.col("low") <= pl.col("truth") + 1e-9) & (pl.col("truth") - 1e-9 <= pl.col("high"))
    return (
        rows.join(truth, on=["analyzer", "model", "quantity"])
        .group_by("analyzer", "quantity", "activations", "model", maintain_order=True)
        .agg(
            pl.col("truth").first(),
            bias=(pl.col("estimate") - pl.col("truth")).mean(),
            printed=pl.col("low").is_not_null().mean(),
            coverage=holds.filter(pl.col("low").is_not_null()).mean(),
        )
        .sort("analyzer", "quantity", "activations", "model", maintain_order=True)
    )


def report(coverage: pl.DataFrame, command: str, seeds: int) -> str:
    """The benchmark's page, in Markdown."""
    short = coverage.filter(pl.col("coverage") < COVERAGE[0])
    lines = [
        "# Coverage of printed intervals on planted populations",
        "",
        f"`{command}`: {seeds} seeds. Bias is that of the estimate; `printed` is the share of "
        "seeds in which there is an interval, `coverage` the share of those that hold the truth.",
        "",
        f"{coverage.height - short.height} of {coverage.height} coverages are at least "
        f"{COVERAGE[0]:.0%}. Above {COVERAGE[1]:.0%} an interval is wider than it need be, which "
        "that of a share near 0 or 1 has to be.",
        "",
        "| analyzer | quantity | activations | model | truth | bias | printed | coverage |",
        "| --- | --- | --: | --- | --: | --: | --: | --: |",
    ]
    for row in coverage.iter_rows(named=True):
        known = "–" if row["coverage"] is None else f"{row['coverage']:.1%}"
        bias = "–" if row["bias"] is None else f"{row['bias']:+.4f}"
        lines.append(
            f"| {row['analyzer']} | {row['quantity']} | {row['activations']} | {row['model']} | "
            f"{row['truth']:.4g} | {bias} | {row['printed']:.0%} | {known} |"
        )
    return "\n".join([*lines, ""])


@click.command(help=__doc__)
@click.option("--seeds", default=200, show_default=True, help="How many seeds, from 0.")
@click.option("--jobs", default=2, show_default=True, help="Processes.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path(__file__).with_suffix(".md"),
    help="The report.  [default: beside this file]",
)
def main(seeds: int, jobs: int, out: Path) -> None:
    """Measure all seeds, then write the report."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read by the processes that follow
    rows: list[dict[str, Any]] = []
    with get_context("spawn").Pool(jobs) as pool:
        done = pool.imap_unordered(measure, range(seeds))
        for found in track(done, "seeds", seeds, console=Console(stderr=True)):
            rows += found
    command = shlex.join(["python", "benchmarks/verdict_coverage.py", *sys.argv[1:]])
    coverage = coverage_table(pl.DataFrame(rows, infer_schema_length=None), truths())
    out.write_text(report(coverage, command, seeds))


if __name__ == "__main__":
    main()
