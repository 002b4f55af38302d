"""Does an explanation help a language model to foresee how the text goes on?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from nla_audit.errors import UserError
from nla_audit.findings import Figure, Finding, Headline, Metric, Option, probe
from nla_audit.probes._continuations import continuations
from nla_audit.stats import derangement, interval_in
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import column, drawn, resampler
from nla_audit.wording import count

QUESTION = (
    "How much likelier does a language model find what follows the token when it has read the "
    "explanation, without any AR?"
)
#: What stands between an explanation and the text.
_BETWEEN = "\n\n"
#: Nats that the arithmetic of a model may add or take away: equal texts in other batches.
_ROUNDING = 1e-4
#: Tokens of the continuation, from … to.
_PLACES = ((1, 1), (2, 4), (5, 8), (9, 16), (17, 32), (33, None))
_SCHEMA = {
    "model": pl.String,
    "token": pl.String,
    "tokens": pl.Int64,
    "nats_without": pl.Float64,
    "gain": pl.Float64,
    "gain_low": pl.Float64,
    "gain_high": pl.Float64,
    "chance_gain": pl.Float64,
}


@probe(
    name="predictive-gain",
    question=QUESTION,
    reads=("model", "idx", "explanation", "doc_id", "source_text"),
    uses={},
    unit="explanation whose document is known to go on; resampled over documents",
    control="the explanation of another document by the same model, in the same place",
    high_means="gain_over_another above 0: what is said of this activation, and not only that an "
    "explanation is there, tells how the text goes on",
    example="nla-audit predictive-gain completions.parquet --base-model MODEL --texts texts.jsonl",
    metrics=(
        Metric("explanations", "count", "neither", "explanations read", interval=False),
        Metric(
            "nats_without",
            "nats",
            "neither",
            "loss of a token of the continuation without an explanation",
        ),
        Metric(
            "gain", "nats", "higher", "by how much that falls behind the explanation", chance=True
        ),
        Metric("gain_over_another", "nats", "higher", "gain less chance_gain"),
        Metric(
            "better_than_another",
            "share",
            "higher",
            "share of the explanations that help more than another document's; 50 % by chance",
        ),
    ),
    columns={"gain": "nats", "chance_gain": "nats", "nats_without": "nats"},
    options=(
        Option(
            "base_model",
            str,
            None,
            metavar="MODEL",
            help="The language model that reads: a folder or owner/name.",
        ),
        Option(
            "texts",
            str,
            (),
            multiple=True,
            metavar="FILE",
            help="The documents, as `nla-audit extract` reads them, by doc_id.",
        ),
        Option(
            "activations",
            str,
            None,
            metavar="FILE",
            help="Activations whose sources say how those of the table go on.",
        ),
        Option("tokens", int, 32, metavar="N", least=1, help="Tokens of the continuation."),
        Option(
            "context",
            int,
            0,
            metavar="N",
            least=0,
            help="Characters of the source's end that are read between the explanation and "
            "the continuation.",
        ),
        Option(
            "limit", int, 200, metavar="N", least=0, help="Activations, drawn at random; 0 is all."
        ),
    ),
)
def predictive_gain(
    completions: Completions,
    *,
    base_model: str | None = None,
    texts: tuple[str, ...] = (),
    activations: str | None = None,
    tokens: int = 32,
    context: int = 0,
    limit: int = 200,
    seed: int = 0,
) -> Finding:
    """Log-likelihood of continuations behind explanations, behind another's, and behind none."""
    completions.require("doc_id", "source_text", for_="predictive-gain")
    if base_model is None:
        raise UserError(
            "predictive-gain needs a language model that reads: give --base-model MODEL"
        )
    following = _following(completions, texts, activations)
    some = drawn(_with(completions, following), limit, seed)
    rows = _measured(
        some, following, base_model=base_model, tokens=tokens, context=context, seed=seed
    )
    headline: Headline = {}
    by_place: list[dict[str, Any]] = []
    for model in completions.models:
        own = rows.filter(pl.col("model") == model)
        if own.height:
            headline[model] = _summary(own, seed)
            by_place += _by_place(own, model, seed)
    without = completions.rows["idx"].n_unique() - len(following)
    return Finding(
        analyzer="predictive-gain",
        question=QUESTION,
        reference=completions.reference,
        headline=headline,
        verdict=_verdict(headline, completions.reference),
        caveats=_caveats(without, context),
        tables={"by_place": pl.DataFrame(by_place, schema=_SCHEMA)},
        figures=[
            Figure(
                "place",
                "Gain by token of the continuation",
                "line",
                "by_place",
                x="token",
                y="gain",
                group="model",
                low="gain_low",
                high="gain_high",
                chance="chance_gain",
                x_label="token behind that of the activation",
                y_label="nats gained per token",
                caption="Dashed: another document's explanation.",
            )
        ],
        parameters={
            "base_model": base_model,
            "texts": list(texts),
            "activations": activations,
            "tokens": tokens,
            "context": context,
            "limit": limit,
            "seed": seed,
        },
    )


