"""Whether a warm start has learnt what reinforcement learning builds on.

An AR that reads another activation's explanation as well as the right one rewards nothing, and an
AV to which any activation is alike has nothing to be rewarded for. Both can be seen on held-out
rows as the warm start goes, hours before the RL that would show it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nla_audit.nla.fve import Baselines, squared_error
from nla_audit.stats import Resampler, derangement

#: Below this share of responses with an explanation in them, most of the RL is spent on the form.
_MOST_ARE_WHOLE = 0.5


def against_others(
    predictions: npt.NDArray[np.float32],
    activations: npt.NDArray[np.float32],
    doc_ids: Sequence[str],
    baselines: Baselines,
    *,
    seed: int,
) -> dict[str, float | None]:
    """What texts tell the AR of their own activation, beside what another document's tell it.

    Args:
        predictions: ``[n, d_model]``, read from the text of each activation.
        activations: ``[n, d_model]``, raw.
        doc_ids: ``[n]``.
        baselines: FVE is against their raw variance.

    Returns:
        ``fve_of_other_text``, and ``gain_over_other_text`` with its 95 % interval over documents
        (no interval below ten of them); nothing where all are of one document.
    """
    partners = derangement(doc_ids, seed) if len(doc_ids) else np.array([], dtype=np.int64)
    if not len(partners) or (partners < 0).any():
        return {}
    own, _ = squared_error(predictions, activations, baselines.mse_scale)
    other, _ = squared_error(predictions[partners], activations, baselines.mse_scale)
    gain = Resampler(doc_ids, seed=seed).mean((other - own) / baselines.raw_variance)
    return {
        "fve_of_other_text": 1 - float(other.mean()) / baselines.raw_variance,
        **gain.entries("gain_over_other_text"),
    }


def in_words(figures: Mapping[str, Any], read: str) -> str:
    """Held-out figures in one line.

    Args:
        figures: a ``held_out`` record of a metrics log.
        read: what was read, ``gold`` or ``generated``.
    """
    parts = [f"FVE of {read} texts {_number(figures.get('fve_raw_variance'))}"]
    if figures.get("fve_of_other_text") is not None:
        parts.append(f"of another activation's {_number(figures['fve_of_other_text'])}")
    if figures.get("nats_of_own_activation") is not None:
        nats = _number(figures["nats_of_own_activation"])
        parts.append(f"gold is {nats} nats likelier with its own activation than with another")
    if figures.get("extracted") is not None:
        parts.append(f"{figures['extracted']:.0%} with an explanation")
    if figures.get("content_tokens") is not None:
        parts.append(f"{figures['content_tokens']:.0f} tokens of content")
    return ", ".join(parts)


def shortcomings(ar: Mapping[str, Any] | None, av: Mapping[str, Any] | None) -> list[str]:
    """What a warm start has not learnt yet, and what to do; nothing where all is well.

    Args:
        ar: the last ``held_out`` record of the AR's warm start, ``None`` where there is none.
        av: likewise of the AV's.
    """
    found = []
    if ar is not None and _is_no_gain(ar, "gain_over_other_text"):
        found.append(
            "the AR does not tell a gold explanation from another activation's yet, so its reward "
            "would be noise: give warm_start.ar more steps or a higher rate, or better gold"
        )
    elif ar is not None and _is_at_most(ar.get("fve_raw_variance"), 0):
        found.append(
            "the AR reads gold explanations no better than the mean of all activations (FVE "
            f"{_number(ar['fve_raw_variance'])}): give warm_start.ar more steps or a higher rate"
        )
    if av is None:
        return found
    if _is_below(av.get("extracted"), _MOST_ARE_WHOLE):
        found.append(
            f"only {av['extracted']:.0%} of the AV's responses hold an explanation: give "
            "warm_start.av more steps or a higher rate, or look whether gold fits the template"
        )
    elif _is_no_gain(av, "nats_of_own_activation"):
        found.append(
            "to the AV a gold explanation is no likelier with its own activation than with "
            "another: give warm_start.av more steps or a higher rate, or look at injection and "
            "marker"
        )
    elif _is_at_most(av.get("fve_raw_variance"), 0):
        found.append(
            "the AR reads what the AV writes no better than the mean of all activations (FVE "
            f"{_number(av['fve_raw_variance'])}); RL begins low: more steps of warm_start.av are "
            "cheaper than its own"
        )
    return found


def _is_no_gain(figures: Mapping[str, Any], name: str) -> bool:
    """Not shown to be above 0; judged by the estimate where there are too few for an interval."""
    low = figures.get(f"{name}_low")
    return _is_at_most(figures.get(name) if low is None else low, 0)


def _is_at_most(value: float | None, level: float) -> bool:
    return value is not None and value <= level


def _is_below(value: float | None, level: float) -> bool:
    return value is not None and value < level


def _number(value: float | None) -> str:
    return "unknown" if value is None or math.isnan(value) else f"{value:.2f}".replace("-", "−")
