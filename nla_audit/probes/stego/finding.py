"""Does the AR read what explanations say, or something hidden in how it is said?

Not a question to a table of completions: it needs the scores of changed texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from nla_audit.findings import Finding, Headline
from nla_audit.probes.stego.ars import SCHEMA, best_second, readings, said_of_ars
from nla_audit.probes.stego.card import CARD, QUESTION
from nla_audit.probes.stego.floors import Judged, VariantScores, judged, no_code, with_gap
from nla_audit.probes.stego.kept_meaning import (
    LINE_SCHEMA,
    loss_at_zero_change,
    meaning_caveats,
    meaning_of,
)
from nla_audit.probes.stego.retention import ZERO, Floor
from nla_audit.probes.stego.scores import (
    OWN,
    REFERENCE,
    UNCHANGED,
    Scores,
    same_texts,
    table_of,
)
from nla_audit.probes.stego.series import trend_over
from nla_audit.probes.stego.tables import (
    aspect_of,
    caveats_of,
    channel_table,
    figures_of,
    floor_table,
    place_of,
    verdict_table,
)
from nla_audit.probes.stego.verdict import (
    CANNOT_TELL,
    CODE,
    FDR,
    LARGE,
    MATERIAL,
    MOST,
    PLAIN,
    CodeVerdict,
    adjusted,
)
from nla_audit.probes.transforming.cards import TextTransform, transforms
from nla_audit.stats import Interval, or_none


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
        examples: :func:`nla_audit.probes.stego.examples.chosen_examples`; left out of reports
            without texts.
        series: column that orders the models (:data:`~nla_audit.probes.stego.scores.SERIES`),
            to say whether the gap widens along it.

    Raises:
        UserError: as :func:`~nla_audit.probes.stego.series.trend_over`.
    """
    cards = transforms()
    models = scores.models
    headline: Headline = {}
    rows: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    caveats: list[str] = [*notes, *scores.notes]
    studies = {model: _studied(scores, model, cards, seed) for model in models}
    verdicts = {model: study.verdict for model, study in studies.items()}
    for model, study in studies.items():
        for name in sorted(study.numbers, key=lambda name: place_of(name, cards)):
            key = name if len(models) == 1 else f"{model}: {name}"
            numbers = study.numbers[name]
            headline[key] = numbers
            aspect = aspect_of(name, cards)
            rows.append({"model": model, "aspect": aspect, "variant": name, **numbers})
        lines += loss_at_zero_change(scores, model, cards)
        caveats += [note if len(models) == 1 else f"{model}: {note}" for note in study.notes]
    tables = {
        "variants": pl.DataFrame(rows, infer_schema_length=None),
        "verdicts": verdict_table(verdicts),
        "verdicts_by_floor": floor_table({m: study.by_floor for m, study in studies.items()}),
        "by_ar": pl.concat([study.ars for study in studies.values()]),
        "channels": channel_table(verdicts),
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
            study.sentence(model if len(models) > 1 else None) for model, study in studies.items()
        ),
        caveats=list(dict.fromkeys(caveats)),
        tables=tables,
        figures=figures_of("model" if len(models) > 1 else None),
        private_tables=frozenset({"examples"} & tables.keys()),
        headline_table="variants",
        examples_table="examples" if examples is not None else None,
        parameters={
            "seed": seed,
            "ar": ", ".join(sorted(set(scores.own_ars.values()))),
            "false_discovery_rate": FDR,
            "material_share": MATERIAL,
            "most": MOST,
            "large_code": LARGE,
            "verdict": {model: verdict.category for model, verdict in verdicts.items()},
        },
    )
    finding = CARD.sign(finding)
    return finding if series is None else with_trend(finding, scores, series, cards, seed)


