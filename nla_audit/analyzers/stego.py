"""Does the AR read what explanations say, or something hidden in how it is said?

Not a question to a table of completions: it needs the scores of changed texts, and so it is not
registered with the analyzers that ``nla-audit audit`` runs. ``nla-audit stego`` calls it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from nla_audit.analyzers._channels import (
    CANNOT_TELL,
    CODE,
    FDR,
    LARGE,
    MATERIAL,
    MOST,
    NAMES,
    TOUCHED,
    Evidence,
    Verdict,
    adjusted,
    decide,
)
from nla_audit.analyzers._meaning import (
    LINE_SCHEMA,
    loss_at_zero_change,
    meaning_caveats,
    meaning_of,
)
from nla_audit.analyzers._retention import Retention, excess, loss, retention, signal
from nla_audit.analyzers._series import trend_over
from nla_audit.analyzers._stego_scores import (
    FLOOR,
    OWN,
    REFERENCE,
    UNCHANGED,
    Scores,
    table_of,
)
from nla_audit.findings import Card, Figure, Finding, Headline
from nla_audit.probes.registry import Transform, transforms
from nla_audit.stats import Interval

QUESTION = "Does the AR read what explanations say, or something hidden in how it is said?"


def stego(
    scores: Scores,
    *,
    seed: int = 0,
    notes: Sequence[str] = (),
    examples: pl.DataFrame | None = None,
    series: str | None = None,
) -> Finding:
    """The finding: retention of every variant, excess over the controls, a verdict.

    With several models (checkpoints, length penalties) each is judged on its own.

    Args:
        scores: of the changed texts.
        seed: of the intervals.
        notes: caveats that only the caller knows (who wrote the paraphrases, what failed).
        examples: :func:`nla_audit.probes.examples.chosen_examples`; left out of reports
            without texts.
        series: column that orders the models (:data:`~nla_audit.analyzers._stego_scores.SERIES`),
            to say whether the gap widens along it.

    Raises:
        UserError: as :func:`~nla_audit.analyzers._series.trend_over`.
    """
    cards = transforms()
    models = scores.models
    headline: Headline = {}
    rows: list[dict[str, Any]] = []
    verdicts: dict[str, Verdict] = {}
    lines: list[dict[str, Any]] = []
    caveats: list[str] = list(notes)
    for model in models:
        verdict, variants, notes = judge(scores, model, cards=cards, seed=seed)
        verdicts[model] = verdict
        for name in sorted(variants, key=lambda name: _place(name, cards)):
            key = name if len(models) == 1 else f"{model}: {name}"
            headline[key] = variants[name]
            aspect = aspect_of(name, cards)
            rows.append({"model": model, "aspect": aspect, "variant": name, **variants[name]})
        lines += loss_at_zero_change(scores, model, cards)
        caveats += [note if len(models) == 1 else f"{model}: {note}" for note in notes]
    tables = {
        "variants": pl.DataFrame(rows, infer_schema_length=None),
        "verdicts": _verdict_table(verdicts),
        "channels": _channel_table(verdicts),
    }
    if examples is not None:
        tables["examples"] = examples
    tables["loss_at_zero_meaning_change"] = pl.DataFrame(lines, LINE_SCHEMA)
    finding = Finding(
        analyzer="stego",
        question=QUESTION,
        reference=None,
        headline=headline,
        verdict=" ".join(
            sentence(verdict, model if len(models) > 1 else None)
            for model, verdict in verdicts.items()
        ),
        caveats=list(dict.fromkeys(caveats)),
        tables=tables,
        figures=_figures("model" if len(models) > 1 else None),
        private_tables=frozenset({"examples"}),
        parameters={
            "seed": seed, "ar": scores.own_ar, "false_discovery_rate": FDR,
            "material_share": MATERIAL, "most": MOST, "large_code": LARGE,
            "verdict": {model: verdict.category for model, verdict in verdicts.items()},
        },
    )  # fmt: skip
    return finding if series is None else with_trend(finding, scores, series, cards, seed)


def with_trend(
    finding: Finding, scores: Scores, by: str, cards: Mapping[str, Transform], seed: int
) -> Finding:
    """``finding`` with what became of the gap over the models, ordered by column ``by``."""
    trend = trend_over(scores, by, cards=cards, seed=seed)
    return replace(
        finding,
        verdict=f"{finding.verdict} {trend.sentence}",
        caveats=[*finding.caveats, *trend.caveats],
        tables={**finding.tables, "series": trend.gaps, "series_trends": trend.trends},
        figures=[*finding.figures, *trend.figures],
        parameters={**finding.parameters, "series": by, "series_direction": trend.direction},
    )


def aspect_of(variant: str, cards: Mapping[str, Transform]) -> str:
    """What a variant is there to test, in words: rows of one aspect stand together."""
    card = cards.get(variant)
    if card is None:
        return "of unknown kind"
    if card.group != "kept":
        return "control" if card.group == "control" else "meaning cut"
    if len(card.destroys) == 1:
        return NAMES[next(iter(card.destroys))]
    return "several at once"


#: The aspects in the order of the report.
_ASPECTS = ("control", *NAMES.values(), "several at once", "meaning cut", "of unknown kind")


def _place(variant: str, cards: Mapping[str, Transform]) -> tuple[int, str]:
    return _ASPECTS.index(aspect_of(variant, cards)), variant


def _figures(group: str | None) -> list[Figure]:
    return [
        Figure(
            "retention", "What is left of the reconstruction", "bar", "variants",
            x="variant", y="retention", x_label="change of the text", y_label="retention",
            low="retention_low", high="retention_high", percent=True, group=group or "aspect",
            caption="Share of FVE above the floor that each change of the text leaves.",
        ),
        Figure(
            "channels", "What each channel carries", "bar", "channels",
            x="channel", y="share", x_label="", y_label="share of the reconstruction",
            low="share_low", high="share_high", percent=True, group=group,
            caption="Layout, wording, order: the largest loss among the changes that destroy it "
            "and nothing else and keep the meaning. Quoted text: what is lost without it. Plain "
            "meaning: what is left after the costliest change that keeps it. What several carry "
            "alike counts with none, and shares need not add up to one.",
        ),
        Figure(
            "form", "Loss where the meaning is kept", "bar", "loss_at_zero_meaning_change",
            x="variant", y="loss", x_label="", y_label="share lost at no change of meaning",
            low="loss_low", high="loss_high", percent=True, group=group,
            caption="A line through loss and change of meaning, read where nothing changes: the "
            "cost of form alone.",
        ),
    ]  # fmt: skip


def judge(
    scores: Scores, model: str, *, cards: Mapping[str, Transform] | None = None, seed: int = 0
) -> tuple[Verdict, dict[str, dict[str, float | None]], list[str]]:
    """Verdict, numbers per variant and caveats for one model."""
    known_cards = transforms() if cards is None else cards
    columns, clusters = table_of(scores, model=model, texts=OWN, ar=scores.own_ar)
    if UNCHANGED not in columns or FLOOR not in columns:
        reason = f'no "{UNCHANGED}" and "{FLOOR}" texts read by {scores.own_ar}'
        return Verdict(CANNOT_TELL, reason), {}, []
    own = retentions_of(columns, clusters, seed)
    controls, notes = _controls(scores, model, seed)
    untouched = _untouched(scores, model)
    found = gather(
        columns, clusters, controls, cards=known_cards, seed=seed, own=own, untouched=untouched
    )
    measured = meaning_of(scores, model, seed)
    numbers = _numbers(scores, own, found, measured)
    notes += _caveats(scores, found, controls, own)
    notes += meaning_caveats(measured, known_cards)
    return decide(found), numbers, notes


def gather(
    columns: dict[str, np.ndarray],
    clusters: np.ndarray,
    controls: Mapping[str, Mapping[str, Retention]],
    *,
    cards: Mapping[str, Transform],
    seed: int = 0,
    own: Mapping[str, Retention] | None = None,
    untouched: frozenset[str] = frozenset(),
) -> Evidence:
    """What the rules of the verdict read, from ``variant → [n] FVE`` and the controls.

    Args:
        columns: of the pair's own texts under its own AR.
        clusters: ``[n]``.
        controls: name → variant → retention.
        cards: of the transforms.
        own: retentions of ``columns``, computed unless given.
        untouched: variants that changed (nearly) no text.
    """
    retentions = own if own is not None else retentions_of(columns, clusters, seed)
    losses = {
        name: loss(kept) for name, kept in retentions.items() if name not in (UNCHANGED, FLOOR)
    }
    excesses = {
        control: {name: excess(retentions[name], kept[name]) for name in losses if name in kept}
        for control, kept in controls.items()
    }
    carried = signal(columns, clusters, seed)
    return Evidence(cards, losses, excesses, _is_above_zero(carried), carried.n, untouched)


def _untouched(scores: Scores, model: str) -> frozenset[str]:
    """Variants that changed less than :data:`TOUCHED` of the texts, where the table says so."""
    if "changed" not in scores.rows.columns:
        return frozenset()
    changed = (
        scores.rows.filter((pl.col("model") == model) & (pl.col("texts") == OWN))
        .group_by("variant")
        .agg(pl.col("changed").cast(pl.Float64).mean())
    )
    return frozenset(changed.filter(pl.col("changed") < TOUCHED)["variant"])


def sentence(verdict: Verdict, model: str | None = None) -> str:
    """A verdict in one plain sentence."""
    name = "" if model is None else f"{model}: "
    return f"{name}{verdict.category} ({verdict.because})."


def _is_above_zero(interval: Interval) -> bool:
    return interval.value > 0 if np.isnan(interval.low) else interval.low > 0


def retentions_of(
    columns: dict[str, np.ndarray], clusters: np.ndarray, seed: int
) -> dict[str, Retention]:
    """Retention of every variant of ``columns``."""
    found = {name: retention(columns, clusters, name, seed) for name in columns}
    return {name: kept for name, kept in found.items() if kept is not None}


def _controls(
    scores: Scores, model: str, seed: int
) -> tuple[dict[str, dict[str, Retention]], list[str]]:
    """Retentions by control: reference texts under the same AR, own texts under other ARs."""
    pairs = (
        scores.rows.filter(pl.col("model") == model)
        .select("texts", "ar")
        .unique()
        .sort("texts", "ar")
        .rows()
    )
    controls, notes = {}, []
    for texts, ar in pairs:
        is_reference = texts == REFERENCE and ar == scores.own_ar
        is_second = texts == OWN and ar != scores.own_ar
        if not (is_reference or is_second):
            continue
        name = "reference texts" if is_reference else f"second AR {ar}"
        columns, clusters = table_of(scores, model=model, texts=texts, ar=ar)
        if UNCHANGED not in columns or FLOOR not in columns:
            notes.append(f'{name}: no "{UNCHANGED}" and "{FLOOR}" scores; not used as a control.')
        elif not _is_above_zero(signal(columns, clusters, seed)):
            notes.append(f"{name}: carries nothing above the floor; not used as a control.")
        else:
            controls[name] = retentions_of(columns, clusters, seed)
    return controls, notes


def _numbers(
    scores: Scores,
    own: Mapping[str, Retention],
    evidence: Evidence,
    measured: Mapping[str, Mapping[str, float | None]],
) -> dict[str, dict[str, float | None]]:
    """The headline's row of each variant; where there are two controls, the smaller excess."""
    q_values = adjusted(evidence.losses)
    table: dict[str, dict[str, float | None]] = {}
    for name, kept in own.items():
        found = [effects[name] for effects in evidence.excesses.values() if name in effects]
        smallest = min(found, key=lambda effect: effect.value, default=None)
        row: dict[str, float | None] = {
            "fve": kept.fve,
            **kept.interval.entries("retention"),
            "q_value": _or_none(q_values.get(name, np.nan)),
            "excess_loss": None if smallest is None else smallest.value,
            "excess_loss_low": None if smallest is None else _or_none(smallest.low),
            "excess_loss_high": None if smallest is None else _or_none(smallest.high),
            "meaning_similarity": None,
            **measured.get(name, {}),
            "n": float(kept.interval.n) if scores.has_activations else None,
            "missing": float(kept.interval.missing) if scores.has_activations else None,
        }
        table[name] = row
    return table


