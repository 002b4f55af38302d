"""How much of what a length penalty saves is omission, and how much is terser wording?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from rapidfuzz.distance import LCSseq

from nla_audit.analyzers._reading_error import ReadingError
from nla_audit.analyzers._trials import calibrated
from nla_audit.analyzers.drop_analysis import assumed_chance
from nla_audit.completions import Completions
from nla_audit.findings import Figure, Finding, Headline, Metric, Option, analyzer
from nla_audit.pairing import column, resampler
from nla_audit.probes.causal.ruler import PAIR_OPTIONS, open_ruler
from nla_audit.probes.causal.tables import fve_parts
from nla_audit.stats import derangement
from nla_audit.text.reading import FLOOR, Progress, Reading, read
from nla_audit.text.words import content_stems

QUESTION = (
    "How much of the tokens that a length penalty saves is omission, and how much is terser "
    "wording of what is still said?"
)
PARTS = ("omission", "rewording", "addition", "overhead")
#: Activations on which extractiveness is measured; its intervals are narrow long before that.
_EXTRACTIVE_ACTIVATIONS = 1000


_SAVED_BY = {
    "omission": "by saying less",
    "rewording": "by terser wording",
    "addition": "by saying other things (below 0: spent on them)",
    "overhead": "on tags and end token",
}
METRICS = (
    Metric("n", "count", "neither", "explanations beside the reference's", interval=False),
    Metric("saving_tokens", "tokens", "higher", "tokens saved in an explanation"),
    *(
        metric
        for part, what in _SAVED_BY.items()
        for metric in (
            Metric(f"{part}_tokens", "tokens", "neither", f"tokens saved {what}"),
            Metric(f"{part}_share", "share", "neither", f"share of the saving that is {what}"),
        )
    ),
    Metric("omission_lead_tokens", "tokens", "neither",
           "tokens saved by omission less those by terser wording"),
    Metric("reading_error_tokens", "tokens", "neither",
           "how much the reading's own error widens that", interval=False),
    Metric("reading_bias_tokens", "tokens", "neither",
           "how much nearer to 0 that may lie for the reading's bias", interval=False),
    Metric("novel_word_share", "share", "neither",
           "share of the content words that the reference's explanation lacks", chance=True),
    Metric("subsequence_share", "share", "neither",
           "share of the words that are a subsequence of the reference's"),
    Metric("order_kept", "share", "neither",
           "share of the shared words that stand in the reference's order"),
    Metric("fve_change_reread", "FVE", "higher",
           "FVE less the reference's, read again", needs="--pair"),
    *(
        Metric(f"fve_by_{part}", "FVE", "higher", f"what {part} adds to that", needs="--pair")
        for part in ("omission", "rewording", "additions")
    ),
)  # fmt: skip


@analyzer(
    name="rewording",
    question=QUESTION,
    reads=("model", "idx", "explanation"),
    uses={
        "n_tokens": "tokens are estimated from the text by counting word pieces",
        "sample": "no resampling floor: two samples of one model differ too",
    },
    unit="activation: a model's explanation beside the reference's",
    control="the reference's own second sample (where the table has one), and another "
    "activation's reference",
    high_means="omission_share near 1: savings come from saying less; rewording_share near 1: the "
    "same is said in fewer tokens",
    example="nla-audit rewording completions.parquet --reference p0.0",
    metrics=METRICS,
    columns={"share": "share"},
    order=30,
    options=(
        Option(
            "similarity", str, None,
            "sentence-transformers model (name or folder) instead of the built-in similarity",
        ),
        *PAIR_OPTIONS,
    ),
)  # fmt: skip
def rewording(
    completions: Completions,
    *,
    similarity: str | None = None,
    pair: str | None = None,
    activations: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Finding:
    """Split token savings exactly into omission, rewording, additions and overhead."""
    ruler = open_ruler(completions, pair, activations)
    reading = read(completions, similarity=similarity, seed=seed, progress=progress)
    error = calibrated(completions, similarity=similarity, seed=seed)[2]
    savings = split_savings(reading)
    extractive = _extractiveness(completions, seed)
    headline: Headline = {}
    for model in [*completions.models, FLOOR]:
        rows = savings.filter(pl.col("model") == model)
        if rows.height:
            headline[model] = _summary(rows, error, error.terseness.get(model, 0.0), seed)
    for model, measures in extractive.items():
        headline.setdefault(model, {}).update(measures)
    if ruler is not None:
        for model, parts in fve_parts(completions, reading, ruler, seed).items():
            headline.setdefault(model, {}).update(parts)
    shares = pl.DataFrame(
        [
            {"model": model, "part": part, **_share(headline[model], part)}
            for model in headline
            for part in PARTS
            if "saving_tokens" in headline[model]
        ],
        infer_schema_length=None,
    )
    waterfall = _waterfall(savings, completions.models)
    return Finding(
        analyzer="rewording",
        question=QUESTION,
        reference=completions.reference,
        headline=headline,
        verdict=_verdict(completions, headline),
        caveats=_caveats(completions, reading, error, headline),
        tables={
            "parts": shares,
            "waterfall": waterfall,
            "waterfall_by_model": _by_model(waterfall, headline),
            "activations": savings.head(0) if savings.height > 50_000 else savings,
        },
        figures=[
            Figure(
                "parts", "Where the savings come from", "stacked", "parts", x="model", y="tokens",
                x_label="model", y_label="tokens saved per explanation", group="part",
                caption="Tokens saved against the reference, split exactly. Below zero: tokens "
                "spent, on what the reference does not say or on longer wording.",
            ),
            Figure(
                "waterfall", "From the reference's tokens to each model's", "waterfall",
                "waterfall", x="step", y="tokens", low="start", group="model",
                x_label="", y_label="tokens per explanation",
                caption="Mean content tokens of the reference, less those for claims no longer "
                "made and those saved by fewer words, plus those for claims newly made and the "
                "difference in overhead: what is left is the model's. Each bar begins where the "
                "one before it ended. "
                + (
                    "What two samples of the reference differ in is not taken off: see the table."
                    if FLOOR in headline
                    else "What two samples of one model differ in is not known here, and so not "
                    "taken off."
                ),
            ),
        ],
        parameters={
            "seed": seed, "similarity": reading.reader.vectors.name, "pair": pair,
            "activations": activations,
        },
    )  # fmt: skip


def split_savings(reading: Reading) -> pl.DataFrame:
    """Each explanation's token saving and its four parts, which sum to it exactly.

    Omission is the reference's tokens for claims that are no longer made; addition the (negative)
    tokens for what the reference does not say; overhead the difference of the fixed tokens;
    rewording the rest: the reference's tokens for what both say less the model's. The share
    columns are null where nothing is saved or spent.
    """
    parts = reading.explanations.with_columns(
        saving=pl.col("tokens_reference") - pl.col("tokens_model") + pl.col("overhead_saving"),
        omission=pl.col("tokens_reference") - pl.col("kept_tokens"),
        addition=pl.col("supported_tokens") - pl.col("tokens_model"),
        overhead=pl.col("overhead_saving"),
    ).with_columns(
        rewording=pl.col("saving") - pl.col("omission") - pl.col("addition") - pl.col("overhead")
    )
    shares = [
        pl.when(pl.col("saving").abs() > 1e-9)
        .then(pl.col(part) / pl.col("saving"))
        .alias(f"{part}_share")
        for part in PARTS
    ]
    keys = ("model", "idx", "sample", "tokens_reference", "tokens_model")
    return parts.select(*keys, "saving", *PARTS, *shares)


def _waterfall(savings: pl.DataFrame, models: Sequence[str]) -> pl.DataFrame:
    """Steps from the reference's content to the model's; each starts where the last one ended."""
    rows: list[dict[str, object]] = []
    for model in models:
        own = savings.filter(pl.col("model") == model)
        if own.is_empty():
            continue
        content = float(column(own, "tokens_reference").mean())
        steps = [("reference", 0.0, content)]
        for part, name in (
            ("omission", "no longer said"), ("rewording", "fewer words"),
            ("addition", "newly said"), ("overhead", "overhead"),
        ):  # fmt: skip
            start = steps[-1][1] + steps[-1][2]
            steps.append((name, start, -float(column(own, part).mean())))
        steps.append(("model", 0.0, steps[-1][1] + steps[-1][2]))
        rows += [
            {"model": model, "step": name, "start": start, "tokens": tokens}
            for name, start, tokens in steps
        ]
    schema = {"model": pl.String, "step": pl.String, "start": pl.Float64, "tokens": pl.Float64}
    return pl.DataFrame(rows, schema=schema)


def _by_model(waterfall: pl.DataFrame, headline: Headline) -> pl.DataFrame:
    """The steps as columns; beside them what goes beyond the resampling floor, where there is one.

    Two samples of one model leave out some of each other and say other things instead; only what
    goes beyond that was dropped, or is new.
    """
    if waterfall.is_empty():
        return waterfall.select("model")
    # "model" and "reference" are steps too.
    step = pl.col("step").str.replace_all(" ", "_")
    ends = pl.col("step").is_in(["reference", "model"])
    named = waterfall.with_columns(
        pl.when(ends).then(step + "_tokens").otherwise(step).alias("step")
    )
    wide = named.pivot(on="step", index="model", values="tokens", maintain_order=True)
    floor = headline.get(FLOOR, {})
    for name, part in (("no_longer_said", "omission"), ("newly_said", "addition")):
        usual = floor.get(f"{part}_tokens")
        if usual is not None:
            # A step is what is spent, a part what is saved.
            wide = wide.with_columns((pl.col(name) + usual).alias(f"{name}_beyond_floor"))
    return wide


def _summary(
    rows: pl.DataFrame, error: ReadingError, terse: float, seed: int
) -> dict[str, float | None]:
    draw = resampler(rows, seed)
    saving, reference = column(rows, "saving"), column(rows, "tokens_reference")
    summary: dict[str, float | None] = {"n": float(rows.height)}
    summary |= draw.mean(saving).entries("saving_tokens")
    tokens, own = float(reference.mean()), float(column(rows, "tokens_model").mean())
    whole = tokens or np.nan
    bias = error.at(1 - float(column(rows, "omission").mean()) / whole, own / whole, terse)
    # What is read wrongly as said or not said is missing from the rewording, or too much there.
    errors = {
        "omission": (bias.omission, tokens),
        "addition": (bias.addition, own),
        "rewording": (bias.rewording, float(np.hypot(tokens, own))),
        "overhead": (np.zeros(1), 0.0),
    }
    for part in PARTS:
        values = column(rows, part)
        shift, spread = errors[part]
        mean = error.widen(draw.mean(values), shift * tokens, error.spread * spread)
        summary |= mean.entries(f"{part}_tokens")
        if abs(saving.sum()) > 1e-9:
            scale = 1 / float(saving.mean())
            share = error.widen(
                draw.ratio(values, saving),
                shift * tokens * scale,
                error.spread * spread * abs(scale),
            )
            summary |= share.entries(f"{part}_share")
        else:
            summary[f"{part}_share"] = None
    # Omission and rewording share the reading's error, with opposite signs.
    lead = draw.mean(column(rows, "omission") - column(rows, "rewording"))
    spread = error.spread * (tokens + float(np.hypot(tokens, own)))
    shift = bias.lead * tokens
    lead = error.widen(lead, shift, spread)
    summary |= lead.entries("omission_lead_tokens")
    summary["reading_error_tokens"] = spread
    # By how much the truth may lie nearer to "as much of the one as of the other".
    summary["reading_bias_tokens"] = max(0.0, float((np.sign(lead.value) * shift).max()))
    return summary


def _share(summary: dict[str, float | None], part: str) -> dict[str, float | None]:
    return {
        "tokens": summary[f"{part}_tokens"],
        "tokens_low": summary.get(f"{part}_tokens_low"),
        "tokens_high": summary.get(f"{part}_tokens_high"),
        "share": summary[f"{part}_share"],
        "share_low": summary.get(f"{part}_share_low"),
        "share_high": summary.get(f"{part}_share_high"),
    }


def _extractiveness(completions: Completions, seed: int) -> dict[str, dict[str, float | None]]:
    """Is a short explanation a cut-down copy of the reference's?

    ``novel_word_share``: content words that the reference's explanation of the activation lacks.
    ``subsequence_share``: longest common subsequence with it, over the explanation's length.
    ``order_kept``: that subsequence over the number of shared words. ``chance_novel_word_share``
    is the first against another activation's reference explanation.
    """
    rows = completions.rows.filter(pl.col("explanation").is_not_null())
    activations = rows["idx"].unique().sort().to_numpy()
    if len(activations) > _EXTRACTIVE_ACTIVATIONS:
        generator = np.random.default_rng([seed, 3])
        activations = generator.choice(activations, _EXTRACTIVE_ACTIVATIONS, replace=False)
        rows = rows.filter(pl.col("idx").is_in(activations.tolist()))
    first = rows.filter(pl.col("model") == completions.reference).sort("idx", "sample")
    reference = {
        idx: content_stems(text)
        for idx, text in first.unique("idx", keep="first", maintain_order=True)
        .select("idx", "explanation")
        .iter_rows()
    }
    keys = sorted(reference)
    partner_of = {}
    if len(keys) > 1:
        partners = derangement(keys, seed)
        partner_of = {key: keys[place] for key, place in zip(keys, partners, strict=True)}
    measured: dict[str, dict[str, float | None]] = {}
    for model in completions.models:
        if model == completions.reference:
            continue
        own = rows.filter((pl.col("model") == model) & pl.col("idx").is_in(keys))
        measures = pl.DataFrame(
            [
                {
                    "idx": idx,
                    **_copying(
                        content_stems(text),
                        reference[idx],
                        reference[partner_of[idx]] if idx in partner_of else None,
                    ),
                }
                for idx, text in own.select("idx", "explanation").iter_rows()
            ],
            infer_schema_length=None,
        )
        if measures.height == 0:
            continue
        draw = resampler(measures, seed)
        measured[model] = {}
        for top, bottom, name in (
            ("novel", "words", "novel_word_share"),
            ("novel_by_chance", "words", "chance_novel_word_share"),
            ("subsequence", "words", "subsequence_share"),
            ("subsequence", "shared", "order_kept"),
        ):
            share = draw.ratio(column(measures, top), column(measures, bottom))
            measured[model] |= share.entries(name)
    return measured


def _copying(
    words: list[str], reference: list[str], other: list[str] | None
) -> dict[str, float | None]:
    known = set(reference)
    novel = sum(word not in known for word in words)
    return {
        "words": float(len(words)),
        "novel": float(novel),
        "shared": float(len(words) - novel),
        "subsequence": float(LCSseq.similarity(words, reference)),
        "novel_by_chance": (
            None if other is None else float(sum(word not in set(other) for word in words))
        ),
    }


def _verdict(completions: Completions, headline: Headline) -> str:
    sentences = [
        _sentence(model, headline[model], completions.reference)
        for model in completions.models
        if model != completions.reference and "saving_tokens" in headline.get(model, {})
    ]
    return " ".join(sentences) or "There is no second model, so there is no saving to split."


def _sentence(model: str, summary: dict[str, float | None], reference: str) -> str:
    """What one model's saving is made of; the larger part is named where the intervals allow it."""
    low, high = summary.get("saving_tokens_low"), summary.get("saving_tokens_high")
    if low is None or high is None:
        return f"{model}: too few activations to tell."
    if low <= 0 <= high:
        return (
            f"{model} is as long as {reference} (it saves {_tokens(summary, 'saving')} tokens), so "
            "there is no saving to split."
        )
    if high < 0:
        return f"{model} saves nothing over {reference}: {_tokens(summary, 'saving')} tokens."
    parts = (
        f"{model} saves {_tokens(summary, 'saving')} tokens: {_tokens(summary, 'omission')} by "
        f"omission, {_tokens(summary, 'rewording')} by terser wording"
    )
    if (summary.get("addition_tokens_high") or 0.0) < 0:
        parts += f", less {-(summary['addition_tokens'] or 0.0):.1f} spent on additions"
    lead, lead_low, lead_high = (
        summary.get(f"omission_lead_tokens{end}") for end in ("", "_low", "_high")
    )
    if lead is None or lead_low is None or lead_high is None:
        larger = "which is more is not known"
    elif lead_low > 0 or lead_high < 0:
        larger = f"more by {'omission' if lead_low > 0 else 'terser wording'}"
    else:
        nearest = lead_low if lead > 0 else lead_high
        larger = f"which is more cannot be told{_needed(summary, lead, nearest)}"
    return f"{parts}: {larger}."


