"""The record that a command leaves beside the file it wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nla_audit.report.record import commit, package_versions

#: What computes activations and texts, beside the packages that every record names.
_MODEL_PACKAGES = ("torch", "transformers", "peft", "tokenizers")


def record_path(output: Path) -> Path:
    """Where the record of ``output`` lies: ``activations.parquet.record.json``."""
    return output.with_name(f"{output.name}.record.json")


def write_record(
    output: Path, *, command: str, arguments: Mapping[str, Any], facts: Mapping[str, Any]
) -> Path:
    """Write what is needed to make ``output`` again; returns the record's path.

    Args:
        command: the name of the command.
        arguments: as they were given; paths are written as text.
        facts: what they resolved to and what came out: hashes, seeds, counts.
    """
    record = {
        "written_by": f"nla-audit {command}",
        "arguments": {key: _plain(value) for key, value in sorted(arguments.items())},
        **{key: _plain(value) for key, value in facts.items()},
        "versions": {**package_versions(), **_model_versions()},
        "commit": commit(),
    }
    path = record_path(output)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    partial.write_text(text + "\n", encoding="utf-8", newline="\n")
    partial.replace(path)
    return path


def _model_versions() -> dict[str, str]:
    versions = {}
    for name in _MODEL_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _plain(value: Any) -> Any:
    """``value`` as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
