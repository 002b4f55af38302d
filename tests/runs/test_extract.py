"""Activations extracted from texts are the right ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from nla_audit.nla.architecture import decoder_of, final_norm_name
from nla_audit.runs.activations import read_activations
from nla_audit.runs.documents import Documents
from nla_audit.runs.extract import Sampling, extract
from nla_audit.runs.target import TargetModel, load_target
from tests.pairs import tiny
from tests.runs.extracting import (
    FLOAT32,
    SAMPLING,
    WORDS,
    run,
    save_target,
    vectors,
)


class TestAgainstTransformers:
    @pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama", "gemma3", "wrapper"])
    def test_output_of_block_k(self, architecture: str, tmp_path: Path, texts: Path) -> None:
        """The whole model, one document at a time, without padding."""
        folder = save_target(tmp_path / "model", architecture)
        target = load_target(folder, layer_index=tiny.LAYER, placement=FLOAT32)
        table = run(target, texts, tmp_path / "a.parquet")
        model: Any = AutoModelForCausalLM.from_pretrained(folder).float().eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        source = {row["doc_id"]: row["text"] for row in pl.read_ndjson(texts).to_dicts()}
        assert table.height > 40
        states: dict[str, Any] = {}
        for row in table.iter_rows(named=True):
            if row["doc_id"] not in states:
                ids = tokenizer(source[row["doc_id"]], return_tensors="pt")["input_ids"]
                with torch.no_grad():
                    out = model(input_ids=ids[:, : SAMPLING.max_tokens], output_hidden_states=True)
                states[row["doc_id"]] = out.hidden_states
            wanted = states[row["doc_id"]][tiny.LAYER + 1][0, row["position"]].numpy()
            np.testing.assert_allclose(row["activation_vector"], wanted, atol=1e-4, rtol=1e-4)
            # The input of block K, which an index off by one would give, is something else.
            wrong = states[row["doc_id"]][tiny.LAYER][0, row["position"]].numpy()
            assert np.abs(np.array(row["activation_vector"]) - wrong).max() > 0.1

    def test_last_block_is_read_before_the_final_norm(self, qwen: Path) -> None:
        last = tiny.BLOCKS - 1
        target = load_target(qwen, layer_index=last, placement=FLOAT32)
        model: Any = AutoModelForCausalLM.from_pretrained(qwen).float().eval()
        ids = target.token_ids(["a story about the final fair"], 60)
        got = torch.tensor(target.activations(ids, [range(len(ids[0]))]))
        with torch.no_grad():
            states = model(input_ids=torch.tensor(ids), output_hidden_states=True).hidden_states
        normed = states[last + 1][0]
        norm = getattr(decoder_of(model), final_norm_name(decoder_of(model)))
        assert (got - normed).abs().max() > 0.1
        torch.testing.assert_close(norm(got).detach(), normed, atol=1e-4, rtol=1e-4)

    def test_only_the_blocks_that_are_needed_are_loaded(self, target: TargetModel) -> None:
        assert len(target.decoder.layers) == tiny.LAYER + 1


class TestTable:
    def test_columns(self, target: TargetModel, texts: Path, tmp_path: Path) -> None:
        table = run(target, texts, tmp_path / "a.parquet")
        assert table.schema == {
            "idx": pl.Int64,
            "doc_id": pl.String,
            "position": pl.Int64,
            "activation_layer": pl.Int64,
            "n_raw_tokens": pl.Int64,
            "detokenized_text_truncated": pl.String,
            "activation_vector": pl.Array(pl.Float32, tiny.D_MODEL),
        }
        assert table["activation_layer"].unique().to_list() == [tiny.LAYER]
        assert (table["n_raw_tokens"] == table["position"] + 1).all()
        assert table["idx"].is_unique().all()
        assert table["idx"].is_sorted()

    def test_explain_and_score_can_read_it(
        self, target: TargetModel, texts: Path, tmp_path: Path
    ) -> None:
        table = run(target, texts, tmp_path / "a.parquet")
        read = read_activations(tmp_path / "a.parquet")
        np.testing.assert_array_equal(read.vectors, vectors(table))
        assert read.keys["position"].to_list() == table["position"].to_list()
        assert read.layer == tiny.LAYER
        assert read.problems == {}

    def test_source_text_ends_with_the_token_that_was_read(
        self, target: TargetModel, texts: Path, tmp_path: Path
    ) -> None:
        table = run(target, texts, tmp_path / "a.parquet")
        source = {row["doc_id"]: row["text"] for row in pl.read_ndjson(texts).to_dicts()}
        for row in table.iter_rows(named=True):
            ids = target.token_ids([source[row["doc_id"]]], 60)[0]
            text = row["detokenized_text_truncated"]
            assert source[row["doc_id"]].startswith(text)
            assert text.endswith(target.tokenizer.decode([ids[row["position"]]]))

    def test_special_tokens_are_never_read(self, tmp_path: Path, texts: Path) -> None:
        target = load_target(save_target(tmp_path / "m", "llama"), layer_index=1, placement=FLOAT32)
        everything = Sampling(positions_per_document=1000, minimum_position=0, max_tokens=60)
        extract(target, Documents([texts]), tmp_path / "a.parquet", sampling=everything)
        table = pl.read_parquet(tmp_path / "a.parquet")
        assert table["position"].min() == 1  # BOS lies at 0
        assert table.filter(pl.col("position") == 1)["n_raw_tokens"].unique().to_list() == [2]
        assert not table["detokenized_text_truncated"].str.contains("<bos>").any()

    def test_minimum_number_and_cut(self, target: TargetModel, texts: Path, tmp_path: Path) -> None:
        done = extract(
            target,
            Documents([texts]),
            tmp_path / "a.parquet",
            sampling=Sampling(positions_per_document=2, minimum_position=20, max_tokens=30),
        )
        table = pl.read_parquet(tmp_path / "a.parquet")
        assert table["position"].min() >= 20
        assert table["position"].max() < 30
        assert table.group_by("doc_id").len()["len"].max() == 2
        assert table.select("doc_id", "position").is_unique().all()
        assert done.documents == 23
        assert done.too_short == 23 - table["doc_id"].n_unique() > 0

    def test_texts_longer_than_the_model_reads_are_cut(
        self, target: TargetModel, tmp_path: Path
    ) -> None:
        path = tmp_path / "long.txt"
        path.write_text(" ".join(WORDS * 100))
        everything = Sampling(positions_per_document=10_000, minimum_position=0)
        extract(target, Documents([path]), tmp_path / "a.parquet", sampling=everything)
        longest = pl.read_parquet(tmp_path / "a.parquet")["n_raw_tokens"].max()
        assert longest == target.model.config.max_position_embeddings

    def test_positions_spread_over_the_document(self) -> None:
        sampling = Sampling(positions_per_document=1)
        drawn = [sampling.draw(f"d{number}", range(100))[0] for number in range(400)]
        assert 40 < np.mean(drawn) < 60
        assert len(set(drawn)) > 80

    def test_another_seed_draws_other_positions(self) -> None:
        draws = {tuple(Sampling(seed=seed).draw("d", range(1000))) for seed in range(5)}
        assert len(draws) == 5
