"""How long a recipe is said to take: by its passes, and by how fast this machine makes them."""

from __future__ import annotations

import polars as pl
import pytest
import torch

from nla_audit.train.hours import Speed, duration, expected, measure_speed
from nla_audit.train.layout import Layout
from nla_audit.train.read_recipe import parse_recipe
from tests.pairs import tiny


def layout_of(folder, runs=(), **rl):
    raw = {
        "name": "x",
        "target": {"model": "base", "layer_index": 1, "device": "cpu"},
        "data": {"texts": "t.jsonl", "context_tokens": 30},
        "pair": {"ar_template": "{explanation}" + " " * 27},
        "warm_start": {
            "av": {"steps": 3, "batch_size": 2, "optimizer": {"learning_rate": 1e-3}},
            "ar": {"steps": 5, "batch_size": 2, "optimizer": {"learning_rate": 1e-3}},
        },
        "rl": {"steps": 4, "max_new_tokens": 20, **rl},
        "runs": list(runs),
    }
    return Layout(parse_recipe(raw, "x"), folder, folder / "out")


def test_seconds_are_those_of_the_passes(tmp_path):
    # Fails with: the AR run through all blocks; a text read beyond the context; a forward pass for
    # a training step.
    config = tiny.make_config("gemma3", 300)
    pl.DataFrame({"text": ["a" * 40, "b" * 4000]}).write_ndjson(tmp_path / "t.jsonl")
    layout = layout_of(tmp_path)
    of_tokens = duration(layout, config, Speed(token=1.0, step=0.0, word=0.0))
    assert of_tokens.activations == (10 + 30) * 2  # tokens by blocks up to the layer
    more = [
        duration(layout_of(tmp_path, steps=n), config, Speed(1.0, 0.0, 0.0)).rl for n in (8, 12)
    ]
    assert more[1] - more[0] == pytest.approx(more[0] - of_tokens.rl)
    assert more[0] > of_tokens.rl
    of_words = duration(layout, config, Speed(0.0, 0.0, 1.0))
    assert of_words.activations == 0
    # Ten words of each of two texts, three passes, three steps; of measurements the sampling, and
    # gold's with its own activation and with another.
    rows = layout.recipe.warm_start.evaluation_rows
    shares = 3 / layout.recipe.warm_start.evaluate_every
    assert of_words.warm_start == pytest.approx(
        3 * 2 * 10 * 3 + shares * rows * (20 * 0.5 + 2 * 10)
    )
    (tmp_path / "t.jsonl").unlink()
    assert duration(layout, config, Speed(1.0, 0.0, 0.0)).activations is None


def test_runs_take_their_own_cap_and_their_share_of_the_processor(tmp_path):
    # Fails with: the recipe's cap for a run that has another; half the time for two runs at once
    # where each is half as fast; two runs at once where there is but one.
    config = tiny.make_config("gemma3", 300)
    slow, fast = Speed(2.0, 2.0, 2.0), Speed(1.0, 1.0, 1.0)

    def rl(*runs, in_rl=fast, **more):
        layout = layout_of(tmp_path, list(runs), **more)
        return duration(layout, config, fast, in_rl).rl

    one, long = {"name": "a"}, {"name": "b", "rl": {"max_new_tokens": 80}}
    assert rl(long) == pytest.approx(rl(one, max_new_tokens=80))
    assert rl(one, {"name": "c"}, in_rl=slow, processes=2) == pytest.approx(2 * rl(one))
    assert rl(one, processes=2) == pytest.approx(rl(one))
    said = [duration(layout_of(tmp_path, [run]), config, fast).completions for run in (one, long)]
    assert said[1] > said[0]


def test_a_group_reads_its_prompt_once_unless_activations_are_recomputed(tmp_path):
    # Fails with: a prompt for each sample; prompts shared where they are not.
    config = tiny.make_config("gemma3", 300)

    def of_prompts(**rl):
        at_lengths = []
        for characters in (40, 400):
            layout = layout_of(tmp_path, steps=1, prompts=3, samples=5, **rl)
            pair = layout.recipe.pair.model_copy(
                update={"av_template": "{injection_char}" + " " * characters}
            )
            recipe = layout.recipe.model_copy(update={"pair": pair})
            longer = Layout(recipe, tmp_path, tmp_path / "out")
            at_lengths.append(duration(longer, config, Speed(1.0, 0.0, 0.0)).rl)
        return at_lengths[1] - at_lengths[0]

    assert of_prompts(gradient_checkpointing=True) == pytest.approx(5 * of_prompts())
    assert of_prompts() > 0


@pytest.mark.parametrize("architecture", ["qwen3", "gemma3"])
def test_blocks_of_any_model_can_be_timed(architecture, tmp_path):
    # Fails with: the user's config changed; an embedding of the whole vocabulary made.
    config = tiny.make_config(architecture, 300)
    before = config.to_dict()
    speed = measure_speed(config, torch.float32, "cpu")
    assert min(speed.token, speed.step, speed.word) > 0
    assert config.to_dict() == before
    tiny.random_model(config, seed=0).save_pretrained(tmp_path / "base")
    pl.DataFrame({"text": ["a" * 40] * 2}).write_ndjson(tmp_path / "t.jsonl")
    found = expected(layout_of(tmp_path))
    assert 0 < found.activations < found.rl
