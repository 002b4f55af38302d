"""What the AV writes once its warm start is done, for the AR to learn from.

An AR that has only met gold explanations takes each word for true. What a young AV writes is partly
wrong, and is read as worse than no text at all; an AR that has met such texts, too, knows how far
to trust them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from nla_audit.errors import UserError
from nla_audit.files import write_parquet
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.shards import Shards
from nla_audit.train.dataset import Dataset
from nla_audit.train.seeds import Use, derived, stream

#: In the folder of the warm start.
GENERATED_FILE = "generated.parquet"
#: Activations explained between two saved pieces.
_PIECE = 64
#: The same of another engine, which waits for the longest answer of each piece.
_PIECE_OF_ENGINE = 1024
#: Below this share of explanations among the responses, the AR would learn from next to nothing.
_LEAST_EXTRACTED = 0.1


def rows_to_explain(dataset: Dataset, texts: int, seed: int) -> npt.NDArray[np.int64]:
    """Places of at most ``texts`` training activations, drawn at random, in order."""
    rows = dataset.training_rows
    return np.sort(stream(seed, Use.GENERATED).permutation(rows)[:texts])


def explained(
    verbalizer: Verbalizer,
    dataset: Dataset,
    rows: npt.NDArray[np.int64],
    *,
    seed: int,
    max_new_tokens: int,
    out: Path,
    key: str,
    tell: Callable[[int], None],
) -> dict[int, str]:
    """One explanation of each of ``rows`` at temperature 1; kept in ``out`` once they are whole.

    Returns:
        As :func:`read_explained`.
    """
    shards = Shards(out, key)
    pieces = []
    at_once = _PIECE if verbalizer.engine is None else _PIECE_OF_ENGINE
    for number, start in enumerate(range(0, len(rows), at_once)):
        some = rows[start : start + at_once]
        piece = shards.get("explained", number)
        if piece is None:
            said = verbalizer.generate(
                dataset.activations[some],
                seed=derived(seed, Use.GENERATED),
                row_keys=dataset.idx[some].tolist(),
                max_new_tokens=max_new_tokens,
            )
            piece = pl.DataFrame(
                {"row": some, "explanation": said.explanations},
                schema={"row": pl.Int64, "explanation": pl.String},
            )
            shards.put("explained", number, piece)
        pieces.append(piece)
        tell(start + len(some))
    found = pl.concat(pieces).filter(pl.col("explanation").str.strip_chars() != "")
    write_parquet(found, out)
    shards.remove()
    return read_explained(out)


def read_explained(out: Path) -> dict[int, str]:
    """Texts by row; a row whose response held no explanation is left out."""
    found = pl.read_parquet(out)
    return dict(zip(found["row"], found["explanation"], strict=True))


def with_generated(
    dataset: Dataset,
    said: dict[int, str],
    rows: npt.NDArray[np.int64],
    held_out: npt.NDArray[np.int64],
    gold_share: float,
) -> Dataset:
    """A dataset of texts to learn to read.

    Args:
        said: explanations by row.
        rows: training rows, there with what was said.
        held_out: held-out rows, likewise.
        gold_share: of the texts to learn from, at most a half: some of ``rows``, drawn alike
            over them, are there a second time with their gold.

    Raises:
        UserError: too few responses held an explanation.
    """
    learnt = [row for row in rows.tolist() if row in said]
    if len(learnt) < _LEAST_EXTRACTED * len(rows):
        raise UserError(
            f"warm_start.ar_on_generated: only {len(learnt)} of {len(rows)} responses of the AV "
            "hold an explanation to learn from; give warm_start.av more steps or a higher rate"
        )
    judged = [row for row in held_out.tolist() if row in said]
    golden = round(len(learnt) * gold_share / (1 - gold_share))
    with_gold = [learnt[place * len(learnt) // golden] for place in range(golden)]
    places = np.array([*with_gold, *learnt, *judged], dtype=np.int64)
    texts: list[str | None] = [*dataset.gold(with_gold)]
    texts += [said[row] for row in [*learnt, *judged]]
    return replace(
        dataset,
        idx=dataset.idx[places],
        activations=dataset.activations[places],
        doc_ids=[dataset.doc_ids[place] for place in places],
        positions=[dataset.positions[place] for place in places],
        source_texts=[dataset.source_texts[place] for place in places],
        explanations=texts,
        is_held_out=dataset.is_held_out[places],
    )
