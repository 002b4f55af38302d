"""``--pair``: what claims are worth, and what a shorter explanation lost, on a planted AR."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nla_audit import cli
from nla_audit.analyzers.drop_analysis import drop_analysis
from nla_audit.analyzers.multiscale import multiscale
from nla_audit.analyzers.rewording import rewording
from nla_audit.errors import UserError
from nla_audit.table.completions import from_frame
from tests.declared import absent, undeclared
from tests.pairs import planted_pair

COUNT = 40
#: What each activation holds of " fair", " ribbon", " register", on average.
WEIGHTS = (3.0, 0.2, 1.0)
FAIR = "The story turns around a county fair held every autumn."
RIBBON = "Somebody in the crowd wears a ribbon of blue silk."
REGISTER = "Sentences stay in a solemn register of old newspapers."
SHORT_FAIR = "county fair every autumn"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("planted")
    generator = np.random.default_rng(0)
    weights = np.array(WEIGHTS) * generator.uniform(0.8, 1.2, (COUNT, len(WEIGHTS)))
    vectors = np.stack([planted_pair.activation(list(row)) for row in weights])
    pl.DataFrame({"idx": range(COUNT), "activation_vector": vectors.tolist()}).write_parquet(
        root / "activations.parquet"
    )
    texts = {
        "p0.0": f"{FAIR} {RIBBON} {REGISTER}",
        "p0.01": f"{FAIR} {REGISTER}",  # drops the cheap claim
        "p0.02": f"{SHORT_FAIR}\n{REGISTER}",  # and words another tersely
        "p0.03": f"{RIBBON} {REGISTER}",  # drops the dear claim
    }
    rows = [
        {"model": model, "idx": idx, "explanation": text}
        for model, text in texts.items()
        for idx in range(COUNT)
    ]
    pl.DataFrame(rows).write_parquet(root / "completions.parquet")
    planted_pair.save_planted_ar(root / "ar")
    return {name: root / name for name in ("activations.parquet", "completions.parquet", "ar")}


def arguments(planted: dict[str, Path]) -> dict[str, str]:
    return {"pair": str(planted["ar"]), "activations": str(planted["activations.parquet"])}


def test_claims_are_worth_what_was_planted(planted: dict[str, Path]) -> None:
    completions = from_frame(pl.read_parquet(planted["completions.parquet"]))
    finding = drop_analysis(completions, **arguments(planted))
    worth = {row["kind"]: row for row in finding.tables["claim_worth"].iter_rows(named=True)}
    assert sum(row["claims"] for row in worth.values()) == 3 * COUNT
    # The dear claim carries much and the cheap one costs: without it the direction is truer.
    assert max(row["worth"] for row in worth.values()) > 5
    first = {row["model"]: row for row in finding.tables["cheap_first"].iter_rows(named=True)}
    assert first["p0.01"]["cheap_first"] > 0.9
    assert first["p0.03"]["cheap_first"] < 0.1
    assert finding.headline["p0.01"]["cheap_first_low"] > 0.5
    assert undeclared(finding) == absent(finding, [m for m in finding.metrics if m.needs]) == []


def test_the_change_of_fve_is_split_exactly(planted: dict[str, Path]) -> None:
    completions = from_frame(pl.read_parquet(planted["completions.parquet"]))
    finding = rewording(completions, **arguments(planted))
    headline = finding.headline
    assert undeclared(finding) == absent(finding, [m for m in finding.metrics if m.needs]) == []
    for model in ("p0.01", "p0.02", "p0.03"):
        parts = [
            headline[model][f"fve_by_{name}"] for name in ("omission", "rewording", "additions")
        ]
        assert sum(parts) == pytest.approx(headline[model]["fve_change_reread"], abs=1e-9)
    # Where nothing but an omission happened, it is all omission: the rest of the text is the same.
    only_omission = headline["p0.01"]
    assert only_omission["fve_by_omission"] == pytest.approx(
        only_omission["fve_change_reread"], abs=1e-6
    )
    assert only_omission["fve_by_omission"] > 0
    assert headline["p0.03"]["fve_by_omission"] < -0.05


def test_the_command_line_takes_a_pair(
    planted: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(planted)
    code = cli.run(
        [
            "drop-analysis",
            str(planted["completions.parquet"]),
            "--pair",
            given["pair"],
            "--activations",
            given["activations"],
            "--json",
        ]
    )
    assert code == 0
    answer = json.loads(capsys.readouterr().out)
    assert {"claim_worth", "cheap_first"} <= answer["tables"].keys()


def test_one_without_the_other_is_an_error(planted: dict[str, Path]) -> None:
    completions = from_frame(pl.read_parquet(planted["completions.parquet"]))
    for name, value in arguments(planted).items():
        with pytest.raises(UserError, match="go together"):
            rewording(completions, **{name: value})


def test_activations_of_another_table_are_an_error(
    planted: dict[str, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other.parquet"
    table = pl.read_parquet(planted["activations.parquet"])
    table.with_columns(pl.col("idx") + 10_000).write_parquet(other)
    completions = from_frame(pl.read_parquet(planted["completions.parquet"]))
    with pytest.raises(UserError, match="no usable activation"):
        drop_analysis(completions, pair=str(planted["ar"]), activations=str(other))


def test_multiscale_reads_prefixes_with_the_pair(planted: dict[str, Path]) -> None:
    completions = from_frame(pl.read_parquet(planted["completions.parquet"]))
    finding = multiscale(completions, **arguments(planted))
    full = {model: numbers["full_fve"] for model, numbers in finding.headline.items()}
    assert full["p0.03"] < full["p0.01"], "what drops the dear claim reads worse"
    assert set(finding.tables["other_units"]["unit"]) == {"claims"}


def test_multiscale_reads_claims_in_random_order_too(planted: dict[str, Path]) -> None:
    """The dear claim first is better before the text is whole; last, it is worse."""
    orders = {"dear first": [FAIR, REGISTER, RIBBON], "dear last": [RIBBON, REGISTER, FAIR]}
    rows = [
        {"model": model, "idx": idx, "explanation": " ".join(claims)}
        for model, claims in orders.items()
        for idx in range(COUNT)
    ]
    finding = multiscale(from_frame(pl.DataFrame(rows)), **arguments(planted))
    found = {row["model"]: row for row in finding.tables["order_of_worth"].to_dicts()}
    assert found["dear first"]["order_gain_low"] > 0
    assert found["dear last"]["order_gain_high"] < 0
    assert "What dear first says first is worth most." in finding.verdict
    assert "What dear last says last is worth most." in finding.verdict
