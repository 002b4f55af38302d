"""Does an explanation tell its token from the neighbours of the same document?"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.errors import UserError
from nla_audit.findings import Figure, Finding, Headline, Metric, probe
from nla_audit.probes._reconstructions import Reconstructions, reconstructions
from nla_audit.probes.causal.ruler import PAIR_OPTIONS
from nla_audit.stats import Floats, interval_in
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import column, resampler
from nla_audit.wording import count

QUESTION = (
    "Does an explanation tell its own token from others of the same document, or only the document "
    "from others?"
)
#: Distances in tokens, from … to.
_DISTANCES = ((1, 1), (2, 4), (5, 16), (17, 64), (65, None))
_PICKED, _AHEAD = "picked", "ahead"
_SCHEMA = {
    "model": pl.String,
    "distance": pl.String,
    "pairs": pl.Int64,
    "ahead": pl.Float64,
    "ahead_low": pl.Float64,
    "ahead_high": pl.Float64,
    "chance_ahead": pl.Float64,
}


@probe(
    name="token-match",
    question=QUESTION,
    reads=("model", "idx", "explanation"),
    uses={"position": "no figures by the distance of the tokens"},
    unit="explanation of an activation whose document has others in the file of activations; "
    "resampled over documents",
    control="an explanation of another document, read against the same activations",
    high_means="token_picked far above chance: what is said is about this token; source_picked "
    "high and token_picked at chance: it is about the document",
    example="nla-audit token-match completions.parquet --pair PAIR --activations a.parquet",
    metrics=(
        Metric(
            "explanations", "count", "neither", "explanations with such neighbours", interval=False
        ),
        Metric("documents", "count", "neither", "documents that they are from", interval=False),
        Metric(
            "candidates",
            "count",
            "neither",
            "activations to tell apart, on average",
            interval=False,
        ),
        Metric(
            "token_picked",
            "share",
            "higher",
            "share of the explanations whose reconstruction is nearest to the own activation "
            "among all of its document",
            chance=True,
        ),
        Metric(
            "token_ahead",
            "share",
            "higher",
            "share of the others of its document that are farther away than the own one; ties "
            "count half",
            chance=True,
        ),
        Metric(
            "source_picked",
            "share",
            "higher",
            "the same as token_picked among as many activations of other documents",
            chance=True,
        ),
        Metric(
            "source_ahead", "share", "higher", "the same as token_ahead among those", chance=True
        ),
    ),
    columns={"ahead": "share", "chance_ahead": "share"},
    options=PAIR_OPTIONS,
)
def token_match(
    completions: Completions,
    *,
    pair: str | None = None,
    activations: str | None = None,
    seed: int = 0,
) -> Finding:
    """Which activation of its document, and of others, a reconstruction is nearest to."""
    read = reconstructions(completions, pair, activations, for_="token-match")
    rows, pairs = _measured(read, seed)
    if rows.height == 0:
        raise UserError(
            f"{activations}: no explained activation has another of its doc_id: extract several "
            "positions of each document"
        )
    headline: Headline = {}
    by_distance: list[dict[str, Any]] = []
    for model in completions.models:
        own = rows.filter(pl.col("model") == model)
        if own.height:
            headline[model] = _summary(own, seed)
            by_distance += _by_distance(pairs.filter(pl.col("model") == model), model, seed)
    return Finding(
        analyzer="token-match",
        question=QUESTION,
        reference=completions.reference,
        headline=headline,
        verdict=_verdict(headline, completions.reference),
        caveats=_caveats(read, rows),
        tables={"by_distance": pl.DataFrame(by_distance, schema=_SCHEMA)},
        figures=[
            Figure(
                "distance",
                "Nearer to the own token than to one so far away",
                "line",
                "by_distance",
                x="distance",
                y="ahead",
                group="model",
                low="ahead_low",
                high="ahead_high",
                chance="chance_ahead",
                x_label="tokens between the two",
                y_label="share of pairs",
                percent=True,
                caption="Dashed: an explanation of another document.",
            )
        ],
        parameters={"pair": pair, "activations": activations, "seed": seed},
    )


def _measured(read: Reconstructions, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A row an explanation, and a row a pair of an explanation and a neighbour."""
    vectors, documents = read.vectors, read.documents
    usable = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    members = {
        int(document): usable[documents[usable] == document]
        for document in np.unique(documents[read.rows])
    }
    positions = read.ruler.activations.keys["position"].cast(pl.Float64).fill_null(np.nan)
    place = positions.to_numpy()
    partner = read.control(seed, for_="token-match")
    generator = np.random.default_rng([seed, 17])
    rows: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    for number, keys in enumerate(read.keys.iter_rows(named=True)):
        own = read.rows[number]
        document = int(documents[own])
        others = members[document][members[document] != own]
        if len(others) == 0 or partner[number] < 0:
            continue
        elsewhere = _elsewhere(usable, documents, document, len(others), generator)
        name = {"model": keys["model"], "idx": keys["idx"], "doc_id": str(document)}
        row: dict[str, Any] = {**name, "candidates": len(others) + 1}
        wins = {}
        for chance, reader in (("", number), ("chance_", partner[number])):
            made = read.predicted[reader]
            for what, rivals in (("token", others), ("source", elsewhere)):
                won = _won(made, vectors[own], vectors[rivals])
                row[f"{chance}{what}_{_AHEAD}"] = won.mean() if len(won) else None
                row[f"{chance}{what}_{_PICKED}"] = _picked(won) if len(won) else None
                wins[chance, what] = won
        rows.append(row)
        for other, won, by_chance in zip(
            others, wins["", "token"], wins["chance_", "token"], strict=True
        ):
            apart = abs(place[other] - place[own])
            pairs.append({**name, "apart": apart, "ahead": won, "chance_ahead": by_chance})
    return pl.DataFrame(rows, infer_schema_length=None), pl.DataFrame(
        pairs, infer_schema_length=None
    )


