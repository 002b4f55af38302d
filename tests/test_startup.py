"""The command line starts light: what a command imports, not how long this machine takes.

Times depend on the machine and are in ``benchmarks/``; which modules are imported does not.
"""

from __future__ import annotations

import json
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
#: Commands whose help is made of a list of options; that of `train` lists the gradings, and `demo`
#: is the planted world itself.
LIGHT = [name for name in SUBCOMMANDS if name not in ("demo", "train")]


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


#: Runs each of the given command lines in turn, and prints for each its exit status and the names
#: of the packages that it was the first to import. A later one is then not asked about a package
#: that an earlier one is blamed for: whoever imports a model library, one of them is named.
IN_TURN = """
import contextlib, io, json, sys
from nla_audit.cli import run
told = []
for arguments in json.loads(sys.argv[1]):
    before = set(sys.modules)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = run(arguments)
    new = sorted({name.split(".")[0] for name in set(sys.modules) - before})
    told.append([code, len(printed.getvalue()), new])
print(json.dumps(told))
"""


def first_imports(lines: list[list[str]]) -> dict[str, set[str]]:
    """Command → packages that it imported first, all run in one fresh Python."""
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, json.dumps(lines)],
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert [(code, printed > 0) for code, printed, _ in told] == [(0, True)] * len(lines)
    return {line[0]: set(new) for line, (_, _, new) in zip(lines, told, strict=True)}


def test_help_that_is_a_list_of_options_imports_nothing_heavy() -> None:
    found = first_imports([[command, "--help"] for command in LIGHT])
    assert {name: new for name, new in found.items() if not new.isdisjoint(HEAVY)} == {}


@pytest.fixture(scope="module")
def by_help() -> dict[str, set[str]]:
    """What the help of each command imports."""
    return first_imports([[command, "--help"] for command in (*SUBCOMMANDS, *analyzer_names())])


@pytest.fixture(scope="module")
def by_analyzer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What each analyzer imports, when it reads a table."""
    path = tmp_path_factory.mktemp("startup") / "t.parquet"
    rows = [
        {
            "model": model,
            "idx": idx,
            "sample": sample,
            "source_text": "the harbour of the town",
            "explanation": f"Harbour news {idx}. The final token is “town”.",
            "n_tokens": 30,
            "fve": 0.5,
        }
        for model in ("p0.0", "p0.01")
        for idx in range(24)
        for sample in (0, 1)
    ]
    pl.DataFrame(rows).write_parquet(path)
    found = first_imports([[name, str(path), "--json"] for name in analyzer_names()])
    assert "polars" in set().union(*found.values()), "a control: what is imported is seen"
    return found


@pytest.mark.parametrize("command", [*SUBCOMMANDS, *analyzer_names()])
def test_help_of_a_command_imports_no_model_library(
    command: str, by_help: dict[str, set[str]]
) -> None:
    assert by_help[command].isdisjoint(MODELS)


def test_a_writer_that_is_asked_over_the_wire_needs_nothing_heavy() -> None:
    program = "import sys, nla_audit.llm.endpoint; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.split())
    assert "nla_audit.llm.checks" in modules
    assert packages(modules).isdisjoint(HEAVY)


@pytest.mark.parametrize("name", analyzer_names())
def test_an_analyzer_needs_no_model_library(name: str, by_analyzer: dict[str, set[str]]) -> None:
    assert by_analyzer[name].isdisjoint(MODELS)


def test_an_audit_whose_figures_are_drawn_aside_need_not_import_what_draws() -> None:
    ask = "import sys, nla_audit.report.audit; print('matplotlib.figure' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
