"""Contrast sets: those that ship are matched and distinct, a user's own is refused in one line."""

from __future__ import annotations

import itertools
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nla_audit import cli
from nla_audit.concepts.confounding import confounding
from nla_audit.concepts.contrast_sets import (
    FEWEST_PAIRS,
    LONGEST_TEXT,
    ContrastSet,
    contrast_set_names,
    load_contrast_set,
)
from nla_audit.errors import UserError
from nla_audit.text.concepts import all_stems
from nla_audit.text.words import words

ROOT = Path(__file__).parents[2]
NAMES = contrast_set_names()
#: Of the words of two texts; a frame with one word exchanged shares more.
_NEAR = 0.5


def own(**changed: Any) -> dict[str, Any]:
    """A set that is in order, but for ``changed``; a key that is None is left out."""
    made = {
        "name": "rain",
        "what": "It rains.",
        "made": "By counting.",
        "confounds": "Nothing.",
        "words": ["rain", "drizzle"],
        "pairs": [[f"it rains on {n} roofs", f"sun on {n} roofs"] for n in range(FEWEST_PAIRS)],
    } | changed
    return {key: value for key, value in made.items() if value is not None}


def written(folder: Path, **changed: Any) -> Path:
    path = folder / "rain.yaml"
    path.write_text(yaml.safe_dump(own(**changed)), encoding="utf-8")
    return path


def test_the_eight_sets_ship() -> None:
    assert set(NAMES) == {
        "blue",
        "code",
        "deception-intent",
        "evaluation-awareness",
        "language",
        "refusal",
        "sentiment",
        "sycophancy",
    }


def test_what_is_no_code_goes_into_the_wheel() -> None:
    """The globs of the package data find every file that is no module."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    globs = declared["tool"]["setuptools"]["package-data"]["nla_audit"]
    packaged = {path for glob in globs for path in (ROOT / "nla_audit").glob(glob)}
    there = {
        path
        for path in (ROOT / "nla_audit").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert there == packaged


@pytest.mark.parametrize("name", NAMES)
def test_a_set_has_fifty_distinct_pairs_of_equal_length(name: str) -> None:
    found = load_contrast_set(name)
    assert len(found.pairs) >= 50
    with_concept, without = found.with_concept, found.without_concept
    assert len({" ".join(words(text)) for text in [*with_concept, *without]}) == 2 * len(
        found.pairs
    )
    sizes = np.array([[len(text) for text in side] for side in (with_concept, without)])
    assert sizes[0].mean() / sizes[1].mean() == pytest.approx(1, abs=0.1)
    number_of_words = [len(words(text)) for text in [*with_concept, *without]]
    assert max(number_of_words) <= 50
    # Of code fewer words make a text of the same length.
    assert min(number_of_words) >= (10 if name == "code" else 15)


@pytest.mark.parametrize("name", NAMES)
def test_no_text_of_a_set_is_another_with_a_word_exchanged(name: str) -> None:
    found = load_contrast_set(name)
    for side in (found.with_concept, found.without_concept):
        stems = [set(all_stems(text)) for text in side]
        for one, other in itertools.combinations(stems, 2):
            assert len(one & other) / len(one | other) < _NEAR


@pytest.mark.parametrize("name", NAMES)
def test_length_tells_the_sides_apart_only_where_the_card_says_so(name: str) -> None:
    """A French or a code text of as many characters has fewer words or more; others have not."""
    found = confounding(load_contrast_set(name))
    assert found.length.value < (0.95 if name in ("code", "language") else 0.65)
    # Words are what the concept is told by; where single words do it is on the card.
    given_away = name in ("blue", "code", "language")
    assert (found.word_counts.value > 0.95) == given_away


def _measured(pairs: list[tuple[str, str]]) -> Any:
    return confounding(ContrastSet(**own(pairs=pairs)))


def test_confounding_finds_what_was_planted() -> None:
    generator = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnop"))

    def text(length: int) -> str:
        return " ".join("".join(generator.choice(letters, 6)) for _ in range(length))

    neither = [(text(20), text(20)) for _ in range(60)]
    longer = [(text(int(n)), text(int(n) - 4)) for n in generator.integers(20, 26, 60)]
    worded = [(f"{text(20)} blue", f"{text(20)} red") for _ in range(60)]
    chance = _measured(neither)
    assert not chance.length.excludes(0.5)
    assert not chance.word_counts.excludes(0.5)
    found = _measured(longer)
    assert found.length.low > 0.9
    assert not found.word_counts.low > 0.9
    assert found.length_ratio > 1.1
    found = _measured(worded)
    assert found.word_counts.value == 1


def test_words_of_a_set_are_found_in_an_explanation() -> None:
    found = load_contrast_set("evaluation-awareness").concept()
    assert found.mentioned_in(all_stems("The assistant suspects it is being tested by graders."))
    assert not found.mentioned_in(all_stems("A recipe for plum jam; the final token is “sugar”."))


def test_a_file_of_a_user_is_read(tmp_path: Path) -> None:
    found = load_contrast_set(written(tmp_path))
    assert found.name == "rain"
    assert found.pairs[3] == ("it rains on 3 roofs", "sun on 3 roofs")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pairs": own()["pairs"][:5]}, "5 pairs; at least 10 are needed"),
        ({"pairs": [["a", "a"], *own()["pairs"]]}, "pair 1 has the same text on both sides"),
        ({"pairs": [*own()["pairs"], ["new", "sun  on 3 roofs"]]}, "of pair 11 is in pair 4 too"),
        ({"pairs": [[" ", "b"], *own()["pairs"]]}, "pair 1 has an empty text"),
        ({"pairs": [["a" * (LONGEST_TEXT + 1), "b"], *own()["pairs"]]}, "20,001 characters"),
        ({"pairs": [["alone"], *own()["pairs"]]}, "pairs.0.1 is missing"),
        ({"pairs": "many"}, "pairs"),
        ({"pairs": None}, "pairs is missing"),
        ({"confounds": None}, "confounds is missing"),
        ({"words": []}, "words"),
        ({"words": ["…"]}, "holds no word"),
        ({"name": 7}, "name"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_a_bad_set_is_refused_in_one_line(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    path = written(tmp_path, **changed)
    with pytest.raises(UserError) as refused:
        load_contrast_set(path)
    line = str(refused.value)
    assert message in line
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert len(line) < 400


@pytest.mark.parametrize("content", ["- a list", "", "name: [", "x: " + "y" * (2 << 20)])
def test_what_is_no_set_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError):
        load_contrast_set(path)


def test_a_name_nearly_right_is_told() -> None:
    with pytest.raises(UserError, match="did you mean sycophancy"):
        load_contrast_set("sycophany")
    with pytest.raises(UserError, match="these ship: blue"):
        load_contrast_set("zzz")


def test_the_command_lists_the_sets(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["concepts"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in NAMES)
    assert cli.run(["concepts", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(NAMES)


def test_the_command_tells_of_one_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["concepts", "blue", "--pairs"]) == 0
    printed = capsys.readouterr().out
    assert "word counts alone" in printed
    assert "kingfisher" in printed
    assert cli.run(["concepts", str(written(tmp_path)), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["name"] == "rain"
    assert told["auc_of_word_counts_low"] <= told["auc_of_word_counts"] == 1.0
    assert cli.run(["concepts", "bleu"]) == 2
    assert "did you mean blue" in capsys.readouterr().err
