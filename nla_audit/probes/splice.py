"""What does the target model lose when the reconstruction takes the activation's place?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from nla_audit.errors import UserError
from nla_audit.findings import Figure, Finding, Headline, Metric, Option, probe
from nla_audit.probes._reconstructions import Reconstructions, reconstructions
from nla_audit.probes.causal.ruler import PAIR_OPTIONS
from nla_audit.stats import Floats, interval_in
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import column, drawn, resampler
from nla_audit.wording import count

if TYPE_CHECKING:
    from nla_audit.runs.target import TargetModel

QUESTION = (
    "How much of what the target model says next is kept when the reconstruction takes the "
    "activation's place?"
)
#: How far an activation that is read again may lie from the one in the file, as a share of its
#: norm (a cosine of 0.99). Another precision or kernel stays below it; a source that is cut,
#: tokens that fall otherwise, or activations that were rescaled do not.
_APART = 0.14
_KINDS = ("own", "chance", "noise")


@probe(
    name="splice",
    question=QUESTION,
    reads=("model", "idx", "explanation"),
    uses={"doc_id": "intervals resample activations instead of documents"},
    unit="explanation of an activation that the target model gives again from the source text; "
    "resampled over activations or documents",
    control="the reconstruction of another document's explanation; a random error of the same "
    "size; the mean activation",
    high_means="kl_recovered near 1: the next token is foreseen as with the activation itself; 0: "
    "as with the mean activation",
    example="nla-audit splice completions.parquet --pair PAIR --activations a.parquet "
    "--target MODEL",
    metrics=(
        Metric(
            "explanations",
            "count",
            "neither",
            "explanations whose reconstruction was spliced",
            interval=False,
        ),
        Metric(
            "kl",
            "nats",
            "lower",
            "KL divergence of the next token's distribution from that without a splice",
            chance=True,
        ),
        Metric("kl_mean", "nats", "neither", "the same with the mean activation"),
        Metric(
            "kl_noise",
            "nats",
            "neither",
            "the same with a random error as large as the reconstruction's",
        ),
        Metric("kl_recovered", "share", "higher", "1 − kl / kl_mean", chance=True),
        Metric("times_noise", "ratio", "lower", "kl / kl_noise"),
        Metric(
            "same_top",
            "share",
            "higher",
            "how often the likeliest next token is the same",
            chance=True,
        ),
    ),
    options=(
        *PAIR_OPTIONS,
        Option(
            "target",
            str,
            None,
            metavar="MODEL",
            help="The model that the activations are from: a folder or owner/name.",
        ),
        Option(
            "limit", int, 100, metavar="N", least=0, help="Activations, drawn at random; 0 is all."
        ),
    ),
)
def splice(
    completions: Completions,
    *,
    pair: str | None = None,
    activations: str | None = None,
    target: str | None = None,
    limit: int = 100,
    seed: int = 0,
) -> Finding:
    """KL of the next token when reconstructions replace activations in the forward pass."""
    if target is None:
        raise UserError("splice needs the model that the activations are from: give --target MODEL")
    some = drawn(completions, limit, seed)
    read = reconstructions(some, pair, activations, for_="splice")
    if read.ruler.scorer.transform is not None:
        raise UserError(
            "splice cannot put back activations that the pair centres or whitens: take a pair that "
            "reads raw ones"
        )
    rows, unlike = _spliced(read, _open(target, read), seed)
    if rows.height == 0:
        raise UserError(
            f"{target}: gives none of the activations again from the source texts: name the model "
            "that they are from, and give sources that are not cut and activations as extract "
            "writes them, raw and of their own length"
        )
    headline = {
        model: _summary(own, seed)
        for model in completions.models
        if (own := rows.filter(pl.col("model") == model)).height
    }
    return Finding(
        analyzer="splice",
        question=QUESTION,
        reference=completions.reference,
        headline=headline,
        verdict=_verdict(headline, completions.reference),
        caveats=_caveats(read, unlike),
        tables={
            "models": pl.DataFrame(
                [{"model": model, **summary} for model, summary in headline.items()],
                infer_schema_length=None,
            )
        },
        figures=[
            Figure(
                "recovered",
                "What reconstructions keep of the next token",
                "bar",
                "models",
                x="model",
                y="kl_recovered",
                low="kl_recovered_low",
                high="kl_recovered_high",
                chance="chance_kl_recovered",
                x_label="model",
                y_label="KL recovered",
                percent=True,
                caption="Share of the damage of the mean activation that is avoided; dashed: by "
                "another document's explanation.",
            )
        ],
        parameters={
            "pair": pair,
            "activations": activations,
            "target": target,
            "limit": limit,
            "seed": seed,
        },
    )


def _open(target: str, read: Reconstructions) -> TargetModel:
    """The whole target model, with the layer that the AR predicts."""
    from nla_audit.checkpoint.load import load_language_model  # torch
    from nla_audit.nla.architecture import hidden_size, number_of_blocks
    from nla_audit.runs.target import TargetModel

    scorer = read.ruler.scorer
    model, tokenizer = load_language_model(target)
    width = hidden_size(model.config)
    if width != scorer.d_model:
        raise UserError(
            f"{target}: is {width} wide, the AR {scorer.name} {scorer.d_model}: name the model "
            "that the activations are from"
        )
    if number_of_blocks(model.config) <= scorer.layer_index:
        raise UserError(f"{target}: has no layer {scorer.layer_index}, which the AR predicts")
    return TargetModel(model, tokenizer, scorer.layer_index)


def _spliced(read: Reconstructions, target: TargetModel, seed: int) -> tuple[pl.DataFrame, int]:
    """A row an explanation, and how many activations the target does not give again."""
    from nla_audit.nla.threads import threads_for  # torch
    from nla_audit.runs.splice import splice_last

    file = read.ruler.activations
    mean = file.vectors[file.usable_rows()].mean(axis=0, dtype=np.float64)
    partner = read.control(seed, for_="splice")
    generator = np.random.default_rng([seed, 19])
    texts = read.keys["source_text"].to_list()
    found: list[dict[str, Any]] = []
    unlike = 0
    for row in np.unique(read.rows):
        of_row = np.flatnonzero((read.rows == row) & (partner >= 0))
        text = texts[of_row[0]] if len(of_row) else None
        if not text:
            unlike += 1
            continue
        own = file.vectors[row].astype(np.float64)
        (ids,) = target.token_ids([text], target.longest_text)
        made = _placed(read, of_row, own)
        others = _placed(read, partner[of_row], own)
        noise = own + _errors(made - own, generator)
        vectors = np.vstack([_at_norm(mean[None], own), made, others, noise]).astype(np.float32)
        with threads_for(target.d_model, target.device):
            done = splice_last(target, ids, vectors)
        if not _is_same(done.activation.astype(np.float64), own):
            unlike += 1
            continue
        kl, same = (part[1:].reshape(len(_KINDS), len(of_row)) for part in (done.kl, done.same_top))
        for number, place in enumerate(of_row):
            keys = read.keys.row(int(place), named=True)
            found.append(
                {
                    **{name: keys[name] for name in ("model", "idx", "doc_id")},
                    "kl_mean": done.kl[0],
                    **{f"kl_{kind}": kl[which, number] for which, kind in enumerate(_KINDS)},
                    "same_own": float(same[0, number]),
                    "same_chance": float(same[1, number]),
                }
            )
    return pl.DataFrame(found, infer_schema_length=None), unlike


def _placed(read: Reconstructions, places: np.ndarray, own: Floats) -> Floats:
    """Reconstructions `[k, d_model]` as they stand in for ``own``: an AR that is judged by
    direction gives no norm, and gets that of the activation."""
    made = read.raw[places].astype(np.float64)
    return made if read.ruler.scorer.mse_scale is None else _at_norm(made, own)


def _at_norm(vectors: Floats, own: Floats) -> Floats:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors * (np.linalg.norm(own) / norms))


def _errors(errors: Floats, generator: np.random.Generator) -> Floats:
    """Random directions, `[k, d_model]`, each as long as the error of its row."""
    drawn = generator.normal(size=errors.shape)
    lengths = np.linalg.norm(errors, axis=1) / np.linalg.norm(drawn, axis=1)
    return np.asarray(drawn * lengths[:, None])


def _is_same(read: Floats, own: Floats) -> bool:
    """Whether the target gives the activation, which is then put back as large as it was."""
    return bool(np.linalg.norm(read - own) <= _APART * np.linalg.norm(own))


def _summary(own: pl.DataFrame, seed: int) -> dict[str, float | None]:
    draw = resampler(own, seed)
    kl, chance, noise, mean = (
        column(own, f"kl_{name}") for name in ("own", "chance", "noise", "mean")
    )
    return {
        "explanations": float(own.height),
        **draw.mean(kl).entries("kl"),
        **draw.mean(chance).entries("chance_kl"),
        **draw.mean(mean).entries("kl_mean"),
        **draw.mean(noise).entries("kl_noise"),
        **draw.ratio(mean - kl, mean).entries("kl_recovered"),
        **draw.ratio(mean - chance, mean).entries("chance_kl_recovered"),
        **draw.ratio(kl, noise).entries("times_noise"),
        **draw.share(column(own, "same_own")).entries("same_top"),
        **draw.share(column(own, "same_chance")).entries("chance_same_top"),
    }


def _verdict(headline: Headline, reference: str) -> str:
    model = reference if reference in headline else next(iter(headline))
    own = headline[model]
    recovered = interval_in(own, "kl_recovered")
    chance = interval_in(own, "chance_kl_recovered")
    if np.isnan(recovered.low):
        return "Too few activations to tell what reconstructions keep of the next token."
    said = (
        f"In the place of the activation, reconstructions of {model} avoid {recovered} of the "
        f"damage that the mean activation does; another document's explanation {chance}"
    )
    if recovered.low <= max(chance.high, 0):
        return f"{said}: not shown to be more."
    times = interval_in(own, "times_noise")
    if not times.excludes(1):
        return f"{said}. Their errors do as much as random ones of their size ({times} times)."
    return f"{said}. Their errors do {times} times what random ones of their size do."


def _caveats(read: Reconstructions, unlike: int) -> list[str]:
    caveats = [
        "Only the distribution of the next token is compared: what later tokens would read of the "
        "activation is not."
    ]
    if unlike:
        caveats.append(
            f"{count(unlike, 'activation')} left out: the target does not give them again from "
            "their source text, which may be cut or fall into other tokens, or they were rescaled."
        )
    if read.ruler.scorer.mse_scale is not None:
        caveats.append(
            "The AR is judged by direction, so that reconstructions, and the mean, are given the "
            "norm of the activation."
        )
    return caveats
