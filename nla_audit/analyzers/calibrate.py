"""How far can the reading of claims be believed on this table?"""

from __future__ import annotations

import numpy as np
import polars as pl

from nla_audit.analyzers._net_loss import net_loss
from nla_audit.analyzers._reading_error import Level, ReadingError
from nla_audit.analyzers._trials import Tried, calibrated, error_from, try_twins
from nla_audit.analyzers._twins import DELETED, TOGETHER, Twins, paraphrased, twins_of
from nla_audit.analyzers._unrecognised import Usual
from nla_audit.errors import UserError
from nla_audit.findings import Better, Figure, Finding, Headline, Metric, Option, Unit, analyzer
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import column, resampler
from nla_audit.text.reading import Progress

QUESTION = (
    "On this table's own texts, with claims deleted or exchanged at a known rate, how far is the "
    "reading of claims from the truth?"
)


_ERRORS: tuple[tuple[str, Unit, Better, str], ...] = (
    (
        "retained_bias",
        "difference of shares",
        "neither",
        "share read as still said less the true one, on average",
    ),
    ("retained_worst", "difference of shares", "neither", "the same where it is worst"),
    ("retained_coverage", "share", "higher", "share of the intervals that hold the truth"),
    (
        "run_together_retained_bias",
        "difference of shares",
        "neither",
        "retained_bias where all is said, in longer sentences without function words",
    ),
    (
        "run_together_rewording_bias_tokens",
        "tokens",
        "neither",
        "tokens read as rewording less the true ones, there",
    ),
    ("untouched_retained", "share", "higher", "share read as still said where nothing is deleted"),
    ("untouched_rewording_tokens", "tokens", "neither", "tokens read as rewording, there"),
    (
        "deleted_called_rewording_tokens",
        "tokens",
        "lower",
        "tokens of deleted claims that are called rewording",
    ),
    ("drop_power", "share", "higher", "share of the trials with a drop that report one"),
    (
        "drop_false_alarms",
        "share",
        "lower",
        "share of the trials without a drop (nothing changed, exchanged, run together) that report "
        "one",
    ),
    ("drop_trials", "count", "neither", "trials with a drop"),
    ("no_drop_trials", "count", "neither", "trials without one"),
)
METRICS = (
    Metric("n", "count", "neither", "trials with something deleted or exchanged", interval=False),
    *(
        Metric(name, unit, better, meaning, interval=False)
        for name, unit, better, meaning in _ERRORS
    ),
)


