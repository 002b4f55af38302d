"""What writers are asked for, and what becomes of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from nla_audit.llm.interface import Account, Answer, Closing, Progress, Request, silent
from nla_audit.probes.stego.writers import writer_of
from nla_audit.probes.stego.writing import write_transform
from nla_audit.probes.transforming.cards import transforms

CARDS = transforms()
TEXT = "A small harbour, by “night”\nthe sailors sing."


class Model(Closing):
    """Answers every line with the task around it; fails on lines that hold ``stop``."""

    name = "model"

    def __init__(self) -> None:
        self.account = Account()
        self.asked: list[Request] = []

    def write(self, requests: Sequence[Request], *, progress: Progress = silent) -> list[Answer]:
        self.asked += requests
        return [
            Answer(None, "failed")
            if any(f"stop {request.task}" in line for line in request.lines)
            else Answer(tuple(f"{request.task}<{line}>" for line in request.lines))
            for request in requests
        ]


def test_translating_back_starts_from_the_translation():
    model = Model()
    made = write_transform(CARDS["translate_back"], ["one", None, "", "stop translate"], model)
    assert made == ["translate_back<translate<one>>", None, "", None]
    forth, _, back = model.asked
    assert forth.instruction == CARDS["translate"].instruction
    assert (back.task, back.lines) == ("translate_back", ("translate<one>",))
    assert "into English" in back.instruction
    assert forth.changes_language
    assert back.changes_language
    other = Model()
    write_transform(CARDS["translate"], ["one"], other)
    assert other.asked == [forth]  # so that a cache pays for the translation once


def test_a_model_is_free_of_the_lines_except_where_it_writes_line_by_line():
    model = Model()
    write_transform(CARDS["paraphrase"], [TEXT], model)
    write_transform(CARDS["paraphrase_lines"], [TEXT], model)
    whole, by_line = model.asked
    assert whole.lines == ("A small harbour, by “night”. the sailors sing.",)
    assert by_line.lines == tuple(TEXT.split("\n"))


def test_quoted_spans_are_spared_on_one_line_too():
    made = write_transform(CARDS["paraphrase_unquoted"], [TEXT, "it has ⟦1⟧"], Model())
    assert made == ["paraphrase_unquoted<A small harbour, by “night”. the sailors sing.>", None]


def test_a_table_holds_final_texts(tmp_path: Path):
    pl.DataFrame(
        {
            "task": ["translate_back", "translate"],
            "text": [TEXT, TEXT],
            "answer": ["A little port, at night\nseamen sing.", "Ein Hafen\nsingt."],
        }
    ).write_parquet(tmp_path / "t.parquet")
    with writer_of(f"file:{tmp_path / 't.parquet'}") as table:
        made = write_transform(CARDS["translate_back"], [TEXT, "unknown"], table)
    assert made == ["A little port, at night\nseamen sing.", None]
    assert table.account.failures == 1


def test_rules_translate_nothing():
    with writer_of("rules") as rules:
        assert write_transform(CARDS["translate_back"], ["it likely begins"], rules) == [None]
        assert rules.account.failures == 1
        # Rules work line by line, and leave the lines where they are.
        made = write_transform(CARDS["paraphrase"], ["it likely begins\nand ends"], rules)
    assert made == ["it probably starts\nand finishes"]


def test_every_written_transform_has_a_file_of_its_own():
    folder = Path(__file__).parents[3] / "nla_audit" / "probes" / "transforms"
    names = {path.stem for path in folder.glob("*.py")}
    assert {name for name, card in CARDS.items() if card.is_written} <= names
