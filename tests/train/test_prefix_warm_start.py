"""A warm start that knows prefixes: cut texts for the AR, separators for the AV."""

from __future__ import annotations

import copy

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from nla_audit.checkpoint.load import load
from nla_audit.cli import run
from nla_audit.errors import UserError
from nla_audit.train.grading import read_grading
from nla_audit.train.layout import Layout
from nla_audit.train.read_recipe import parse_recipe
from nla_audit.train.separating import add_separator, with_separators
from nla_audit.train.warm_start import cut_at_random
from tests.train import miniature
from tests.train.test_course import MINI, write
from tests.train.test_gradings import GRADINGS
from tests.train.test_resume import SETTINGS, make_run

TOKEN = "<|prefix_end|>"


def test_texts_are_cut_at_every_length_alike():
    # Fails with: the whole text never among the cut ones; all cut at the same place.
    text = "harbour scene . the kitchen"
    rng = np.random.default_rng(0)
    tokenizer = miniature.tokenizer()
    found = cut_at_random(tokenizer, [text] * 5000, 1.0, rng)
    words = text.split()
    wanted = [" ".join(words[:length]) for length in range(1, 6)]
    shares = [found.count(one) / 5000 for one in wanted]
    assert sum(shares) == pytest.approx(1)
    np.testing.assert_allclose(shares, 0.2, atol=0.03)
    some = cut_at_random(tokenizer, [text] * 5000, 0.25, rng)
    assert some.count(text) / 5000 == pytest.approx(0.75 + 0.25 / 5, abs=0.03)
    assert cut_at_random(tokenizer, [text, ""], 0.0, rng) == [text, ""]
    assert cut_at_random(tokenizer, ["", ""], 1.0, rng) == ["", ""]


def test_a_separator_is_a_token_of_its_own_that_changes_nothing_else():
    # Fails with: the global generator drawn from; special tokens not skipped.
    model, tokenizer = miniature.model(), miniature.tokenizer()
    ids = torch.tensor([tokenizer("harbour scene")["input_ids"]])
    before, rows = model(input_ids=ids).logits.detach(), len(tokenizer)
    torch.rand(1)
    add_separator(model, tokenizer, TOKEN, seed=3)
    after = model(input_ids=ids).logits.detach()
    torch.testing.assert_close(after[..., :rows], before)
    other = miniature.model()
    add_separator(other, miniature.tokenizer(), TOKEN, seed=3)
    weights = model.get_input_embeddings().weight, other.get_input_embeddings().weight
    assert torch.equal(*weights)
    with pytest.raises(UserError, match=r"has '<\|prefix_end\|>' already"):
        add_separator(model, tokenizer, TOKEN, seed=3)
    encoded = tokenizer(f"harbour .{TOKEN} scene")["input_ids"]
    assert encoded.count(tokenizer.convert_tokens_to_ids(TOKEN)) == 1
    assert tokenizer.decode(encoded, skip_special_tokens=True) == "harbour . scene"


def test_gold_gets_separators_between_claims(warm):
    dataset = with_separators(warm.dataset, TOKEN, 1)
    assert any(TOKEN in text for text in dataset.explanations)
    for before, after in zip(warm.dataset.explanations, dataset.explanations, strict=True):
        assert after.replace(TOKEN, "") == before
        assert after.count(TOKEN) <= 1
        assert not after.endswith(TOKEN)


def test_an_av_without_the_token_is_named(warm, tmp_path):
    grading = read_grading({"kind": "separators", "token": TOKEN})
    settings = SETTINGS.model_copy(update={"grading": grading})
    with pytest.raises(UserError, match=r"has no token '<\|prefix_end\|>'"):
        make_run(warm, tmp_path, settings)


def test_new_options_orphan_no_run_of_before(tmp_path):
    """Keys of a recipe that uses none of them, as they were before there were any."""
    plain = Layout(parse_recipe(copy.deepcopy(MINI), "x"), tmp_path, tmp_path)
    assert plain.key("warm-start") == "fe0a06b3fbb3815c"
    assert plain.key("rl", plain.named("p0.01")) == "2c902d0dadb03ec4"
    assert plain.key("completions") == "d71bce4d2111037f"
    raw = copy.deepcopy(MINI)
    raw["rl"]["grading"] = GRADINGS["fixed"]
    other = Layout(parse_recipe(raw, "x"), tmp_path, tmp_path)
    assert other.key("warm-start") == plain.key("warm-start")
    assert other.key("rl", other.named("p0.01")) != plain.key("rl", plain.named("p0.01"))
    raw["rl"]["grading"] = {"kind": "separators"}
    assert Layout(parse_recipe(raw, "x"), tmp_path, tmp_path).key("warm-start") != plain.key(
        "warm-start"
    )


@pytest.mark.slow
def test_a_course_with_separators(tmp_path):
    raw = copy.deepcopy(MINI)
    raw["rl"] |= {
        "length_penalties": [0.0],
        "grading": {"kind": "separators", "at_most": 2, "length_penalties": [0.0, 0.01, 0.02]},
    }
    raw["warm_start"]["ar_prefixes"] = 0.5
    raw["warm_start"]["av"]["steps"] = 120
    out = tmp_path / "out"
    for stage in ("target", "activations", "warm-start", "rl", "completions"):
        command = ["train", write(tmp_path, raw), "--out", str(out), "--stage", stage]
        assert run(command) == 0, stage
    pair = load(out / "rl" / "p0.0" / "av", out / "warm-start" / "ar")
    token = pair.verbalizer.tokenizer.convert_tokens_to_ids(TOKEN)
    assert TOKEN in pair.verbalizer.tokenizer.get_vocab()
    assert TOKEN not in pair.reconstructor.tokenizer.get_vocab()
    vectors = np.random.default_rng(0).normal(size=(30, 16)).astype(np.float32)
    said = pair.verbalizer.generate(vectors, max_new_tokens=70)
    assert (said.generated.token_ids == token).any()
    table = pl.read_parquet(out / "completions" / "completions.parquet")
    assert not table["explanation"].drop_nulls().str.contains("prefix_end").any()
    ends = table.filter(pl.col("segment_ends").is_not_null())
    assert ends.height == table.filter(pl.col("extracted")).height
    assert (ends["segment_ends"].list.last() == ends["explanation"].str.len_chars()).all()
    by_prefix = pl.read_parquet(out / "completions" / "prefix_fve.parquet")
    assert "segments" in set(by_prefix["unit"])
    saved = yaml.safe_load((out / "recipe.yaml").read_text("utf-8"))
    assert parse_recipe(saved, "x").rl.grading == parse_recipe(raw, "x").rl.grading
