"""Telling a token from its neighbours: texts that say what is the document's, the token's, both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nla_audit import cli
from nla_audit.findings import Finding
from nla_audit.probes import registry
from nla_audit.probes.token_match import _picked, _won
from nla_audit.table.completions import load
from tests.declared import absent, undeclared
from tests.pairs import planted_pair
from tests.probes import exchanged

DOCUMENTS, TOKENS = 60, 3
KEYWORDS = planted_pair.KEYWORDS


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents have one of three keywords; their three tokens one each of the other three."""
    root = tmp_path_factory.mktemp("tokens")
    generator = np.random.default_rng(0)
    keys, rows, vectors = [], [], []
    for document in range(DOCUMENTS):
        about = int(generator.integers(3))
        for place, own in enumerate(generator.permutation(3)):
            idx = document * TOKENS + place
            keys.append({"idx": idx, "doc_id": f"d{document}", "position": 10 + 5**place})
            weights = np.zeros(len(KEYWORDS))
            weights[[about, 3 + own]] = 1.0
            vectors.append(planted_pair.activation(list(weights)))
            texts = {
                "both": f"a{KEYWORDS[about]}{KEYWORDS[3 + own]}",
                "document": f"a{KEYWORDS[about]}",
                "token": f"a{KEYWORDS[3 + own]}",
            }
            rows += [
                {"model": model, "idx": idx, "explanation": text} for model, text in texts.items()
            ]
    planted_pair.save_planted_ar(root / "ar")
    pl.DataFrame(rows).write_parquet(root / "texts.parquet")
    pl.DataFrame(keys).with_columns(
        activation_vector=pl.Series([vector.tolist() for vector in vectors])
    ).write_parquet(root / "activations.parquet")
    return root


def run(root: Path, reference: str) -> Finding:
    return registry()["token-match"].run(
        load(root / "texts.parquet", reference=reference),
        pair=str(root / "ar"),
        activations=str(root / "activations.parquet"),
        seed=0,
    )


@pytest.fixture(scope="module")
def finding(root: Path) -> Finding:
    return run(root, "document")


def test_what_is_said_of_the_token_tells_it_from_its_neighbours(finding: Finding) -> None:
    for model in ("both", "token"):
        own = finding.headline[model]
        assert own["candidates"] == TOKENS
        assert own["documents"] == DOCUMENTS
        assert own["explanations"] == DOCUMENTS * TOKENS
        assert own["token_picked"] == own["token_ahead"] == 1
        assert own["chance_token_ahead_low"] <= 0.5 <= own["chance_token_ahead_high"]
        assert own["chance_token_picked_low"] <= 1 / 3 <= own["chance_token_picked_high"]


def test_what_is_said_of_the_document_tells_it_from_others_only(finding: Finding) -> None:
    own = finding.headline["document"]
    assert own["token_picked"] == pytest.approx(1 / 3)  # all three are as near
    assert own["token_ahead"] == pytest.approx(1 / 2)
    # Another document has another keyword in two of three cases, and else ties.
    assert own["source_ahead_low"] <= 5 / 6 <= own["source_ahead_high"]
    assert own["chance_source_ahead_low"] <= 0.5 <= own["chance_source_ahead_high"]


def test_the_verdict_follows(root: Path, finding: Finding) -> None:
    assert "they tell its document from others" in finding.verdict
    assert "tell tokens of one document apart" in run(root, "both").verdict


def test_pairs_are_told_by_how_far_apart_they_are(finding: Finding) -> None:
    table = finding.tables["by_distance"].filter(pl.col("model") == "both")
    # Positions 11, 15 and 35 of each document.
    assert table["distance"].to_list() == ["2–4", "17–64"]
    assert table["pairs"].to_list() == [2 * DOCUMENTS, 4 * DOCUMENTS]
    assert table["ahead"].to_list() == [1, 1]


def test_the_card_declares_every_number(finding: Finding) -> None:
    assert undeclared(finding) == []
    assert absent(finding, finding.metrics) == []


def test_ties_count_half_and_are_shared() -> None:
    own, same, near, far = np.eye(3)[[0, 0, 1, 2]] * np.array([[1], [1], [0.5], [4]])
    won = _won(own, own, np.stack([same, near, far]))
    assert won.tolist() == [0.5, 1, 1]
    assert _picked(won) == 0.5
    assert _picked(_won(near, own, np.stack([near, far]))) == 0


def test_documents_of_one_activation_are_refused_in_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = exchanged.save_study(tmp_path, right=1.0, n=20)
    assert cli.run(["token-match", *exchanged.arguments(alone)]) == 2
    assert "no explained activation has another of its doc_id" in capsys.readouterr().err
    table = pl.read_parquet(alone / "activations.parquet")
    table.with_columns(doc_id=pl.lit("d")).write_parquet(alone / "activations.parquet")
    assert cli.run(["token-match", *exchanged.arguments(alone)]) == 2
    assert "each model explains one document only" in capsys.readouterr().err
    assert cli.run(["token-match", *exchanged.arguments(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["headline"]["both"]["token_picked"] == 1
