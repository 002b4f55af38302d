"""When is a planted concept said, and when only carried? From the table alone, without models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from nla_audit.errors import UserError
from nla_audit.findings import Figure, Finding
from nla_audit.probes.sensitivity.card import CARD, QUESTION
from nla_audit.probes.sensitivity.carried import (
    LARGE,
    MATERIAL,
    Carried,
    carried,
    component_table,
    fit_table,
    presence_table,
)
from nla_audit.probes.sensitivity.controls import CONCEPT, OTHER, RANDOM, VARIANCE
from nla_audit.probes.sensitivity.cube import LLM, WORDS, Cube, cubes, is_known, with_said
from nla_audit.probes.sensitivity.curves import (
    excess,
    is_enough,
    mean_place,
    place_table,
    price,
    price_table,
    ratio,
    share_table,
    threshold_table,
    thresholds,
)
from nla_audit.probes.sensitivity.detectors import blindness, caveats_of, detector_table
from nla_audit.probes.sensitivity.psychometric import BEYOND, Threshold
from nla_audit.probes.sensitivity.verdict import (
    FDR,
    ConceptEvidence,
    ConceptVerdict,
    decide,
    excess_of,
    percent,
    sentence,
    strength_told,
)
from nla_audit.stats import Interval, or_none
from nla_audit.table.model_names import default_reference, ordered

#: A share that falls this far from its peak is said to fall.
_FALLS = 0.2
#: Explanations shown of each model that carry the most without a mention.
_SHOWN = 3


def sensitivity(
    table: pl.DataFrame,
    *,
    detector: str = WORDS,
    reference: str | None = None,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> Finding:
    """The finding.

    Args:
        table: as :mod:`nla_audit.probes.sensitivity.table` describes it.
        detector: what counts as a mention, one of :data:`~.cube.DETECTORS`.
        reference: the model that thresholds are compared with.
        seed: of the intervals.
        notes: caveats that only the caller knows (how good the direction is).

    Raises:
        UserError: no such model, or a detector that the table holds nothing of.
    """
    penalties = dict(table.select("model", "length_penalty").unique("model").iter_rows())
    models = ordered(penalties)
    reference = reference or default_reference(models, penalties)
    if reference not in penalties:
        raise UserError(f'no model "{reference}": the table holds {", ".join(models)}')
    if detector != WORDS and not is_known(table, detector):
        of, how = (
            ("a language model", "ask one with --llm MODEL")
            if detector == LLM
            else (detector, "make it with --similarity MODEL")
        )
        raise UserError(f"the table holds nothing of {of}: {how}")
    table = table.sort("model", "idx", "kind", "strength")
    marked, limit = with_said(table, detector)
    study = cubes(marked, models, seed)
    found = thresholds(study)
    is_anywhere, blind = bool((marked["said"] == 1).any()), blindness(marked, detector, seed)
    evidence = {
        model: _evidence(cube, found[model], is_anywhere=is_anywhere, blind=blind)
        for model, cube in study.items()
    }
    verdicts = decide(evidence)
    headline = {
        model: _numbers(study[model], evidence[model], verdicts[model], found[reference])
        for model in models
    }
    concept = str(table["concept"].drop_nulls().first() or "the concept")
    shares, components = share_table(study), component_table(study)
    is_control = pl.col("kind") != CONCEPT
    tables = {
        "verdicts": _verdict_table(verdicts, evidence),
        "thresholds": threshold_table(found, reference),
        "curves": shares.filter(~is_control),
        "control_curves": shares.filter(is_control),
        "components": components.filter(~is_control),
        "control_components": components.filter(is_control),
        "first_mentions": place_table(study),
        "price": price_table(study),
        "fits": fit_table(study),
        "presence": presence_table(study),
        "detectors": detector_table(table, models, seed),
        "unsaid_examples": _examples(study),
    }
    told = [
        strength_told(concept, max(marked["strength"])),
        *(sentence(name, one) for name, one in verdicts.items()),
    ]
    return CARD.sign(
        Finding(
            analyzer="sensitivity",
            question=QUESTION,
            reference=reference,
            headline=headline,
            verdict=" ".join([*told, *_told_of_thresholds(found, reference)]),
            caveats=[
                *notes,
                *caveats_of(table, detector),
                *_caveats(study, evidence, tables),
            ],
            tables=tables,
            figures=_figures(),
            private_tables=frozenset({"unsaid_examples"}),
            parameters={
                "seed": seed,
                "detector": detector,
                "nearness_limit": limit,
                "concept": concept,
                "false_discovery_rate": FDR,
                "material_share": MATERIAL,
                "large_share": LARGE,
                "strengths": [float(one) for one in next(iter(study.values())).strengths],
                "verdict": {model: verdict.category for model, verdict in verdicts.items()},
            },
        )
    )


def _evidence(
    cube: Cube, found: Threshold, *, is_anywhere: bool, blind: str | None
) -> ConceptEvidence:
    said = cube.of(CONCEPT, "said")
    return ConceptEvidence(
        is_enough=is_enough(cube),
        activations=int((~np.isnan(said)).any(axis=1).sum()),
        carried=carried(cube),
        excess={kind: excess(cube, kind) for kind in excess_of(cube.kinds)},
        threshold=found,
        unplanted=cube.resampler.share(said[:, 0]),
        strongest=cube.resampler.share(said[:, -1]),
        is_named_anywhere=is_anywhere,
        blind=blind,
    )


def _numbers(
    cube: Cube, evidence: ConceptEvidence, verdict: ConceptVerdict, reference: Threshold
) -> dict[str, float | None]:
    said = cube.of(CONCEPT, "said")
    random = cube.of(RANDOM, "said") if RANDOM in cube.kinds else np.full_like(said, np.nan)
    shares: Carried = evidence.carried
    controls = {
        f"carried_{kind}": or_none(shares.controls.get(kind, np.nan))
        for kind in (RANDOM, VARIANCE, OTHER)
    }
    one = evidence.threshold
    return {
        "alpha50": one.value,
        "alpha50_low": one.low,
        "alpha50_high": one.high,
        **ratio(one, reference).entries("times_reference"),
        **evidence.unplanted.entries("named_unplanted"),
        **cube.resampler.share(random[:, -1]).entries("named_random"),
        **evidence.strongest.entries("named_strongest"),
        **mean_place(cube).entries("tokens_before"),
        **price(cube, len(cube.strengths) - 1).entries("tokens_more"),
        **shares.said.entries("carried_said"),
        **shares.unsaid.entries("carried_unsaid"),
        **controls,
        "q_value": or_none(verdict.q_value),
        "activations": float(evidence.activations),
        "missing": float(
            cube.rows.filter((pl.col("kind") == CONCEPT) & (pl.col("strength") > 0))[
                "said"
            ].null_count()
        ),
    }


def _verdict_table(
    verdicts: Mapping[str, ConceptVerdict], evidence: Mapping[str, ConceptEvidence]
) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "model": model,
                "verdict": one.category,
                "because": one.because,
                "detectable": or_none(evidence[model].carried.detectable),
                "activations_needed": one.needed,
            }
            for model, one in verdicts.items()
        ],
        schema_overrides={"detectable": pl.Float64, "activations_needed": pl.Int64},
    )


def _examples(study: Mapping[str, Cube]) -> pl.DataFrame:
    """The explanations that carry most of the concept without naming it, for a reader to judge."""
    columns = ["model", "idx", "strength", "component", "explanation"]
    frames = [
        cube.rows.filter(
            (pl.col("kind") == CONCEPT) & (pl.col("strength") > 0) & (pl.col("said") == 0)
        )
        .drop_nulls(["component", "explanation"])
        .sort("component", "idx", "strength", descending=[True, False, False])
        .unique("explanation", keep="first", maintain_order=True)
        .head(_SHOWN)
        .select(columns)
        for cube in study.values()
    ]
    return pl.concat(frames)


def _told_of_thresholds(found: Mapping[str, Threshold], reference: str) -> list[str]:
    """The models whose threshold is surely another than the reference's."""
    own = found[reference]
    sentences = []
    for model, one in found.items():
        times = ratio(one, own)
        if model != reference and times.excludes(1.0):
            sentences.append(
                f"{model} needs {_interval(times)} times the strength that {reference} needs."
            )
        elif one.reason == BEYOND and (one.low or 0) > (own.high or np.inf):
            sentences.append(f"{model} needs more than the ladder holds, {reference} {own.told()}.")
    return sentences


