"""The command line starts light: what a command imports, not how long this machine takes.

Times depend on the machine and are in ``benchmarks/``; which modules are imported does not.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from nla_audit.cli import SUBCOMMANDS
from nla_audit.commands.listing import analyzer_names

#: Each takes longer to import than a list of commands may take to appear.
HEAVY = ("torch", "transformers", "polars", "numpy", "scipy", "sklearn", "matplotlib")
MODELS = ("torch", "transformers", "sentence_transformers")


def imported(*arguments: str) -> set[str]:
    """Names of all modules that ``nla-audit`` with ``arguments`` imports, in a fresh Python."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "nla_audit.cli", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert len(lines) > 50, "the import log is there"
    return {line.rsplit("|", maxsplit=1)[1].strip() for line in lines}


def packages(modules: set[str]) -> set[str]:
    return {module.split(".")[0] for module in modules}


def test_import_log_would_show_a_heavy_import(tmp_path: Path) -> None:
    """A control: the same log of a command that reads a table does name polars."""
    path = tmp_path / "t.parquet"
    pl.DataFrame({"model": ["a"], "idx": [0], "explanation": ["one"]}).write_parquet(path)
    assert "polars" in packages(imported("tail", str(path), "--json"))


@pytest.mark.parametrize("arguments", [("--help",), ("--version",)])
def test_help_imports_no_analyzer_and_nothing_heavy(arguments: tuple[str, ...]) -> None:
    modules = imported(*arguments)
    assert packages(modules).isdisjoint(HEAVY)
    assert not [name for name in modules if name.startswith("nla_audit.analyzers.")]


@pytest.mark.parametrize("command", [*SUBCOMMANDS, *analyzer_names()])
def test_help_of_a_command_imports_no_model_library(command: str) -> None:
    assert packages(imported(command, "--help")).isdisjoint(MODELS)


@pytest.mark.parametrize("name", analyzer_names())
def test_an_analyzer_needs_no_model_library(name: str, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    rows = [
        {
            "model": model,
            "idx": idx,
            "source_text": "the harbour of the town",
            "explanation": f"Harbour news {idx}. The final token is “town”.",
            "n_tokens": 30,
            "fve": 0.5,
        }
        for model in ("p0.0", "p0.01")
        for idx in range(24)
    ]
    pl.DataFrame(rows).write_parquet(path)
    assert packages(imported(name, str(path), "--json")).isdisjoint(MODELS)
