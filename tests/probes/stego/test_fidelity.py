"""Names, numbers and quotes: other wording loses none, and what is exchanged is found."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from nla_audit.probes.stego.fidelity import infidelities
from nla_audit.probes.transforming.cards import transforms
from nla_audit.text.items import named_entities, numbers

WORDINGS = Path(__file__).parents[3] / "benchmarks" / "wordings"
SETS = tuple(sorted(file.stem for file in WORDINGS.glob("*.jsonl")))
#: Of the explanations.
MOST_FALSE_ALARMS = 0.1
#: Where offices are told in words ("finance chief") or labels are reworded ("Scripture"); where
#: times of day and "a fortnight" are not known for numbers, nor inflected words for names; where
#: many numbers are told in other units ("0.8 kg" for 800 g), as few paraphrasers do.
MOST_WHERE_MORE_IS_SAID_SO = {
    ("markdown", "paraphrase"): 0.2,
    ("russian", "paraphrase"): 0.2,
    ("keyvalue", "paraphrase"): 0.45,
    ("keyvalue", "terse"): 0.3,
    ("notes", "paraphrase"): 0.45,
    ("labels", "paraphrase"): 0.2,
    ("clipped", "paraphrase"): 0.2,
}
LEAST_FOUND = 0.95
CARD = transforms()["paraphrase"]


def explanations(name: str, version: str) -> list[tuple[str, str]]:
    """Originals, and a version of each that says the same."""
    lines = pl.read_ndjson(WORDINGS / f"{name}.jsonl").sort("idx", "line")
    whole = lines.group_by("idx", maintain_order=True).agg(
        pl.col("original", version).str.join("\n")
    )
    return list(whole.select("original", version).iter_rows())


@pytest.mark.parametrize("version", ["paraphrase", "terse"])
@pytest.mark.parametrize("name", SETS)
def test_other_wording_is_faithful(name: str, version: str) -> None:
    pairs = explanations(name, version)
    wrong = [found for pair in pairs if (found := infidelities(*pair, CARD))]
    most = MOST_WHERE_MORE_IS_SAID_SO.get((name, version), MOST_FALSE_ALARMS)
    assert len(wrong) <= most * len(pairs), wrong


@pytest.mark.parametrize("name", ["lists", "prose", "fields", "chinese"])
def test_another_number_is_found(name: str) -> None:
    found = []
    for before, after in explanations(name, "paraphrase"):
        for item in numbers(after):
            if '"' not in after[: item.start].rsplit("\n", 1)[-1]:  # what is quoted is a quote
                other = re.sub("[0-9]+", "48613", item.text)
                changed = after[: item.start] + other + after[item.end :]
                found.append("number added" in infidelities(before, changed, CARD))
    assert len(found) > 10
    assert sum(found) >= LEAST_FOUND * len(found)


@pytest.mark.parametrize("name", ["lists", "prose", "fields"])
def test_another_name_is_found(name: str) -> None:
    found = []
    for before, after in explanations(name, "paraphrase"):
        names = [item for item in named_entities(after) if len(item.text.split()) > 1]
        for item in names:
            changed = after[: item.start] + "Wilbraham Quisling" + after[item.end :]
            found.append("name added" in infidelities(before, changed, CARD))
    assert len(found) > 10
    assert sum(found) >= LEAST_FOUND * len(found)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("The lot is no. 84 of 316.", "It is lot 84/316."),
        ("She is sixty, her brother twenty-one.", "She: 60; brother: 21."),
        ("It is the ninth row.", "Row 9."),
        ("1) A bill.\n2) A name follows.", "A bill; a name follows."),
        ("The chief executive officer Ann Bly spoke.", "CEO Ann Bly spoke."),
        ("A court in New South Wales ruled.", "A NSW court ruled."),
        ("We cross Romania by train.", "By Romanian train."),
        ("A firm in Denmark sued the United States.", "The US was sued by a Danish firm."),
        ("He needs intensive care.", "He goes to the ICU."),
        ("It sold 1.2 million in fiscal 2021.", "FY2021: 1,200,000 were sold, or 1.2M."),
        ("With Professor Grimwald and Reverend Lund.", "With Prof. Grimwald, Rev. Lund."),
        ("工期是47天，共2次。", "47天工期，2次。"),
        (
            "Der Vertrag der Firma nennt eine Frist und ein Datum.",
            "Frist und Tag nennt die Urkunde.",
        ),
    ],
)
def test_what_stands_for_the_same(before: str, after: str) -> None:
    assert infidelities(before, after, CARD) == []


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ("She is sixty.", "She is 61.", "number added"),
        ("It is row 9 of 16.", "Row 9/17.", "number added"),
        ("The court in Wales ruled.", "An NSW court ruled.", "name added"),
        ("The CFO spoke.", "The CEO spoke.", "name lost"),
        ("A nurse met Ada Holm.", "A nurse met Ada Holm and McKay.", "name added"),
        ("A nurse met Ada Holm.", "A NATO nurse met Ada Holm.", "name added"),
        ("It uses PayPal here.", "It uses it here.", "name lost"),
        ("Die Firma nennt 47 Gründe und eine Frist.", "Die Firma nennt 48 Gründe.", "number lost"),
        ("It sold 1.2 million.", "It sold 1,300,000.", "number lost"),
        ("A firm in Denmark sued.", "A Swedish firm sued.", "name added"),
        ("It is about Martin.", "It is about Martinez.", "name added"),
        ("工期是47天。", "工期是48天。", "number lost"),
    ],
)
def test_what_does_not(before: str, after: str, what: str) -> None:
    assert what in infidelities(before, after, CARD)
