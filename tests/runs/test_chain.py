"""From texts on the Hub to completions on the Hub, with the commands alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from transformers import AutoConfig, AutoTokenizer

from nla_audit import cli
from nla_audit.table.completions import load
from tests.hub_contents import TOKEN, FakeHub, files_in
from tests.pairs import talking, tiny


def test_texts_to_published_completions(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    pair = talking.save_pair(tmp_path / "pair")
    config: Any = AutoConfig.from_pretrained(pair / "av")
    tiny.random_model(config, seed=5).save_pretrained(tmp_path / "target")
    AutoTokenizer.from_pretrained(pair / "av").save_pretrained(tmp_path / "target")
    draw = np.random.default_rng(0)
    words = [word.strip() for word in talking.WORDS]
    texts = [{"text": " ".join(draw.choice(words, size=30))} for _ in range(12)]
    pl.DataFrame(texts).write_parquet(tmp_path / "texts.parquet")
    hub.add("lab/target", files_in(tmp_path / "target"))
    hub.add("lab/pair", files_in(pair))
    table = (tmp_path / "texts.parquet").read_bytes()
    hub.add("lab/texts", {"train.parquet": table}, kind="dataset")

    activations, completions = tmp_path / "a.parquet", tmp_path / "c.parquet"
    for command in (
        "extract lab/target hf://datasets/lab/texts/train.parquet --layer 2 "
        f"--minimum-position 5 --positions-per-document 2 --out {activations}",
        f"explain lab/pair {activations} --max-new-tokens 24 --model base --out {completions}",
        f"push {completions} lab/completions --base-model lab/target",
        f"pull datasets/lab/completions --out {tmp_path / 'back'}",
    ):
        assert cli.run(command.split()) == 0

    found = load(["hf://datasets/lab/completions"])
    assert found.rows.height == 24
    assert found.rows["doc_id"].n_unique() == 12
    assert found.rows["source_text"].null_count() == 0
    assert found.rows.equals(load([tmp_path / "back"]).rows)
    card = hub.files("lab/completions", "dataset")["README.md"].decode()
    facts = yaml.safe_load(card.split("---\n", maxsplit=2)[1])["nla"]
    assert facts["base_model"] == "lab/target"
    # As the sidecar of the pair says them, through the record that explain leaves.
    assert facts["injection"] == str(talking.INJECTION)
    assert facts["layer"] == 2
    assert facts["baseline"] == "raw_variance"
    assert facts["models"][0]["fve_mean"]["value"] == round(found.rows["fve"].mean(), 3)
