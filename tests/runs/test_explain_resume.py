"""A run of ``nla-audit explain`` that was killed goes on where it was, and writes the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from nla_audit import cli
from nla_audit.checkpoint.load import Pair
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.runs.activations import read_activations
from nla_audit.runs.explain import ExplainSettings, explain
from nla_audit.shards import Shards
from tests.pairs.explaining import OPTIONS, run

ROOT = Path(__file__).parents[2]


class TestResume:
    def killed(self, put: int, half_written: bool, *arguments: object) -> None:
        """Run the command in a process that is killed when it keeps its ``put``-th batch."""
        program = """
import os, signal, sys
import torch
from nla_audit import cli
from nla_audit.shards import Shards
torch.set_num_threads(1)
put, calls, limit, half = Shards.put, [0], int(sys.argv[1]), sys.argv[2] == "half"
def dying(self, stage, number, piece):
    calls[0] += 1
    if calls[0] == limit:
        if half:
            (self.folder / f".{stage}-{number:06d}.parquet.writing-0123abcd").write_bytes(b"PAR1")
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, stage, number, piece)
Shards.put = dying
cli.main(sys.argv[3:])
"""
        command = [sys.executable, "-c", program, str(put), "half" if half_written else "no"]
        done = subprocess.run(
            [*command, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == -9, done.stderr

    @pytest.mark.slow
    def test_kill_loses_one_batch_and_changes_nothing(
        self,
        pair_path: Path,
        activations: Path,
        explained: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        out = tmp_path / "completions.parquet"
        arguments = ("explain", pair_path, activations, "--out", out, *OPTIONS)
        # 58 rows in batches of 16: the first kill hits the third of four batches of the AV, the
        # second one the second batch of the AR (two of the AV and one of the AR later).
        self.killed(3, True, *arguments)
        (folder,) = tmp_path.glob(".completions.parquet.parts-*")
        assert len(list(folder.glob("explained-*.parquet"))) == 2
        assert not out.exists()
        self.killed(4, False, *arguments)
        assert len(list(folder.glob("explained-*.parquet"))) == 4
        assert len(list(folder.glob("read-*.parquet"))) == 1

        kept: list[str] = []
        put = Shards.put
        monkeypatch.setattr(
            Shards,
            "put",
            lambda self, stage, number, piece: (
                kept.append(stage),
                put(self, stage, number, piece),
            ),
        )
        monkeypatch.setattr(Verbalizer, "generate", None)  # nothing may be explained again
        assert cli.run(list(map(str, arguments))) == 0
        assert kept
        assert set(kept) == {"read"}
        assert out.read_bytes() == explained.read_bytes()
        assert not folder.exists()

    def test_other_settings_start_afresh(
        self, pair: Pair, activations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = read_activations(activations)
        out = tmp_path / "c.parquet"

        def stopped(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("nla_audit.runs.explain.score_rows", stopped)
            with pytest.raises(KeyboardInterrupt):
                explain(pair, given, out, ExplainSettings("m", "r"), notice=lambda _: None)
        said: list[str] = []
        explain(pair, given, out, ExplainSettings("m", "r", seed=1), notice=said.append)
        assert any("other settings; not used" in sentence for sentence in said)
        assert len(list(tmp_path.glob(".c.parquet.parts-*"))) == 1  # the stopped run's, kept

    def test_damaged_piece_is_done_again(
        self, pair: Pair, activations: Path, explained: Path, tmp_path: Path
    ) -> None:
        shards = Shards(tmp_path / "x.parquet", "0" * 64)
        shards.put("read", 0, pl.DataFrame({"row": [1]}))
        assert shards.get("read", 0) is not None
        (shards.folder / "read-000000.parquet").write_bytes(b"")
        assert shards.get("read", 0) is None

    def test_finished_run_is_not_repeated(
        self,
        pair_path: Path,
        activations: Path,
        explained: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(Verbalizer, "generate", None)
        before = explained.read_bytes()
        assert run(pair_path, activations, "--out", explained, *OPTIONS) == 0
        assert "already finished" in capsys.readouterr().err
        assert run(pair_path, activations, "--out", explained, *OPTIONS, "--seed", "5") == 2
        assert "made by another run" in capsys.readouterr().err
        assert explained.read_bytes() == before
