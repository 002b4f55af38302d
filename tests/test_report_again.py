"""``nla-audit report``: the same pages again from the JSON, and one line for anything else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nla_audit import cli
from nla_audit.errors import UserError
from nla_audit.findings import Card
from nla_audit.report import audit
from nla_audit.report.audit import run_audit
from nla_audit.report.single import by_penalty, write_probe
from nla_audit.report.stored import read_report
from nla_audit.report.writing import rendered
from tests import report_samples as samples
from tests.test_report_probe import RECORD, probe_finding


@pytest.fixture(autouse=True)
def _analyzers(monkeypatch: pytest.MonkeyPatch) -> None:
    """One analyzer with every kind of figure, one with none, and fates as the samples have them."""
    cards: dict[str, Card] = {
        name: samples.card(name, figures=figures) for name, figures in (("a", 5), ("b", 0))
    }
    cards["c"] = samples.card("c", reads=("step",))
    monkeypatch.setattr(audit, "registry", lambda: cards)
    monkeypatch.setattr(audit, "_fate_spans", lambda table, *_: samples.fate_spans(table))


def pages(folder: Path) -> dict[str, bytes]:
    """All that is made from the JSON, by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".json"
    }


@pytest.mark.parametrize("texts", [True, False])
def test_an_audit_is_rendered_again_to_the_same_bytes(
    tmp_path: Path, texts: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    arguments = {"tables": (Path("sweep.parquet"), "odd\udcff"), "price": (1.0, float("nan"))}
    run_audit(samples.completions(), out, seed=3, texts=texts, arguments=arguments)
    assert cli.run(["report", str(out / "findings.json"), "--out", str(again)]) == 0
    assert "report.html" in capsys.readouterr().err
    first = pages(out)
    assert len(first) == 2 + 2 * 5
    assert pages(again) == first
    (out / "report.html").unlink()
    (out / "report.md").write_text("worn")
    assert cli.run(["report", str(out / "findings.json")]) == 0
    assert pages(out) == first


def test_a_probe_is_rendered_again_to_the_same_bytes(tmp_path: Path) -> None:
    models = ("p0.0", "p0.03")
    what, penalties = {"Paraphraser": "rules"}, by_penalty(models)
    finding = probe_finding(models)
    write_probe(finding, tmp_path, record=RECORD, what=what, length_penalties=penalties)
    first = pages(tmp_path)
    assert {"stego.html", "stego.md", "figures/stego-retention.svg"} <= set(first)
    assert cli.run(["report", str(tmp_path / "stego.json"), "--out", str(tmp_path / "again")]) == 0
    assert pages(tmp_path / "again") == first


@pytest.fixture
def stored(tmp_path: Path) -> dict[str, Any]:
    """The JSON of a report with one figure."""
    finding = samples.finding("a").plain()
    finding.figures = finding.figures[:1]
    write_probe(finding, tmp_path, record=RECORD, what={"Table": "t"})
    found: dict[str, Any] = json.loads((tmp_path / "a.json").read_text())
    return found


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in ``value``; of the rows of a table, to the first."""
    yield way
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*way, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value[:1]):
            yield from places(inner, (*way, place))


def changed(value: Any, way: tuple[Any, ...], new: Any) -> Any:
    """A copy with ``new`` at ``way``."""
    if not way:
        return new
    made = copy.deepcopy(value)
    inside = made
    for step in way[:-1]:
        inside = inside[step]
    inside[way[-1]] = new
    return made


def renamed(value: Any, way: tuple[Any, ...], key: str) -> Any:
    """A copy in which what is at ``way`` has another key."""
    inside = value
    for step in way[:-1]:
        inside = inside[step]
    others = {name: inner for name, inner in inside.items() if name != way[-1]}
    return changed(value, way[:-1], {**others, key: inside[way[-1]]})


@pytest.mark.slow
def test_whatever_is_wrong_is_one_line_or_a_page(tmp_path: Path, stored: dict[str, Any]) -> None:
    """Every value and key is replaced in turn: nothing gets past the door as a traceback."""
    path, refused = tmp_path / "x.json", []
    for way in places(stored):
        news = (None, -1, 1e308, True, "", "<b>../x", [], [[]], {}, {"items": 1})
        files = [changed(stored, way, new) for new in news]
        if way and isinstance(way[-1], str):
            files.append(renamed(stored, way, "<b>../x"))
        for file in files:
            path.write_text(json.dumps(file))
            try:
                report = read_report(path)
            except UserError as error:
                refused.append(str(error))
                continue
            page = rendered(report, [[] for _ in report.findings])
            assert b"<b>" not in b"".join(page.values())
            assert all("/" not in name for name in page)
    assert len(refused) > 500
    assert all("\n" not in line and str(path) in line for line in refused)


Change = Callable[[dict[str, Any]], Any]
FIGURE: dict[str, Change] = {
    "no table": lambda figure: figure.update(table="none"),
    "no column": lambda figure: figure.update(y="none"),
    "holds no numbers": lambda figure: figure.update(y="model"),
    "needs low": lambda figure: figure.update(kind="waterfall", low=None, high=None),
    "go together": lambda figure: figure.update(low=None),
    "plain name": lambda figure: figure.update(name="../../escaped"),
    "Input should be 'line'": lambda figure: figure.update(kind="pie"),
}


@pytest.mark.parametrize("said", FIGURE, ids=lambda said: said)
def test_a_figure_that_cannot_be_drawn_is_refused(
    said: str, tmp_path: Path, stored: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    FIGURE[said](stored["findings"][0]["figures"][0])
    (tmp_path / "x.json").write_text(json.dumps(stored))
    assert cli.run(["report", str(tmp_path / "x.json"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said.lower() in error.lower()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "JSON"),
        ("[1]", "object"),
        ('{"findings": 3}', "no report of nla-audit"),
        ('{"model_type": "qwen2"}', "no report of nla-audit"),
        ('{"findings": [], "version": 1}', "written in layout 1"),
        ('{"findings": [], "version": 2}', "is missing"),
        ('{"findings": [], "findings": [], "version": 2}', "twice"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_foreign_json_is_one_line(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.json").write_text(text)
    assert cli.run(["report", str(tmp_path / "x.json")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error


def test_a_number_that_no_axis_holds_is_refused(tmp_path: Path, stored: dict[str, Any]) -> None:
    for huge in ("1e308", "1e999", "-1e31"):
        text = json.dumps(stored).replace('"chance": 0.1', f'"chance": {huge}', 1)
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(UserError, match="too large to be drawn"):
            read_report(tmp_path / "x.json")


def test_a_number_that_no_logarithmic_axis_holds_is_refused(
    tmp_path: Path, stored: dict[str, Any]
) -> None:
    stored["findings"][0]["figures"][0].update(kind="scatter", x="chance", log_x=True)
    text = json.dumps(stored)
    (tmp_path / "x.json").write_text(text)
    assert rendered(read_report(tmp_path / "x.json"))
    (tmp_path / "x.json").write_text(text.replace('"chance": 0.1', '"chance": 5e-324', 1))
    with pytest.raises(UserError, match="too small for a log axis"):
        read_report(tmp_path / "x.json")


def test_a_row_or_a_type_that_does_not_fit_is_refused(
    tmp_path: Path, stored: dict[str, Any]
) -> None:
    finding = stored["findings"][0]
    for key, new, said in (
        ("types", {"per_model": {}}, "not of the same tables"),
        ("types", {**finding["types"], "by_kind": {"model": "Object"}}, "no such type"),
        ("tables", {**finding["tables"], "by_kind": [{"model": "m"}]}, "other columns"),
    ):
        changed_finding = {**finding, key: new}
        (tmp_path / "x.json").write_text(json.dumps({**stored, "findings": [changed_finding]}))
        with pytest.raises(UserError, match=said):
            read_report(tmp_path / "x.json")
