"""How far can the reading of claims be believed on this table?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from nla_audit.analyzers.drop_analysis import net_loss
from nla_audit.completions import Completions, from_frame
from nla_audit.errors import UserError
from nla_audit.findings import Figure, Finding, Headline, Option, analyzer
from nla_audit.pairing import column, equally_long, resampler
from nla_audit.readers import read_frame
from nla_audit.stats import Interval
from nla_audit.text.claims import split_claims
from nla_audit.text.reading import READING_ERROR, Progress, read_afresh
from nla_audit.text.words import piece_count

QUESTION = (
    "On this table's own texts, with claims deleted or exchanged at a known rate, how far is the "
    "reading of claims from the truth?"
)
#: Activations that are tried, and at least so many are needed.
_MOST, _LEAST = 200, 20
_DELETED = (0.0, 0.3, 0.6)
_EXCHANGED = (0.3,)
_ORIGINAL, _CHANGED = "original", "changed"


@dataclass(frozen=True)
class _Twins:
    """Pairs of texts that say the same, or as much of it as two samples of one model do.

    ``parts`` are the character spans of the second text that are deleted or exchanged.
    """

    name: str
    idx: list[int]
    first: list[str]
    second: list[str]
    parts: list[list[tuple[int, int]]]


@analyzer(
    name="calibrate",
    question=QUESTION,
    reads=("model", "idx", "explanation"),
    uses={"sample": "a second sample of the reference is the best twin of the first"},
    unit="activation: two texts that say the same, one of them changed at a known rate",
    control="nothing deleted: what is read as dropped then is a false alarm",
    high_means="retained_bias above 0: what was deleted or exchanged is read as still said",
    example="nla-audit calibrate completions.parquet --runs 20",
    order=60,
    options=(
        Option("runs", int, 1, "times that each rate is tried, each with other claims deleted"),
        Option(
            "paraphrases", str, None,
            "table of paraphrased lines (idx, original, paraphrase), deleted and exchanged instead "
            "of this table's claims",
        ),
        Option(
            "similarity", str, None,
            "sentence-transformers model (name or folder) instead of the built-in similarity",
        ),
    ),
)  # fmt: skip
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
    twins = _paraphrased(paraphrases) if paraphrases else _twins_of(completions, seed)
    rates = [("deleted", rate) for rate in _DELETED] + [("exchanged", rate) for rate in _EXCHANGED]
    rows = []
    for run in range(runs):
        untouched: dict[str, float] | None = None
        for number, (change, rate) in enumerate(rates):
            trial = _changed(twins, change, rate, seed + 1000 * run + number)
            row = _read(trial, untouched, similarity, seed)
            untouched = untouched or row
            rows.append({"change": change, "rate": rate, "run": run, **row})
            if progress is not None:
                progress(len(rows), runs * len(rates))
    trials = pl.DataFrame(rows, infer_schema_length=None)
    headline: Headline = {twins.name: _summary(trials)}
    return Finding(
        analyzer="calibrate",
        question=QUESTION,
        reference=completions.reference,
        headline=headline,
        verdict=_verdict(twins, headline[twins.name]),
        caveats=_caveats(twins, runs, similarity),
        tables={"trials": trials},
        figures=[
            Figure(
                "retained", "Content that is still said, read and true", "scatter", "trials",
                x="true_retained", y="retained", x_label="true share", y_label="read share",
                low="retained_low", high="retained_high", group="change", percent=True,
                caption="Share of the original's tokens that the changed text still says: read, "
                "against what was left of it.",
            )
        ],
        parameters={
            "seed": seed, "runs": runs, "paraphrases": paraphrases, "similarity": similarity,
        },
    )  # fmt: skip


def _twins_of(completions: Completions, seed: int) -> _Twins:
    """The reference beside its second sample, or beside an equally long model, labels exchanged."""
    rows = completions.rows.filter(pl.col("explanation").is_not_null())
    own = rows.filter(pl.col("model") == completions.reference).sort("idx", "sample")
    by_idx = own.group_by("idx", maintain_order=True).agg("explanation")
    several = by_idx.filter(pl.col("explanation").list.len() > 1)
    if several.height >= _LEAST:
        pairs = [(idx, texts[0], texts[1]) for idx, texts in several.iter_rows()]
        name = f"two samples of {completions.reference}"
    else:
        name, pairs = _beside_another(completions, rows, by_idx)
    generator = np.random.default_rng([seed, 11])
    if len(pairs) > _MOST:
        chosen = generator.choice(len(pairs), _MOST, replace=False)
        pairs = [pairs[place] for place in np.sort(chosen)]
    flipped = generator.random(len(pairs)) < 0.5
    first = [b if flip else a for (_, a, b), flip in zip(pairs, flipped, strict=True)]
    second = [a if flip else b for (_, a, b), flip in zip(pairs, flipped, strict=True)]
    parts = [[(claim.start, claim.end) for claim in split_claims(text)] for text in second]
    return _Twins(name, [idx for idx, _, _ in pairs], first, second, parts)


def _beside_another(
    completions: Completions, rows: pl.DataFrame, by_idx: pl.DataFrame
) -> tuple[str, list[tuple[int, str, str]]]:
    nearest = equally_long(completions)
    if nearest is None:
        raise UserError(
            f"no twin to try the reading on: {completions.reference} has a second sample of fewer "
            f"than {_LEAST} activations, and no other model is equally long; give --paraphrases, "
            "or more second samples"
        )
    other = rows.filter(pl.col("model") == nearest).unique("idx", keep="first", maintain_order=True)
    both = by_idx.with_columns(pl.col("explanation").list.first()).join(
        other.select("idx", second="explanation"), on="idx", maintain_order="left"
    )
    if both.height < _LEAST:
        raise UserError(
            f"only {both.height} activations have texts by {completions.reference} and {nearest}: "
            f"calibrating needs {_LEAST}"
        )
    return f"{completions.reference} and {nearest}", list(both.iter_rows())


def _paraphrased(path: str) -> _Twins:
    frame = read_frame(path)
    missing = {"idx", "original", "paraphrase"} - set(frame.columns)
    if missing:
        raise UserError(f"{path}: lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    by_idx = frame.drop_nulls(["idx", "original", "paraphrase"]).group_by(
        "idx", maintain_order=True
    )
    idx, first, second, parts = [], [], [], []
    for number, (_, lines) in enumerate(by_idx):
        idx.append(number)
        first.append("\n".join(text.strip() for text in lines["original"]))
        ends, spans = 0, []
        texts = [text.strip() for text in lines["paraphrase"]]
        for text in texts:
            spans.append((ends, ends + len(text)))
            ends += len(text) + 1
        second.append("\n".join(texts))
        parts.append(spans)
    if len(idx) < _LEAST:
        raise UserError(f"{path}: {len(idx)} activations: calibrating needs {_LEAST}")
    return _Twins(f"paraphrases of {path.rsplit('/', 1)[-1]}", idx, first, second, parts)


def _changed(twins: _Twins, change: str, rate: float, seed: int) -> tuple[Completions, float]:
    """Twins of which a share of the second's parts is deleted or exchanged.

    Returns:
        The table, and the share of the second texts' tokens that is left.
    """
    generator = np.random.default_rng([seed, 12])
    changed, left = [], []
    for place, (text, spans) in enumerate(zip(twins.second, twins.parts, strict=True)):
        gone = generator.random(len(spans)) < rate
        costs = np.array([piece_count(text[a:b]) for a, b in spans], dtype=np.float64)
        left.append(float(costs[~gone].sum() / costs.sum()) if costs.sum() else 1.0)
        affected = [span for span, is_gone in zip(spans, gone, strict=True) if is_gone]
        new = ["" if change == "deleted" else _elsewhere(twins, place, generator) for _ in affected]
        changed.append(_replaced(text, affected, new))
    table = from_frame(
        pl.DataFrame(
            {
                "model": [_ORIGINAL] * len(twins.idx) + [_CHANGED] * len(twins.idx),
                "length_penalty": [0.0] * len(twins.idx) + [1.0] * len(twins.idx),
                "idx": twins.idx * 2,
                "explanation": [*twins.first, *changed],
            }
        ),
        reference=_ORIGINAL,
    )
    return table, float(np.mean(left))


def _read(
    trial: tuple[Completions, float],
    untouched: dict[str, float] | None,
    similarity: str | None,
    seed: int,
) -> dict[str, float]:
    """What is read of changed twins, beside what was left of what was read untouched."""
    table, still = trial
    reading = read_afresh(table, similarity=similarity, seed=seed)
    rows = reading.explanations.filter(pl.col("model") == _CHANGED)
    draw = resampler(rows, seed)
    tokens = column(rows, "tokens_reference")
    retained = draw.ratio(column(rows, "kept_tokens"), tokens).widened(READING_ERROR)
    reworded = draw.mean(column(rows, "kept_tokens") - column(rows, "supported_tokens"))
    loss = net_loss(rows, seed)
    before = untouched or {"retained": retained.value, "rewording_tokens": reworded.value}
    return {
        **_known(retained, "retained"),
        "true_retained": before["retained"] * still,
        "rewording_tokens": reworded.value,
        "true_rewording_tokens": before["rewording_tokens"] * still,
        "net_loss_share": loss.value,
        "drop_reported": float(loss.low > 0),
        "mean_tokens": float(tokens.mean()),
    }


def _known(interval: Interval, name: str) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _elsewhere(twins: _Twins, place: int, generator: np.random.Generator) -> str:
    """A part of another activation's text."""
    other = int(generator.integers(len(twins.second) - 1))
    other += other >= place
    spans = twins.parts[other]
    if not spans:
        return ""
    start, end = spans[int(generator.integers(len(spans)))]
    return twins.second[other][start:end]