def _following(
    completions: Completions, texts: tuple[str, ...], activations: str | None
) -> dict[int, str]:
    documents: dict[str, str] = {}
    if texts:
        from nla_audit.runs.documents import Documents

        wanted = set(completions.rows["doc_id"].drop_nulls())
        documents = {one.doc_id: one.text for one in Documents(texts) if one.doc_id in wanted}
    sources = None
    if activations is not None:
        from nla_audit.runs.activations import read_activations

        sources = read_activations(activations).keys.select("doc_id", "source_text")
    found = continuations(completions, documents, sources)
    if not found:
        raise UserError(
            "predictive-gain: of no explanation is it known how its document goes on: give the "
            "documents with --texts, or more activations of them with --activations"
        )
    return found


def _with(completions: Completions, following: dict[int, str]) -> Completions:
    known = pl.col("idx").is_in(list(following)) & pl.col("explanation").is_not_null()
    return replace(completions, rows=completions.rows.filter(known))


def _measured(
    completions: Completions,
    following: dict[int, str],
    *,
    base_model: str,
    tokens: int,
    context: int,
    seed: int,
) -> pl.DataFrame:
    """A row an explanation: losses of the continuation's tokens behind it, another's and none."""
    from nla_audit.checkpoint.load import load_language_model  # torch
    from nla_audit.nla.likelihood import continuation_losses

    rows = completions.rows.select("model", "idx", "doc_id", "explanation", "source_text")
    partner = np.full(rows.height, -1)
    for number, model in enumerate(completions.models):
        own = np.flatnonzero((rows["model"] == model).to_numpy())
        found = derangement(rows[own]["doc_id"].to_numpy(), seed + number)
        partner[own] = np.where(found >= 0, own[found], -1)
    rows = rows.with_columns(other=rows["explanation"].gather(np.maximum(partner, 0)))
    rows = rows.filter(pl.Series(partner >= 0))
    before = [source[max(len(source) - context, 0) :] for source in rows["source_text"]]
    ends = [following[idx] for idx in rows["idx"]]
    prefixes = [
        [f"{text}{_BETWEEN}{source}" for text, source in zip(rows[name], before, strict=True)]
        for name in ("explanation", "other")
    ]
    # Texts with no explanation are the same for every model and sample.
    bare = dict.fromkeys(zip(before, ends, strict=True))
    read = continuation_losses(
        *load_language_model(base_model),
        [*prefixes[0], *prefixes[1], *(source for source, _ in bare)],
        [*ends, *ends, *(end for _, end in bare)],
        most_tokens=tokens,
    )
    without = dict(zip(bare, read[2 * rows.height :], strict=True))
    return rows.with_columns(
        behind_own=pl.Series([own.tolist() for own in read[: rows.height]]),
        behind_other=pl.Series([own.tolist() for own in read[rows.height : 2 * rows.height]]),
        without=pl.Series([without[key].tolist() for key in zip(before, ends, strict=True)]),
    )


