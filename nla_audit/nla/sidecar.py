"""What the sidecar of a checkpoint states of an NLA, as the model needs it.

Read from ``nla_meta.yaml`` by :mod:`nla_audit.checkpoint.read_sidecar`; no reader of files here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Tokens:
    """Token ids pinned when the checkpoint was made; any drift puts the vector elsewhere."""

    injection_char: str
    injection_token_id: int
    left_neighbor_id: int
    right_neighbor_id: int
    #: The last tokens of every AR prompt; empty where the sidecar does not pin them.
    ar_suffix_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sidecar:
    """What a sidecar states. ``None`` means "not stated" unless a field says otherwise.

    Attributes:
        path: the file, for error messages.
        kind: ``"nla_model"`` or ``"nla_dataset"``.
        role: ``"av"`` or ``"ar"``; dataset sidecars state none.
        d_model: width of the activations.
        layer_index: extraction layer K; the activation is the *output* of block K.
        injection_scale: L2 norm an injected vector is rescaled to; ``None`` where absent or
            null, which in practice means norm-matched addition (see ``injection.py``).
        injection_text: how the vector enters, in words of our own (``add:1``); only sidecars
            written by this package say so.
        inject_unscaled: the sidecar asks for replacement by the vector as it is
            (``injection_scale: raw``).
        mse_scale: L2 norm both vectors are scaled to before the MSE; ``None`` means raw MSE
            (the sidecar says null). An absent field is √d_model.
        tokens: the pinned token ids.
        av_template: user message of the AV prompt, with ``{injection_char}``.
        ar_template: the AR prompt, with ``{explanation}``.
        base_model: name or path of the model that both were made from.
        stage: training stage the file was written in, as written (``rl``, ``av_sft`` …).
        ar_trained_in_rl: whether the AR was trained during RL, where recorded.
        raw: the whole file, for saving it again.
    """

    path: Path
    kind: str
    role: Literal["av", "ar"] | None
    d_model: int
    layer_index: int | None
    injection_scale: float | None
    injection_text: str | None
    inject_unscaled: bool
    mse_scale: float | None
    tokens: Tokens
    av_template: str | None
    ar_template: str | None
    base_model: str | None
    stage: str | None
    ar_trained_in_rl: bool | None
    raw: Mapping[str, Any] = field(repr=False, hash=False, compare=False)
