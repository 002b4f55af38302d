"""The report of the steganography probe: ``nla-audit stego --out DIR``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nla_audit.files import write_into
from nla_audit.findings import Finding
from nla_audit.model_names import length_penalty_of, ordered
from nla_audit.report.colours import ModelColours
from nla_audit.report.document import MAX_TABLE_ROWS, Document, Section
from nla_audit.report.examples import SHOWN_APART, examples_by_variant
from nla_audit.report.figures import render_figures, with_reasons
from nla_audit.report.html import render_html
from nla_audit.report.markdown import render_markdown
from nla_audit.report.record import package_versions
from nla_audit.report.tables import DisplayTable, frame_table, further_tables, label


def write_probe(
    finding: Finding, out: Path, *, record: Mapping[str, Any], what: Mapping[str, str]
) -> list[Path]:
    """Write ``report.html``, ``report.md``, ``figures/``, ``stego.json`` and its record.

    The folder is made if need be; other files in it stay, and each file appears whole.

    Args:
        finding: of :func:`nla_audit.probes.stego.finding.stego`.
        out: the folder.
        record: ``arguments``, ``seed``, ``tables`` (``path``, ``rows``, ``sha256``), ``commit``
            and whatever else the run is to be repeated from.
        what: the facts under the title, by label.

    Raises:
        UserError: ``out`` cannot be written.
    """
    models = sorted(finding.parameters["verdict"])
    penalties = {name: length_penalty_of(name) for name in models}
    colours = ModelColours.of(ordered(penalties), penalties)
    finding = with_reasons(finding)
    drawn = render_figures(finding, colours)
    whole = {"seed": finding.parameters["seed"], "versions": package_versions(), **record}
    examples = finding.tables.get("examples")
    section = Section(
        finding=finding,
        headline=_variants(finding),
        caveats=finding.caveats,
        figures=drawn,
        tables=[
            (label(name), frame_table(frame, finding.unit_of, limit=MAX_TABLE_ROWS))
            for name, frame in further_tables(finding).items()
            if name not in SHOWN_APART
        ],
        withheld=[],
        examples={} if examples is None else examples_by_variant(examples),
    )
    document = Document(
        title="Steganography probe",
        sections=[section],
        left_out={},
        notes=(),
        record=whole,
        colours=colours,
        what=dict(what),
        data_name="stego.json",
        record_name="stego.record.json",
    )
    contents = {
        "report.html": render_html(document).encode(),
        "report.md": render_markdown(document).encode(),
        "stego.json": (finding.to_json() + "\n").encode(),
    }
    for figure in drawn:
        contents[f"figures/{figure.name}.svg"] = figure.svg.encode()
        contents[f"figures/{figure.name}.png"] = figure.png
    plain_record = json.dumps(whole, ensure_ascii=False, indent=1) + "\n"
    contents["stego.record.json"] = plain_record.encode()
    return write_into(out, contents)


def _variants(finding: Finding) -> DisplayTable:
    """The numbers of each variant, under what it is there to test."""
    table = finding.tables["variants"]
    is_one = table["model"].n_unique() < 2 if "model" in table.columns else True
    shown = table.drop("model") if is_one and table.width else table
    return frame_table(shown, finding.unit_of)
