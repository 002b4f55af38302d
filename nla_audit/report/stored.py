"""Reports read again from their JSON, which anybody may have written.

Everything is checked before anything is drawn: names become names of files, tables are drawn by
column, and the texts are a stranger's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from nla_audit.errors import UserError
from nla_audit.findings import Better, Figure, Finding, Kind, Method, Metric, Unit
from nla_audit.report.contents import FINDINGS_VERSION, Report
from nla_audit.strangers import MEGABYTE, first_problem, read_json_object, shown

#: An audit of a hundred thousand explanations writes some 100 MB.
_LIMIT = 1024 * MEGABYTE
_ADVICE = "name a report's JSON: findings.json of an audit, or DIR/<name>.json of --out DIR"
#: Axes overflow long before numbers do; what is measured here stays far below.
_MOST_DRAWN = 1e30
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_TYPES: dict[str, Any] = {
    str(kind): kind
    for kind in (
        pl.Null(),
        pl.Boolean(),
        pl.String(),
        pl.Float32(),
        pl.Float64(),
        pl.Int8(),
        pl.Int16(),
        pl.Int32(),
        pl.Int64(),
        pl.UInt8(),
        pl.UInt16(),
        pl.UInt32(),
        pl.UInt64(),
    )
}


def _file_name(name: str) -> str:
    if not _FILE_NAME.fullmatch(name):
        raise ValueError("must be a plain name of letters, digits, _, . and -")
    return name


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    return value


FileName = Annotated[str, AfterValidator(_file_name)]
Number = Annotated[float | int, BeforeValidator(_number)]
StoredRows = list[dict[str, Any]]


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _StoredMetric(_Stored):
    name: str
    unit: Unit
    better: Better
    meaning: str
    interval: bool
    chance: bool
    needs: str


class _StoredMethod(_Stored):
    unit: str
    control: str
    high_means: str


class _StoredFigure(_Stored):
    name: FileName
    title: str
    kind: Kind
    table: str
    x: str
    y: str
    x_label: str
    y_label: str
    caption: str
    low: str | None
    high: str | None
    group: str | None
    label: str | None
    chance: str | None
    chance_label: str
    log_x: bool
    percent: bool

    def numeric(self) -> Iterator[str]:
        """The columns that are drawn as numbers."""
        yield self.y
        if self.kind == "scatter" or self.log_x:
            yield self.x
        yield from (name for name in (self.low, self.high, self.chance) if name is not None)

    def check(self, tables: Mapping[str, pl.DataFrame]) -> None:
        """Raise ValueError for what no figure could be drawn from."""
        if self.table not in tables:
            raise ValueError(f"figure {self.name}: no table {shown(self.table)}")
        frame = tables[self.table]
        drawn = (self.x, self.group, self.label, *self.numeric())
        missing = [name for name in drawn if name is not None and name not in frame.columns]
        if frame.height and missing:
            raise ValueError(f"figure {self.name}: no column {shown(missing[0])}")
        if (self.low is None) != (self.high is None) and self.kind != "waterfall":
            raise ValueError(f"figure {self.name}: low and high go together")
        if self.kind == "waterfall" and self.low is None:
            raise ValueError(f"figure {self.name}: a waterfall needs low")
        for name in self.numeric() if frame.height else ():
            kind = frame.schema[name]
            if not (kind.is_numeric() or kind in (pl.Null, pl.Boolean)):
                raise ValueError(f"figure {self.name}: column {shown(name)} holds no numbers")
            largest = frame[name].cast(pl.Float64).abs().max()
            if isinstance(largest, float) and largest > _MOST_DRAWN:
                raise ValueError(f"figure {self.name}: {largest:g} is too large to be drawn")
        if self.log_x and frame.height:
            x = frame[self.x].cast(pl.Float64)
            smallest = x.filter(x > 0).min()
            if isinstance(smallest, float) and smallest < 1 / _MOST_DRAWN:
                raise ValueError(f"figure {self.name}: {smallest:g} is too small for a log axis")


class _StoredFinding(_Stored):
    analyzer: FileName
    question: str
    reference: str | None
    headline: dict[str, dict[str, Number | None]]
    verdict: str
    caveats: list[str]
    parameters: dict[str, Any]
    rows: str
    metrics: list[_StoredMetric]
    method: _StoredMethod | None
    figures: list[_StoredFigure]
    headline_table: str | None
    examples_table: str | None
    private_tables: list[str]
    units: dict[str, Unit]
    types: dict[str, dict[str, str]]
    tables: dict[str, StoredRows]

    def finding(self) -> Finding:
        """The finding itself.

        Raises:
            ValueError: tables, their types and the figures do not fit each other.
        """
        if list(self.types) != list(self.tables):
            raise ValueError(f"{self.analyzer}: types and tables are not of the same tables")
        tables = {
            name: _frame(f"{self.analyzer}.{name}", rows, self.types[name])
            for name, rows in self.tables.items()
        }
        for figure in self.figures:
            figure.check(tables)
        if len({figure.name for figure in self.figures}) < len(self.figures):
            raise ValueError(f"{self.analyzer}: two figures of one name")
        if self.examples_table in tables:
            _check_examples(self.analyzer, tables[self.examples_table])
        return Finding(
            analyzer=self.analyzer,
            question=self.question,
            reference=self.reference,
            headline=self.headline,
            verdict=self.verdict,
            caveats=self.caveats,
            tables=tables,
            figures=[Figure(**vars(figure)) for figure in self.figures],
            parameters=self.parameters,
            private_tables=frozenset(self.private_tables),
            metrics=tuple(Metric(**vars(metric)) for metric in self.metrics),
            columns=self.units,
            rows=self.rows,
            method=None if self.method is None else Method(**vars(self.method)),
            headline_table=self.headline_table,
            examples_table=self.examples_table,
        )


def _frame(where: str, rows: StoredRows, types: Mapping[str, str]) -> pl.DataFrame:
    schema = {column: _type(where, kind) for column, kind in types.items()}
    for row in rows:
        if list(row) != list(types):
            raise ValueError(f"{where}: a row has other columns than the table")
    try:
        return pl.DataFrame(rows, schema=schema, orient="row", strict=True)
    except (pl.exceptions.PolarsError, TypeError, OverflowError, ValueError):
        raise ValueError(f"{where}: a value is not of its column's type") from None


def _type(where: str, name: str) -> Any:
    if name in _TYPES:
        return _TYPES[name]
    inner = name.removeprefix("List(").removesuffix(")")
    if name == f"List({inner})" and inner in _TYPES:
        return pl.List(_TYPES[inner])
    raise ValueError(f"{where}: no such type of column: {shown(name)}")


_EXAMPLES = {
    **dict.fromkeys(("variant", "shown", "model", "before", "after"), pl.String),
    **dict.fromkeys(("fve_before", "fve_after"), pl.Float64),
}


def _check_examples(where: str, table: pl.DataFrame) -> None:
    for name, kind in _EXAMPLES.items():
        if table.schema.get(name) != kind or table[name].has_nulls():
            raise ValueError(f"{where}: column {name} of the examples is not what it must be")
    if not {"idx", "similarity"} <= set(table.columns):
        raise ValueError(f"{where}: the examples lack a column")
    if table.schema["similarity"] not in (pl.Float64, pl.Null):
        raise ValueError(f"{where}: column similarity of the examples holds no numbers")


class _StoredSource(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    path: str
    sha256: str


class _StoredRecord(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    arguments: dict[str, Any]
    seed: int
    versions: dict[str, str]
    commit: str | None
    tables: list[_StoredSource]


class _StoredModel(_Stored):
    name: str
    penalty: Number | None


def _sample(values: list[Any]) -> list[Any]:
    """Check ``[text, tokens, content tokens, fve, note, spans]`` of one explanation."""
    kinds = (str | None, float | int | None, float | int | None, float | int | None, str, list)
    if len(values) != len(kinds) or not all(map(isinstance, values, kinds)):
        raise ValueError("must be a text, three numbers, a note and spans")
    for span in values[-1]:
        if not (isinstance(span, list) and len(span) == 4 and all(type(n) is int for n in span)):
            raise ValueError("must hold spans of four whole numbers")
    return values


class _StoredActivation(_Stored):
    idx: int
    id: str | None
    source: str | None
    models: list[list[Annotated[list[Any], AfterValidator(_sample)]]]


class _StoredViewer(_Stored):
    models: list[_StoredModel]
    reference: Annotated[int, Field(ge=0)]
    fates: list[str]
    hasFates: bool
    activations: list[_StoredActivation]

    @model_validator(mode="after")
    def _fits(self) -> _StoredViewer:
        if self.reference >= len(self.models):
            raise ValueError("the viewer's reference is none of its models")
        if any(len(one.models) != len(self.models) for one in self.activations):
            raise ValueError("an activation of the viewer has not a place for each model")
        return self


class _StoredReport(_Stored):
    version: int
    title: str
    page: FileName
    data_name: FileName
    record_name: FileName
    what: dict[str, str]
    notes: list[str]
    texts: bool
    length_penalties: dict[str, Number | None]
    record: _StoredRecord
    findings: list[_StoredFinding]
    left_out: dict[str, str]
    viewer_note: str
    viewer: _StoredViewer | None


def read_report(path: Path) -> Report:
    """The report whose ``findings.json`` (or ``<name>.json`` of one finding) ``path`` is.

    Raises:
        UserError: it cannot be read, or is no report of this version; one line says why.
    """
    found = read_json_object(path, limit=_LIMIT, advice=_ADVICE)
    if not isinstance(found.get("findings"), list):
        raise UserError(f"{path}: no report of nla-audit; {_ADVICE}")
    if found.get("version") != FINDINGS_VERSION:
        raise UserError(
            f"{path}: written in layout {shown(found.get('version'))}, and this version reads "
            f"{FINDINGS_VERSION}: run the command that wrote it again"
        )
    try:
        stored = _StoredReport.model_validate(found)
        findings = tuple(one.finding() for one in stored.findings)
        if len({one.analyzer for one in findings}) < len(findings):
            raise ValueError("two findings of one name")
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}; {_ADVICE}") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}; {_ADVICE}") from None
    return Report(
        title=stored.title,
        findings=findings,
        length_penalties=stored.length_penalties,
        record=found["record"],
        page=stored.page,
        data_name=stored.data_name,
        record_name=stored.record_name,
        what=stored.what,
        notes=tuple(stored.notes),
        left_out=stored.left_out,
        texts=stored.texts,
        viewer=found["viewer"],
        viewer_note=stored.viewer_note,
    )
