"""A pair so small that a training step takes milliseconds: random weights, a real tokenizer."""

from __future__ import annotations

import numpy as np
import torch

from nla_audit.checkpoint.save import new_sidecar
from nla_audit.nla.architecture import keep_first_blocks
from nla_audit.nla.generation import NO_TOKEN, Generated, padded
from nla_audit.nla.injection import Injection
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.sidecar import Sidecar
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.train.credit import end_advantages
from nla_audit.train.log_probs import MicroBatch
from nla_audit.train.policy import Policy
from nla_audit.world.toy.target import make_tokenizer, untrained_model

MARKER = "㈎"
AV_TEMPLATE = "describe <concept> {injection_char} </concept>"
AR_TEMPLATE = "summary <text> {explanation} </text> <summary>"
D_MODEL = 16
BLOCKS = 2
LAYER = 1


def tokenizer():
    return make_tokenizer(MARKER, (AV_TEMPLATE, AR_TEMPLATE))


def sidecar(role: str, injection: Injection) -> Sidecar:
    return new_sidecar(
        tokenizer(),
        role=role,
        d_model=D_MODEL,
        layer_index=LAYER,
        injection_char=MARKER,
        injection=injection,
        av_template=AV_TEMPLATE,
        ar_template=AR_TEMPLATE,
        base_model="target",
        stage="test",
    )


def model(seed: int = 0):
    made = untrained_model(tokenizer(), d_model=D_MODEL, blocks=BLOCKS, seed=seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(1.5)  # far from uniform, so that gradients differ between tokens
    return made


def verbalizer(seed: int = 0, injection: Injection | None = None) -> Verbalizer:
    way = injection or Injection("replace", scale=4.0)
    return Verbalizer(model(seed), tokenizer(), sidecar("av", way))


def reconstructor(seed: int = 1) -> Reconstructor:
    full = model(seed)
    keep_first_blocks(full.config, LAYER + 1)
    way = Injection("replace", scale=4.0)
    return Reconstructor(full, torch.eye(D_MODEL), tokenizer(), sidecar("ar", way))


def activations(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, D_MODEL)).astype(np.float32)


def generated(rows: list[list[int]], *, ended: bool = True) -> Generated:
    """As if these token ids had been generated, all with log-probability −1."""
    ids = padded(rows)
    return Generated(
        token_ids=ids,
        log_probs=np.where(ids == NO_TOKEN, np.nan, -1.0).astype(np.float32),
        lengths=np.array([len(row) for row in rows], dtype=np.int64),
        ended=np.full(len(rows), ended),
    )


def log_probs(policy: Policy, vectors: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Of responses ``[n, tokens]`` to ``[n, d_model]``, all in one pass."""
    batch = MicroBatch(np.arange(len(ids)), ids, torch.ones_like(ids, dtype=torch.bool))
    with policy.reading(vectors, [batch]) as reading:
        return reading.log_probs(batch.rows, batch.token_ids, batch.is_token)


def warm_log_probs(policy: Policy, vectors: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """As :func:`log_probs`, of the anchor."""
    batch = MicroBatch(np.arange(len(ids)), ids, torch.ones_like(ids, dtype=torch.bool))
    with policy.warm_reading(vectors, [batch]) as reading:
        return reading.log_probs(batch.rows, batch.token_ids, batch.is_token)


def advantages(rewards, group: int, kind: str) -> np.ndarray:
    """``[n]`` of responses that are graded at their last end only."""
    values = np.asarray(rewards, dtype=np.float64)[:, None]
    return end_advantages(values, np.ones(values.shape, dtype=bool), group, kind)[:, 0]
