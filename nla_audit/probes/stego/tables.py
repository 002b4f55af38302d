"""Tables, figures and caveats of the steganography probe."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from nla_audit.findings import Figure
from nla_audit.probes.stego.floors import Judged
from nla_audit.probes.stego.retention import ZERO, Floor
from nla_audit.probes.stego.scores import ANOTHER, UNCHANGED, Scores, same_texts
from nla_audit.probes.stego.verdict import CODE, NAMES, TOUCHED, CodeVerdict
from nla_audit.probes.transforming.cards import TextTransform
from nla_audit.stats import or_none

#: Variants that are no changes.
_READ_AS_IS = (UNCHANGED, ANOTHER)


def aspect_of(variant: str, cards: Mapping[str, TextTransform]) -> str:
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


def place_of(variant: str, cards: Mapping[str, TextTransform]) -> tuple[int, str]:
    """To sort variants by aspect, and by name within it."""
    return _ASPECTS.index(aspect_of(variant, cards)), variant


def figures_of(group: str | None) -> list[Figure]:
    """Of a finding; ``group`` is the column that tells models apart, where there are several."""
    return [
        Figure(
            "retention",
            "What is left of the reconstruction",
            "bar",
            "variants",
            x="variant",
            y="retention",
            x_label="change of the text",
            y_label="retention",
            low="retention_low",
            high="retention_high",
            percent=True,
            group=group or "aspect",
            caption="Share of FVE above the floor that each change of the text leaves.",
        ),
        Figure(
            "channels",
            "What each channel carries",
            "bar",
            "channels",
            x="channel",
            y="share",
            x_label="",
            y_label="share of the reconstruction",
            low="share_low",
            high="share_high",
            percent=True,
            group=group,
            caption="Layout, wording, order: the largest loss among the changes that destroy it "
            "and nothing else and keep the meaning. Quoted text: what is lost without it. Plain "
            "meaning: what is left after the costliest change that keeps it. What several carry "
            "alike counts with none, and shares need not add up to one.",
        ),
        Figure(
            "form",
            "Loss where the meaning is kept",
            "bar",
            "loss_at_zero_meaning_change",
            x="variant",
            y="loss",
            x_label="",
            y_label="share lost at no change of meaning",
            low="loss_low",
            high="loss_high",
            percent=True,
            group=group,
            caption="A line through loss and change of meaning, read where nothing changes: the "
            "cost of form alone.",
        ),
    ]


def verdict_table(verdicts: Mapping[str, CodeVerdict]) -> pl.DataFrame:
    """A row for each model."""
    return pl.DataFrame(
        [
            {
                "model": model,
                "verdict": verdict.category,
                "channel": None if verdict.channel is None else NAMES[verdict.channel],
                "shown_by": verdict.variant,
                "because": verdict.because,
                "smallest_code_found": or_none(verdict.detectable),
                "activations_needed": verdict.needed,
            }
            for model, verdict in verdicts.items()
        ],
        infer_schema_length=None,
    )


def floor_table(by_floor: Mapping[str, Mapping[Floor, CodeVerdict]]) -> pl.DataFrame:
    """The verdict on each model at each floor, with what the channels carry there."""
    schema = {
        "model": pl.String,
        "floor": pl.String,
        "verdict": pl.String,
        "because": pl.String,
        **{f"{channel}_share": pl.Float64 for channel in NAMES},
    }
    rows = [
        {"model": model, "floor": floor, "verdict": verdict.category, "because": verdict.because}
        | {f"{channel}_share": effect.value for channel, effect in verdict.shares.items()}
        for model, verdicts in by_floor.items()
        for floor, verdict in verdicts.items()
    ]
    return pl.DataFrame(rows, schema)


def channel_table(verdicts: Mapping[str, CodeVerdict]) -> pl.DataFrame:
    """What each channel carries, by model."""
    schema = {
        "model": pl.String,
        "channel": pl.String,
        "share": pl.Float64,
        "share_low": pl.Float64,
        "share_high": pl.Float64,
    }
    return pl.DataFrame(
        [
            (model, NAMES[channel], effect.value, or_none(effect.low), or_none(effect.high))
            for model, verdict in verdicts.items()
            for channel, effect in verdict.shares.items()
        ],
        schema=schema,
        orient="row",
    )


def caveats_of(scores: Scores, model: str, found: Judged) -> list[str]:
    """What to know before quoting the verdict on ``model``."""
    evidence = found.evidence[found.main]
    cards, losses = evidence.cards, evidence.losses
    controls = evidence.excesses
    caveats = []
    if found.main == ZERO:
        caveats.append(
            "Retention is over FVE 0 alone: no texts of other activations were read (variant "
            f'"{ANOTHER}"), which would be the other floor.'
        )
    if not scores.has_activations:
        caveats.append(
            "A table of means alone: no interval and no test is possible, and the verdict rests on "
            "the size of the numbers."
        )
    caveats += [
        f"{name}: unusable as a control, and no loss is taken over its ({reason})."
        for name, reason in found.unusable.items()
    ]
    if not controls:
        caveats.append(
            "No usable control (reference texts or a second AR): a loss may be a code, or an AR "
            f'that is brittle to unusual text. "{CODE}" cannot be found without one.'
        )
    elif len(controls) == 1:
        only = next(iter(controls))
        caveats.append(f"One control only ({only}): what it does not share may still be no code.")
    used = evidence.tested()
    alone = [cards[name].destroys for name in used if len(cards[name].destroys) == 1]
    tested = frozenset().union(*alone)
    untested = [NAMES[name] for name in ("layout", "wording", "order") if name not in tested]
    if untested:
        caveats.append(f"Not tested on its own: {', '.join(untested)}.")
    idle = sorted(name for name in evidence.untouched if name in cards and name not in _READ_AS_IS)
    if idle:
        caveats.append(f"These change (nearly) no text here, and test nothing: {', '.join(idle)}.")
    uncertain = sorted(
        name
        for name, effect in losses.items()
        if name in cards and np.isnan(effect.p_value) and scores.has_activations
    )
    if uncertain:
        caveats.append(f"Too few texts for an interval, not judged: {', '.join(uncertain)}.")
    if not any(cards[name].is_written for name in used):
        caveats.append(
            "No text was written by a language model: wording was changed by short rules only, and "
            "a code in the rest of it would not be seen."
        )
    partly = [
        f"{name} ({share:.0%})"
        for name, share in sorted(evidence.touched.items())
        if name in losses and TOUCHED <= share < 0.995
    ]
    if partly:
        caveats.append(
            "Only changed texts are judged; these change a share of the explanations: "
            f"{', '.join(partly)}."
        )
    same = dict(same_texts(scores, model).group_by("variant").len().iter_rows())
    missing = sum(
        kept.interval.missing - same.get(name, 0) for name, kept in found.own[found.main].items()
    )
    if missing > 0 and scores.has_activations:
        caveats.append(f"{missing:,} changed texts have no score and are left out.")
    return caveats