def _replaced(text: str, spans: Sequence[tuple[int, int]], new: Sequence[str]) -> str:
    """``text`` with other words in the place of these spans, which are in order."""
    found, place = [], 0
    for (start, end), words in zip(spans, new, strict=True):
        found += [text[place:start], words]
        place = end
    return "".join([*found, text[place:]]).strip()


def _summary(trials: pl.DataFrame) -> dict[str, float | None]:
    touched = trials.filter(pl.col("rate") > 0)
    deleted = touched.filter(pl.col("change") == "deleted")
    untouched = trials.filter(pl.col("rate") == 0)
    error = touched["retained"] - touched["true_retained"]
    inside = (touched["retained_low"] <= touched["true_retained"]) & (
        touched["true_retained"] <= touched["retained_high"]
    )
    worst = error[int(error.abs().arg_max() or 0)]
    reworded = deleted["rewording_tokens"] - deleted["true_rewording_tokens"]
    return {
        "n": float(touched.height),
        "retained_bias": _mean(error),
        "retained_worst": float(worst),
        "retained_coverage": _mean(inside.cast(pl.Float64)),
        "untouched_retained": _mean(untouched["retained"]),
        "untouched_rewording_tokens": _mean(untouched["rewording_tokens"]),
        "deleted_called_rewording_tokens": _mean(reworded),
        "drop_power": _mean(deleted["drop_reported"]),
        "drop_false_alarms": _mean(untouched["drop_reported"]),
    }


