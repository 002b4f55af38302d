"""What stands in a source."""

from __future__ import annotations

import pytest

from nla_audit.text.source_text import SourceText, spoken

SOURCE = "Yesterday the painter Ada Holm met Bo Rask of the Leeds Council in York."


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("Ada Holm", True),
        ("Leeds", True),
        ("ADA HOLM", True),
        # Two names without a mark between them.
        ("Ada Holm York", True),
        ("Holm Leeds Council", True),
        ("Ada Holm Leeds", True),
        # The first name of one and the last name of another.
        ("Ada Rask", False),
        ("Ada York", False),
        ("Ada Holm Paris", False),
        ("Paris", False),
        # Initials of what stands there.
        ("LC", True),
        ("CL", False),
        ("Lc", False),
    ],
)
def test_names_of_a_source(name: str, held: bool) -> None:
    assert SourceText(SOURCE).holds_name(name) == held


@pytest.mark.parametrize(
    ("source", "name", "held"),
    [
        ("A train crosses Romania.", "Romanian", True),
        ("A film of Joss Whedon's", "Joss Whedon", True),
        ("A film by Joss Whedon", "Joss Whedon’s", True),
        ("A train crosses Romania.", "Roman", False),
        ("A firm in Denmark won.", "Danish", True),
        ("The American court ruled.", "United States", True),
        ("A firm in Denmark won.", "Swedish", False),
        ("The NSW court ruled.", "New South Wales", True),
        ("The NSW court ruled.", "New North Wales", False),
    ],
)
def test_names_in_other_words(source: str, name: str, held: bool) -> None:
    assert SourceText(source).holds_name(name) == held


@pytest.mark.parametrize(
    ("source", "number", "held"),
    [
        ("It sold 5,829 of them.", "5829", True),
        ("It sold 5829 of them.", "5,829", True),
        ("Il en a vendu 5 829.", "5,829", True),
        ("Twenty-one of the ninth row", "21", True),
        ("Twenty-one of the ninth row", "9", True),
        ("Twenty-one of the ninth row", "12", False),
        ("four thousand three hundred were moved", "4,300", True),
        ("four thousand three hundred were moved", "4,400", False),
        ("a hundred and twelve centimetres tall", "112", True),
        ("two hundred metres and nine more", "200", True),
        ("two hundred metres and nine more", "209", False),
        ("nine ten eleven", "30", False),
        ("It grew by 5.2 percent.", "52%", False),
        ("It grew by 5.20 percent.", "5.2%", True),
        ("It cost $1,250.50.", "1250.5", True),
        ("At 6:45, lot 9/16", "9/16", True),
        ("At 6:45, lot 9 and 16", "9/16", False),
    ],
)
def test_numbers_of_a_source(source: str, number: str, held: bool) -> None:
    assert SourceText(source).holds_number(number) == held


def test_a_quote_is_not_taken_apart() -> None:
    assert not SourceText(SOURCE).holds(spoken("Ada Holm York"))
