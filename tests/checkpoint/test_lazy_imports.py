"""What a pair without adapters never imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

#: Imports every module of the package, then saves and loads a pair.
_PROGRAM = """
import importlib, pkgutil, sys
from pathlib import Path
import nla_audit.checkpoint, nla_audit.nla, nla_audit.runs, nla_audit.train
for package in (nla_audit.nla, nla_audit.checkpoint, nla_audit.runs, nla_audit.train):
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
from nla_audit.nla.injection import Injection
from nla_audit.checkpoint.load import load
from tests.pairs import tiny
folder = Path(sys.argv[1])
tiny.save_pair(folder, "llama", Injection("add", block=1))
load(av=folder / "av", ar=folder / "ar")
print("nla_audit.train.rl" in sys.modules, "peft" in sys.modules)
"""


@pytest.mark.slow
def test_peft_is_imported_only_for_adapters(tmp_path: Path) -> None:
    """It takes seconds that a pair without adapters need not wait."""
    # Fails with: `from peft.tuners.lora import LoraLayer` in save.merged_state.
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.split() == ["True", "False"]
