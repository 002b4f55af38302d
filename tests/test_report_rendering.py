"""Escaping, number formats, the terminal and the figures."""

from __future__ import annotations

import io
import json
import re
import time
from dataclasses import replace
from xml.etree import ElementTree

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from nla_audit.errors import UserError
from nla_audit.findings import Figure
from nla_audit.report.colours import NEUTRAL, ModelColours
from nla_audit.report.escape import markdown_text, safe_text, script_json
from nla_audit.report.figures import render_figure, render_figures
from nla_audit.report.tables import display, frame_table, headline_table, label
from nla_audit.report.terminal import print_finding
from tests import report_samples as samples

COLOURS = ModelColours.of(
    samples.MODELS, {name: None if name == "base" else float(name[1:]) for name in samples.MODELS}
)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x07", "link"),
        ("\x1b]0;title\x07rest", "rest"),
        ("\x1bPdevice\x1b\\rest", "rest"),
        ("a\u202eb\u2066c\u200ed", "abcd"),
        ("a\x00b\x08c\x7fd\x85e", "abcd e"),
        ("tab\tline\nend\r\n", "tab line end "),
        ("family 👨\u200d👩\u200d👧 stays, ﷺ too", "family 👨\u200d👩\u200d👧 stays, ﷺ too"),
        ("tag\U000e0041s", "tags"),
    ],
)
def test_terminal_text_loses_what_could_act(text: str, safe: str) -> None:
    assert safe_text(text) == safe


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\x1b\x9b\x9d\x07[]m\\"))))
def test_no_control_character_survives(text: str) -> None:
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", safe_text(text))


def test_escaping_a_million_hostile_characters_is_linear() -> None:
    started = time.perf_counter()
    safe_text("\x1b]" * 500_000)
    safe_text("\x9d" * 1_000_000)
    safe_text("\x1b[" + "1;" * 500_000)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    "text",
    [
        samples.HOSTILE,
        "a | b ` c ` **d** _e_ ~~f~~",
        "[link](http://x)",
        "[1](http://x)",
        "[1]: http://x",
        "# no heading",
        "- no list",
        "1. no list",
        "[0.1, −0.2]",
        "snake_case_name",
        "&lt;",
        "back\\slash",
    ],
)
def test_markdown_shows_the_text_itself(text: str) -> None:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown_text(text))
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    children = tokens[1].children or []
    assert {child.type for child in children} <= {"text", "text_special"}
    assert "".join(child.content for child in children) == text


@given(st.text())
def test_json_in_a_script_reads_back_and_cannot_end_it(text: str) -> None:
    written = script_json({"text": text + "</script><!--"})
    assert not set(written) & set("<>&\u2028\u2029")
    assert json.loads(written)["text"] == text + "</script><!--"


def test_missing_is_a_dash_and_shares_are_percent() -> None:
    records = [
        {"model": "a", "empty_rate": 0.5, "empty_rate_low": 0.25, "empty_rate_high": 0.75},
        {"model": "b", "empty_rate": None, "empty_rate_low": None, "empty_rate_high": None},
    ]
    table = display(records, list(records[0]), {"empty_rate": "share"}.get)
    assert [column.label for column in table.columns] == ["model", "empty rate"]
    assert [row[1].line for row in table.rows] == ["50.0% [25.0, 75.0]", "–"]
    assert table.rows[1][1].sort is None


def test_percent_is_declared_and_not_guessed_from_a_name() -> None:
    finding = samples.finding()
    assert headline_table(finding).rows[0][3].line == "100.0%"
    bare = replace(finding, metrics=())
    assert headline_table(bare).rows[0][3].line == "1.00"
    table = finding.tables["by_kind"]
    assert frame_table(table, finding.unit_of).rows[0][2].text == "0.900"
    finding = replace(finding, columns={"retained": "share"})
    assert frame_table(table, finding.unit_of).rows[0][2].text == "90.0%"


def test_identifiers_and_penalties_are_not_rounded() -> None:
    table = display([{"idx": 123456, "length_penalty": 0.0005}], ["idx", "length_penalty"])
    assert [cell.text for cell in table.rows[0]] == ["123456", "0.0005"]


def test_a_value_that_rounds_to_zero_has_no_sign() -> None:
    table = display([{"fve_change": -0.00004}, {"fve_change": -0.25}], ["fve_change"])
    assert [row[0].text for row in table.rows] == ["0.000", "−0.250"]


