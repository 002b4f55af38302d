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
    ],
)
def test_names_of_a_source(name: str, held: bool) -> None:
    assert SourceText(SOURCE).holds_name(spoken(name)) == held


def test_a_quote_is_not_taken_apart() -> None:
    assert not SourceText(SOURCE).holds(spoken("Ada Holm York"))
