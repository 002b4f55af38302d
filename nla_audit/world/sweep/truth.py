"""The tables of a planted sweep: completions as published, and the truth behind them.

Columns of ``explanations`` (one row per explanation; counts are null where it failed):

- ``stated_tokens``, ``filler_tokens``, ``tail_tokens``, ``separator_tokens`` (punctuation between
  and after claims) and ``overhead_tokens`` add up to ``n_tokens``;
- ``stated_claims``, ``worth_stated`` (FVE points before noise; a spurious claim earns none);
- ``entity_claims``, ``number_claims``, ``quote_claims`` and how many of each are spurious
  (``quote_claims`` are those that may be wrong: repetition and structure);
- ``cited_quotes`` (quotations offered as source text, a quoted tail included), of which
  ``verbatim_quotes`` are; ``predicted_quotes`` (after "e.g.", "likely", …), none of which is;
- ``final_token_named``, ``tail_copy`` (the copied words, or null), ``tail_quoted``;
- ``tail_held``: whether the source's last two words stand in the explanation, copied or not
  ("… to the" may well be said of something else);
- relative to the reference's sample 0, null also where that failed: ``reference_claims``,
  ``kept_claims``, ``reworded_claims``, ``omitted_claims``, ``added_claims``, and the token saving
  as ``omission_saving`` + ``rewording_saving`` + ``addition_saving`` (≤ 0) + ``other_saving``
  (fillers, copied tails, punctuation between claims).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from nla_audit.world.sweep.activation import QUOTING_KINDS, Activation
from nla_audit.world.sweep.speaker import PlantedExplanation, PlantedModel, Statement
from nla_audit.world.sweep.wordings import KINDS

#: Tokens that an explanation costs beside its text (tags, end token): an empty one costs as many
#: (docs/failures.md, "fixed overhead").
OVERHEAD_TOKENS = 11
#: Length of a failed explanation: the generation cap of the published sweep (docs/published.md).
FAILED_TOKENS = 160
#: Reward of a failed extraction (docs/failures.md).
FAILED_REWARD = -2.0
#: MSE of predicting the mean on the published sweep's held-out slice (docs/object.md).
BASELINE_MSE = 0.6704
#: FVE of an explanation that states every fact of its activation, before noise.
FVE_CEILING = 0.95
#: Relative worth of a stated claim for the reconstruction, by kind.
WORTH: Mapping[str, float] = {
    "genre": 3.0,
    "style": 1.0,
    "entity": 1.5,
    "number": 0.5,
    "repetition": 1.0,
    "momentum": 1.0,
    "structure": 2.0,
    "expectation": 3.0,
    "final_token": 4.0,
}
#: Columns of the token account; they add up to ``n_tokens``.
TOKEN_COLUMNS: tuple[str, ...] = (
    "stated_tokens",
    "filler_tokens",
    "tail_tokens",
    "separator_tokens",
    "overhead_tokens",
)
#: Columns of the token saving; they add up to the reference's ``n_tokens`` less this one's.
SAVING_COLUMNS: tuple[str, ...] = (
    "omission_saving",
    "rewording_saving",
    "addition_saving",
    "other_saving",
)

_KEY_SCHEMA = {"model": pl.String, "idx": pl.Int64, "sample": pl.Int64}
_COMPLETIONS_SCHEMA: dict[str, Any] = {
    "model": pl.String,
    "length_penalty": pl.Float64,
    "idx": pl.Int64,
    "sample": pl.Int64,
    "source_text": pl.String,
    "explanation": pl.String,
    "n_tokens": pl.Int64,
    "mse": pl.Float64,
    "nmse": pl.Float64,
    "fve": pl.Float64,
    "reward": pl.Float64,
    "extracted": pl.Boolean,
    "cjk": pl.Float64,
}
_TRUTH_SCHEMA: dict[str, Any] = {
    **_KEY_SCHEMA,
    "claim": pl.Int32,
    "kind": pl.Enum(KINDS),
    "start": pl.Int32,
    "end": pl.Int32,
    "reference_tokens": pl.Int32,
    "fate": pl.Enum(["kept", "reworded", "omitted"]),
    "tokens": pl.Int32,
    "own_start": pl.Int32,
    "own_end": pl.Int32,
    "named": pl.String,
    "spurious": pl.Boolean,
    "renamed": pl.Boolean,
    "worth": pl.Float64,
}
#: Kinds whose claims are about what they name: with another name it is another claim.
_NAMING_KINDS = ("entity", "number")
_OWN_COUNTS: tuple[str, ...] = (
    *TOKEN_COLUMNS,
    "stated_claims",
    "entity_claims",
    "spurious_entities",
    "number_claims",
    "spurious_numbers",
    "quote_claims",
    "spurious_quotes",
    "cited_quotes",
    "verbatim_quotes",
    "predicted_quotes",
)
_RELATIVE_COUNTS: tuple[str, ...] = (
    "reference_claims",
    "kept_claims",
    "reworded_claims",
    "omitted_claims",
    "added_claims",
    *SAVING_COLUMNS,
)
_EXPLANATIONS_SCHEMA: dict[str, Any] = {
    **_KEY_SCHEMA,
    **dict.fromkeys((*_OWN_COUNTS, *_RELATIVE_COUNTS), pl.Int32),
    "worth_stated": pl.Float64,
    "final_token_named": pl.Boolean,
    "tail_copy": pl.String,
    "tail_quoted": pl.Boolean,
    "tail_held": pl.Boolean,
}


class PlantedRows:
    """Rows of the three tables, filled explanation by explanation.

    Args:
        with_claims: whether to fill the table of claims, which is most of the work and memory.
    """

    def __init__(self, *, with_claims: bool = True) -> None:
        self._with_claims = with_claims
        self._completions: list[tuple[Any, ...]] = []
        self._truth: list[tuple[Any, ...]] = []
        self._explanations: list[tuple[Any, ...]] = []

    def add(
        self,
        model: PlantedModel,
        sample: int,
        activation: Activation,
        explanation: PlantedExplanation,
        reference: PlantedExplanation,
        *,
        fve_noise: float,
    ) -> None:
        """Add one explanation; ``reference`` is the reference's sample 0 of this activation."""
        key = {"model": model.name, "idx": activation.idx, "sample": sample}
        worth = _worth_points(activation)
        account: dict[str, Any] = dict.fromkeys(_EXPLANATIONS_SCHEMA) | key
        fve: float | None = None
        mse: float | None = None
        n_tokens = FAILED_TOKENS
        if explanation.text is not None:
            account |= _own_account(explanation, worth)
            account["tail_held"] = _holds_tail(explanation.text, activation.source_text)
            n_tokens = sum(account[name] for name in TOKEN_COLUMNS)
            fve = account["worth_stated"] + fve_noise
            mse = (1.0 - fve) * BASELINE_MSE
            if reference.text is not None:
                account |= _relative_account(explanation, reference)
                if self._with_claims:
                    self._add_claims(key, explanation, reference, worth)
        self._explanations.append(tuple(account.values()))
        self._completions.append(
            (
                model.name,
                model.length_penalty,
                activation.idx,
                sample,
                activation.source_text,
                explanation.text,
                n_tokens,
                mse,
                None if fve is None else 1.0 - fve,
                fve,
                FAILED_REWARD if mse is None else -mse,
                explanation.text is not None,
                0.0,
            )
        )

    def frames(self) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        """Completions, truth and explanations so far."""
        return (
            _frame(self._completions, _COMPLETIONS_SCHEMA),
            _frame(self._truth, _TRUTH_SCHEMA),
            _frame(self._explanations, _EXPLANATIONS_SCHEMA),
        )

    def _add_claims(
        self,
        key: Mapping[str, Any],
        explanation: PlantedExplanation,
        reference: PlantedExplanation,
        worth: Mapping[int, float],
    ) -> None:
        for claim, (slot, said) in enumerate(reference.statements.items()):
            own = explanation.statements.get(slot)
            said_end = said.start + len(said.text)
            fate = _fate(own, is_reference=explanation is reference)
            where = (*key.values(), claim, said.kind, said.start, said_end, said.tokens, fate)
            if own is None:
                here: tuple[Any, ...] = (0, None, None, None, None, None)
            else:
                own_end = own.start + len(own.text)
                renamed = said.kind in _NAMING_KINDS and own.item != said.item
                item = own.item or None
                here = (own.tokens, own.start, own_end, item, own.spurious, renamed)
            self._truth.append((*where, *here, worth[slot]))


