"""A local chat model writes, its refusals fail, and its cache knows which model it was."""

from __future__ import annotations

from pathlib import Path

from nla_audit.llm.interface import Request
from nla_audit.probes.stego.writers import writer_of
from tests.llm.chat_model import save_answering_model

REQUESTS = [
    Request("paraphrase", "Paraphrase the text.", lines)
    for lines in (
        ("Likely a report on the Harbour",),
        ("a report on Winter", "then a list of cold places"),
        ("a text that it has no answer to",),
    )
]
ANSWERS = {
    "Harbour": ["Presumably reports of a harbour"],
    "Winter": ["reports of the cold season", "cold places in a list"],
}


def _written(folder: Path, cache: Path):
    with writer_of(f"hf:{folder}", cache=cache) as writer:
        writer._max_new_tokens = 8
        return writer.write([*REQUESTS, REQUESTS[0]]), writer.account


def test_answers_are_read_kept_and_asked_for_again_of_another_model(tmp_path: Path):
    folder, cache = save_answering_model(tmp_path / "model", ANSWERS), tmp_path / "cache"
    answers, account = _written(folder, cache)
    assert [answer.lines for answer in answers] == [
        tuple(ANSWERS["Harbour"]),
        tuple(ANSWERS["Winter"]),
        None,
        tuple(ANSWERS["Harbour"]),
    ]
    assert answers[2].reason == "a refusal or a comment"
    assert (account.requests, account.failures, account.cached) == (3, 1, 0)
    again, account = _written(folder, cache)
    assert again == answers
    assert (account.requests, account.cached) == (1, 2)  # the failure is tried again
    # Another model in the same place does not answer for the first one.
    save_answering_model(folder, ANSWERS | {"Harbour": ["A harbour, it may be"]})
    others, account = _written(folder, cache)
    assert others[0].lines == ("A harbour, it may be",)
    assert (account.requests, account.cached) == (3, 0)
