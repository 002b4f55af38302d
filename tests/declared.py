"""Numbers of a headline beside those that the card declares."""

from __future__ import annotations

from collections.abc import Iterable

from nla_audit.findings import Finding, Metric


def undeclared(finding: Finding) -> list[str]:
    """Keys of the headline that no declared metric covers."""
    return sorted(
        key for key in _keys(finding) if not any(metric.covers(key) for metric in finding.metrics)
    )


def absent(finding: Finding, metrics: Iterable[Metric]) -> list[str]:
    """Keys that ``metrics`` promise and the headline lacks, their intervals and chance included."""
    keys = _keys(finding)
    promised = []
    for metric in metrics:
        names = [metric.name]
        if metric.name.endswith("*"):
            family = metric.name.removesuffix("*")
            names = [k for k in keys if k.startswith(family) and not k.endswith(("_low", "_high"))]
            names = names or [metric.name]
        if metric.chance:
            names += [f"chance_{name}" for name in names]
        for name in names:
            promised += [name, *([f"{name}_low", f"{name}_high"] if metric.interval else [])]
    return sorted(set(promised) - keys)


def _keys(finding: Finding) -> set[str]:
    return {key for row in finding.headline.values() for key in row}
