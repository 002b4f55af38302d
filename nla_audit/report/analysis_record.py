"""From what a report was made: arguments, seed, versions, commit and hashes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nla_audit.findings import Finding
from nla_audit.record import ANALYSIS, commit, plain, versions

if TYPE_CHECKING:
    from nla_audit.table.completions import Completions
    from nla_audit.table.prefix_table import PrefixTable


def analysis_record(
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
        "versions": versions(ANALYSIS),
        "commit": commit(),
    }
