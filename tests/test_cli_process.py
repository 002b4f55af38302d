"""The command line as a process: exit codes, streams, interrupts, and what it imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl

ROOT = Path(__file__).parents[1]


class TestProcess:
    """What only a real process shows."""

    @staticmethod
    def command(*arguments: object) -> list[str]:
        return [sys.executable, "-m", "nla_audit.cli", *map(str, arguments)]

    def test_help_imports_nothing_heavy(self) -> None:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "nla_audit.cli", "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
        assert "click" in imported
        heavy = {"torch", "polars", "numpy", "sklearn", "matplotlib", "huggingface_hub", "rich"}
        assert not imported & heavy

    def test_exit_code_and_one_line(self, tmp_path: Path) -> None:
        done = subprocess.run(
            self.command("frontier", tmp_path / "none.parquet"),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1

    def test_closed_standard_input_is_an_empty_one(self) -> None:
        """Not whatever file of ours took its number, which may never end."""
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" <&-', "sh", *self.command("tail", "-")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 2
        assert done.stderr.startswith("error: -: a device")

    def test_closed_streams_are_held_for_other_processes_too(self) -> None:
        """Or the first file that one of them opens is its standard input."""
        program = """
import subprocess, sys
from nla_audit.terminal_streams import hold_closed
hold_closed()
sys.exit(subprocess.run(["sh", "-c", "test -e /dev/fd/0"]).returncode)
"""
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-c", program],
            cwd=ROOT,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0

    def test_reader_that_goes_away(self, table: pl.DataFrame, tmp_path: Path) -> None:
        table.write_parquet(tmp_path / "t.parquet")
        process = subprocess.Popen(
            self.command("frontier", tmp_path / "t.parquet", "--json"),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        process.wait(timeout=60)

    def test_interrupt(self, table: pl.DataFrame, tmp_path: Path) -> None:
        table.write_parquet(tmp_path / "t.parquet")
        program = """
import os, signal, sys, time
from dataclasses import replace
from nla_audit import analyzers, cli, findings
def slow(completions, **options):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
signal.signal(signal.SIGINT, signal.default_int_handler)
findings._REGISTRY["frontier"] = replace(analyzers.registry()["frontier"], run=slow)
cli.main(["frontier", sys.argv[1], "--out", sys.argv[2]])
"""
        done = subprocess.run(
            [sys.executable, "-c", program, tmp_path / "t.parquet", tmp_path / "out"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        assert done.returncode == 130
        assert done.stderr.strip() == "interrupted"
        assert not (tmp_path / "out").exists()
