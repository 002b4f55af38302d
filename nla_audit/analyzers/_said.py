"""What ``multiscale`` says of texts: headline, sentences and caveats, from its tables alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from nla_audit.analyzers import _needs, _order, _stages
from nla_audit.analyzers._multiscale_verdict import CANNOT_TELL
from nla_audit.findings import Headline, Metric, Unit

_ENDS = ("", "_low", "_high")
#: Table → (column, what it is called in the headline).
_HEADLINE = {
    "stages": {"said_first": "said_first", "of_floor": "said_first_of_floor"},
    "order_of_worth": {"rho": "order_rho", "order_gain": "order_gain"},
    "lengths_and_needs": {"rho": "length_need_rho"},
    "perplexity": {"perplexity": "perplexity", "times_reference": "perplexity_times_reference"},
}

_LINK = "--chain"
_CLAIMS = "--pair, or --prefixes in claims"
TEXT_METRICS = (
    Metric(
        "said_first",
        "share",
        "neither",
        "share of what the model before says that is said again in as many first tokens",
        needs=_LINK,
    ),
    Metric(
        "said_first_of_floor",
        "share",
        "neither",
        "that, of what a second sample of the model before says again",
        needs=_LINK,
    ),
    Metric(
        "order_rho",
        "correlation",
        "neither",
        "rank correlation of a claim's place with what it adds, within texts",
        needs=_CLAIMS,
    ),
    Metric(
        "order_gain",
        "FVE",
        "neither",
        "what the order of claims gains over a random one",
        needs="--pair",
    ),
    Metric(
        "length_need_rho",
        "correlation",
        "higher",
        "rank correlation of lengths with what activations need",
        needs="--pair, or --prefixes with idx",
    ),
    Metric(
        "perplexity",
        "perplexity",
        "neither",
        "of whole explanations, by the language model",
        needs="--base-model",
    ),
    Metric(
        "perplexity_times_reference",
        "ratio",
        "neither",
        "that over the reference's at the same number of tokens",
        needs="--base-model",
    ),
)
#: Units of columns of the tables.
TEXT_COLUMNS: dict[str, Unit] = dict.fromkeys(
    ("floor", "of_floor", "said_last", "repeated", "chance", "repeated_chance"), "share"
)


def add_to_headline(headline: Headline, tables: Mapping[str, pl.DataFrame]) -> None:
    """Put what was measured of a model's texts into its row of the headline, in place."""
    for table, columns in _HEADLINE.items():
        if table not in tables:
            continue
        for row in _of_whole_models(table, tables[table]).iter_rows(named=True):
            model = row.get("model") or row["stage"]
            if model not in headline:  # none of its texts has a prefix
                continue
            measured = {
                f"{name}{end}": row[f"{column}{end}"]
                for column, name in columns.items()
                for end in _ENDS
                if row[column] is not None
            }
            headline[model] |= measured


def _of_whole_models(name: str, table: pl.DataFrame) -> pl.DataFrame:
    """The rows that are of a whole model, not of a segment of its texts or of their beginnings."""
    if name == "stages":
        return table.filter(pl.col("kind") == _stages.CHAIN)
    if name == "lengths_and_needs":
        return table.filter(pl.col("part") == _needs.TEXT)
    return table.filter(pl.col("tokens").is_null()) if name == "perplexity" else table


def said_of_texts(tables: Mapping[str, pl.DataFrame]) -> Iterator[str]:
    """A sentence for each thing that was asked of the texts."""
    if "stages" in tables:
        for row in tables["stages"].filter(pl.col("kind") == _stages.CHAIN).iter_rows(named=True):
            yield _of_link(row)
    if "order_of_worth" in tables:
        yield from _listed(
            tables["order_of_worth"],
            "order",
            {
                _order.WORTH_FIRST: "What {} says first is worth most.",
                _order.WORTH_LAST: "What {} says last is worth most.",
            },
        )
        for row in tables["order_of_worth"].drop_nulls("kinds_rho_low").iter_rows(named=True):
            if row["kinds_rho_high"] < 0:
                yield f"Kinds of claims that {row['model']} makes early are worth more than others."
            if row["kinds_rho_low"] > 0:
                yield f"Kinds of claims that {row['model']} makes late are worth more than others."
    if "lengths_and_needs" in tables:
        yield from _listed(
            tables["lengths_and_needs"].filter(pl.col("part") == _needs.TEXT),
            "lengths",
            {
                _needs.ADAPTS: "{} writes more where the activation needs more.",
                _needs.AGAINST: "{} writes less where the activation needs more.",
                _needs.HARDLY: "The length of what {} writes hardly follows what is needed.",
            },
        )


def _of_link(row: Mapping[str, object]) -> str:
    before, stage, share = row["before"], row["stage"], row["of_floor"]
    if row["says_first"] == CANNOT_TELL:
        known = "" if share is None else f" (about {share:.0%} of what another sample says again)"
        return f"How much of {before} {stage} says first: cannot tell{known}."
    much = {
        _stages.ALL: "nearly all",
        _stages.SOME: "part",
        _stages.NONE: "hardly any",
    }[str(row["says_first"])]
    return (
        f"{stage} says first {much} of what {before} says: {row['said_first']:.0%} of its claims, "
        f"where its own other sample says {row['floor']:.0%} again and another activation's text "
        f"{row['chance']:.0%}."
    )


def _listed(table: pl.DataFrame, column: str, sentences: Mapping[str, str]) -> Iterator[str]:
    for answer, sentence in sentences.items():
        for model in table.filter(pl.col(column) == answer)["model"]:
            yield sentence.format(model)


def caveats_of_texts(tables: Mapping[str, pl.DataFrame], has_random_order: bool) -> Iterator[str]:
    """What a reader has to know of these tables."""
    if not has_random_order and tables.get("order_of_worth", pl.DataFrame()).height:
        yield (
            "Gains fall along any text that fills up what there is to know, so that order_rho "
            "alone shows no order of worth; --pair reads the claims in random order too."
        )
    needs = tables.get("lengths_and_needs", pl.DataFrame())
    if needs.height:
        known = needs["need_reliability"][0]
        yield (
            "What an activation needs is read off the reference's text of it, "
            + (
                "of which there is one sample: how well it is known cannot be told."
                if known is None
                else f"and two samples agree about it with ρ = {known:.2f}: no correlation with it "
                f"can be seen above {max(known, 0.0) ** 0.5:.2f}."
            )
        )
    stages = tables.get("stages", pl.DataFrame())
    if stages.height:
        yield (
            "Shares of claims that stages say again are read from the texts; what is said in far "
            "fewer words may be missed, and limits reach up for that (benchmarks/stages.md)."
        )
        if stages["repeated"].null_count():
            yield (
                "Stages with no share of claims: too few texts, or matches that are not told from "
                "chance."
            )
