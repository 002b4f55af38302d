"""What a shorter explanation leaves out and adds, by what was marked in it by hand."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import polars as pl
import pytest

from nla_audit.analyzers.drop_analysis import drop_analysis
from nla_audit.analyzers.rewording import rewording
from tests.benchmark_module import benchmark_module

LEDGERS = ("mild", "medium", "hard")
#: Of an original's tokens, and of the claims of one kind.
TOLERANCE, TOLERANCE_OF_A_KIND = 0.07, 0.2
LEAST_TOLD_APART = 0.8


@pytest.fixture(scope="module")
def ledgers() -> Iterator[ModuleType]:
    """``benchmarks/reading_ledgers.py`` as a module."""
    with benchmark_module("reading_ledgers") as module:
        yield module


@pytest.mark.parametrize("name", LEDGERS)
def test_tokens_left_out_and_newly_said(ledgers: ModuleType, name: str) -> None:
    ledger = ledgers.ledger(ledgers.LEDGERS / f"{name}.jsonl")
    found = rewording(ledger.table)
    own = found.headline[ledgers.SHORTER]
    tokens = pl.DataFrame(
        {"idx": list(ledger.left_out), "left_out": list(ledger.left_out.values())}
    ).join(
        ledgers.read(ledger.table).explanations.filter(pl.col("model") == ledgers.SHORTER), "idx"
    )
    whole = tokens["tokens_reference"].mean()
    left_out = (tokens["left_out"] * tokens["tokens_reference"]).mean()
    assert own["omission_tokens_low"] <= left_out <= own["omission_tokens_high"]
    assert own["omission_tokens"] == pytest.approx(left_out, abs=TOLERANCE * whole)
    added = sum(ledger.added.values()) / len(ledger.added)
    assert own["addition_tokens_low"] <= -added <= own["addition_tokens_high"]
    net = ledgers.net_omission(ledger, tokens)
    assert own["net_omission_tokens_low"] <= net <= own["net_omission_tokens_high"]
    assert own["net_omission_tokens"] == pytest.approx(net, abs=TOLERANCE * whole)


@pytest.mark.parametrize("name", LEDGERS)
def test_claims_kept(ledgers: ModuleType, name: str) -> None:
    ledger = ledgers.ledger(ledgers.LEDGERS / f"{name}.jsonl")
    claims = ledgers.claims_of(ledger)
    assert ledgers.told_apart(claims) >= LEAST_TOLD_APART
    own = drop_analysis(ledger.table).headline[ledgers.SHORTER]
    assert own["claims_retained_low"] <= claims["true"].mean() <= own["claims_retained_high"]
    kinds = ledgers.by_kind(claims)
    assert kinds.height >= 6
    assert ((kinds["true"] - kinds["kept"]).abs() <= TOLERANCE_OF_A_KIND).all(), kinds


@pytest.mark.parametrize(("name", "larger"), [("medium", "omission"), ("hard", "omission")])
def test_the_larger_part_is_named(ledgers: ModuleType, name: str, larger: str) -> None:
    ledger = ledgers.ledger(ledgers.LEDGERS / f"{name}.jsonl")
    assert rewording(ledger.table).verdict.endswith(f"more by {larger}.")


def test_nearly_equal_parts_are_not_told_apart(ledgers: ModuleType) -> None:
    found = rewording(ledgers.ledger(ledgers.LEDGERS / "mild.jsonl").table)
    assert "which is more cannot be told" in found.verdict
