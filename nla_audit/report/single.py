"""One finding as files: ``nla-audit <analyzer> --out DIR``, and of a probe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nla_audit.findings import Finding
from nla_audit.report.analysis_record import analysis_record
from nla_audit.report.contents import of_one_finding
from nla_audit.report.document import what_was_audited
from nla_audit.report.writing import write_report
from nla_audit.table.model_names import length_penalty_of, ordered

if TYPE_CHECKING:
    from nla_audit.table.completions import Completions
    from nla_audit.table.prefix_table import PrefixTable


def write_finding(
    finding: Finding,
    table: Completions | PrefixTable,
    out: Path,
    *,
    seed: int,
    arguments: Mapping[str, Any],
) -> list[Path]:
    """Write ``<analyzer>.html``, ``.md``, ``.json`` and ``.record.json``, and ``figures/``.

    The folder is made if need be; other files in it stay. The files appear whole and together.

    Raises:
        UserError: ``out`` cannot be written.
    """
    record = analysis_record(table, [finding], seed=seed, arguments=arguments)
    report = of_one_finding(
        finding,
        length_penalties=record["length_penalties"],
        record=record,
        what=what_was_audited(record),
    )
    return write_report(report, out)


def by_penalty(models: Iterable[str]) -> dict[str, float | None]:
    """λ of each model as its name states it, in the order of λ."""
    penalties = {name: length_penalty_of(name) for name in models}
    return {name: penalties[name] for name in ordered(penalties)}


def write_probe(
    finding: Finding,
    out: Path,
    *,
    record: Mapping[str, Any],
    what: Mapping[str, str],
    length_penalties: Mapping[str, float | None] | None = None,
    title: str | None = None,
) -> list[Path]:
    """As :func:`write_finding`, for a finding that comes of no table of completions alone.

    Args:
        finding: with ``seed`` among its parameters.
        out: the folder.
        record: :func:`nla_audit.record.run_record`, with ``tables`` (``path``, ``rows``,
            ``sha256``) and whatever else the run is to be repeated from.
        what: the facts under the title, by label.
        length_penalties: λ of each model.
        title: of the page; by default the name of the probe.

    Raises:
        UserError: ``out`` cannot be written.
    """
    report = of_one_finding(
        finding,
        length_penalties=length_penalties or {},
        record={"seed": finding.parameters["seed"], **record},
        what=what,
        title=title,
    )
    return write_report(report, out)
