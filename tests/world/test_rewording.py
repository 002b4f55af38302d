"""The synthetic language in other words: another wording, the same facts."""

from __future__ import annotations

import numpy as np
import pytest

from nla_audit.llm.interface import Request
from nla_audit.probes.stego.writers import writer_of
from nla_audit.world.toy.explanations import FILLERS, write_explanation
from nla_audit.world.toy.language import FACTS

TRUE = {fact: values[0] for fact, values in FACTS.items()}


def rewritten(text: str, task: str = "paraphrase") -> str | None:
    answer = writer_of("world").write([Request(task, "", (text,))])[0]
    return None if answer.lines is None else answer.lines[0]


@pytest.mark.parametrize("task", ["paraphrase", "rewrite_fluently", "compress_written"])
def test_facts_stay_and_words_go(task):
    rng = np.random.default_rng(0)
    for _ in range(100):
        text = write_explanation(rng, TRUE, ["kite", "lion"])
        after = rewritten(text, task)
        if after is None:  # it had that wording already
            assert task != "paraphrase"
            continue
        named = [
            {value for value in TRUE.values() if value in each.split()} for each in (text, after)
        ]
        assert named[0] == named[1]
        assert '" kite lion "' in after
        assert after.endswith(" .")
        assert after != text


def test_compression_is_short_and_leaves_fillers_out():
    text = f"the scene is set at the harbour . {FILLERS[0]} . the tone of it is cheerful ."
    assert rewritten(text, "compress_written") == "harbour scene . cheerful tone ."
    assert rewritten("harbour scene .", "rewrite_fluently") == "the scene is set at the harbour ."


def test_placeholders_stand_for_quotes():
    assert rewritten("ends ⟦1⟧ .") == "it ends with the words ⟦1⟧ ."


@pytest.mark.parametrize("text", ["lamp oil .", ""])
def test_what_is_not_of_the_language_fails(text):
    assert rewritten(text) is None
    assert rewritten("harbour scene . lamp oil .") == "the scene is set at the harbour . lamp oil ."


def test_it_does_not_translate():
    assert rewritten("harbour scene .", "translate") is None
