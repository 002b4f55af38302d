"""What explanations of the synthetic language leave out: the facts are known, so it is counted.

The other analyzers estimate from texts what is said no more. Here nothing is estimated: each
document was drawn from five facts, its last words are in the source, and an explanation names a
fact rightly, wrongly, or not at all. A linear probe of the activation says how much of each fact
there was to name.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import polars as pl

from nla_audit.findings import Figure, Finding, Headline, Metric
from nla_audit.stats import Interval, Resampler
from nla_audit.world.toy.explanations import ENDING_WORDS
from nla_audit.world.toy.language import FACTS

QUESTION = "Which of the known facts do explanations name, and how many could they name?"
ENDING = "ending"
#: Facts, and what stands for all of them together.
_ALL = "all facts"
_QUOTED = re.compile(r'" ([^"]*?) "')

_METRICS = (
    Metric("n", "count", "neither", "explanations of the model", interval=False),
    Metric("right", "share", "higher", "share of the facts that are named rightly"),
    Metric("wrong", "share", "lower", "share of the facts that are named wrongly", interval=False),
    Metric("left_out", "share", "lower", "share of the facts that are not named", interval=False),
    Metric(
        "ending_right", "share", "higher", "share of the explanations that quote the ending rightly"
    ),
    Metric(
        "quoted_in_source", "share", "higher", "share of the quoted words that stand in the source"
    ),
)

Floats = npt.NDArray[np.float64]


def facts_named(
    completions: pl.DataFrame, facts: pl.DataFrame, probe: dict[str, float], *, seed: int = 0
) -> Finding:
    """Share of facts that each model names rightly, wrongly, or leaves out.

    A fact is named rightly if its value stands in the explanation and no other value of it does;
    the ending if the quoted words are the last of the source. A failed explanation is left out.

    Args:
        completions: ``model, length_penalty, idx, doc_id, explanation, source_text``.
        facts: ``idx`` and the true value of each of :data:`~nla_audit.world.toy.language.FACTS`.
        probe: fact → held-out accuracy of a linear probe, from :func:`probe_accuracy`.
        seed: of the intervals (95 %, bootstrap over documents).

    Returns:
        A finding whose headline also has ``quoted_in_source``, the share of quoted words that
        stand anywhere in the source, with table ``facts``: ``model, length_penalty, fact, right,
        right_low, right_high, wrong, left_out, chance, probe``, shares of explanations.
        ``chance`` is how often the named value would be that of any document.
    """
    said = completions.filter(pl.col("explanation").is_not_null()).join(
        facts.with_columns(pl.col("idx").cast(completions.schema["idx"])), on="idx"
    )
    rows: list[dict[str, object]] = []
    headline: Headline = {}
    for model in said["model"].unique(maintain_order=True):
        own = said.filter(pl.col("model") == model)
        resampler = Resampler(own["doc_id"].to_list(), seed=seed)
        outcomes = {fact: _named(own, fact) for fact in (*FACTS, ENDING)}
        shares = {fact: _shares(resampler, *outcome) for fact, outcome in outcomes.items()}
        right = np.mean([outcomes[fact][0] for fact in FACTS], axis=0)
        wrong = np.mean([outcomes[fact][1] for fact in FACTS], axis=0)
        shares[_ALL] = _shares(resampler, right, wrong)
        headline[str(model)] = {
            "n": float(own.height),
            **shares[_ALL][0].entries("right"),
            "wrong": shares[_ALL][1],
            "left_out": shares[_ALL][2],
            **shares[ENDING][0].entries("ending_right"),
            **resampler.mean(_quoted_in_source(own)).entries("quoted_in_source"),
        }
        for fact, (interval, wrongly, left_out) in shares.items():
            rows.append(
                {
                    "model": model,
                    "length_penalty": own["length_penalty"][0],
                    "fact": fact,
                    **interval.entries("right"),
                    "wrong": wrongly,
                    "left_out": left_out,
                    "chance": _chance(own, facts, fact) if fact in FACTS else None,
                    "probe": probe.get(fact) if fact != _ALL else float(np.mean([*probe.values()])),
                }
            )
    table = pl.DataFrame(rows, infer_schema_length=None)
    return Finding(
        analyzer="known-facts",
        question=QUESTION,
        reference=None,
        headline=headline,
        verdict=_verdict(table),
        caveats=[
            "Counted, not estimated: this language is made, and its facts are known.",
            "The probe is linear and its accuracy a lower bound of what the activation holds; an "
            "explanation that beats it guesses well or reads better.",
        ],
        tables={"facts": table},
        figures=[
            Figure(
                "named",
                "Facts named rightly",
                "bar",
                "facts",
                x="fact",
                y="right",
                low="right_low",
                high="right_high",
                group="model",
                chance="probe",
                chance_label="linear probe",
                x_label="fact",
                y_label="share of explanations",
                percent=True,
                caption="Share of explanations that name the fact rightly; dashed: how often a "
                "linear probe of the activation reads it.",
            )
        ],
        parameters={"seed": seed, "ending_words": ENDING_WORDS},
        metrics=_METRICS,
        columns=dict.fromkeys(("right", "wrong", "left_out", "chance", "probe"), "share"),
    )


def probe_accuracy(
    activations: npt.NDArray[np.float32],
    facts: pl.DataFrame,
    is_held_out: npt.NDArray[np.bool_],
) -> dict[str, float]:
    """Fact → accuracy of a linear probe (logistic regression) on held-out documents.

    Args:
        activations: ``[n, d_model]``.
        facts: ``[n]`` rows in the order of the activations.
        is_held_out: ``[n]`` rows that the probe is not fitted on.
    """
    from sklearn.linear_model import LogisticRegression  # costs a second
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    accuracy = {}
    for fact in FACTS:
        values = facts[fact].to_numpy()
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        with threadpool_limits(limits=1):  # small arrays: threads would wait for each other
            model.fit(activations[~is_held_out], values[~is_held_out])
        accuracy[fact] = float(model.score(activations[is_held_out], values[is_held_out]))
    return accuracy


def _named(own: pl.DataFrame, fact: str) -> tuple[Floats, Floats]:
    """``[n]`` whether the fact is named rightly, and whether wrongly, in each explanation."""
    if fact == ENDING:
        return _ending_named(own)
    values = set(FACTS[fact])
    pairs = zip(own["explanation"], own[fact], strict=True)
    named = [(set(text.split()) & values, true) for text, true in pairs]
    right = np.array([found == {true} for found, true in named], dtype=np.float64)
    wrong = np.array([bool(found - {true}) for found, true in named], dtype=np.float64)
    return right, wrong


def _ending_named(own: pl.DataFrame) -> tuple[Floats, Floats]:
    right, wrong = np.zeros(own.height), np.zeros(own.height)
    for row, (text, source) in enumerate(zip(own["explanation"], own["source_text"], strict=True)):
        quoted = _QUOTED.findall(text)
        if quoted:
            is_right = all(span.split() == source.split()[-ENDING_WORDS:] for span in quoted)
            right[row], wrong[row] = is_right, not is_right
    return right, wrong


def _quoted_in_source(own: pl.DataFrame) -> Floats:
    """``[n]`` share of the quoted words that stand anywhere in the source, NaN without quotes."""
    shares = np.full(own.height, np.nan)
    for row, (text, source) in enumerate(zip(own["explanation"], own["source_text"], strict=True)):
        words = " ".join(_QUOTED.findall(text)).split()
        if words:
            shares[row] = np.mean(np.isin(words, source.split()))
    return shares


def _shares(resampler: Resampler, right: Floats, wrong: Floats) -> tuple[Interval, float, float]:
    return resampler.mean(right), float(wrong.mean()), float((1 - right - wrong).mean())


def _chance(own: pl.DataFrame, facts: pl.DataFrame, fact: str) -> float:
    """How often the value that is named, where one is, would be right of any document."""
    frequency = facts[fact].value_counts(normalize=True)
    share = dict(zip(frequency[fact], frequency["proportion"], strict=True))
    values = set(FACTS[fact])
    named = [set(text.split()) & values for text in own["explanation"]]
    return float(
        np.mean([share.get(next(iter(one)), 0.0) if len(one) == 1 else 0.0 for one in named])
    )


def _verdict(table: pl.DataFrame) -> str:
    """What each end of the sweep names, and which fact goes first."""
    overall = table.filter(pl.col("fact") == _ALL)
    sentences = [
        f"A linear probe reads {overall['probe'][0]:.0%} of the facts from the activation; named "
        "rightly are "
        + ", ".join(
            f"{row['right']:.0%} by {row['model']}" for row in overall.iter_rows(named=True)
        )
        + "."
    ]
    trained = table.filter(pl.col("length_penalty").is_not_null())
    penalties = trained["length_penalty"].unique().sort()
    if len(penalties) > 1:
        first, last = (
            trained.filter((pl.col("length_penalty") == at) & (pl.col("fact") != _ALL))
            for at in (penalties[0], penalties[-1])
        )
        lost = first.join(last, on="fact", suffix="_last").with_columns(
            change=pl.col("right_last") - pl.col("right")
        )
        lost = lost.sort("change", "fact")
        worst, best = lost.row(0, named=True), lost.row(-1, named=True)
        sentences.append(
            f"From λ = {penalties[0]:g} to {penalties[-1]:g} “{worst['fact']}” falls most "
            f"({worst['right']:.0%} to {worst['right_last']:.0%}), “{best['fact']}” least "
            f"({best['right']:.0%} to {best['right_last']:.0%})."
        )
    return " ".join(sentences)
