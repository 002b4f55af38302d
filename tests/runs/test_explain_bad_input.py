"""What ``nla-audit explain`` says to input that cannot be explained."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from nla_audit.checkpoint.load import Pair
from nla_audit.errors import UserError
from nla_audit.nla import generation
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.record import record_path
from nla_audit.runs.activations import read_activations
from nla_audit.runs.explain import ExplainSettings, explain
from tests.pairs import talking
from tests.pairs.explaining import OPTIONS, run, table_of


class TestBadInput:
    @pytest.fixture
    def fails(self, pair_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
        def run_it(table: Path | pl.DataFrame, *options: object) -> str:
            if isinstance(table, pl.DataFrame):
                table.write_parquet(tmp_path / "in.parquet")
                table = tmp_path / "in.parquet"
            pair = () if "--pair" in options else (pair_path,)
            assert run(*pair, table, "--out", tmp_path / "out.parquet", *options) == 2
            error = capsys.readouterr().err.splitlines()[-1]
            assert error.startswith("error: ")
            assert not (tmp_path / "out.parquet").exists()
            return error

        return run_it

    def test_bad_rows_are_named(
        self, pair_path: Path, activations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(pair_path, activations, "--out", tmp_path / "o.parquet", *OPTIONS) == 0
        error = capsys.readouterr().err
        assert "row 7 (idx 107): not finite; row 11 (idx 111): zero vector" in error

    def test_wrong_width(self, fails: Any, vectors: np.ndarray) -> None:
        assert "are 31 wide, the AV av needs 32" in fails(table_of(vectors[:, :31]))

    def test_column_missing(self, fails: Any, vectors: np.ndarray) -> None:
        table = table_of(vectors)
        error = fails(table.rename({"activation_vector": "activations_vector"}))
        assert 'column "activation_vector" is missing: rename "activations_vector"' in error
        assert "is missing: the columns there are: a" in fails(pl.DataFrame({"a": [1]}))

    def test_vectors_of_different_widths(self, fails: Any) -> None:
        table = pl.DataFrame({"activation_vector": [[1.0] * 32, [1.0] * 31]})
        assert "row 1 holds 31 numbers where others hold 32" in fails(table)

    def test_no_vectors(self, fails: Any) -> None:
        assert "holds String" in fails(pl.DataFrame({"activation_vector": ["x"]}))
        assert "no rows" in fails(table_of(np.ones((3, 32))).clear())
        assert "no usable activation in 3" in fails(table_of(np.zeros((3, 32))))

    def test_repeated_and_missing_idx(self, fails: Any, vectors: np.ndarray) -> None:
        table = table_of(vectors)
        assert 'row 1: column "idx" repeats 5' in fails(table.with_columns(idx=pl.lit(5)))
        gap = table.with_columns(idx=pl.when(pl.col("idx") != 104).then("idx"))
        assert 'row 4: column "idx" is empty' in fails(gap)

    def test_another_layer(self, fails: Any, vectors: np.ndarray, tmp_path: Path) -> None:
        table = table_of(vectors, activation_layer=pl.lit(3))
        assert "activations of layer 3, the pair is for layer 2" in fails(table)
        mixed = table.with_columns(activation_layer=pl.col("idx") % 2)
        assert "several layers (0, 1)" in fails(mixed)

    def test_layers_may_be_forced(
        self, pair_path: Path, vectors: np.ndarray, tmp_path: Path
    ) -> None:
        table_of(vectors, activation_layer=pl.lit(3)).write_parquet(tmp_path / "a.parquet")
        arguments = (pair_path, tmp_path / "a.parquet", "--out", tmp_path / "o.parquet", *OPTIONS)
        assert run(*arguments, "--force") == 0

    def test_halves_of_different_pairs(self, fails: Any, activations: Path, tmp_path: Path) -> None:
        other = talking.save_pair(tmp_path / "other", layer=1)
        error = fails(activations, "--ar", other / "ar")
        assert "the AV was trained on layer 2, the AR predicts layer 1" in error

    def test_not_parquet(self, fails: Any, tmp_path: Path) -> None:
        path = tmp_path / "broken.parquet"
        path.write_bytes(b"PAR1 and no more")
        assert "not a whole Parquet file" in fails(path)
        assert "no such file" in fails(tmp_path / "none.parquet")

    def test_options_that_cannot_be(self, fails: Any, activations: Path) -> None:
        assert "would all be the same" in fails(activations, "--greedy", "--samples", 2)
        assert "expected replace:SCALE" in fails(activations, "--injection", "replace:x")
        assert "temperature nan" in fails(activations, "--temperature", "nan")
        assert "length penalty inf" in fails(activations, "--length-penalty", "inf")
        assert "--baseline-value" in fails(activations, "--baseline-value", "mean=1")
        assert "must be a positive number" in fails(
            activations, "--baseline-value", "raw_variance=-1"
        )

    def test_an_output_that_is_no_parquet_file(
        self, fails: Any, activations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Verbalizer, "generate", None)  # said before anything is explained
        monkeypatch.chdir(tmp_path)
        for folder in (".", tmp_path):
            assert "is a folder" in fails(activations, "--out", folder)
        assert "end the name in .parquet" in fails(activations, "--out", tmp_path / "o.csv")
        odd = os.fsdecode(os.fsencode(tmp_path) + b"/o\xff.parquet")
        assert "not a UTF-8 name" in fails(activations, "--out", odd)

    def test_a_device_without_numbers(self, fails: Any, activations: Path) -> None:
        assert "--device meta: holds no weights" in fails(activations, "--device", "meta")

    def test_a_finished_run_that_was_damaged(
        self,
        pair_path: Path,
        activations: Path,
        explained: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        out = tmp_path / "[c] 1*.parquet"  # and a name that a pattern would be read from
        record = record_path(out)
        arguments = (pair_path, activations, "--out", out, *OPTIONS)
        out.write_bytes(explained.read_bytes())
        record.write_bytes(record_path(explained).read_bytes())
        assert run(*arguments) == 0
        assert "already finished" in capsys.readouterr().err
        out.write_bytes(explained.read_bytes()[:500])
        assert run(*arguments) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith(f"error: {out}: not a whole Parquet file (")
        assert "run the same command again" in error
        record.write_text("{")
        assert run(*arguments) == 2
        assert f"remove {out} and it, and run" in capsys.readouterr().err

    @pytest.fixture
    def tight_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No room for more than eight rows."""
        generate = generation.generate

        def tight(model: Any, prompt: Any, injection: Any, rows: Any, **options: Any) -> Any:
            if len(rows) > 8:
                raise torch.OutOfMemoryError("no room")
            return generate(model, prompt, injection, rows, **options)

        monkeypatch.setattr(generation, "generate", tight)

    @pytest.mark.usefixtures("tight_memory")
    def test_out_of_memory_halves_the_batch(
        self,
        pair_path: Path,
        activations: Path,
        explained: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        out = tmp_path / "o.parquet"
        assert run(pair_path, activations, "--out", out, *OPTIONS) == 0
        assert "out of memory with 16 rows in a batch; going on with 8" in capsys.readouterr().err
        wanted = pl.read_parquet(explained)
        assert pl.read_parquet(out)["explanation"].equals(wanted["explanation"])


def test_half_a_pair_is_refused(pair: Pair, activations: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs both halves"):
        explain(
            Pair(pair.verbalizer, None),
            read_activations(activations),
            tmp_path / "o.parquet",
            ExplainSettings("m", "r"),
        )


def test_an_answer_that_the_av_has_no_room_for(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with a table of positions fails behind its last, others were never trained there."""
    verbalizer = pair.verbalizer
    assert verbalizer is not None
    room = 512 - len(verbalizer.prompt.ids)
    vector = np.ones((1, 32), dtype=np.float32)
    monkeypatch.setattr(
        verbalizer.model.config, "max_position_embeddings", len(verbalizer.prompt.ids)
    )
    with pytest.raises(UserError, match="an answer of 1 has no room; lower the cap on new tokens"):
        verbalizer.generate(vector, max_new_tokens=1)
    monkeypatch.setattr(verbalizer.model.config, "max_position_embeddings", 512)
    assert len(verbalizer.generate(vector, max_new_tokens=room).responses) == 1
    with pytest.raises(UserError, match=f"an answer of {room + 1} has no room"):
        verbalizer.generate(vector, max_new_tokens=room + 1)
