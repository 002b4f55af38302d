"""Ends of segments, on an AV whose tokens are characters."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nla_audit.nla.generation import Generated
from nla_audit.nla.segments import SEPARATOR, segment_ends
from nla_audit.nla.verbalizer import Explanations
from nla_audit.probes.sensitivity.mentions import first_mention, sought

SEPARATOR_ID, END_ID = 1, 2


def verbalizer(*, knows_it: bool = True) -> Any:
    def decode(rows: Sequence[Sequence[int]]) -> list[str]:
        return ["".join(chr(one) for one in row if one > END_ID) for row in rows]

    tokenizer = SimpleNamespace(
        get_vocab=lambda: {SEPARATOR: SEPARATOR_ID} if knows_it else {},
        convert_tokens_to_ids=lambda token: SEPARATOR_ID,
    )
    return SimpleNamespace(tokenizer=tokenizer, decode=decode)


def said(*texts: str | None) -> Explanations:
    """Each text between its tags; ``|`` is the separator."""
    rows = [
        [*(SEPARATOR_ID if one == "|" else ord(one) for one in _tagged(text)), END_ID]
        for text in texts
    ]
    longest = max(map(len, rows))
    ids = np.array([[*row, *[-1] * (longest - len(row))] for row in rows])
    lengths = np.array([len(row) for row in rows])
    ended = np.array([text is not None for text in texts])
    return Explanations(
        responses=[""] * len(texts),
        explanations=[None if text is None else text.replace("|", "").strip() for text in texts],
        generated=Generated(ids, np.zeros(ids.shape, dtype=np.float32), lengths, ended),
        cjk=np.zeros(len(texts)),
    )


def _tagged(text: str | None) -> str:
    return "no tags" if text is None else f"<explanation>{text}</explanation>"


@pytest.mark.parametrize(
    ("text", "at_most", "ends"),
    [
        ("one.| two.| three.", None, [4, 9, 16]),
        ("one.| two.| three.", 1, [4, 16]),
        (" one.| two.|", None, [4, 9]),
        ("|one.", None, [0, 4]),
        ("one.", None, [4]),
        ("", None, [0]),
        (None, None, None),
    ],
)
def test_ends_are_characters_of_the_explanation(
    text: str | None, at_most: int | None, ends: list[int] | None
) -> None:
    assert segment_ends(verbalizer(), said(text), SEPARATOR, at_most=at_most) == [ends]


def test_an_av_that_does_not_know_the_token_has_none() -> None:
    assert segment_ends(verbalizer(knows_it=False), said("one.| two.", None), SEPARATOR) == [
        None,
        None,
    ]


def test_a_mention_is_placed_by_segment() -> None:
    texts = said("Bread rises.| It is a test.", "It is a test.| Bread rises.")
    concept = sought("test", "", ["test"])
    ends = segment_ends(verbalizer(), texts, SEPARATOR)
    places = [
        first_mention(concept, str(text), one)
        for text, one in zip(texts.explanations, ends, strict=True)
    ]
    assert [place and place.segment for place in places] == [1, 0]
    unsegmented = first_mention(concept, "It is a test.")
    assert unsegmented is not None
    assert unsegmented.segment is None
