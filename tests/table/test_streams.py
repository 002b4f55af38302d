"""Tables from pipes and standard input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from nla_audit.table.completions import from_frame, load
from nla_audit.table.prefix_table import read_prefixes
from nla_audit.table.readers import column_names
from tests.table.refused import ROW, json_lines, refused, same_rows

ROOT = Path(__file__).parents[2]


@contextmanager
def _as_standard_input(path: Path, *, is_pipe: bool) -> Iterator[None]:
    """What ``path`` holds on descriptor 0, from a pipe that holds it all, or as the file."""
    kept = os.dup(0)
    if is_pipe:
        source, into = os.pipe()
        os.write(into, path.read_bytes())  # a few hundred bytes, which any pipe takes
        os.close(into)
    else:
        source = os.open(path, os.O_RDONLY)
    os.dup2(source, 0)
    os.close(source)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


class TestStreams:
    @staticmethod
    def run(*arguments: object, shell: bool = False, **more: Any) -> subprocess.CompletedProcess:
        program = [sys.executable, "-m", "nla_audit.cli", *map(str, arguments)]
        environment = {**os.environ, **more.pop("environment", {})}
        return subprocess.run(
            program, cwd=ROOT, env=environment, capture_output=True, check=False, **more
        )

    @pytest.mark.parametrize("name", ["-", "/dev/stdin"])
    def test_a_pipe_is_read_once(self, table: pl.DataFrame, tmp_path: Path, name: str) -> None:
        table.write_parquet(tmp_path / "t.parquet")
        done = self.run("tail", name, "--json", input=(tmp_path / "t.parquet").read_bytes())
        assert done.returncode == 0, done.stderr
        assert set(json.loads(done.stdout)["headline"]) == {"base", "p0.0", "p0.03"}

    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    @pytest.mark.parametrize("is_pipe", [True, False])
    def test_standard_input_is_told_by_its_columns(
        self, tmp_path: Path, suffix: str, is_pipe: bool
    ) -> None:
        """Prefixes and completions go to one command, which reads the columns first."""
        prefixes = pl.DataFrame(
            {"model": "m", "unit": "tokens", "length": [1, 2, 3], "fve": [0.1, 0.2, 0.3]}
        )
        path = tmp_path / f"t.{suffix}"
        getattr(prefixes, f"write_{suffix}")(path)
        with _as_standard_input(path, is_pipe=is_pipe):
            for name in ("-", "/dev/stdin"):
                assert column_names([name]) == [prefixes.columns]
            assert read_prefixes(["-"]).models == ("m",)

    def test_a_one_row_table_of_lists_is_no_wrapper(self, tmp_path: Path) -> None:
        row = {**ROW, "messages": [{"role": "user"}]}
        assert load([json_lines(tmp_path / "t.jsonl", row)]).rows.height == 1

    @pytest.mark.parametrize("name", ["/dev/zero", "/dev/null"])
    def test_devices_are_refused_by_name(self, name: str) -> None:
        refused(Path(name), "a device, not a table")

    def test_an_endless_stream_that_is_no_table_ends_at_once(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with subprocess.Popen(["sh", "-c", f"yes > '{tmp_path / 'pipe'}'"]) as writer:
            refused(tmp_path / "pipe", "not a table of a known format")
            writer.wait(timeout=10)

    def test_a_name_that_is_not_utf8(self, table: pl.DataFrame, tmp_path: Path) -> None:
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/t\xff.parquet"))
        with path.open("wb") as file:
            table.write_parquet(file)
        assert same_rows(load([path]), from_frame(table))

    @pytest.mark.parametrize(
        "environment",
        [
            {"PYTHONIOENCODING": "ascii"},
            {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
            {"PYTHONIOENCODING": "latin-1"},
        ],
    )
    def test_terminals_without_unicode(
        self, table: pl.DataFrame, tmp_path: Path, environment: dict[str, str]
    ) -> None:
        table.with_columns(model=pl.col("model") + " λ🌊").write_parquet(tmp_path / "t.parquet")
        # Both in one process, for it is the process that has the terminal's encoding.
        program = (
            "import sys; from nla_audit import cli; first = cli.run(sys.argv[1:]); "
            "print('\\0', flush=True); cli.main([*sys.argv[1:], '--json'] if not first else [])"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, "tail", tmp_path / "t.parquet"],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        shown, plain = done.stdout.split(b"\0")
        assert b"\\u03bb" in shown
        assert "p0.0 λ🌊" in json.loads(plain)["headline"]

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
    @pytest.mark.parametrize("arguments", [["--json"], []])
    def test_a_full_disk_behind_standard_output(
        self, table: pl.DataFrame, tmp_path: Path, arguments: list[str]
    ) -> None:
        table.write_parquet(tmp_path / "t.parquet")
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "nla_audit.cli", "tail", tmp_path / "t.parquet", *arguments],
                cwd=ROOT,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "cannot write (No space left on device)" in done.stderr
