"""Tags that are special tokens are tags all the same, and other special tokens still go."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from nla_audit.checkpoint.load import load
from nla_audit.nla.prompts import AnswerDecoder, content_tokens, read_explanation
from nla_audit.nla.verbalizer import Explanations
from tests.pairs import tiny
from tests.pairs.explaining import FLOAT32
from tests.pairs.talking import TAGS

OPENING, CLOSING = TAGS


def explained(av: Path, vectors: np.ndarray) -> tuple[Explanations, list[int | None]]:
    verbalizer = load(av=av, placement=FLOAT32).verbalizer
    assert verbalizer is not None
    said = verbalizer.generate(vectors, max_new_tokens=20)
    return said, verbalizer.content_tokens(said)


@pytest.mark.parametrize(
    "special",
    [[OPENING, CLOSING], [OPENING], [CLOSING], [*TAGS, " story"]],
    ids=["both", "opening", "closing", "and a word"],
)
def test_special_tags_change_nothing(
    special: list[str], pair_path: Path, vectors: np.ndarray, tmp_path: Path
) -> None:
    av = Path(shutil.copytree(pair_path / "av", tmp_path / "av"))
    tokenizer = AutoTokenizer.from_pretrained(av)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<start>", "<end>", *special]})
    tokenizer.save_pretrained(av)
    again = AutoTokenizer.from_pretrained(av)
    ids = again.convert_tokens_to_ids(special)
    assert again.batch_decode([[number] for number in ids], skip_special_tokens=True) == (
        [""] * len(special)
    )
    plain, plain_counts = explained(pair_path / "av", vectors)
    said, counts = explained(av, vectors)
    assert np.array_equal(said.generated.token_ids, plain.generated.token_ids)
    assert sum(text is not None for text in plain.explanations) > len(vectors) / 2
    if " story" in special:  # a special token that is no tag goes, as it did
        assert said.explanations == [
            text if text is None else " ".join(text.replace("story", "").split())
            for text in plain.explanations
        ]
    else:
        assert said.explanations == plain.explanations
        assert said.responses == plain.responses
        assert counts == plain_counts


def test_closing_tag_that_ends_the_answer(
    pair_path: Path, vectors: np.ndarray, tmp_path: Path
) -> None:
    av = Path(shutil.copytree(pair_path / "av", tmp_path / "av"))
    tokenizer = AutoTokenizer.from_pretrained(av)
    tokenizer.eos_token = CLOSING
    tokenizer.save_pretrained(av)
    plain, plain_counts = explained(pair_path / "av", vectors)
    said, counts = explained(av, vectors)
    whole = [row for row, text in enumerate(plain.explanations) if text is not None]
    assert len(whole) > len(vectors) / 2
    assert [said.explanations[row] for row in whole] == [plain.explanations[row] for row in whole]
    assert [counts[row] for row in whole] == [plain_counts[row] for row in whole]
    # There is no end token behind the tag any more.
    lengths = plain.generated.lengths[whole] - 1
    assert np.array_equal(said.generated.lengths[whole], lengths)


ANSWER = f"{OPENING}a quoted word, a story{CLOSING}<end>"


@pytest.mark.parametrize(
    "special",
    [
        [],
        [*TAGS],
        ["explanation"],
        ["</", "explanation>"],
        [f"{OPENING}a", CLOSING],
        [f" {OPENING}", f"{CLOSING}<end>"],
    ],
    ids=str,
)
def test_tags_and_parts_of_tags_stay(special: list[str]) -> None:
    tokenizer: Any = tiny.make_tokenizer(bos=True)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<start>", "<end>", *special]})
    ids = tokenizer(f"<bos>{ANSWER}<pad><eos>", add_special_tokens=False)["input_ids"]
    decode = AnswerDecoder(tokenizer)
    (response,) = decode([ids])
    assert read_explanation(response, ended=True) == "a quoted word, a story"
    assert not any(token in response for token in ("<bos>", "<pad>", "<eos>"))
    assert 0 < content_tokens(decode, ids, "a quoted word, a story") < len(ids)
    assert decode([]) == []
