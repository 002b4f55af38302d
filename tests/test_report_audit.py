"""The audit folder: what is in it, that it repeats, and that it appears whole or not at all."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import polars as pl
import pytest

from nla_audit.analyzers import _trials
from nla_audit.analyzers._trials import calibrated
from nla_audit.errors import UserError
from nla_audit.findings import Card, Finding
from nla_audit.report import audit
from nla_audit.report.audit import _elsewhere, run_audit
from nla_audit.report.colours import ModelColours
from nla_audit.report.viewer import choose_viewed, coloured, viewer_data
from nla_audit.table.completions import Completions, from_frame
from nla_audit.text import vectors
from nla_audit.world.sweep.planted import PlantedModel, plant
from tests import report_samples as samples


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> dict[str, Card]:
    """The registry that the audit sees: two analyzers, of which one reads an absent column."""
    registered = {
        "frontier": samples.card("frontier"),
        "steps": samples.card("steps", reads=("step",)),
    }
    monkeypatch.setattr(audit, "registry", lambda: registered)
    monkeypatch.setattr(audit, "_fate_spans", lambda table, *_: samples.fate_spans(table))
    return registered


def analyzer(run: Callable[..., Finding]) -> Card:
    return Card("odd", "?", (), {}, "", "", "", "", run)


class Elements(HTMLParser):
    """Start tags with their attributes, and the text of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and self.lasttag == "script":
            self.scripts[-1] += data


@pytest.mark.usefixtures("cards")
def test_everything_is_written_and_listed(tmp_path: Path) -> None:
    result = run_audit(samples.completions(), tmp_path / "out", seed=3)
    on_disk = {path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert set(result.files) == on_disk
    names = {path.relative_to(tmp_path / "out").as_posix() for path in on_disk}
    assert {"report.html", "report.md", "findings.json", "record.json"} < names
    assert {"figures/frontier-line.svg", "figures/frontier-line.png"} < names
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert [finding.parameters["seed"] for finding in result.findings] == [3]
    assert result.left_out == {"steps": "the table has no column step"}
    written = json.loads((tmp_path / "out/findings.json").read_text())
    assert written["version"] == 2
    assert written["left_out"] == result.left_out
    assert written["record"]["seed"] == 3
    assert [part["analyzer"] for part in written["findings"]] == ["frontier"]


@pytest.mark.usefixtures("cards")
def test_the_same_table_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run_audit(samples.completions(), tmp_path / name, seed=0, arguments={"out": name})
    for path in (tmp_path / "one").rglob("*.*"):
        if path.name != "record.json":
            other = tmp_path / "two" / path.relative_to(tmp_path / "one")
            assert path.read_bytes() == other.read_bytes(), path.name


@pytest.mark.slow
def test_what_is_done_aside_is_the_same_and_not_done_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fails with: what the second process does (trials of the reading, names and numbers) done here.
    planted = plant(
        [PlantedModel("reference", 0.0), PlantedModel("terse", 0.01, omit=0.3, reword=0.5)],
        activations=30,
        seed=0,
        samples=2,
    )
    found = []
    for aside in (False, True):
        if aside:
            monkeypatch.setattr(_trials, "read_afresh", None)
            monkeypatch.setattr(sys.modules["nla_audit.analyzers.faithfulness"], "_measure", None)
        table = from_frame(planted.completions, reference="reference")
        result = run_audit(table, tmp_path / str(aside), seed=0, draw_aside=aside)
        assert {finding.analyzer for finding in result.findings} >= {"drop-analysis", "rewording"}
        found.append((tmp_path / str(aside) / "findings.json").read_bytes())
        error = calibrated(table, similarity=None, seed=0)[2]
        assert error.twins == "two samples of reference"
    assert found[0] == found[1]


class Spelling:
    """A sentence model that knows texts by their letters."""

    def encode(self, texts: list[str], **_: Any) -> np.ndarray:
        counts = np.array([[text.count(letter) for letter in ascii_lowercase] for text in texts])
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1)