def _summary(own: pl.DataFrame, seed: int) -> dict[str, float | None]:
    draw = resampler(own, seed)
    sums = _sums(own, 1, None)
    tokens, without, behind, other = (
        column(sums, name) for name in ("tokens", "without", "behind_own", "behind_other")
    )
    return {
        "explanations": float(own.height),
        **draw.ratio(without, tokens).entries("nats_without"),
        **draw.ratio(without - behind, tokens).entries("gain"),
        **draw.ratio(without - other, tokens).entries("chance_gain"),
        **draw.ratio(other - behind, tokens).entries("gain_over_another"),
        **draw.share((np.sign(other - behind) + 1) / 2).entries("better_than_another"),
    }


def _sums(own: pl.DataFrame, least: int, most: int | None) -> pl.DataFrame:
    """Summed losses of the continuation's tokens ``least`` to ``most`` (from 1), and how many.

    A first token without a loss, behind nothing at all, counts in none of the sums.
    """
    slices = {
        name: own[name].list.slice(least - 1, None if most is None else most - least + 1)
        for name in ("behind_own", "behind_other", "without")
    }
    rows = []
    for losses in zip(*slices.values(), strict=True):
        values = np.array([one.to_numpy() for one in losses], dtype=np.float64)
        known = values[:, np.isfinite(values).all(axis=0)]
        rows.append((float(known.shape[1]), *known.sum(axis=1).tolist()))
    return pl.DataFrame(rows, schema=["tokens", *slices], orient="row")


def _by_place(own: pl.DataFrame, model: str, seed: int) -> list[dict[str, Any]]:
    draw = resampler(own, seed)
    found = []
    for least, most in _PLACES:
        sums = _sums(own, least, most)
        number = column(sums, "tokens")
        if number.sum() == 0:
            continue
        gain = column(sums, "without") - column(sums, "behind_own")
        by_chance = column(sums, "without") - column(sums, "behind_other")
        label = f"{least}+" if most is None else str(least) if least == most else f"{least}–{most}"
        found.append(
            {
                "model": model,
                "token": label,
                "tokens": int(number.sum()),
                "nats_without": draw.ratio(column(sums, "without"), number).value,
                **draw.ratio(gain, number).entries("gain"),
                "chance_gain": draw.ratio(by_chance, number).value,
            }
        )
    return found


def _verdict(headline: Headline, reference: str) -> str:
    if not headline:
        return "Predictive gain cannot be told: no explanation has one of another document beside."
    model = reference if reference in headline else next(iter(headline))
    own = headline[model]
    gain, bare = (
        interval_in(own, "gain_over_another"),
        interval_in(own, "gain"),
    )
    if np.isnan(gain.low):
        return "Too few documents to tell whether explanations help to foresee the text."
    against = f"{gain} nats a token against another document's explanation"
    if not gain.excludes(0) or abs(gain.value) < _ROUNDING:
        return f"Explanations of {model} are not shown to help to foresee the text: {against}."
    if gain.value < 0:
        return f"Explanations of {model} mislead about how the text goes on: {against}."
    said = f"Explanations of {model} tell something of how the text goes on: {against}"
    if bare.low > 0:
        return f"{said}, and {bare} against none."
    return f"{said}. The model is not shown to foresee it better than without any ({bare})."


def _caveats(without: int, context: int) -> list[str]:
    caveats = [
        "What the language model makes of an explanation in front of a text depends on whether it "
        "ever read the like: compare with another document's explanation, not with none."
    ]
    if not context:
        caveats.append(
            "The continuation is read without its source, so that what the source says counts too; "
            "--context N puts the end of the source between."
        )
    if without:
        caveats.append(f"{count(without, 'activation')} left out: how they go on is not known.")
    return caveats
