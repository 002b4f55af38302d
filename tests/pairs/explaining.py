"""What the tests of ``nla-audit explain`` share: its input, and the call."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from nla_audit import cli
from nla_audit.checkpoint.load import Placement

ROWS = 60
#: Rows of the activations that cannot be explained.
NAN_ROW, ZERO_ROW = 7, 11
OPTIONS = ("--max-new-tokens", "20", "--batch-size", "16", "--token-budget", "150")
FLOAT32 = Placement(dtype="float32", device="cpu")


def table_of(vectors: np.ndarray, **columns: Any) -> pl.DataFrame:
    """A table of activations ``[n, d_model]`` with all keys; ``columns`` replace some."""
    rows = len(vectors)
    return pl.DataFrame(
        {
            "idx": range(100, 100 + rows),
            "doc_id": [f"d{row // 3}" for row in range(rows)],
            "n_raw_tokens": range(50, 50 + rows),
            "detokenized_text_truncated": [f"text up to token {row}" for row in range(rows)],
            "activation_layer": [2] * rows,
            "activation_vector": vectors.tolist(),
        }
    ).with_columns(**columns)


def run(*arguments: object) -> int:
    """``nla-audit explain``; returns the exit code."""
    return cli.run(["explain", *map(str, arguments)])
