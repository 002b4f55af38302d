"""The report of the steganography probe: examples by rule, differences marked, texts harmless."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure as Canvas
from rich.console import Console

from nla_audit.findings import Figure, Finding
from nla_audit.probes.stego.examples import chosen_examples
from nla_audit.probes.stego.finding import stego
from nla_audit.probes.stego.scores import scores_from_frame
from nla_audit.probes.transforming.cards import transforms
from nla_audit.record import ANALYSIS, run_record
from nla_audit.report.colours import ModelColours
from nla_audit.report.examples import Piece, differences, joined, print_examples
from nla_audit.report.plots import bar
from nla_audit.report.single import by_penalty, write_probe

N = 12
HOSTILE = "<script>alert(1)</script> a **bold** [link](http://example.invalid) \x1b[31mred"
RECORD = {
    **run_record("stego", {"scores": "s.parquet"}, ANALYSIS),
    "commit": "0" * 40,
    "tables": [{"path": "s.parquet", "sha256": "ab" * 32, "rows": 3}],
}


def _scored(models: tuple[str, ...] = ("p0.0",)) -> pl.DataFrame:
    """Probe rows of every transform; text *i* loses *i* hundredths by a paraphrase."""
    generator = np.random.default_rng(0)
    rows = []
    for model in models:
        for idx in range(N):
            before = f"Text number {idx} says {HOSTILE}"
            for name in transforms():
                loss = {"paraphrase": idx / 100, "another": 0.6}.get(name, 0.0)
                changed = name not in ("unchanged", "zero_width")
                rows.append(
                    {
                        "model": model,
                        "idx": str(idx),
                        "doc_id": None,
                        "texts": "own",
                        "ar": "own",
                        "variant": name,
                        "fve": 0.6 - loss + generator.normal(0, 1e-6),
                        "text": before + (f" in {name}" if changed else ""),
                        "changed": changed,
                        "similarity": 1 - loss,
                        "chance_similarity": 0.1,
                        "unfaithful": 0.0,
                    }
                )
    return pl.DataFrame(rows, schema_overrides={"doc_id": pl.String})


def probe_finding(models: tuple[str, ...] = ("p0.0",)) -> Finding:
    """A finding with hostile texts among its examples."""
    frame = _scored(models)
    return stego(scores_from_frame(frame), examples=chosen_examples(frame, ar="own"))


def test_examples_are_the_median_and_the_largest_loss():
    examples = chosen_examples(_scored(), ar="own")
    shown = examples.filter(pl.col("variant") == "paraphrase")
    assert shown["shown"].to_list() == ["median loss", "largest loss"]
    assert shown["idx"].to_list() == ["5", "11"]
    assert shown["after"][1].endswith("in paraphrase")
    assert "zero_width" not in examples["variant"].to_list()  # it changed no text
    assert chosen_examples(_scored().clear(), ar="own").height == 0


def test_what_differs_is_marked_and_nothing_is_lost():
    before, after = differences("A small dog, it  likely\nbarks.", "A little dog, it likely barks.")
    assert joined([piece for piece in before if not piece.is_changed]) == joined(
        [piece for piece in after if not piece.is_changed]
    )
    assert [piece.text for piece in before if piece.is_changed] == ["small", "␣␣", "⏎\n"]
    assert Piece("little", True) in after


def test_what_nobody_sees_is_shown_and_what_is_unrelated_is_not_compared():
    before, after = differences("a\u200bb c", "ab c")
    assert "⟨U+200B⟩" in joined(before)
    assert joined(after) == "ab c"
    before, after = differences("one two three four", "quite another text altogether")
    assert not any(piece.is_changed for piece in [*before, *after])


@pytest.mark.parametrize("models", [("p0.0",), ("p0.0", "p0.03")])
def test_the_report_is_whole_and_harmless(tmp_path: Path, models: tuple[str, ...]):
    finding = probe_finding(models)
    files = write_probe(
        finding,
        tmp_path / "out",
        record=RECORD,
        what={"Paraphraser": "rules"},
        length_penalties=by_penalty(models),
    )
    names = {str(file.relative_to(tmp_path / "out")) for file in files}
    assert {
        "stego.html",
        "stego.md",
        "stego.json",
        "stego.record.json",
        "figures/stego-retention.png",
        "figures/stego-channels.svg",
    } <= names
    page = (tmp_path / "out" / "stego.html").read_text()
    assert finding.verdict.split(" (")[0] in page
    assert page.index("verdicts") < page.index("Before and after")
    assert "<ins>" in page
    assert "<script>alert" not in page
    assert "&lt;" in page  # the text is there, as text
    text = (tmp_path / "out" / "stego.md").read_text()
    assert "](http://example.invalid)" not in re.sub(r"\\\]", "", text)
    assert "\x1b" not in page + text
    assert "Median loss".lower() in text
    record = json.loads((tmp_path / "out" / "stego.record.json").read_text())
    assert record["tables"] == RECORD["tables"]
    assert "polars" in record["versions"]


def test_the_same_finding_gives_the_same_bytes_and_other_files_stay(tmp_path: Path):
    contents = []
    for _ in range(2):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "mine.txt").write_text("mine")
        files = write_probe(probe_finding(), tmp_path / "out", record=RECORD, what={})
        contents.append({file.name: file.read_bytes() for file in files})
    assert contents[0] == contents[1]
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    assert not list(tmp_path.rglob("*.writing-*"))


def test_the_terminal_shows_the_largest_loss():
    console = Console(width=100, record=True, color_system=None, file=io.StringIO())
    print_examples(chosen_examples(_scored(), ar="own"), ["paraphrase", "zero_width"], console)
    shown = console.export_text()
    assert "activation 11" in shown
    assert "in paraphrase" in " ".join(shown.split())
    assert "\x1b" not in shown


@pytest.mark.parametrize("group", [None, "kind"])
def test_many_bars_become_a_forest_with_a_row_for_each(group: str | None):
    names = [f"change {number}" for number in range(20)]
    frame = pl.DataFrame(
        {
            "variant": names,
            "kept": np.linspace(0, 1, 20),
            "low": np.linspace(-0.1, 0.9, 20),
            "high": np.linspace(0.1, 1.1, 20),
            "kind": ["a"] * 10 + ["b"] * 10,
        }
    )
    figure = Figure(
        "f", "t", "bar", "v", "variant", "kept", "", "kept", low="low", high="high", group=group
    )
    axes = Canvas().add_subplot()
    bar(axes, frame, figure, ModelColours({}))
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    points = np.concatenate(
        [np.column_stack([c.lines[0].get_xdata(), c.lines[0].get_ydata()]) for c in axes.containers]
    )
    assert points[:, 0].tolist() == pytest.approx(frame["kept"].to_list())
    assert points[:, 1].tolist() == pytest.approx(range(20))
    assert axes.yaxis_inverted()
