"""Training tests run on one thread: the models are tiny, and threads would only wait."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.train.dataset import Dataset, make_dataset
from nla_audit.train.interruption import StopSignal
from nla_audit.train.recipe_optimizer import Optimizer
from nla_audit.train.recipe_warm_start import Supervised, WarmStart
from nla_audit.train.warm_start import train_av
from tests.pairs.fixtures import as_it_is
from tests.train import miniature

__all__ = ["as_it_is"]

torch.set_num_threads(1)


@dataclass(frozen=True)
class Warm:
    """A verbalizer that mostly closes its tags, and the data it learnt from."""

    verbalizer: Verbalizer
    dataset: Dataset

    def fresh(self) -> Verbalizer:
        """A copy to train."""
        return Verbalizer(
            copy.deepcopy(self.verbalizer.model),
            self.verbalizer.tokenizer,
            self.verbalizer.sidecar,
            injection=self.verbalizer.injection,
            name="warm-start",
        )


@pytest.fixture(scope="session")
def warm(tmp_path_factory) -> Warm:
    rng = np.random.default_rng(0)
    rows = 40
    golds = [
        "harbour scene",
        "about the kitchen . at noon",
        "spoken by a baker . he asks . at dusk",
    ]
    dataset = make_dataset(
        miniature.activations(rows),
        doc_ids=[f"d{row // 4}" for row in range(rows)],
        positions=list(range(rows)),
        source_texts=[f"source {row}" for row in range(rows)],
        explanations=[golds[rng.integers(len(golds))] for _ in range(rows)],
        held_out_share=0.2,
        seed=0,
    )
    verbalizer = miniature.verbalizer()
    half = Supervised(
        steps=60, batch_size=16, optimizer=Optimizer(learning_rate=2e-2, warmup_steps=5)
    )
    train_av(
        verbalizer,
        dataset,
        WarmStart(av=half, ar=half, evaluate_every=1000, checkpoint_every=1000),
        reader=None,
        seed=0,
        folder=tmp_path_factory.mktemp("av"),
        key="test",
        stop=StopSignal(),
        tell=lambda _: None,
    )
    verbalizer.model.requires_grad_(False)
    return Warm(verbalizer, dataset)
