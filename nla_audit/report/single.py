"""One finding as files: ``nla-audit <analyzer> --out DIR``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nla_audit.files import write_into
from nla_audit.findings import Finding
from nla_audit.report.analysis_record import analysis_record
from nla_audit.report.colours import ModelColours
from nla_audit.report.figures import render_figures, with_reasons

if TYPE_CHECKING:
    from nla_audit.completions import Completions
    from nla_audit.prefix_table import PrefixTable


def write_finding(
    finding: Finding,
    completions: Completions | PrefixTable,
    out: Path,
    *,
    seed: int,
    arguments: Mapping[str, Any],
) -> list[Path]:
    """Write ``<analyzer>.json``, its figures and ``<analyzer>.record.json`` into ``out``.

    The folder is made if need be; other files in it stay. The files appear whole and together.

    Raises:
        UserError: ``out`` cannot be written.
    """
    record = analysis_record(completions, [finding], seed=seed, arguments=arguments)
    colours = ModelColours.of(completions.models, completions.length_penalties)
    return write_with_record(finding, colours, out, record=record)


def write_with_record(
    finding: Finding, colours: ModelColours, out: Path, *, record: Mapping[str, Any]
) -> list[Path]:
    """As :func:`write_finding`, for a finding that comes of no table of completions alone.

    Args:
        finding: to be written.
        colours: of the models in its figures.
        out: the folder.
        record: of the run, as plain data.

    Raises:
        UserError: ``out`` cannot be written.
    """
    finding = with_reasons(finding)
    contents: dict[str, bytes] = {f"{finding.analyzer}.json": finding.to_json().encode()}
    for figure in render_figures(finding, colours, texts=True):
        contents[f"{figure.name}.svg"] = figure.svg.encode()
        contents[f"{figure.name}.png"] = figure.png
    plain_record = json.dumps(record, ensure_ascii=False, indent=1, allow_nan=False)
    contents[f"{finding.analyzer}.record.json"] = plain_record.encode(errors="backslashreplace")
    return write_into(out, contents)
