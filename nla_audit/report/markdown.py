"""``report.md``: the report for a repository or a notebook, figures linked."""

from __future__ import annotations

from collections.abc import Iterator

from nla_audit.report.document import FindingSection, ReportDocument
from nla_audit.report.escape import markdown_text
from nla_audit.report.examples import joined
from nla_audit.report.tables import DisplayCell, DisplayTable, label

#: Long tables make a Markdown page unreadable; the HTML report and the JSON hold more.
MAX_ROWS = 20


def render_markdown(document: ReportDocument) -> str:
    """The whole report as GitHub-flavoured Markdown without raw HTML from the data."""
    return "\n".join(_lines(document)).rstrip() + "\n"


def _lines(document: ReportDocument) -> Iterator[str]:
    report = document.report
    yield f"# {markdown_text(report.title)}"
    yield ""
    for name, fact in report.what.items():
        yield f"- **{markdown_text(name)}**: {markdown_text(fact)}"
    for note in report.notes:
        yield f"- **Note**: {markdown_text(note)}"
    yield ""
    yield "## Verdicts"
    yield ""
    for section in document.sections:
        question, verdict = section.finding.question, section.finding.verdict
        yield f"- **{markdown_text(question)}** {markdown_text(verdict)}"
    yield ""
    for section in document.sections:
        yield from _section(section, report.data_name)
    if report.left_out:
        yield "## Left out"
        yield ""
        for name, reason in report.left_out.items():
            yield f"- **{markdown_text(name)}**: {markdown_text(reason)}"
        yield ""
    yield from _record(document)


def _section(section: FindingSection, data_name: str) -> Iterator[str]:
    finding = section.finding
    yield f"## {markdown_text(section.title)}"
    yield ""
    yield f"*{markdown_text(finding.question)}*"
    yield ""
    yield markdown_text(finding.verdict)
    yield ""
    yield from _table(section.headline)
    for rendered in section.figures:
        alt = markdown_text(rendered.figure.title)
        yield f"![{alt}](figures/{rendered.name}.png)"
        yield ""
        if rendered.figure.caption:
            yield markdown_text(rendered.figure.caption)
            yield ""
    if section.caveats:
        yield "Read this before quoting it:"
        yield ""
        for caveat in section.caveats:
            yield f"- {markdown_text(caveat)}"
        yield ""
    for name, examples in section.examples.items():
        yield f"**Before and after: {markdown_text(label(name))}**"
        yield ""
        for example in examples:
            yield f"- {markdown_text(example.title)}"
            yield f"  - before: {markdown_text(joined(example.before))}"
            yield f"  - after: {markdown_text(joined(example.after))}"
        yield ""
    for name, table in section.tables:
        if table.total_rows > MAX_ROWS:
            count = f"{table.total_rows:,} rows, in `{data_name}`"
            yield f"**{markdown_text(name)}**: {count}."
            yield ""
            continue
        yield f"**{markdown_text(name)}**"
        yield ""
        yield from _table(table)
    if section.withheld:
        names = ", ".join(section.withheld)
        yield f"Left out because they quote texts: {markdown_text(names)}."
        yield ""


def _table(table: DisplayTable) -> Iterator[str]:
    if not table.rows:
        return
    yield _row(markdown_text(column.label) for column in table.columns)
    yield _row("--:" if column.numeric else "---" for column in table.columns)
    for row in table.rows:
        yield _row(_cell(cell) for cell in row)
    yield ""


def _cell(cell: DisplayCell) -> str:
    return markdown_text(cell.line)


def _row(cells: Iterator[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _record(document: ReportDocument) -> Iterator[str]:
    report = document.report
    record = report.record
    yield "## Method and record"
    yield ""
    for section in document.sections:
        method = section.finding.method
        if method is not None:
            yield (
                f"- **{markdown_text(section.title)}**: unit: {markdown_text(method.unit)}. "
                f"Control: {markdown_text(method.control)}. "
                f"A high value means: {markdown_text(method.high_means)}."
            )
    yield f"- **Seed**: {markdown_text(record['seed'])}"
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    yield f"- **Versions**: {markdown_text(versions)}"
    if record["commit"]:
        yield f"- **Commit**: {markdown_text(record['commit'])}"
    for source in record["tables"]:
        path, digest = markdown_text(source["path"]), markdown_text(source["sha256"])
        yield f"- **Table**: {path}, sha256 {digest}"
    for name, value in record["arguments"].items():
        yield f"- **Argument {markdown_text(name)}**: {markdown_text(value)}"
    yield ""
    yield f"All numbers: `{report.data_name}`. When it ran: `{report.record_name}`."
