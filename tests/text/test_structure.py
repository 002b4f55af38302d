"""Marks around keys and values quote nothing; what is quoted in them, or announced, is."""

from __future__ import annotations

import time

import pytest

from nla_audit.text.claims import split_claims
from nla_audit.text.items import items, quoted_spans
from nla_audit.text.structure import without_structure


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ('"genre": "news report", "names": ["Ada Holm", "York"], "n": 3', []),
        ("{'genre': 'letter', 'mood': 'sad'}", []),
        ('{"genre": "letter",\n "last_words": "and then the"}', [("and then the", False)]),
        ('"nextToken": "river", "tone": "dry"', [("river", True)]),
        ('"ends": "stops at \\"of the\\" in a list",', [("of the", False)]),
        ('"last_words": "\\"of the\\", a preposition"', [("of the", False)]),
        # No structure: what stands before the colon is quoted from the text.
        ('"the river": final token, a noun.', [("the river", False)]),
        ('He said "yes": a promise.', [("yes", False)]),
        (
            'Contrast of "then": "now" and "once"',
            [("then", False), ("now", False), ("once", False)],
        ),
        ('fields "ISBN," etc. ":" or "by"', [("ISBN", False), ("by", True)]),
        ('"a": "cut off', []),
        ('"a": [', []),
    ],
)
def test_what_is_quoted(text: str, quoted: list[tuple[str, bool]]) -> None:
    plain = without_structure(text)
    assert len(plain) == len(text)
    assert [(item.text, item.predicted) for item in quoted_spans(text)] == quoted


def test_names_and_numbers_in_values_are_items_and_kinds_are_told() -> None:
    text = '"genre": "news report from York", "count": "about 40 boats"'
    assert {(item.kind, item.text) for item in items(text)} >= {
        ("entity", "York"),
        ("number", "40"),
    }
    assert next(claim.kind for claim in split_claims(text)) == "genre"


@pytest.mark.parametrize(
    "part", ['"a":["x",', '"a":"x",', "'a':['", '"a":[', '{"a":{', '"a": "\\"']
)
def test_time_grows_with_the_length(part: str) -> None:
    text = part * (200_000 // len(part))
    started = time.process_time()
    without_structure(text)
    assert time.process_time() - started < 10
