"""An extraction that is divided, or killed and taken up again, gives the same activations."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from nla_audit.runs import extract as extraction
from nla_audit.runs.target import TargetModel, load_target
from nla_audit.shards import Shards
from tests.pairs import tiny
from tests.runs.extracting import (
    FLOAT32,
    KEYS,
    run,
    vectors,
)

#: Small enough that the documents make several shards of several batches.
SHARD_DOCUMENTS, BATCH_TOKENS = 8, 100


class TestDivision:
    """Batches, parts and order of the documents change nothing but the last digits."""

    @pytest.fixture
    def whole(self, target: TargetModel, texts: Path, tmp_path: Path) -> pl.DataFrame:
        return run(target, texts, tmp_path / "whole.parquet")

    @pytest.mark.parametrize("budget", [1, 64, 500])
    def test_batch_size(
        self,
        budget: int,
        target: TargetModel,
        texts: Path,
        whole: pl.DataFrame,
        tmp_path: Path,
    ) -> None:
        table = run(target, texts, tmp_path / "a.parquet", token_budget=budget)
        assert table.select(KEYS).equals(whole.select(KEYS))
        np.testing.assert_allclose(vectors(table), vectors(whole), atol=1e-5, rtol=1e-5)

    def test_parts(
        self, target: TargetModel, texts: Path, whole: pl.DataFrame, tmp_path: Path
    ) -> None:
        tables = [
            run(target, texts, tmp_path / f"{part}.parquet", part=part, parts=3)
            for part in range(3)
        ]
        assert min(table.height for table in tables) > 0
        together = pl.concat(tables).sort("idx")
        assert together.select(KEYS).equals(whole.select(KEYS))
        np.testing.assert_allclose(vectors(together), vectors(whole), atol=1e-5, rtol=1e-5)

    def test_order_of_the_documents(
        self, target: TargetModel, texts: Path, whole: pl.DataFrame, tmp_path: Path
    ) -> None:
        backwards = tmp_path / "backwards.parquet"
        pl.read_ndjson(texts).reverse().write_parquet(backwards)
        table = run(target, backwards, tmp_path / "a.parquet")
        key = ["doc_id", "position"]
        table, whole = table.sort(key), whole.sort(key)
        assert table.select(key).equals(whole.select(key))
        np.testing.assert_allclose(vectors(table), vectors(whole), atol=1e-5, rtol=1e-5)

    def test_same_command_same_bytes(
        self, target: TargetModel, texts: Path, whole: pl.DataFrame, tmp_path: Path
    ) -> None:
        run(target, texts, tmp_path / "again.parquet")
        first, second = tmp_path / "whole.parquet", tmp_path / "again.parquet"
        assert first.read_bytes() == second.read_bytes()

    def test_out_of_memory_halves_the_batch_and_says_so(
        self,
        target: TargetModel,
        texts: Path,
        whole: pl.DataFrame,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        original = TargetModel.activations

        def small(self: TargetModel, ids: Sequence[Any], positions: Any) -> Any:
            if len(ids) > 3:
                raise torch.OutOfMemoryError
            return original(self, ids, positions)

        monkeypatch.setattr(TargetModel, "activations", small)
        said: list[str] = []
        table = run(target, texts, tmp_path / "a.parquet", token_budget=4096, notice=said.append)
        # A batch of another size sums in another order: rounding is a share of the vector's size.
        found, expected = vectors(table), vectors(whole)
        size = np.linalg.norm(expected, axis=-1, keepdims=True)
        np.testing.assert_allclose(found / size, expected / size, atol=1e-5, rtol=0)
        assert said[0] == "out of memory with 22 rows in a batch; going on with 11"


def run_and_die(model: Path, texts: Path, out: Path, pieces: int) -> None:
    """Extract in this process until SIGKILL strikes while piece number ``pieces`` is written."""
    torch.set_num_threads(1)
    put = Shards.put

    def put_and_die(self: Shards, stage: str, number: int, piece: pl.DataFrame) -> None:
        nonlocal pieces
        if pieces == 0:
            # Half a piece, as a kill in the middle of writing leaves it.
            (self.folder / f".{stage}-{number:06d}.parquet.writing-0123abcd").write_bytes(b"PAR1")
            os.kill(os.getpid(), signal.SIGKILL)
        pieces -= 1
        put(self, stage, number, piece)

    Shards.put = put_and_die
    extraction.DOCUMENTS_PER_SHARD = SHARD_DOCUMENTS
    target = load_target(model, layer_index=tiny.LAYER, placement=FLOAT32)
    run(target, texts, out, token_budget=BATCH_TOKENS)


class TestResume:
    """A run that is killed loses at most one batch, and ends in the same bytes."""

    @pytest.fixture(autouse=True)
    def small_shards(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(extraction, "DOCUMENTS_PER_SHARD", SHARD_DOCUMENTS)

    def counted(
        self,
        target: TargetModel,
        texts: Path,
        out: Path,
        monkeypatch: pytest.MonkeyPatch,
        **options: Any,
    ) -> int:
        """Run to the end; how many batches the model read."""
        batches = 0
        original = TargetModel.activations

        def count(self: TargetModel, ids: Any, positions: Any) -> Any:
            nonlocal batches
            batches += 1
            return original(self, ids, positions)

        with monkeypatch.context() as patch:
            patch.setattr(TargetModel, "activations", count)
            run(target, texts, out, token_budget=BATCH_TOKENS, **options)
        return batches

    def check_resumed(
        self, target: TargetModel, texts: Path, pieces: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Resume a run that was stopped after ``pieces`` pieces; compare with a whole one."""
        folder, out = texts.parent, texts.parent / "stopped.parquet"
        all_batches = self.counted(target, texts, folder / "whole.parquet", monkeypatch)
        assert not out.exists()
        shards = len(list(folder.rglob("shard-*.parquet")))
        again = self.counted(target, texts, out, monkeypatch)
        assert again == all_batches - (pieces - shards)
        assert out.read_bytes() == (folder / "whole.parquet").read_bytes()
        assert sorted(path.name for path in folder.iterdir()) == [
            "stopped.parquet",
            "stopped.parquet.record.json",
            "texts.jsonl",
            "whole.parquet",
            "whole.parquet.record.json",
        ]

    @pytest.mark.slow
    def test_kill(
        self, qwen: Path, target: TargetModel, texts: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Spawned, not forked: the threads of polars and torch do not survive a fork.
        process = multiprocessing.get_context("spawn").Process(
            target=run_and_die, args=(qwen, texts, texts.parent / "stopped.parquet", 9)
        )
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
        self.check_resumed(target, texts, 9, monkeypatch)

    @pytest.mark.parametrize("pieces", range(9))
    def test_stop_anywhere(
        self, pieces: int, target: TargetModel, texts: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original, left = Shards.put, pieces

        def stop(self: Shards, stage: str, number: int, piece: pl.DataFrame) -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            original(self, stage, number, piece)

        with monkeypatch.context() as patch:
            patch.setattr(Shards, "put", stop)
            with pytest.raises(KeyboardInterrupt):
                run(target, texts, texts.parent / "stopped.parquet", token_budget=BATCH_TOKENS)
        self.check_resumed(target, texts, pieces, monkeypatch)

    def test_progress_goes_up_with_every_batch(self, target: TargetModel, texts: Path) -> None:
        told: list[tuple[str, int, int]] = []
        run(
            target,
            texts,
            texts.parent / "a.parquet",
            token_budget=BATCH_TOKENS,
            progress=lambda *step: told.append(step),
        )
        assert told.pop(0) == ("hashing the model and the texts", 0, 0)
        done = [step[1] for step in told]
        assert done == sorted(done)
        assert (done[0], done[-1]) == (0, 23)
        assert len(set(done)) > 23 / SHARD_DOCUMENTS + 2
        assert {(stage, total) for stage, _, total in told} == {("documents", 23)}

    def test_another_setting_starts_afresh(
        self, target: TargetModel, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = Shards.put

        def stop(self: Shards, stage: str, number: int, piece: pl.DataFrame) -> None:
            if number == 2:
                raise KeyboardInterrupt
            original(self, stage, number, piece)

        with monkeypatch.context() as patch:
            patch.setattr(Shards, "put", stop)
            with pytest.raises(KeyboardInterrupt):
                run(target, texts, tmp_path / "a.parquet", token_budget=BATCH_TOKENS)
        assert list(tmp_path.rglob("*.parquet"))
        said: list[str] = []
        texts.write_text(texts.read_text().replace("fair", "word"))
        changed = self.counted(
            target, texts, tmp_path / "a.parquet", monkeypatch, notice=said.append
        )
        assert "parts of an unfinished run with other settings; not used" in said[0]
        assert changed == self.counted(target, texts, tmp_path / "b.parquet", monkeypatch)
        assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