@pytest.mark.slow
def test_a_report_reads_by_the_model_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "sentence_model", lambda _: Spelling())
    readers = ("drop-analysis", "rewording", "calibrate")
    asked = {name: card for name, card in audit.registry().items() if name in (*readers, "tail")}
    monkeypatch.setattr(audit, "registry", lambda: asked)
    sweep = plant([PlantedModel("p0.0", 0.0), PlantedModel("p0.01", 0.01)], activations=24, seed=0)
    table = from_frame(sweep.completions, reference="p0.0")
    result = run_audit(table, tmp_path / "out", seed=0, similarity="spelling")
    read_by = {
        finding.analyzer: finding.parameters["similarity"]
        for finding in result.findings
        if "similarity" in finding.parameters
    }
    assert read_by == dict.fromkeys(readers, "spelling")
    # The viewer, too: nothing was read another way.
    assert {key[2] for key in table.shared if key[0] == "reading"} == {"spelling"}


@pytest.mark.parametrize("aside", [False, True])
def test_what_fails_in_the_second_process_fails_here(tmp_path: Path, aside: bool) -> None:
    planted = plant(
        [PlantedModel("reference", 0.0), PlantedModel("terse", 0.01)], activations=30, seed=0
    )
    table = from_frame(planted.completions, reference="reference")
    with pytest.raises(TypeError, match="nonsense"):
        run_audit(
            table,
            tmp_path / "out",
            seed=0,
            draw_aside=aside,
            options={"faithfulness": {"nonsense": 1}},
        )


def test_nobody_waits_for_the_second_process_after_an_interrupt() -> None:
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        _interrupted_while_two_calls_wait()
    assert time.monotonic() - begun < 60


def _interrupted_while_two_calls_wait() -> None:
    with _elsewhere(True) as have_done:
        have_done(time.sleep, 600)
        have_done(time.sleep, 600)
        raise KeyboardInterrupt