def with_trend(
    finding: Finding, scores: Scores, by: str, cards: Mapping[str, TextTransform], seed: int
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


def judge(
    scores: Scores, model: str, *, cards: Mapping[str, TextTransform] | None = None, seed: int = 0
) -> tuple[CodeVerdict, dict[str, dict[str, float | None]], list[str]]:
    """Verdict, numbers per variant and caveats for one model."""
    study = _studied(scores, model, transforms() if cards is None else cards, seed)
    return study.verdict, study.numbers, study.notes


@dataclass(frozen=True)
class _ModelStudy:
    """One model: its verdict, what to say besides, the numbers of each variant, the ARs."""

    verdict: CodeVerdict
    numbers: dict[str, dict[str, float | None]]
    notes: list[str]
    ars: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SCHEMA))
    aside: str | None = None
    by_floor: Mapping[Floor, CodeVerdict] = field(default_factory=dict)

    def sentence(self, model: str | None) -> str:
        """The verdict, the gap to other ARs and how brittle they are."""
        return " ".join(
            filter(None, [sentence(self.verdict, model, self.aside), said_of_ars(self.ars)])
        )


def _studied(
    scores: Scores, model: str, cards: Mapping[str, TextTransform], seed: int
) -> _ModelStudy:
    own_ar = scores.own_ars[model]
    own = _source(scores, model, OWN, own_ar, "own")
    if own is None:
        reason = _why_unread(scores, model, own_ar)
        return _ModelStudy(CodeVerdict(CANNOT_TELL, reason), {}, [])
    touched = share_changed(scores, model)
    controls, notes = _controls(scores, model)
    found = judged(
        own,
        controls,
        cards=cards,
        seed=seed,
        touched=touched,
        means_only=not scores.has_activations,
    )
    ars = readings(scores, model, found.unusable, seed)
    second = best_second(ars)
    second_ar, share = (None, None) if second is None else (second["ar"], second["fve_share"])
    verdict = with_gap(found.verdict, share, f"the second AR {second_ar}")
    measured = meaning_of(scores, model, seed)
    numbers = _numbers(scores, model, found, measured, second_ar)
    notes += caveats_of(scores, model, found)
    notes += meaning_caveats(measured, cards)
    # A verdict of meaning, or of what is lost with an aspect, says itself whether it is a code.
    aside = no_code(found, share) if verdict.category not in (CODE, PLAIN) else None
    return _ModelStudy(verdict, numbers, notes, ars, aside, found.by_floor)


def _why_unread(scores: Scores, model: str, own_ar: str) -> str:
    """Why there is nothing of the pair's own AR to begin with."""
    unchanged = scores.rows.filter(
        (pl.col("model") == model)
        & (pl.col("texts") == OWN)
        & (pl.col("variant") == UNCHANGED)
        & pl.col("fve").is_not_null()
    )
    if unchanged.height:
        return f'no "{UNCHANGED}" texts read by {own_ar}: say with --own-ar which is its own'
    return f'no "{UNCHANGED}" text has a score'


def share_changed(scores: Scores, model: str) -> dict[str, float]:
    """Variant → share of the explanations that it changed, where the table says so."""
    if "changed" not in scores.rows.columns:
        return {}
    changed = (
        scores.rows.filter((pl.col("model") == model) & (pl.col("texts") == OWN))
        .group_by("variant")
        .agg(pl.col("changed").mean())
        .drop_nulls()
    )
    return dict(changed.sort("variant").iter_rows())


def sentence(verdict: CodeVerdict, model: str | None = None, aside: str | None = None) -> str:
    """A verdict in one plain sentence."""
    name = "" if model is None else f"{model}: "
    but = ", but" if verdict.category == CANNOT_TELL else ","
    also = "" if aside is None else f"{but} {aside}"
    return f"{name}{verdict.category}{also} ({verdict.because})."


def _source(scores: Scores, model: str, texts: str, ar: str, name: str) -> VariantScores | None:
    """What ``ar`` made of ``texts``; ``None`` where it did not read them unchanged."""
    columns, clusters = table_of(scores, model=model, texts=texts, ar=ar, changed_only=True)
    if UNCHANGED not in columns or np.isnan(columns[UNCHANGED]).all():
        return None
    return VariantScores(name, columns, clusters)