def _frame(rows: list[tuple[Any, ...]], schema: dict[str, Any]) -> pl.DataFrame:
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    return pl.DataFrame(dict(zip(schema, columns, strict=True)), schema=schema)


def _fate(own: Statement | None, *, is_reference: bool) -> str:
    if own is None:
        return "omitted"
    return "reworded" if own.terse and not is_reference else "kept"


def _worth_points(activation: Activation) -> dict[int, float]:
    """FVE points of each fact, by slot; together they make the ceiling."""
    whole = sum(WORTH[fact.kind] for fact in activation.facts)
    return {fact.slot: FVE_CEILING * WORTH[fact.kind] / whole for fact in activation.facts}


def _own_account(explanation: PlantedExplanation, worth: Mapping[int, float]) -> dict[str, Any]:
    """What the explanation holds, whatever the reference says."""
    stated = explanation.statements.values()
    quoting = [own for own in stated if own.kind in QUOTING_KINDS]
    account: dict[str, Any] = {
        "stated_tokens": sum(own.tokens for own in stated),
        "filler_tokens": explanation.filler_tokens,
        "tail_tokens": explanation.tail_tokens,
        "separator_tokens": explanation.separator_tokens,
        "overhead_tokens": OVERHEAD_TOKENS,
        "stated_claims": len(stated),
        "cited_quotes": len(quoting) + explanation.tail_quoted,
        "verbatim_quotes": sum(not own.spurious for own in quoting) + explanation.tail_quoted,
        "predicted_quotes": sum(own.kind == "expectation" and '"' in own.text for own in stated),
        "worth_stated": sum(worth[own.slot] for own in stated if not own.spurious),
        "final_token_named": explanation.tail_copy is not None
        or any(own.kind == "final_token" for own in stated),
        "tail_copy": explanation.tail_copy,
        "tail_quoted": explanation.tail_quoted,
    }
    for claims, spurious, kinds in (
        ("entity_claims", "spurious_entities", ("entity",)),
        ("number_claims", "spurious_numbers", ("number",)),
        ("quote_claims", "spurious_quotes", ("repetition", "structure")),
    ):
        account[claims] = sum(own.kind in kinds for own in stated)
        account[spurious] = sum(own.kind in kinds and own.spurious for own in stated)
    return account


