"""All that a report draws: what ``findings.json`` holds, and from which it is rendered again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nla_audit.findings import Finding
from nla_audit.report.colours import ModelColours
from nla_audit.report.drawing import with_reasons

#: Layout of ``findings.json``; raised when a reader of it would have to change.
FINDINGS_VERSION = 2


@dataclass(frozen=True)
class Report:
    """Findings, and what stands around them.

    Attributes:
        title: of the page.
        findings: in the order of the page, as :func:`ready` makes them.
        length_penalties: λ of each model, in the order of their colours; null without one.
        record: what the findings can be repeated from: ``arguments``, ``seed``, ``versions``,
            ``commit``, ``tables`` and more.
        page: name of the pages, without their ending.
        data_name: name of the file that holds all this.
        record_name: name of the record of the run.
        what: the facts under the title, by label.
        notes: what holds for the whole table; sections do not repeat it among their caveats.
        left_out: analyzer → why it did not run.
        texts: whether explanations may be in it.
        viewer: what the viewer of the explanations embeds (:mod:`nla_audit.report.viewer`).
        viewer_note: which activations that is.
    """

    title: str
    findings: tuple[Finding, ...]
    length_penalties: Mapping[str, float | None]
    record: Mapping[str, Any]
    page: str = "report"
    data_name: str = "findings.json"
    record_name: str = "record.json"
    what: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    texts: bool = True
    viewer: Mapping[str, Any] | None = None
    viewer_note: str = ""

    @property
    def colours(self) -> ModelColours:
        """One colour a model."""
        return ModelColours.of(list(self.length_penalties), self.length_penalties)


def ready(finding: Finding) -> Finding:
    """``finding`` as a report holds it: plain, with a caveat for each figure without data."""
    return with_reasons(finding).plain()


def report_json(report: Report) -> str:
    """``report`` as strict JSON, from which :func:`~nla_audit.report.stored.read_report` has it.

    The viewer, which is most of a large report, stands on one line.
    """
    plain = {
        "version": FINDINGS_VERSION,
        "title": report.title,
        "page": report.page,
        "data_name": report.data_name,
        "record_name": report.record_name,
        "what": report.what,
        "notes": report.notes,
        "texts": report.texts,
        "length_penalties": report.length_penalties,
        "record": report.record,
        "findings": [finding.to_dict() for finding in report.findings],
        "left_out": report.left_out,
        "viewer_note": report.viewer_note,
    }
    text = json.dumps(plain, ensure_ascii=False, indent=1, allow_nan=False)
    viewer = json.dumps(report.viewer, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f'{text.removesuffix("}").rstrip()},\n "viewer": {viewer}\n}}\n'


def of_one_finding(
    finding: Finding,
    *,
    length_penalties: Mapping[str, float | None],
    record: Mapping[str, Any],
    what: Mapping[str, str],
    title: str | None = None,
) -> Report:
    """The report of one finding, whose files are named after it: others can lie beside them."""
    name = finding.analyzer
    return Report(
        title=title or name.replace("-", " ").capitalize(),
        findings=(ready(finding),),
        length_penalties=length_penalties,
        record=record,
        page=name,
        data_name=f"{name}.json",
        record_name=f"{name}.record.json",
        what=what,
    )