def _controls(scores: Scores, model: str) -> tuple[list[VariantScores], list[str]]:
    """Reference texts under the same AR, own texts under other ARs; and which are none."""
    pairs = scores.rows.filter(pl.col("model") == model).select("texts", "ar").unique()
    controls, notes = [], []
    for texts, ar in sorted(pairs.iter_rows()):
        is_reference = texts == REFERENCE and ar == scores.own_ars[model]
        is_second = texts == OWN and ar != scores.own_ars[model]
        if not (is_reference or is_second):
            continue
        name = "reference texts" if is_reference else f"second AR {ar}"
        source = _source(scores, model, texts, ar, name)
        if source is None:
            notes.append(f'{name}: no "{UNCHANGED}" scores; not used as a control.')
        else:
            controls.append(source)
    return controls, notes


def _numbers(
    scores: Scores,
    model: str,
    found: Judged,
    measured: Mapping[str, Mapping[str, float | None]],
    second_ar: str | None,
) -> dict[str, dict[str, float | None]]:
    """The headline's row of each variant; where there are two controls, the smaller excess.

    The numbers are those of changed texts. ``retention`` is above another activation's text where
    that was measured, and above FVE 0 where not; ``zero_floor_retention`` is always the latter.
    """
    evidence = found.evidence[found.main]
    q_values = adjusted(evidence.losses)
    own_ar = scores.own_ars[model]
    rows = scores.rows.filter(
        (pl.col("model") == model) & (pl.col("texts") == OWN) & (pl.col("ar") == own_ar)
    )
    same = dict(same_texts(scores, model).group_by("variant").len().iter_rows())
    by_variant = rows.group_by("variant", maintain_order=True)
    whole = dict(by_variant.agg(pl.col("fve").mean()).iter_rows())
    seconds = {} if second_ar is None else _second_fve(scores, model, second_ar)
    nothing = Interval(np.nan, np.nan, np.nan, 0, rows["idx"].n_unique())
    table: dict[str, dict[str, float | None]] = {}
    for name in sorted(whole):
        kept, over_zero = found.own[found.main].get(name), found.own[ZERO].get(name)
        # Shares of (nearly) nothing are no shares.
        if not found.evidence[ZERO].carries:
            over_zero = None
        effects = [effect[name] for effect in evidence.excesses.values() if name in effect]
        smallest = min(effects, key=lambda effect: effect.value, default=None)
        interval = nothing if kept is None else kept.interval
        if not evidence.carries:
            smallest = None
            interval = replace(interval, value=np.nan, low=np.nan, high=np.nan)
        row: dict[str, float | None] = {
            # Of a change that changed no text, of all of them.
            "fve": whole[name] if kept is None else kept.fve,
            **interval.entries("retention"),
            **(nothing if over_zero is None else over_zero.interval).entries(
                "zero_floor_retention"
            ),
            "q_value": or_none(q_values.get(name, np.nan)),
            "excess_loss": None if smallest is None else smallest.value,
            "excess_loss_low": None if smallest is None else or_none(smallest.low),
            "excess_loss_high": None if smallest is None else or_none(smallest.high),
            **seconds.get(name, {}),
            "meaning_similarity": None,
            **measured.get(name, {}),
            "n": float(interval.n) if scores.has_activations else None,
            "missing": float(interval.missing - same.get(name, 0))
            if scores.has_activations
            else None,
        }
        table[name] = row
    return table


def _second_fve(scores: Scores, model: str, second_ar: str) -> dict[str, dict[str, float | None]]:
    """Variant → FVE by the second AR, and what the pair's reads more.

    Of changed texts, over the activations that both have read.
    """
    rows = scores.rows.filter((pl.col("model") == model) & (pl.col("texts") == OWN))
    rows = rows.join(
        same_texts(scores, model), on=["variant", "idx"], how="anti", maintain_order="left"
    )
    own, other = (
        rows.filter(pl.col("ar") == ar).select("variant", "idx", "fve").drop_nulls()
        for ar in (scores.own_ars[model], second_ar)
    )
    both = own.join(other, on=["variant", "idx"], suffix="_second", maintain_order="left").group_by(
        "variant", maintain_order=True
    )
    means = both.agg(
        second_ar_fve=pl.col("fve_second").mean(),
        second_ar_gap=(pl.col("fve") - pl.col("fve_second")).mean(),
    )
    return {row.pop("variant"): row for row in means.to_dicts()}
