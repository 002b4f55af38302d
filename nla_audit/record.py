"""What every record of a run holds, whoever writes it: command, arguments, versions, commit."""

from __future__ import annotations

import math
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import nla_audit
from nla_audit.unicode_form import well_formed

#: The packages whose version can change a number or a picture of an analysis of tables.
ANALYSIS = ("polars", "numpy", "scipy", "scikit-learn", "matplotlib")
#: The packages whose version can change a digit of what a model makes of its input.
MODELS = ("torch", "transformers", "tokenizers", "peft", "safetensors", "numpy", "polars")


def run_record(
    command: str, arguments: Mapping[str, Any] | None, packages: Iterable[str]
) -> dict[str, Any]:
    """What any run is repeated from; what is particular to it stands beside this.

    Args:
        command: of ``nla-audit``.
        arguments: as passed; ``None`` where a run was not started from the command line.
        packages: those it computed with.
    """
    return {
        "written_by": f"nla-audit {command}",
        "arguments": plain(dict(sorted((arguments or {}).items()))),
        "versions": versions(packages),
        "commit": commit(),
    }


def record_path(out: Path) -> Path:
    """Where the record of an output lies: ``completions.parquet.record.json``."""
    return out.with_name(f"{out.name}.record.json")


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python, of this package and of ``packages``."""
    found = {"python": platform.python_version(), "nla-audit": nla_audit.__version__}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def commit() -> str | None:
    """The commit of the checkout this package runs from, ``None`` outside of one.

    ``+changes`` is added where tracked files differ from that commit.
    """
    root = Path(nla_audit.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "nla_audit")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if changed else "")


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: containers by element, all else by its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return well_formed(str(value))


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
