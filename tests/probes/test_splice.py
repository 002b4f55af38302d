"""Splicing: closed forms at the last block, and an AR that gives activations back exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from nla_audit import cli
from nla_audit.checkpoint.load import load_language_model
from nla_audit.findings import Finding
from nla_audit.nla.injection import Injection
from nla_audit.probes import registry
from nla_audit.runs.splice import splice_last
from nla_audit.runs.target import TargetModel
from nla_audit.table.completions import load
from tests.declared import absent, undeclared
from tests.pairs import tiny
from tests.runs.extracting import random_texts

COUNT = 24


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Activations of the last token of the AR's own prompts, which the AR so gives back exactly.

    ``right`` has each activation's text, ``rolled`` the text of another.
    """
    root = tmp_path_factory.mktemp("splice")
    tiny.save_pair(root, "llama", Injection("replace", scale=8.0))
    save_file({"weight": torch.eye(tiny.D_MODEL)}, root / "ar" / "value_head.safetensors")
    texts = [f"{text} {row}" for row, text in enumerate(random_texts(COUNT))]
    sources = [tiny.AR_TEMPLATE.format(explanation=text) for text in texts]
    model, tokenizer = load_language_model(root / "base")
    target = TargetModel(model, tokenizer, tiny.LAYER)
    ids = target.token_ids(sources, 400)
    vectors = target.activations(ids, [[len(one) - 1] for one in ids])
    keys = {"idx": range(COUNT), "source_text": sources}
    pl.DataFrame({**keys, "activation_vector": vectors.tolist()}).write_parquet(
        root / "activations.parquet"
    )
    rolled = [*texts[1:], texts[0]]
    rows = [
        {"model": name, "idx": idx, "explanation": said[idx]}
        for name, said in {"right": texts, "rolled": rolled}.items()
        for idx in range(COUNT)
    ]
    pl.DataFrame(rows).write_parquet(root / "texts.parquet")
    return root


def run(root: Path, **options: Any) -> Finding:
    options = {"activations": str(root / "activations.parquet"), **options}
    return registry()["splice"].run(
        load(root / "texts.parquet", reference="right"),
        pair=str(root / "ar"),
        target=str(root / "base"),
        seed=0,
        **options,
    )


@pytest.fixture(scope="module")
def finding(root: Path) -> Finding:
    return run(root)


def test_an_exact_reconstruction_changes_nothing(finding: Finding) -> None:
    own = finding.headline["right"]
    assert own["explanations"] == COUNT
    assert own["kl"] == pytest.approx(0, abs=1e-5)
    assert own["same_top"] == 1
    assert own["kl_recovered"] == pytest.approx(1, abs=1e-3)
    assert own["kl_mean"] > 0.01
    assert "not shown to be more" not in finding.verdict


def test_another_text_is_no_better_than_chance(root: Path, finding: Finding) -> None:
    own = finding.headline["rolled"]
    assert own["kl"] > 0.01
    assert own["kl_recovered"] < own["chance_kl_recovered_high"]
    assert own["chance_kl"] == pytest.approx(own["kl"], rel=0.5)
    assert finding.headline["right"]["chance_kl"] > 0.01


def test_the_card_declares_every_number(finding: Finding) -> None:
    assert undeclared(finding) == []
    assert absent(finding, finding.metrics) == []


def test_behind_the_last_block_the_distribution_is_known(root: Path) -> None:
    """There the next token is a function of the vector: the norm, then the output matrix."""
    model, tokenizer = load_language_model(root / "base")
    target = TargetModel(model, tokenizer, tiny.BLOCKS - 1)
    ids = target.token_ids(["a story about a fair"], 100)[0]
    vectors = np.random.default_rng(0).normal(size=(3, tiny.D_MODEL)).astype(np.float32)
    done = splice_last(target, ids, vectors)

    def distribution(vector: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model.lm_head(model.model.norm(vector)).log_softmax(dim=-1)

    plain = distribution(torch.tensor(done.activation))
    changed = distribution(torch.tensor(vectors))
    expected = (plain.exp() * (plain - changed)).sum(dim=-1).numpy()
    assert done.kl == pytest.approx(expected, rel=1e-4)
    assert done.same_top.tolist() == (changed.argmax(-1) == plain.argmax()).tolist()


def test_the_own_activation_spliced_in_changes_nothing(root: Path) -> None:
    model, tokenizer = load_language_model(root / "base")
    target = TargetModel(model, tokenizer, tiny.LAYER)
    ids = target.token_ids(["formal register opens"], 100)[0]
    (own,) = target.activations([ids], [[len(ids) - 1]])
    done = splice_last(target, ids, np.stack([own, -own]))
    assert done.activation == pytest.approx(own, abs=1e-6)
    assert done.kl[0] == pytest.approx(0, abs=1e-6)
    assert done.kl[1] > 0.01


def test_a_cut_source_is_left_out_and_told(root: Path, tmp_path: Path) -> None:
    table = pl.read_parquet(root / "activations.parquet")
    cut = pl.when(pl.col("idx") < 5).then(pl.col("source_text").str.slice(40))
    table.with_columns(cut.otherwise("source_text").alias("source_text")).write_parquet(
        tmp_path / "cut.parquet"
    )
    found = run(root, activations=str(tmp_path / "cut.parquet"))
    assert found.headline["right"]["explanations"] == COUNT - 5
    assert any("5 activations left out" in caveat for caveat in found.caveats)


def test_a_limit_draws_activations(root: Path) -> None:
    assert run(root, limit=12).headline["rolled"]["explanations"] == 12


def test_the_command_says_what_is_missing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        "splice",
        str(root / "texts.parquet"),
        "--pair",
        str(root / "ar"),
        "--activations",
        str(root / "activations.parquet"),
    ]
    assert cli.run(given) == 2
    assert "give --target MODEL" in capsys.readouterr().err
    other = tiny.random_model(tiny.make_config("llama", 400), 9)
    other.save_pretrained(tmp_path / "other")
    tiny.make_tokenizer(bos=True).save_pretrained(tmp_path / "other")
    assert cli.run([*given, "--target", str(tmp_path / "other")]) == 2
    assert "gives none of the activations again" in capsys.readouterr().err
    assert cli.run([*given, "--target", str(root / "base"), "--json", "--limit", "12"]) == 0
    assert json.loads(capsys.readouterr().out)["headline"]["right"]["same_top"] == 1


def test_activations_that_were_rescaled_are_not_put_back(root: Path, tmp_path: Path) -> None:
    """They would stand in the forward pass at a length that the model never has."""
    table = pl.read_parquet(root / "activations.parquet")
    longer = pl.when(pl.col("idx") < 5).then(10).otherwise(1)
    vectors = (
        table["activation_vector"].list.to_array(tiny.D_MODEL).to_numpy()
        * table.select(longer).to_numpy()
    )
    table.with_columns(activation_vector=pl.Series(vectors.tolist())).write_parquet(
        tmp_path / "longer.parquet"
    )
    found = run(root, activations=str(tmp_path / "longer.parquet"))
    assert found.headline["right"]["explanations"] == COUNT - 5
    assert any("or they were rescaled" in caveat for caveat in found.caveats)
