"""Names of variants as people write them."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from nla_audit import cli
from nla_audit.probes.stego.names import meant_by
from nla_audit.probes.stego.scores import scores_from_frame

N = 30


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("original", "unchanged"),
        ("LLM paraphrase", "paraphrase"),
        ("no_quotes", "quotes_removed"),
        ("text without quotes", "quotes_removed"),
        ("quotes alone", "quotes_only"),
        ("paraphrase everything except quotes", "paraphrase_unquoted"),
        ("paraphrase the rest, keep quotes verbatim", "paraphrase_unquoted"),
        ("paraphrase-non-quoted", "paraphrase_unquoted"),
        ("rewrite into fluent sentences", "rewrite_fluently"),
        ("shuffle_bullets", "shuffle_claims"),
        ("shuffle words within lines", "words_shuffled"),
        ("word order within lines", None),
        ("variant 7", None),
        ("redact quotes", "quotes_masked"),
        ("quotes_removed", "quotes_removed"),
    ],
)
def test_a_variant_is_read_by_what_its_name_says(name: str, meant: str | None) -> None:
    assert meant_by(name) == meant


def test_names_that_are_not_clear_are_not_judged_until_they_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = {
        "original": 0.6,
        "no_quotes": 0.05,
        "without quotes": 0.5,
        "xx": 0.03,
        "quotes_only": 0.4,
    }
    frame = pl.DataFrame(
        [
            {"idx": idx, "variant": name, "fve": fve + idx / 100}
            for name, fve in levels.items()
            for idx in range(N)
        ]
    )
    notes = scores_from_frame(frame).notes
    assert any('"no_quotes" (quotes_removed?), "without quotes"' in note for note in notes)
    frame.write_csv(tmp_path / "s.csv")
    command = ["stego", "--scores", str(tmp_path / "s.csv"), "--json"]
    assert cli.run([*command, "--variant", "xx=quotes_removed"]) == 0
    assert json.loads(capsys.readouterr().out)["headline"]["quotes_removed"]["n"] == N
    for wrong in ("xx", "xx=quotes_remove", "yy=paraphrase"):
        assert cli.run([*command, "--variant", wrong]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert len(error.splitlines()) == 1
