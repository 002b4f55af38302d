"""What the tests of ``nla-audit extract`` share: a target, texts, and the call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from nla_audit.checkpoint.load import Placement
from nla_audit.runs.documents import Documents
from nla_audit.runs.extract import Sampling, extract
from nla_audit.runs.target import TargetModel
from tests.pairs import tiny

FLOAT32 = Placement(dtype="float32", device="cpu")


SAMPLING = Sampling(positions_per_document=3, minimum_position=4, max_tokens=60, seed=0)


KEYS = ("idx", "doc_id", "position", "n_raw_tokens", "detokenized_text_truncated")


WORDS = "a quoted word in the story about a fair formal register opens the final phrase".split()


def save_target(folder: Path, architecture: str, *, seed: int = 0) -> Path:
    tokenizer = tiny.make_tokenizer(bos=tiny.has_bos(architecture))
    tiny.random_model(tiny.make_config(architecture, len(tokenizer)), seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def random_texts(n: int) -> list[str]:
    """Texts of 3 to 40 words, so that batches are padded and one or two are too short."""
    draw = np.random.default_rng(7)
    return [" ".join(draw.choice(WORDS, size=draw.integers(3, 40))) for _ in range(n)]


def run(target: TargetModel, texts: Path | list[Path], out: Path, **options: Any) -> pl.DataFrame:
    paths = texts if isinstance(texts, list) else [texts]
    extract(target, Documents(paths), out, sampling=SAMPLING, **options)
    return pl.read_parquet(out)


def vectors(table: pl.DataFrame) -> np.ndarray:
    return table["activation_vector"].to_numpy()


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err
    return captured.err
