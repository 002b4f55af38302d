"""A language model as the detector of mentions: each distinct explanation is one question.

The model says whether the explanation names the concept, and quotes the words that do so first; a
quotation that is not in the explanation is no answer. Texts without an answer are missing, they
are not taken for ones that do not name it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from nla_audit.errors import UserError
from nla_audit.llm.interface import LanguageModel
from nla_audit.llm.prompts import Naming
from nla_audit.probes.sensitivity.mentions import Sought, mention_at
from nla_audit.probes.sensitivity.table import SCHEMA
from nla_audit.progress import Progress, silent
from nla_audit.wording import count

#: How many tokens of an AV a text has, by model.
TokensIn = Mapping[str, Callable[[str], int]]

_STAGE = "asking whether explanations name it"


def with_answers(
    table: pl.DataFrame,
    concept: Sought,
    asked: LanguageModel,
    *,
    tokens_in: TokensIn | None = None,
    progress: Progress = silent,
) -> pl.DataFrame:
    """``table`` with the columns ``llm_…`` of :data:`~.table.SCHEMA`.

    Args:
        table: its rows.
        concept: what is asked for, by its name and what it is; its words are not shown.
        asked: the model.
        tokens_in: by model of the table; where there is none the token of a mention is not known.
        progress: told of texts asked about.

    Raises:
        UserError: no text has an answer that can be used.
    """
    texts = table["explanation"].drop_nulls().unique().sort().to_list()
    questions = [Naming(concept.name, concept.what, text) for text in texts if text.strip()]
    answers = asked.ask(questions, stage=_STAGE, progress=progress)
    if questions and all(answer.lines is None for answer in answers):
        raise UserError(
            f"{asked.name}: of {count(len(questions), 'question')} none has an answer that can be "
            f"used ({answers[0].reason}, …): look at the model, then run the same command again"
        )
    starts: dict[str, int | None] = {}
    reasons_of: dict[str, str] = {}
    for question, answer in zip(questions, answers, strict=True):
        if answer.lines is None:
            reasons_of[question.text] = answer.reason or "no answer"
        else:
            starts[question.text] = question.place(answer.lines)
    rows = [
        _row(text, ends, starts, reasons_of, (tokens_in or {}).get(model))
        for model, text, ends in table.select("model", "explanation", "segment_ends").iter_rows()
    ]
    names = [name for name in SCHEMA if name.startswith("llm_")]
    found = pl.DataFrame(rows, schema={name: SCHEMA[name] for name in names})
    return table.with_columns(found)


def _row(
    text: str | None,
    segment_ends: list[int] | None,
    starts: Mapping[str, int | None],
    reasons: Mapping[str, str],
    tokens_in: Callable[[str], int] | None,
) -> dict[str, Any]:
    if text is None or text in reasons:
        return {"llm_reason": None if text is None else reasons[text]}
    start = starts.get(text)  # an empty explanation names nothing, and nobody was asked
    if start is None:
        return {"llm_named": False}
    mention = mention_at(start, text, segment_ends)
    return {
        "llm_named": True,
        "llm_first_token": None if tokens_in is None else tokens_in(text[:start]),
        "llm_first_claim": mention.claim,
        "llm_first_segment": mention.segment,
    }