def _mean(values: pl.Series) -> float | None:
    mean = values.mean()
    return float(mean) if isinstance(mean, int | float) else None


def _verdict(twins: _Twins, summary: dict[str, float | None]) -> str:
    return (
        f"With claims deleted or exchanged in {twins.name}, the share still said is read "
        f"{summary['retained_bias'] or 0.0:+.0%} from the truth on average and "
        f"{summary['retained_worst'] or 0.0:+.0%} at worst; of deleted claims "
        f"{summary['deleted_called_rewording_tokens'] or 0.0:+.1f} tokens are called rewording. A "
        f"drop is reported in {summary['drop_power'] or 0.0:.0%} of the trials with one, and in "
        f"{summary['drop_false_alarms'] or 0.0:.0%} of those without."
    )


def _caveats(twins: _Twins, runs: int, similarity: str | None) -> list[str]:
    caveats = [
        f"{len(twins.idx)} activations, each rate tried {runs} time{'s' * (runs > 1)}: "
        + ("rates of alarms and coverage need more (--runs)." if runs < 20 else "see the table."),
        "What two untouched twins differ in is not known, so the truth of a changed text is what "
        "was read of the untouched one times the share that was left.",
    ]
    if similarity is None:
        caveats.append("Calibrated for the built-in similarity; --similarity is another reading.")
    return caveats