def test_the_page_may_fetch_nothing_and_runs_only_its_own_scripts(
    tmp_path: Path, cards: dict[str, Card]
) -> None:
    cards["frontier"] = samples.card("frontier", figures=5)
    run_audit(samples.completions(), tmp_path / "out", seed=0, title=samples.HOSTILE)
    page = (tmp_path / "out/report.html").read_text()
    parsed = Elements(page)
    tags = [tag for tag, _ in parsed.tags]
    assert not set(tags) & {"img", "link", "iframe", "object", "embed", "base", "audio", "video"}
    scripts = [attributes for tag, attributes in parsed.tags if tag == "script"]
    assert [attributes.get("type") for attributes in scripts] == ["application/json", None, None]
    assert all("src" not in attributes for attributes in scripts)
    for _, attributes in parsed.tags:
        assert not [name for name in attributes if name.startswith("on")]
        link = attributes.get("href") or attributes.get("xlink:href") or "#"
        assert link.startswith("#")
    policy = next(
        attributes["content"] or ""
        for tag, attributes in parsed.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert "unsafe" not in directives["script-src"]
    assert "connect-src" not in directives  # falls back to default-src 'none'
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


@pytest.mark.usefixtures("cards")
def test_verdicts_come_before_sections_and_sections_before_the_viewer(tmp_path: Path) -> None:
    run_audit(samples.completions(), tmp_path / "out", seed=0)
    page = (tmp_path / "out/report.html").read_text()
    order = ['id="verdicts"', 'id="frontier"', 'id="left-out"', 'id="record"', 'id="viewer"']
    assert sorted(order, key=page.index) == order
    markdown = (tmp_path / "out/report.md").read_text()
    headings = re.findall(r"^## (.+)$", markdown, re.MULTILINE)
    assert headings == ["Verdicts", "Frontier", "Left out", "Method and record"]
    for image in re.findall(r"!\[.*?\]\((.+?)\)", markdown):
        assert (tmp_path / "out" / image).is_file()
    assert "<" not in markdown


@pytest.mark.usefixtures("cards")
def test_without_texts_no_file_quotes_one(tmp_path: Path) -> None:
    run_audit(samples.completions(), tmp_path / "out", seed=0, texts=False)
    for path in (tmp_path / "out").rglob("*.*"):
        if path.suffix != ".png":
            text = path.read_text()
            assert "Claim one of" not in text, path.name
            assert "source of" not in text, path.name
            assert "`pipe`" not in text, path.name
    assert "no viewer" in (tmp_path / "out/report.html").read_text()


def test_a_note_on_the_whole_table_stands_once(tmp_path: Path, cards: dict[str, Card]) -> None:
    table = samples.completions()
    note = table.notes[0]

    def run(completions: Completions) -> Finding:
        answer = samples.finding("odd")
        answer.caveats = [*completions.notes, "One of its own."]
        return answer

    cards["odd"] = analyzer(run)
    result = run_audit(table, tmp_path / "out", seed=0)
    for name in ("report.html", "report.md"):
        page = (tmp_path / "out" / name).read_text()
        assert page.count("One of its own.") == 1
        assert page.count(note.split('"')[0]) == 1
    assert note in result.findings[-1].caveats


def test_an_analyzer_without_an_answer_is_left_out_with_its_reason(
    tmp_path: Path, cards: dict[str, Card]
) -> None:
    def refuse(table: Completions) -> Finding:
        raise UserError("one model only; give a second to compare with")

    cards["odd"] = analyzer(refuse)
    result = run_audit(samples.completions(), tmp_path / "out", seed=0)
    assert result.left_out["odd"] == "one model only; give a second to compare with"
    assert "one model only" in (tmp_path / "out/report.html").read_text()
    assert "one model only" in (tmp_path / "out/report.md").read_text()


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_audit_leaves_the_former_report(
    tmp_path: Path, cards: dict[str, Card], fault: type[BaseException]
) -> None:
    out = tmp_path / "out"
    run_audit(samples.completions(), out, seed=0)
    before = {path: path.read_bytes() for path in out.rglob("*.*")}

    def stop(table: Completions) -> Finding:
        raise fault

    cards["odd"] = analyzer(stop)
    with pytest.raises(fault):
        run_audit(samples.completions(), out, seed=1)
    with pytest.raises(fault):
        run_audit(samples.completions(), tmp_path / "new", seed=1)
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before
    assert list(tmp_path.iterdir()) == [out]


def test_a_former_report_is_replaced_and_foreign_files_stay(
    tmp_path: Path, cards: dict[str, Card]
) -> None:
    out = tmp_path / "out"
    cards["rewording"] = samples.card("rewording")
    run_audit(samples.completions(), out, seed=0)
    (out / "README.md").write_text("the command that wrote it")
    (out / "notes").mkdir()
    (out / "notes/mine.txt").write_text("mine")
    del cards["rewording"]
    result = run_audit(samples.completions(), out, seed=1)
    assert (out / "README.md").read_text() == "the command that wrote it"
    assert (out / "notes/mine.txt").read_text() == "mine"
    assert not (out / "figures/rewording-line.svg").exists()
    assert json.loads((out / "record.json").read_text())["seed"] == 1
    assert len([path for path in out.rglob("*") if path.is_file()]) == len(result.files) + 2
    assert list(tmp_path.iterdir()) == [out]


def _foreign(out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")


def _foreign_record(out: Path) -> None:
    out.mkdir()
    (out / "record.json").write_text('{"written_by": "something else", "files": []}')


def _file(out: Path) -> None:
    out.write_text("a file")


def _below_a_file(out: Path) -> None:
    out.parent.rmdir()
    out.parent.write_text("a file")


@pytest.mark.parametrize("prepare", [_foreign, _foreign_record, _file, _below_a_file])
def test_a_folder_that_cannot_take_the_report_is_refused_before_the_analysis(
    tmp_path: Path, cards: dict[str, Card], prepare: Callable[[Path], None]
) -> None:
    out = tmp_path / "above" / "out"
    out.parent.mkdir()
    prepare(out)
    before = sorted(tmp_path.rglob("*"))
    ran: list[str] = []
    cards["odd"] = analyzer(lambda table: ran.append("odd") or samples.finding("odd"))
    with pytest.raises(UserError) as caught:
        run_audit(samples.completions(), out, seed=0)
    assert str(out) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not ran
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.usefixtures("cards")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(UserError, match="cannot write"):
        run_audit(samples.completions(), tmp_path / "out", seed=0)


@pytest.mark.usefixtures("cards")
def test_progress_names_every_step(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    run_audit(
        samples.completions(), tmp_path / "out", seed=0, progress=lambda *step: steps.append(step)
    )
    assert [number for _, number, _ in steps] == list(range(5))
    assert {total for _, _, total in steps} == {4}


@pytest.mark.usefixtures("cards")
def test_the_record_holds_what_a_repetition_needs(tmp_path: Path) -> None:
    table = samples.completions()
    run_audit(table, tmp_path / "out", seed=0, arguments={"tables": [Path("a.parquet")], "k": 1})
    record = json.loads((tmp_path / "out/record.json").read_text())
    assert record["arguments"] == {"tables": ["a.parquet"], "k": 1}
    assert record["tables"][0]["sha256"] == table.sources[0].sha256
    assert {"python", "nla-audit", "polars", "matplotlib"} <= set(record["versions"])
    assert record["parameters"] == {"frontier": {"seed": 0}}
    assert record["started"] <= record["finished"]
    assert record["reference"] == table.reference


def _viewer(table: Completions, fates: pl.DataFrame | None = None) -> dict[str, Any]:
    chosen, _ = choose_viewed(table, [], seed=0)
    colours = ModelColours.of(table.models, table.length_penalties)
    return coloured(viewer_data(table, chosen, fates), colours)


def test_the_viewer_tells_failed_empty_and_unsampled_apart() -> None:
    data = _viewer(samples.completions(samples=6))
    last = [entry["models"][-1] for entry in data["activations"]]
    assert last[3][0][0] is None
    assert last[4][0][0] == ""
    assert [row[0][-2] for row in last[0]] == ["0", "1", "2", "3"]
    assert data["activations"][1]["source"] is None
    assert data["models"][data["reference"]]["name"] == "p0.0"


def test_spans_count_as_javascript_does() -> None:
    table = samples.completions(1, models=("p0.0", "p0.01"))
    data = _viewer(table, samples.fate_spans(table))
    text, *_, spans = data["activations"][0]["models"][1][0]
    units = text.encode("utf-16-le")
    pieces = [units[2 * start : 2 * end].decode("utf-16-le") for start, end, *_ in spans]
    assert "🙂" in text
    assert pieces == samples.SENTENCE.findall(text)
    assert [span[3] for span in spans] == [-1] * len(spans)
    reference_spans = data["activations"][0]["models"][0][0][5]
    assert {span[3] for span in reference_spans} == {1}


def test_a_runaway_explanation_is_cut_with_a_note() -> None:
    table = samples.completions(1, models=("p0.0", "p0.01"))
    table = replace(table, rows=table.rows.with_columns(explanation=pl.lit("word. " * 20_000)))
    text, *_, note, spans = _viewer(table, samples.fate_spans(table))["activations"][0]["models"][
        1
    ][0]
    assert len(text) == 20_000
    assert "20,000 of 120,000" in note
    assert max(end for _, end, *_ in spans) <= 20_000


def test_of_a_large_table_the_viewer_shows_what_was_read() -> None:
    table = samples.completions(60, models=("p0.0", "p0.01"))
    read = range(10, 35)
    chosen, note = choose_viewed(table, read, seed=0, limit=25)
    assert chosen == list(read)
    assert "25 of 60" in note
    fewer, note = choose_viewed(table, read, seed=0, limit=20)
    again, _ = choose_viewed(table, read, seed=0, limit=20)
    other, _ = choose_viewed(table, read, seed=1, limit=20)
    assert fewer == again == sorted(set(fewer) & set(read))
    assert fewer != other
    assert "20 of 60" in note
    everything, note = choose_viewed(table, read, seed=0, limit=60)
    assert everything == list(range(60))
    assert "All 60" in note