def _elsewhere(
    usable: NDArray[np.int64],
    documents: NDArray[np.int64],
    document: int,
    number: int,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """At most ``number`` activations of other documents, at random."""
    drawn = generator.choice(usable, size=min(len(usable), 4 * number + 8), replace=False)
    return np.asarray(drawn[documents[drawn] != document][:number], dtype=np.int64)


def _won(made: Floats, own: Floats, others: Floats) -> Floats:
    """For each of ``others`` whether the own activation is nearer: 1, 0, or a half for a tie."""
    distance = ((made - own) ** 2).sum()
    distances = ((made - others) ** 2).sum(axis=1)
    level = np.isclose(distances, distance, rtol=1e-9, atol=0)
    return np.where(level, 0.5, (distances > distance).astype(np.float64))


def _picked(won: Floats) -> float:
    """1 where the own activation is nearest, its share where others are as near, else 0."""
    return 0.0 if (won == 0).any() else 1.0 / (1 + float((won == 0.5).sum()))


def _summary(own: pl.DataFrame, seed: int) -> dict[str, float | None]:
    draw = resampler(own, seed)
    summary: dict[str, float | None] = {
        "explanations": float(own.height),
        "documents": float(own["doc_id"].n_unique()),
        "candidates": float(column(own, "candidates").mean()),
    }
    for what in ("token", "source"):
        for how in (_PICKED, _AHEAD):
            for name in (f"{what}_{how}", f"chance_{what}_{how}"):
                summary |= draw.share(column(own, name)).entries(name)
    return summary


def _by_distance(pairs: pl.DataFrame, model: str, seed: int) -> list[dict[str, Any]]:
    found = []
    for least, most in _DISTANCES:
        within = pl.col("apart") >= least
        if most is not None:
            within &= pl.col("apart") <= most
        some = pairs.filter(within & pl.col("apart").is_not_nan())
        if some.height == 0:
            continue
        draw = resampler(some, seed)
        label = f"{least}+" if most is None else str(least) if least == most else f"{least}–{most}"
        found.append(
            {
                "model": model,
                "distance": label,
                "pairs": some.height,
                **draw.share(column(some, "ahead")).entries("ahead"),
                "chance_ahead": draw.share(column(some, "chance_ahead")).value,
            }
        )
    return found


def _verdict(headline: Headline, reference: str) -> str:
    model = reference if reference in headline else next(iter(headline))
    own = headline[model]
    token, source = _told(own, "token"), _told(own, "source")
    if token is None or source is None:
        return "Too few documents to tell whether explanations are about their token."
    picked = f"{own['token_picked']:.0%} of the explanations of {model} are nearest to their own "
    picked += f"token among {own['candidates']:.1f} of the document (another document's: "
    picked += f"{own['chance_token_picked']:.0%})"
    if token:
        return f"Explanations tell tokens of one document apart: {picked}."
    known = "they tell its document from others" if source else "nor its document from others"
    return f"Explanations are not shown to tell their token from its neighbours, {known}: {picked}."


def _told(own: dict[str, float | None], what: str) -> bool | None:
    """Whether the own activation is ahead more often than by chance; ``None``: not known."""
    ahead, chance = (interval_in(own, f"{name}{what}_ahead") for name in ("", "chance_"))
    return None if np.isnan(ahead.low) else bool(ahead.low > max(chance.high, 0.5))


def _caveats(read: Reconstructions, rows: pl.DataFrame) -> list[str]:
    caveats = []
    alone = read.keys.height - rows.height
    if alone:
        caveats.append(f"{count(alone, 'explanation')} left out: no other activation to tell from.")
    if read.ruler.activations.keys["position"].null_count():
        caveats.append("Positions are not known for all activations; by_distance lacks those.")
    if read.unread:
        caveats.append(f"{count(read.unread, 'explanation')} could not be read against anything.")
    return caveats
