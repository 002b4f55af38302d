"""The report as data, before it is HTML or Markdown: one order, two renderings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nla_audit.findings import Finding
from nla_audit.report.colours import ModelColours
from nla_audit.report.contents import Report
from nla_audit.report.drawing import Rendered
from nla_audit.report.examples import Example, examples_by_variant
from nla_audit.report.tables import DisplayTable, frame_table, further_tables, headline_table, label
from nla_audit.report.viewer import coloured

#: Rows of a further table that a page shows; ``findings.json`` holds all of them.
MAX_TABLE_ROWS = 100


@dataclass(frozen=True)
class FindingSection:
    """One analyzer's part of the report."""

    finding: Finding
    headline: DisplayTable
    caveats: list[str]
    figures: list[Rendered]
    tables: list[tuple[str, DisplayTable]]
    #: Names of the tables left out because they quote texts.
    withheld: list[str]
    #: Texts before and after a change, by change.
    examples: dict[str, list[Example]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The analyzer's name, which is also the section's anchor."""
        return self.finding.analyzer

    @property
    def title(self) -> str:
        """The analyzer's name in words."""
        return label(self.finding.analyzer.replace("-", " ")).capitalize()


@dataclass(frozen=True)
class ReportDocument:
    """All that both renderings show: the report, and what is made of it."""

    report: Report
    sections: list[FindingSection]
    colours: ModelColours
    #: The report's, with the models' colours.
    viewer: dict[str, Any] | None


def document_of(report: Report, drawn: Sequence[list[Rendered]]) -> ReportDocument:
    """``report`` with the figures of each of its findings, ready to be HTML or Markdown."""
    colours = report.colours
    return ReportDocument(
        report,
        [
            _section(finding, figures, report.notes)
            for finding, figures in zip(report.findings, drawn, strict=True)
        ],
        colours,
        viewer=None if report.viewer is None else coloured(report.viewer, colours),
    )


def _section(finding: Finding, figures: list[Rendered], notes: tuple[str, ...]) -> FindingSection:
    """Choose what of ``finding`` is shown and in which form.

    ``notes`` hold for the whole table and stand at the top of the report, so that a section
    repeats none of them among its own caveats.
    """
    apart = {finding.headline_table, finding.examples_table}
    examples = finding.tables.get(finding.examples_table or "")
    return FindingSection(
        finding=finding,
        headline=_headline(finding),
        caveats=[caveat for caveat in finding.caveats if caveat not in notes],
        figures=figures,
        tables=[
            (label(name), frame_table(frame, finding.unit_of, limit=MAX_TABLE_ROWS))
            for name, frame in further_tables(finding).items()
            if name not in apart
        ],
        withheld=sorted(finding.private_tables - set(finding.tables)),
        examples={} if examples is None else examples_by_variant(examples),
    )


def _headline(finding: Finding) -> DisplayTable:
    """The headline, or the table that says more: without its column of models where it has one."""
    table = finding.tables.get(finding.headline_table or "")
    if table is None:
        return headline_table(finding)
    if "model" in table.columns and table["model"].n_unique() < 2:
        table = table.drop("model")
    return frame_table(table, finding.unit_of)


def what_was_audited(record: dict[str, Any]) -> dict[str, str]:
    """The facts under the title, by label, in words."""
    penalties = record["length_penalties"]
    models = [
        name if penalties.get(name) is None else f"{name} (λ = {penalties[name]:g})"
        for name in record["models"]
    ]
    facts = {
        "Table": tables_in_words(record["tables"]),
        "Compared": f"{record['activations']:,} activations, {record['rows']:,} explanations",
        "Models": ", ".join(models),
        "Reference": f"{record['reference']}: every difference is taken against it, "
        "paired by activation",
        "Ruler": record["ruler"] or "not named in the table; one reconstructor is assumed",
    }
    if record["overhead_tokens"] is not None:
        facts["Overhead"] = f"{record['overhead_tokens']:g} tokens an explanation (tags, end token)"
    return facts


def tables_in_words(tables: Iterable[Mapping[str, Any]]) -> str:
    """The ``tables`` of a record: path, rows and the beginning of the hash of each."""
    return "; ".join(
        f"{table['path']} ({table['rows']:,} rows, sha256 {table['sha256'][:16]}…)"
        for table in tables
    )
