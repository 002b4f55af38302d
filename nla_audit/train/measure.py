"""Explain held-out activations, score them, and sum up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nla_audit.nla.fve import Baselines
from nla_audit.nla.reconstructor import ReconstructionScores, Reconstructor
from nla_audit.nla.verbalizer import Explanations, Verbalizer

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """Explanations of some activations and their scores, row by row."""

    explanations: Explanations
    content_tokens: npt.NDArray[np.int64]
    scores: ReconstructionScores


def explain_and_score(
    verbalizer: Verbalizer,
    reconstructor: Reconstructor,
    activations: npt.NDArray[np.float32],
    *,
    keys: npt.NDArray[np.int64],
    seed: int,
    max_new_tokens: int,
    baselines: Baselines | None = None,
) -> Measured:
    """Sample one explanation of each activation at temperature 1 and score it.

    Args:
        activations: ``[n, d_model]``.
        keys: ``[n]``, what a row's draws depend on besides ``seed``.
        baselines: for FVE; by default of these activations.
    """
    said = verbalizer.generate(
        activations, seed=seed, row_keys=keys.tolist(), max_new_tokens=max_new_tokens
    )
    return Measured(
        explanations=said,
        content_tokens=content_tokens(verbalizer.tokenizer, said),
        scores=reconstructor.score(said.explanations, activations, baselines=baselines),
    )


def content_tokens(tokenizer: Any, said: Explanations) -> npt.NDArray[np.int64]:
    """``[n]`` tokens of the explanations themselves: no tags, no end token.

    Counted by tokenising the text between the tags, so that an empty explanation has none; a
    failed one has no text to tell apart and counts as a whole. Never above the tokens generated.
    """
    texts = [text for text in said.explanations if text]
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    counts = iter(len(ids) for ids in encoded)
    lengths = said.generated.lengths
    own = [
        int(length) if text is None else next(counts) if text else 0
        for text, length in zip(said.explanations, lengths, strict=True)
    ]
    return np.minimum(np.array(own, dtype=np.int64), lengths)


def summary(measured: Measured) -> dict[str, float]:
    """Means over rows: FVE by both baselines, lengths, shares. NaN where no row has a value.

    ``fve_with_failures`` counts a failed row as explaining nothing (FVE 0); the plain FVE leaves
    it out, as published figures do.
    """
    said, scores = measured.explanations, measured.scores
    mse = scores.mse[np.isfinite(scores.mse)]
    fve = scores.fve[np.isfinite(scores.fve)]
    mean = float(mse.mean()) if len(mse) else float("nan")
    return {
        "rows": float(len(scores.mse)),
        "mse": mean,
        "fve_raw_variance": 1 - mean / scores.baselines.raw_variance,
        "fve_mean_normalized": 1 - mean / scores.baselines.mean_normalized,
        "fve_median": float(np.median(fve)) if len(fve) else float("nan"),
        "fve_with_failures": float(np.nan_to_num(scores.fve).mean()),
        "n_tokens": float(said.generated.lengths.mean()),
        "content_tokens": float(measured.content_tokens.mean()),
        "extracted": float(np.mean([text is not None for text in said.explanations])),
        "empty": float(np.mean([text == "" for text in said.explanations])),
        "cjk": float(said.cjk.mean()),
    }
