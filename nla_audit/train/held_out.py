"""Completions of held-out activations, in the columns that an audit reads."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from nla_audit.nla.fve import measure_baselines
from nla_audit.nla.reconstructor import ReconstructionScores, Reconstructor
from nla_audit.nla.scoring import baseline_columns
from nla_audit.nla.segments import segment_ends
from nla_audit.nla.verbalizer import Explanations, Verbalizer
from nla_audit.train.dataset import Dataset
from nla_audit.train.judging import Judges
from nla_audit.train.measure import Measured, content_tokens
from nla_audit.train.recipe import Evaluation
from nla_audit.train.recipe_rl import Rl
from nla_audit.train.rewards import rewards_of
from nla_audit.train.rollout import samples_of
from nla_audit.train.seeds import Use, derived

#: Name of the ruler all models are read by: the AR of the warm start.
RULER = "warm-start"


def completions_of(
    verbalizer: Verbalizer,
    rulers: Mapping[str, Reconstructor],
    dataset: Dataset,
    settings: Evaluation,
    *,
    model: str,
    length_penalty: float | None,
    step: int,
    reward: Rl,
    seed: int,
    judges: Judges | None = None,
) -> pl.DataFrame:
    """Rows of one model: ``samples`` explanations of each held-out activation by each ruler.

    FVE is against the raw variance of the held-out activations. The seeds of the draws are the
    same for every model, those of different samples are not. The reward is null where a judge's
    score is missing.

    Args:
        judges: those of ``reward``.
    """
    rows = dataset.held_out_rows(settings.activations)
    activations = dataset.activations[rows]
    keys = dataset.idx[rows].tolist()
    every = dataset.activations[dataset.held_out_rows()]
    frames = []
    for sample in range(settings.samples):
        said = verbalizer.generate(
            activations,
            seed=derived(seed, Use.COMPLETIONS, sample),
            row_keys=keys,
            max_new_tokens=reward.max_new_tokens,
        )
        content = content_tokens(verbalizer.tokenizer, said)
        sources = [dataset.source_texts[row] for row in rows]
        judgement = {} if judges is None else judges.scores(said.explanations, sources)
        ends = _segment_ends(verbalizer, said, reward)
        for ruler, reconstructor in rulers.items():
            baselines = measure_baselines(every, reconstructor.mse_scale)
            scores = reconstructor.score(said.explanations, activations, baselines=baselines)
            total, _ = rewards_of(
                samples_of(Measured(said, content, scores), judgement),
                reward.rewards,
                length_penalty=length_penalty or 0.0,
                charge=reward.charge(),
            )
            frame = _frame(said, scores, content, total).with_columns(
                model=pl.lit(model),
                length_penalty=pl.lit(length_penalty, dtype=pl.Float64),
                sample=pl.lit(sample, dtype=pl.Int64),
                ar=pl.lit(ruler),
                step=pl.lit(step, dtype=pl.Int64),
                segment_ends=ends,
                idx=pl.Series(keys, dtype=pl.Int64),
                doc_id=pl.Series([dataset.doc_ids[row] for row in rows], dtype=pl.String),
                position=pl.Series([dataset.positions[row] for row in rows], dtype=pl.Int64),
                source_text=pl.Series(sources, dtype=pl.String),
            )
            frames.append(frame)
    return pl.concat(frames)


def _segment_ends(verbalizer: Verbalizer, said: Explanations, reward: Rl) -> pl.Series:
    """``[n]`` characters of each explanation up to each end of a segment, the last its own length;
    null where it failed, and where the AV writes no separators."""
    token = reward.grading.separator()
    found: list[list[int] | None] = [None] * len(said.explanations)
    if token is not None:
        most = reward.grading.most_separators()
        found = segment_ends(verbalizer, said, token, at_most=most)
    return pl.Series(found, dtype=pl.List(pl.Int64))


def gold_texts(dataset: Dataset, settings: Evaluation) -> pl.DataFrame:
    """Gold explanations of the activations that :func:`completions_of` explains, as a table of
    one model called ``gold``; no rows where there are none."""
    rows = dataset.held_out_rows(settings.activations)
    frame = pl.DataFrame(
        {
            "model": ["gold"] * len(rows),
            "idx": pl.Series(dataset.idx[rows], dtype=pl.Int64),
            "doc_id": pl.Series([dataset.doc_ids[row] for row in rows], dtype=pl.String),
            "position": pl.Series([dataset.positions[row] for row in rows], dtype=pl.Int64),
            "source_text": pl.Series([dataset.source_texts[row] for row in rows], dtype=pl.String),
            "explanation": pl.Series([dataset.explanations[row] for row in rows], dtype=pl.String),
        }
    )
    return frame.filter(pl.col("explanation").is_not_null())


def _frame(
    said: Explanations, scores: ReconstructionScores, content: np.ndarray, reward: np.ndarray
) -> pl.DataFrame:
    """What a row is measured by; a failed explanation has no text, no MSE and no FVE."""
    return pl.DataFrame(
        {
            "explanation": pl.Series(said.explanations, dtype=pl.String),
            "n_tokens": said.generated.lengths,
            # As explain has it: a failed response has no explanation whose tokens could be counted.
            "content_tokens": pl.Series(
                [
                    None if text is None else float(tokens)
                    for text, tokens in zip(said.explanations, content, strict=True)
                ],
                dtype=pl.Float64,
            ),
            "mse": scores.mse,
            "nmse": 1 - scores.fve,
            "fve": scores.fve,
            **baseline_columns(scores.baseline_name, scores.baselines, len(scores.fve)),
            "reward": reward,
            "extracted": [text is not None for text in said.explanations],
            "cjk": said.cjk,
        }
    ).with_columns(pl.col("mse", "nmse", "fve", "reward").fill_nan(None))