def _holds_tail(text: str, source: str) -> bool:
    spoken, heard = (
        "".join(c if c.isalnum() or c == "'" else " " for c in part.lower()).split()
        for part in (text, source)
    )
    return f" {' '.join(heard[-2:])} " in f" {' '.join(spoken)} "


def _relative_account(
    explanation: PlantedExplanation, reference: PlantedExplanation
) -> dict[str, int]:
    """What became of the reference's claims, and what the token saving consists of."""
    claims, stated = reference.statements, explanation.statements
    fates = [_fate(stated.get(slot), is_reference=explanation is reference) for slot in claims]
    added = [own for slot, own in stated.items() if slot not in claims]
    return {
        "reference_claims": len(claims),
        "kept_claims": fates.count("kept"),
        "reworded_claims": fates.count("reworded"),
        "omitted_claims": fates.count("omitted"),
        "added_claims": len(added),
        "omission_saving": sum(said.tokens for slot, said in claims.items() if slot not in stated),
        "rewording_saving": sum(
            said.tokens - stated[slot].tokens for slot, said in claims.items() if slot in stated
        ),
        "addition_saving": -sum(own.tokens for own in added),
        "other_saving": _other_tokens(reference) - _other_tokens(explanation),
    }


def _other_tokens(explanation: PlantedExplanation) -> int:
    return explanation.filler_tokens + explanation.tail_tokens + explanation.separator_tokens