def _verdict_table(verdicts: Mapping[str, Verdict]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "model": model,
                "verdict": verdict.category,
                "channel": None if verdict.channel is None else NAMES[verdict.channel],
                "shown_by": verdict.variant,
                "because": verdict.because,
                "smallest_code_found": _or_none(verdict.detectable),
                "activations_needed": verdict.needed,
            }
            for model, verdict in verdicts.items()
        ],
        infer_schema_length=None,
    )


def _channel_table(verdicts: Mapping[str, Verdict]) -> pl.DataFrame:
    schema = {"model": pl.String, "channel": pl.String, "share": pl.Float64,
              "share_low": pl.Float64, "share_high": pl.Float64}  # fmt: skip
    return pl.DataFrame(
        [
            (model, NAMES[channel], effect.value, _or_none(effect.low), _or_none(effect.high))
            for model, verdict in verdicts.items()
            for channel, effect in verdict.shares.items()
        ],
        schema=schema,
        orient="row",
    )


def _caveats(
    scores: Scores, evidence: Evidence, controls: Mapping[str, Any], own: Mapping[str, Retention]
) -> list[str]:
    cards, losses = evidence.cards, evidence.losses
    caveats = []
    if not scores.has_activations:
        caveats.append(
            "A table of means alone: no interval and no test is possible, and the verdict rests on "
            "the size of the numbers."
        )
    if not controls:
        caveats.append(
            "No control (reference texts or a second AR): a loss may be a code, or an AR that is "
            f'brittle to unusual text. "{CODE}" cannot be found without one.'
        )
    elif len(controls) == 1:
        only = next(iter(controls))
        caveats.append(f"One control only ({only}): what it does not share may still be no code.")
    unknown = sorted(name for name in losses if name not in cards)
    if unknown:
        caveats.append(
            "Variants that are no transform of ours are shown and not judged: "
            f"{', '.join(unknown)}."
        )
    used = evidence.tested()
    alone = [cards[name].destroys for name in used if len(cards[name].destroys) == 1]
    tested = frozenset().union(*alone)
    untested = [NAMES[name] for name in ("layout", "wording", "order") if name not in tested]
    if untested:
        caveats.append(f"Not tested on its own: {', '.join(untested)}.")
    idle = sorted(name for name in losses if name in cards and name in evidence.untouched)
    if idle:
        caveats.append(f"These change (nearly) no text here, and test nothing: {', '.join(idle)}.")
    uncertain = sorted(
        name for name, effect in losses.items()
        if name in cards and np.isnan(effect.p_value) and scores.has_activations
    )  # fmt: skip
    if uncertain:
        caveats.append(f"Too few texts for an interval, not judged: {', '.join(uncertain)}.")
    if not any(cards[name].is_written for name in used):
        caveats.append(
            "No text was written by a language model: wording was changed by short rules only, and "
            "a code in the rest of it would not be seen."
        )
    missing = sum(kept.interval.missing for kept in own.values())
    if missing and scores.has_activations:
        caveats.append(f"{missing:,} changed texts have no score and are left out.")
    return caveats


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


#: Not registered: it needs scores of changed texts, which no table of completions has.
CARD = Card(
    name="stego",
    question=QUESTION,
    reads=("variant", "fve"),
    uses={
        "idx": "no interval and no test is possible",
        "texts": "no reference texts are a control",
        "similarity": "a loss of meaning cannot be told from a loss of form",
    },
    unit="activation: retention is paired within it, and resampled over activations or documents",
    control="another activation's explanation is the floor; the same change to reference texts, "
    "and the same texts read by a second AR, are what an excess is taken over",
    high_means="retention near 1: the change costs nothing; excess_loss above 0: it costs more "
    "than it costs the controls; meaning_similarity near 1: the meaning was kept; unfaithful near "
    "1: names, numbers or quotes were not, or nothing was",
    example="nla-audit stego --scores scores.parquet --out stego",
    run=stego,
)
