"""From what a report was made: arguments, seed, versions, commit and hashes."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nla_audit
from nla_audit.findings import Finding
from nla_audit.unicode_form import well_formed

if TYPE_CHECKING:
    from nla_audit.completions import Completions
    from nla_audit.prefix_table import PrefixTable

#: The packages whose version can change a number or a picture.
_PACKAGES = ("polars", "numpy", "scipy", "scikit-learn", "matplotlib")


def run_record(
    completions: Completions | PrefixTable,
    findings: list[Finding],
    *,
    seed: int,
    arguments: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Everything that determines the findings, and nothing that changes from run to run.

    Times and the output folder are not in it: the same table and seed give the same record.
    """
    return {
        "arguments": {
            str(key): plain(value)
            for key, value in (arguments or {}).items()
            if key not in ("out", "progress")
        },
        "seed": seed,
        "reference": completions.reference,
        "ruler": completions.ar,
        "overhead_tokens": getattr(completions, "overhead_tokens", None),
        "models": list(completions.models),
        "length_penalties": {
            name: completions.length_penalties.get(name) for name in completions.models
        },
        "activations": completions.rows["idx"].drop_nulls().n_unique(),
        "rows": completions.rows.height,
        "tables": [plain(asdict(source)) for source in completions.sources],
        "parameters": {finding.analyzer: plain(finding.parameters) for finding in findings},
        "versions": package_versions(),
        "commit": commit(),
    }


def package_versions() -> dict[str, str]:
    """Versions of Python, of this package and of those it computes with."""
    versions = {"python": platform.python_version(), "nla-audit": nla_audit.__version__}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


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


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: containers by element, all else by its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return well_formed(str(value))