def summarise(
    models: Sequence[PlantedModel],
    completions: pl.DataFrame,
    truth: pl.DataFrame,
    explanations: pl.DataFrame,
) -> pl.DataFrame:
    """The realised rates, one row per model in the order given; null where nothing was counted.

    Claim rates pool all claims of a model; ``claims_retained`` and ``retained.<kind>`` are the
    share of the reference's claims (of that kind) that were stated, names and numbers unchanged;
    ``omission_token_share`` is the share of the reference's tokens in the others. Savings are mean
    tokens per explanation against the reference's sample 0. ``mean_tokens`` counts failed
    explanations, as published tables do.
    """

    def share(part: str, whole: str) -> pl.Expr:
        return (pl.col(part).sum() / _or_null(pl.col(whole).sum())).alias("share")

    is_text = pl.col("stated_claims").is_not_null()
    texts = explanations.group_by("model").agg(
        omission_share=share("omitted_claims", "reference_claims"),
        reworded_share=share("reworded_claims", "reference_claims"),
        additions=pl.col("added_claims").mean(),
        tail_held_rate=pl.col("tail_held").filter(is_text).mean(),
        final_token_rate=pl.col("final_token_named").mean(),
        spurious_rate=(
            pl.sum_horizontal("spurious_entities", "spurious_numbers", "spurious_quotes").sum()
            / _or_null(pl.sum_horizontal("entity_claims", "number_claims", "quote_claims").sum())
        ),
        spurious_entity_rate=share("spurious_entities", "entity_claims"),
        spurious_number_rate=share("spurious_numbers", "number_claims"),
        quotes_per_explanation=(pl.col("cited_quotes") + pl.col("predicted_quotes")).mean(),
        verbatim_quote_rate=share("verbatim_quotes", "cited_quotes"),
        **{name: pl.col(name).mean() for name in SAVING_COLUMNS},
    )
    is_kept = (pl.col("fate") != "omitted") & ~pl.col("renamed").fill_null(False)
    claims = truth.group_by("model").agg(
        claims_retained=is_kept.mean(),
        omission_token_share=pl.col("reference_tokens").filter(~is_kept).sum()
        / _or_null(pl.col("reference_tokens").sum()),
        **{f"retained.{kind}": is_kept.filter(pl.col("kind") == kind).mean() for kind in KINDS},
    )
    measured = completions.group_by("model").agg(
        explanations=pl.len(),
        failed_rate=(~pl.col("extracted")).mean(),
        empty_rate=(pl.col("explanation") == "").mean(),
        mean_tokens=pl.col("n_tokens").mean(),
        fve_mean=pl.col("fve").mean(),
        fve_median=pl.col("fve").median(),
    )
    order = pl.DataFrame(
        {
            "model": [model.name for model in models],
            "length_penalty": [model.length_penalty for model in models],
        },
        schema={"model": pl.String, "length_penalty": pl.Float64},
    )
    summary = order
    for part in (measured, texts, claims):
        summary = summary.join(part, on="model", how="left", maintain_order="left")
    return summary


def _or_null(total: pl.Expr) -> pl.Expr:
    """The total, or null in place of 0: nothing counted is not a rate of 0."""
    return pl.when(total > 0).then(total)