def _needed(summary: dict[str, float | None], lead: float, nearest: float) -> str:
    """How many explanations would tell, if more of them can.

    Args:
        summary: of the model.
        lead: of omission over rewording.
        nearest: the end of its interval that lies towards zero, or beyond.
    """
    bias, spread = (
        summary["reading_bias_tokens"] or 0.0,
        1.96 * (summary["reading_error_tokens"] or 0.0),
    )
    room = abs(lead) - bias
    if room <= spread:
        return " at any size: the difference is within the reading's own error"
    by_sampling = max((abs(lead - nearest) - bias) ** 2 - spread**2, 0.0)
    count = (summary["n"] or 0.0) * by_sampling / (room**2 - spread**2)
    return f"; about {count:,.0f} explanations would tell"


def _tokens(summary: dict[str, float | None], part: str) -> str:
    value, low = summary[f"{part}_tokens"], summary.get(f"{part}_tokens_low")
    if low is None:
        return f"{value:.1f}"
    return f"{value:.1f} [{low:.1f}, {summary[f'{part}_tokens_high']:.1f}]"


def _caveats(
    completions: Completions, reading: Reading, error: ReadingError, headline: Headline
) -> list[str]:
    caveats = list(completions.notes)
    if reading.activations_read < reading.activations:
        caveats.append(
            f"Claims were read in {reading.activations_read:,} of {reading.activations:,} "
            "activations, drawn at random."
        )
    if not reading.has_floor:
        caveats.append(
            "The table has one sample per activation, so the resampling floor is unknown: some of "
            "what counts as omission and addition is what two samples of one model differ in."
        )
    caveats += [*assumed_chance(reading), error.sentence()]
    for model, summary in headline.items():
        low, high = summary.get("saving_tokens_low"), summary.get("saving_tokens_high")
        if low is not None and high is not None and low <= 0 <= high:
            caveats.append(
                f"{model}: its length does not differ from the reference's beyond resampling, so "
                "its shares divide by almost nothing; read its tokens instead."
            )
    failed = completions.rows.filter(pl.col("explanation").is_null()).height
    if failed:
        caveats.append(f"{failed} failed explanations have no text and are left out here.")
    return caveats