@analyzer(
    name="calibrate",
    question=QUESTION,
    reads=("model", "idx", "explanation"),
    uses={"sample": "a second sample of the reference is the best twin of the first"},
    unit="activation: two texts that say the same, one of them changed at a known rate",
    control="nothing deleted: what is read as dropped then is a false alarm",
    high_means="retained_bias above 0: what was deleted or exchanged is read as still said",
    example="nla-audit calibrate completions.parquet --runs 20",
    metrics=METRICS,
    columns={
        "rate": "share",
        "retained": "share",
        "true_retained": "share",
        "net_loss_share": "share",
        "true_net_loss_share": "share",
    },
    order=60,
    options=(
        Option("runs", int, 1, "times that each rate is tried, each with other claims deleted"),
        Option(
            "paraphrases",
            str,
            None,
            "table of paraphrased lines (idx, original, paraphrase), deleted and exchanged instead "
            "of this table's claims",
        ),
        Option(
            "similarity",
            str,
            None,
            "sentence-transformers model (name or folder) instead of the built-in similarity",
        ),
    ),
)
def calibrate(
    completions: Completions,
    *,
    runs: int = 1,
    paraphrases: str | None = None,
    similarity: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Finding:
    """Delete and exchange claims of twins, read the result, and print the errors."""
    if runs < 1:
        raise UserError(f"--runs: {runs} is too few, try 1 or more")
    twins, tried = _tried(
        completions,
        runs=runs,
        paraphrases=paraphrases,
        similarity=similarity,
        seed=seed,
        progress=progress,
    )
    trials, kinds = _trial_table(tried, twins.name, seed), _kind_table(tried)
    headline: Headline = {twins.name: _summary(trials)}
    return Finding(
        analyzer="calibrate",
        question=QUESTION,
        reference=completions.reference,
        headline=headline,
        verdict=_verdict(twins, headline[twins.name]),
        caveats=_caveats(twins, runs, similarity),
        tables={"trials": trials, "kinds": kinds},
        figures=[
            Figure(
                "retained",
                "Content that is still said, read and true",
                "scatter",
                "trials",
                x="true_retained",
                y="retained",
                x_label="true share",
                y_label="read share",
                low="retained_low",
                high="retained_high",
                group="change",
                percent=True,
                caption="Share of the original's tokens that the changed text still says: read, "
                "against what was left of it.",
            )
        ],
        parameters={
            "seed": seed,
            "runs": runs,
            "paraphrases": paraphrases,
            "similarity": similarity,
        },
    )


def _tried(
    completions: Completions,
    *,
    runs: int,
    paraphrases: str | None,
    similarity: str | None,
    seed: int,
    progress: Progress | None,
) -> tuple[Twins, Tried]:
    """The trials; those that the other analyzers take their error from, where they are asked."""
    if paraphrases is None and runs == 1:
        own, known, _ = calibrated(completions, similarity=similarity, seed=seed)
        if own is not None and known is not None:
            return own, known
    if paraphrases:
        twins = paraphrased(paraphrases)
    else:
        twins = twins_of(completions, seed, few=similarity is not None)
    return twins, try_twins(twins, runs=runs, similarity=similarity, seed=seed, progress=progress)


def _trial_table(tried: Tried, twins: str, seed: int) -> pl.DataFrame:
    """Each trial: what an audit would print of it, and what is true.

    The error by which intervals are widened is that of the other runs, where there are any.
    """
    rows = []
    for (run,), of_run in tried.explanations.group_by("run", maintain_order=True):
        others = Tried(
            *(part.filter(pl.col("run") != run) for part in (tried.explanations, tried.claims))
        )
        error = error_from(others if others.claims.height else tried, twins)
        usual = Usual.of(of_run.filter(pl.col("rate") == 0))
        for (change, rate), own in of_run.group_by("change", "rate", maintain_order=True):
            level = Level.of(own, float(change == TOGETHER), usual)
            rows.append(
                {"change": change, "rate": rate, "run": run, **_trial(own, error, level, seed)}
            )
    table = pl.DataFrame(rows, infer_schema_length=None).sort("run", "change", "rate")
    return table.with_columns(pl.col(pl.Null).cast(pl.Float64))  # known of no row


def _trial(
    rows: pl.DataFrame, error: ReadingError, level: Level, seed: int
) -> dict[str, float | None]:
    draw = resampler(rows, seed)
    tokens = column(rows, "tokens_reference")
    kept, true_kept, said, true_said, own = (
        column(rows, name)
        for name in (
            "kept_tokens",
            "true_kept_tokens",
            "supported_tokens",
            "true_supported_tokens",
            "tokens_model",
        )
    )
    retained = draw.ratio(kept, tokens)
    bias = error.at(level)
    loss = net_loss(rows, error, level, seed).share
    return {
        **error.widen_share(retained, bias.kept).entries("retained"),
        "true_retained": _share(true_kept, tokens),
        "rewording_tokens": float((kept - said).mean()),
        "true_rewording_tokens": float((true_kept - true_said).mean()),
        "addition_tokens": float((said - own).mean()),
        "true_addition_tokens": float((true_said - own).mean()),
        **loss.entries("net_loss_share"),
        "true_net_loss_share": _true_net_loss(tokens, own, true_kept, true_said),
        "drop_reported": float(loss.low > 0),
        "mean_tokens": float(tokens.mean()),
    }


def _true_net_loss(
    tokens: np.ndarray, own: np.ndarray, kept: np.ndarray, said: np.ndarray
) -> float | None:
    """As :func:`~nla_audit.analyzers._net_loss.net_loss`, by what is true."""
    if not (tokens.sum() > 0 and said.sum() > 0):
        return None
    return float(1 - own.sum() * kept.sum() / said.sum() / tokens.sum())


def _kind_table(tried: Tried) -> pl.DataFrame:
    """By kind of claim and change: how many claims, the share read as retained, and its bias."""
    return (
        tried.claims.group_by("kind", "change", "rate")
        .agg(
            claims=pl.len() // pl.col("run").n_unique(),
            retained=pl.col("kept").mean(),
            true_retained=pl.col("true_kept").mean(),
        )
        .with_columns(bias=pl.col("retained") - pl.col("true_retained"))
        .sort("kind", "change", "rate")
    )


def _summary(trials: pl.DataFrame) -> dict[str, float | None]:
    together = trials.filter(pl.col("change") == TOGETHER)
    touched = trials.filter((pl.col("rate") > 0) & (pl.col("change") != TOGETHER))
    deleted = touched.filter(pl.col("change") == DELETED)
    untouched = trials.filter(pl.col("rate") == 0)
    without = trials.filter((pl.col("rate") == 0) | (pl.col("change") != DELETED))
    error = touched["retained"] - touched["true_retained"]
    inside = (touched["retained_low"] <= touched["true_retained"]) & (
        touched["true_retained"] <= touched["retained_high"]
    )
    worst = error.abs().arg_max()
    reworded = deleted["rewording_tokens"] - deleted["true_rewording_tokens"]
    return {
        "n": float(touched.height),
        "retained_bias": _mean(error),
        "retained_worst": None if worst is None else float(error[worst]),
        # One run's own error cannot show whether intervals widened by it cover.
        "retained_coverage": _mean(inside.cast(pl.Float64)) if trials["run"].max() else None,
        "run_together_retained_bias": _mean(together["retained"] - together["true_retained"]),
        "run_together_rewording_bias_tokens": _mean(
            together["rewording_tokens"] - together["true_rewording_tokens"]
        ),
        "untouched_retained": _mean(untouched["retained"]),
        "untouched_rewording_tokens": _mean(untouched["rewording_tokens"]),
        "deleted_called_rewording_tokens": _mean(reworded),
        "drop_power": _mean(deleted["drop_reported"]),
        "drop_false_alarms": _mean(without["drop_reported"]),
        "drop_trials": float(deleted.height),
        "no_drop_trials": float(without.height),
    }


def _share(part: np.ndarray, whole: np.ndarray) -> float | None:
    """``None`` where there is nothing to be a share of."""
    total = float(whole.sum())
    return float(part.sum()) / total if total > 0 else None


def _mean(values: pl.Series) -> float | None:
    mean = values.mean()
    return float(mean) if isinstance(mean, int | float) else None


def _verdict(twins: Twins, summary: dict[str, float | None]) -> str:
    if summary["retained_bias"] is None:
        return f"How true the reading is cannot be told: {twins.name} say nothing."
    truth = (
        "the truth"
        if twins.whole
        else "what was read of the untouched texts, times what is left of them,"
    )
    drops, others = (
        f"{(summary[rate] or 0.0) * (summary[number] or 0.0):.0f} of {summary[number]:.0f}"
        for rate, number in (
            ("drop_power", "drop_trials"),
            ("drop_false_alarms", "no_drop_trials"),
        )
    )
    return (
        f"With claims deleted or exchanged in {twins.name}, the share still said is read "
        f"{summary['retained_bias'] or 0.0:+.0%} from {truth} on average and "
        f"{summary['retained_worst'] or 0.0:+.0%} at worst; of deleted claims "
        f"{summary['deleted_called_rewording_tokens'] or 0.0:+.1f} tokens are called rewording. A "
        f"drop is reported in {drops} trials with one, and in {others} without. Where all is "
        "still said, but three sentences to a line and without function words, the share read "
        f"differs by {summary['run_together_retained_bias'] or 0.0:+.0%}."
    )


def _caveats(twins: Twins, runs: int, similarity: str | None) -> list[str]:
    caveats = [
        f"{len(twins.idx)} activations, each rate tried {runs} time{'s' * (runs > 1)}: "
        + ("rates of alarms and coverage need more (--runs)." if runs < 20 else "see the table."),
    ]
    if twins.whole:
        caveats.append(
            "A paraphrase counts as saying all of its original: what the paraphraser left out is "
            "an error here."
        )
    else:
        caveats.append(
            "What two untouched twins differ in is not known, so a changed text is held against "
            "what was read of the untouched one times the share that was left: an error that is in "
            "both cannot be seen."
        )
    if similarity is None:
        caveats.append("Calibrated for the built-in similarity; --similarity is another reading.")
    return caveats
