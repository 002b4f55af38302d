"""What the log says of a step: all processes together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nla_audit.nla.fve import Baselines
from nla_audit.train.grpo import is_flat
from nla_audit.train.ranks import Ranks
from nla_audit.train.recipe_rl import Rl
from nla_audit.train.rewards import Samples
from nla_audit.train.rows import joined
from nla_audit.train.sampling import Draw
from nla_audit.train.update import PolicyMeasures

Floats = npt.NDArray[np.float64]
#: By judge, what it was asked for and what it cost.
Spent = Mapping[str, Mapping[str, int]]


def step_record(
    draw: Draw,
    measures: PolicyMeasures,
    *,
    settings: Rl,
    baselines: Baselines,
    ranks: Ranks,
    seconds: Mapping[str, float],
    spent: tuple[Spent, Spent],
) -> dict[str, Any]:
    """Rewards, lengths, FVE, what the objective measured, and seconds by phase.

    All processes must call this; each knows its own share of the step.

    Args:
        measures: of the whole step.
        seconds: by phase, of this process; those of the slowest are recorded.
        spent: by judges until before and after the step, for this process.
    """
    drawn = draw.drawn
    samples = joined(ranks.gathered(drawn.samples))
    rewards = np.concatenate(ranks.gathered(drawn.values.sum(axis=1)))
    terms = {name: np.concatenate(ranks.gathered(own)) for name, own in drawn.terms.items()}
    tokens = max(measures.tokens, 1)  # none where every group was left out
    every = ranks.gathered(dict(seconds))
    return {
        "reward": float(rewards.mean()),
        "terms": {name: float(values.mean()) for name, values in terms.items()},
        **_groups(draw, rewards, settings, ranks),
        **step_summary(samples, baselines),
        "loss": measures.loss,
        "kl": measures.kl / tokens,
        "clip_share": measures.clipped / tokens,
        **_judgement(samples, ranks.gathered(spent)),
        "time": {name: max(one[name] for one in every) for name in seconds},
    }


def _groups(draw: Draw, rewards: Floats, settings: Rl, ranks: Ranks) -> dict[str, float]:
    """Shares of groups that had no advantages, and of what became of them."""
    group = settings.samples
    if settings.flat_groups == "keep":
        return {"flat_groups": float(is_flat(rewards, group).mean())}
    shares = {
        "flat_groups": draw.was_flat,
        "replaced_groups": draw.is_replaced,
        "left_out_groups": ~draw.is_used[::group],
    }
    return {
        name: float(np.concatenate(ranks.gathered(flags)).mean()) for name, flags in shares.items()
    }


def step_summary(samples: Samples, baselines: Baselines) -> dict[str, float]:
    """Means of a step's samples; FVE over those that could be scored, by both baselines."""
    mse = samples.mse[np.isfinite(samples.mse)]
    mean = float(mse.mean()) if len(mse) else float("nan")
    nothing = samples.says_nothing
    return {
        "mse": mean,
        "fve_raw_variance": 1 - mean / baselines.raw_variance,
        "fve_mean_normalized": 1 - mean / baselines.mean_normalized,
        "n_tokens": float(samples.n_tokens.mean()),
        "content_tokens": float(samples.content_tokens.mean()),
        "extracted": float(1 - samples.has_failed.mean()),
        "empty": float(np.mean([text == "" for text in samples.explanations])),
        "cjk": float(samples.cjk.mean()),
        "tokens": float(samples.n_tokens.sum()),
        **({} if nothing is None else {"says_nothing": float(nothing.mean())}),
    }


def _judgement(samples: Samples, spent: list[tuple[Spent, Spent]]) -> dict[str, Any]:
    """What judges said of a step, how often they said nothing, and what all of it cost.

    Args:
        spent: of each process, before and after.
    """
    if not samples.scores:
        return {}
    has_text = np.array([bool(text) for text in samples.explanations], dtype=bool)
    shown = {name: scores[has_text] for name, scores in samples.scores.items()}
    return {
        "judge_scores": {name: _mean(of[~np.isnan(of)]) for name, of in shown.items()},
        "judge_missing": {name: int(np.isnan(of).sum()) for name, of in shown.items()},
        "judge_cost": {
            f"{name}_{what}": sum(after[name][what] - before[name][what] for before, after in spent)
            for name in shown
            for what in spent[0][1][name]
        },
    }


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")
