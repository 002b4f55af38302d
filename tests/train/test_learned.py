"""A warm start that has not learnt says so, before RL."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import yaml

from nla_audit.cli import run
from nla_audit.nla.fve import measure_baselines
from nla_audit.train.dataset import make_dataset
from nla_audit.train.interruption import StopSignal
from nla_audit.train.learned import against_others, in_words, shortcomings
from nla_audit.train.recipe_optimizer import Optimizer
from nla_audit.train.recipe_warm_start import Supervised, WarmStart
from nla_audit.train.state import read_metrics
from nla_audit.train.warm_start import train_ar, train_av
from tests.train import miniature
from tests.train.test_recipe import TINY

LEARNT = {
    "fve_raw_variance": 0.4,
    "fve_of_other_text": -0.3,
    "gain_over_other_text": 0.7,
    "gain_over_other_text_low": 0.6,
    "nats_of_own_activation": 2.0,
    "nats_of_own_activation_low": 1.0,
    "extracted": 0.9,
}


def beside_others(predictions, documents=20):
    vectors = miniature.activations(60)
    names = [f"d{row % documents}" for row in range(len(predictions))]
    baselines = measure_baselines(vectors, 4.0)
    return against_others(predictions, vectors[: len(names)], names, baselines, seed=0)


def test_a_text_is_read_beside_that_of_another_document():
    # Fails with: the partner's activation taken for its text; an interval over rows.
    vectors = miniature.activations(60)
    knowing = beside_others(vectors + 0.3 * miniature.activations(60, seed=1))
    assert knowing["gain_over_other_text_low"] > 1
    assert knowing["fve_of_other_text"] < -0.5
    guessing = beside_others(miniature.activations(60, seed=2))
    assert guessing["gain_over_other_text_low"] < 0 < guessing["gain_over_other_text_high"]
    assert beside_others(vectors[:6], documents=2)["gain_over_other_text_low"] is None
    assert beside_others(vectors[:6], documents=1) == {}
    assert beside_others(miniature.reconstructor().reconstruct([])) == {}


@pytest.mark.parametrize(
    ("ar", "av", "said"),
    [
        ({}, {}, []),
        (None, None, []),
        ({"gain_over_other_text_low": -0.1}, {}, ["reward would be noise"]),
        ({"gain_over_other_text_low": None, "gain_over_other_text": 0.1}, {}, []),
        ({"fve_raw_variance": -0.1}, {}, ["AR reads gold explanations no better"]),
        ({}, {"extracted": 0.3}, ["only 30% of the AV's responses"]),
        ({}, {"nats_of_own_activation_low": -0.1}, ["no likelier with its own activation"]),
        ({}, {"fve_raw_variance": -0.2}, ["RL begins low"]),
    ],
)
def test_what_is_not_learnt_is_told_and_nothing_else(ar, av, said):
    found = shortcomings(None if ar is None else LEARNT | ar, None if av is None else LEARNT | av)
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))


def test_an_av_that_reads_the_vector_is_told_from_one_that_does_not(tmp_path):
    """Gold that the activation decides, and the same gold dealt out at random."""
    # Fails with: the partner's gold scored instead of the partner's activation injected.
    half = Supervised(
        steps=60, batch_size=16, optimizer=Optimizer(learning_rate=1e-2, warmup_steps=5)
    )
    vectors = miniature.activations(120)
    deciding, dealt = vectors[:, 0] > 0, np.random.default_rng(0).random(120) > 0.5
    vectors[:, 0] = np.where(deciding, 9, -9)
    gains = []
    for name, is_harbour in {"decided": deciding, "dealt": dealt}.items():
        dataset = make_dataset(
            vectors,
            doc_ids=[f"d{row // 2}" for row in range(120)],
            positions=[None] * 120,
            source_texts=[None] * 120,
            explanations=[f"{'harbour' if one else 'kitchen'} scene" for one in is_harbour],
            held_out_share=0.4,
            seed=0,
        )
        train_av(
            miniature.verbalizer(),
            dataset,
            WarmStart(av=half, ar=half, evaluate_every=1000),
            reader=None,
            seed=0,
            folder=tmp_path / name,
            key="test",
            stop=StopSignal(),
            tell=lambda _: None,
        )
        gains.append(read_metrics(tmp_path / name / "metrics.jsonl")[-1])
    assert gains[0]["nats_of_own_activation_low"] > 0.2
    assert gains[1]["nats_of_own_activation_low"] <= 0


def test_held_out_figures_are_logged_as_training_goes(warm, tmp_path, caplog):
    half = Supervised(steps=2, batch_size=4, optimizer=Optimizer(learning_rate=1e-3))
    with caplog.at_level(logging.INFO, "nla_audit.train"):
        train_ar(
            miniature.reconstructor(),
            warm.dataset,
            WarmStart(av=half, ar=half, evaluate_every=1),
            seed=0,
            folder=tmp_path,
            key="test",
            stop=StopSignal(),
            tell=lambda _: None,
        )
    assert [line.split(": FVE of gold texts")[0] for line in caplog.messages] == [
        "warm start of the AR, step 1 of 2",
        "warm start of the AR, step 2 of 2",
    ]
    assert in_words({"fve_raw_variance": None, "extracted": 0.5}, "generated") == (
        "FVE of generated texts unknown, 50% with an explanation"
    )


@pytest.mark.slow
def test_rl_begins_with_what_its_warm_start_lacks(tmp_path, capsys):
    for half, figures in {"ar": {"gain_over_other_text_low": -0.1}, "av": {}}.items():
        folder = tmp_path / "out" / "warm-start" / f"{half}-training"
        folder.mkdir(parents=True)
        record = {"kind": "held_out", "step": 1, **LEARNT, **figures}
        (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(TINY), encoding="utf-8")
    assert run(["train", str(recipe), "--out", str(tmp_path / "out"), "--stage", "rl"]) != 0
    said = capsys.readouterr().err
    assert said.index("before RL: the AR does not tell") < said.rindex("warm-start")
