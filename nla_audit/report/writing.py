"""The one writer of reports: pages, figures, ``findings.json`` and the record of the run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nla_audit.files import write_into
from nla_audit.report.contents import Report, report_json
from nla_audit.report.document import document_of
from nla_audit.report.drawing import Rendered, draw
from nla_audit.report.html import render_html
from nla_audit.report.markdown import render_markdown

Files = dict[str, bytes]


def rendered(report: Report, drawn: Sequence[list[Rendered]] | None = None) -> Files:
    """What is made of ``report`` alone, by relative name: pages and figures, always the same bytes.

    Args:
        report: with findings as :func:`~nla_audit.report.contents.ready` makes them.
        drawn: the figures of each finding, where they are drawn already.
    """
    colours = report.colours
    if drawn is None:
        drawn = [draw(finding, colours) for finding in report.findings]
    document = document_of(report, drawn)
    files = {
        f"{report.page}.html": render_html(document).encode(errors="backslashreplace"),
        f"{report.page}.md": render_markdown(document).encode(errors="backslashreplace"),
    }
    for figure in (one for figures in drawn for one in figures):
        files[f"figures/{figure.name}.svg"] = figure.svg.encode()
        files[f"figures/{figure.name}.png"] = figure.png
    return files


def all_files(report: Report, drawn: Sequence[list[Rendered]] | None = None) -> Files:
    """Pages, figures and the JSON that they are rendered from."""
    files = rendered(report, drawn)
    files[report.data_name] = report_json(report).encode(errors="backslashreplace")
    return files


def write_report(report: Report, out: Path) -> list[Path]:
    """Write ``report`` into ``out``: the folder is made if need be, and other files in it stay.

    The files appear whole and together, the record of the run last.

    Raises:
        UserError: ``out`` cannot be written.
    """
    return write_into(out, {**all_files(report), report.record_name: record_file(report.record)})


def record_file(record: Mapping[str, Any]) -> bytes:
    """The record of a run as its file holds it."""
    plain = json.dumps(record, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    return plain.encode(errors="backslashreplace")