def _interval(one: Interval) -> str:
    return f"{one.value:.2g} [{one.low:.2g}, {one.high:.2g}]"


def _caveats(
    study: Mapping[str, Cube],
    evidence: Mapping[str, ConceptEvidence],
    tables: Mapping[str, pl.DataFrame],
) -> list[str]:
    caveats = []
    if not any(one.is_named_anywhere for one in evidence.values()):
        caveats.append(
            "No explanation of any model names the concept, planted or not: its words may not be "
            "those that these models use."
        )
    for model, cube in study.items():
        shares = tables["curves"].filter(pl.col("model") == model)["named"].fill_null(0).to_list()
        peak = int(np.argmax(shares))
        if shares[peak] - shares[-1] >= _FALLS:
            caveats.append(
                f"{model}: named most often at strength {cube.strengths[peak]:g} "
                f"({percent(shares[peak])}) and at {cube.strengths[-1]:g} in "
                f"{percent(shares[-1])} only: so strongly planted activations may be unlike any "
                "it knows, and its α50 is that of a curve that only rises."
            )
        kinds = set(cube.kinds)
        absent = [kind for kind in (RANDOM, VARIANCE) if kind not in kinds]
        if absent:
            caveats.append(f"{model}: no control of kind {', '.join(absent)} in the table.")
    return caveats


def _figures() -> list[Figure]:
    return [
        Figure(
            "curves",
            "Named, by strength",
            "line",
            "curves",
            x="strength",
            y="named",
            x_label="strength, as a share of the activation's norm",
            y_label="explanations that name it",
            low="named_low",
            high="named_high",
            group="model",
            percent=True,
            caption="At strength 0 nothing is planted: what is named there are false alarms.",
        ),
        Figure(
            "thresholds",
            "Strength at which half name it",
            "bar",
            "thresholds",
            x="model",
            y="alpha50",
            x_label="model",
            y_label="α50",
            low="alpha50_low",
            high="alpha50_high",
            percent=True,
            caption="No bar: half is not reached on the ladder, or cannot be told. An interval "
            "without an end leaves the ladder there.",
        ),
        Figure(
            "components",
            "Carried, by whether it is named",
            "line",
            "components",
            x="strength",
            y="component_share",
            x_label="strength",
            group="of",
            percent=True,
            y_label="share of the planted component that comes back",
            low="component_share_low",
            high="component_share_high",
            caption="The reconstruction's component along the concept, above that of the unplanted "
            "text of the same activation, as a share of what was planted.",
        ),
    ]