def test_labels_read_as_words() -> None:
    assert label("retained.quoted_span") == "retained: quoted span"
    assert label("fve_mean") == "FVE mean"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_terminal_puts_the_verdict_first_and_keeps_every_number(width: int) -> None:
    finding = samples.finding()
    output = io.StringIO()
    print_finding(finding, Console(file=output, width=width, color_system=None))
    text = output.getvalue()
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= width
    assert text.index("The verdict of frontier") < text.index("FVE mean")
    for row in headline_table(finding).rows:
        for cell in row:
            assert cell.line in text
    assert "<script>" in text


def test_a_long_table_is_named_and_not_printed() -> None:
    finding = samples.finding()
    finding.tables["rows"] = pl.DataFrame({"note": [f"row{number}" for number in range(21)]})
    output = io.StringIO()
    print_finding(finding, Console(file=output, width=80))
    assert "21 rows" in output.getvalue()
    assert "row20" not in output.getvalue()


def test_a_table_that_repeats_the_headline_is_printed_once() -> None:
    finding = samples.finding()
    finding.tables = {"same": finding.tables["per_model"].drop("chance")}
    output = io.StringIO()
    print_finding(finding, Console(file=output, width=200))
    assert output.getvalue().count("FVE mean") == 1


def test_every_block_of_a_wide_table_names_its_rows() -> None:
    finding = samples.finding()
    finding.headline = {}
    long = [f"value_{number}_of_a_wide_table" for number in range(6)]
    finding.tables = {
        "wide": pl.DataFrame(
            {"model": ["a", "a", "b"], "λ": [0, 0, 1], "kind": ["x", "y", "x"]}
            | {name: ["1" * 25, "2" * 25, "3" * 25] for name in long}
        )
    }
    output = io.StringIO()
    print_finding(finding, Console(file=output, width=80))
    headings = [line for line in output.getvalue().splitlines() if line.startswith("model")]
    assert len(headings) > 1
    assert all(line.split()[:2] == ["model", "kind"] for line in headings[1:])


def test_brackets_in_text_are_no_console_markup() -> None:
    finding = samples.finding()
    finding.verdict = "[bold]not bold[/bold] [/nothing]"
    output = io.StringIO()
    print_finding(finding, Console(file=output, width=80))
    assert "[bold]not bold[/bold] [/nothing]" in output.getvalue()


def test_every_kind_of_figure_is_drawn_the_same_twice() -> None:
    first = render_figures(samples.finding(), COLOURS)
    second = render_figures(samples.finding(), COLOURS)
    assert {rendered.figure.kind for rendered in first} == {
        "line",
        "bar",
        "stacked",
        "scatter",
        "heatmap",
    }
    for one, other in zip(first, second, strict=True):
        assert (one.svg, one.png) == (other.svg, other.png)
        ElementTree.fromstring(one.svg)
        assert one.png.startswith(b"\x89PNG")


def test_ids_of_figures_on_one_page_differ() -> None:
    rendered = render_figures(samples.finding(), COLOURS)
    ids = [found for one in rendered for found in re.findall(r'\bid="([^"]+)"', one.svg)]
    assert len(ids) == len(set(ids)) > 0
    for one in rendered:
        own = set(re.findall(r'\bid="([^"]+)"', one.svg))
        assert set(re.findall(r'(?:url\(|xlink:href=")#([^)"]+)', one.svg)) <= own


def test_models_keep_one_colour_by_length_penalty() -> None:
    hues = [COLOURS.get(name) for name in samples.MODELS]
    assert hues[0] == NEUTRAL
    assert len(set(hues)) == len(hues)
    lightness = [sum(int(hue[place : place + 2], 16) for place in (1, 3, 5)) for hue in hues[1:]]
    assert lightness == sorted(lightness)
    assert COLOURS.get("no model") is None


def test_figures_of_private_tables_need_texts() -> None:
    finding = samples.finding()
    finding.private_tables = frozenset({"by_kind"})
    names = [rendered.figure.name for rendered in render_figures(finding.without_texts(), COLOURS)]
    assert names == ["line", "bar", "scatter"]


@pytest.mark.parametrize("change", [{"table": "none"}, {"y": "none"}])
def test_a_figure_of_what_is_not_there_says_so(change: dict[str, str]) -> None:
    fields = {"table": "per_model", "y": "fve_mean", **change}
    figure = Figure("odd", "Odd", "line", x="length_penalty", x_label="", y_label="", **fields)
    with pytest.raises(UserError, match="none"):
        render_figure(samples.finding(), figure, COLOURS)


def test_nulls_and_one_point_are_drawn() -> None:
    finding = samples.finding()
    finding.tables["per_model"] = (
        finding.tables["per_model"]
        .head(2)
        .with_columns(fve_mean=pl.Series([None, 0.5]), fve_mean_low=None, fve_mean_high=None)
    )
    assert len(render_figures(finding, COLOURS)) == 5
