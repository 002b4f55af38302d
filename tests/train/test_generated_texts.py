"""An AR that has met what its AV writes knows how far to trust it."""

from __future__ import annotations

import copy

import numpy as np
import polars as pl
import pytest

from nla_audit.checkpoint import in_vllm
from nla_audit.checkpoint.load import load
from nla_audit.checkpoint.save import save_av
from nla_audit.cli import run
from nla_audit.errors import UserError
from nla_audit.nla.engine import COMPARED_ROWS, COMPARED_TOKENS
from nla_audit.nla.fve import measure_baselines, squared_error
from nla_audit.train.dataset import Dataset
from nla_audit.train.generated_texts import explained, rows_to_explain, with_generated
from nla_audit.train.interruption import StopSignal
from nla_audit.train.layout import Layout
from nla_audit.train.read_recipe import parse_recipe
from nla_audit.train.recipe_optimizer import Optimizer
from nla_audit.train.recipe_warm_start import OnGenerated, WarmStart
from nla_audit.train.state import METRICS_FILE, read_metrics
from nla_audit.train.warm_start import cap_by_gold, train_ar
from nla_audit.train.warm_start_stage import _said_by_the_av
from tests.pairs.engines import VllmStandIn
from tests.train import miniature
from tests.train.test_course import MINI, write


class Killed(Exception):
    pass


def written(warm, folder, rows, tell=lambda done: None):
    return explained(
        warm.verbalizer,
        warm.dataset,
        rows,
        seed=3,
        max_new_tokens=30,
        out=folder / "generated.parquet",
        key="key",
        tell=tell,
    )


def test_texts_are_drawn_from_training_rows_alone(warm):
    rows = rows_to_explain(warm.dataset, 5, seed=1)
    assert len(rows) == 5
    assert set(rows) <= set(warm.dataset.training_rows)
    assert (np.diff(rows) > 0).all()
    every = rows_to_explain(warm.dataset, 10**6, seed=1)
    np.testing.assert_array_equal(every, warm.dataset.training_rows)


def test_writing_goes_on_after_a_kill_as_if_there_had_been_none(warm, tmp_path, monkeypatch):
    # Fails with: pieces written anew, rows keyed by their place in a piece.
    monkeypatch.setattr("nla_audit.train.generated_texts._PIECE", 4)
    rows = warm.dataset.training_rows[:10]
    av = type(warm.verbalizer)
    (tmp_path / "whole").mkdir()
    whole = written(warm, tmp_path / "whole", rows)
    assert 0 < len(whole) <= len(rows)

    def kill(done):
        if done == 8:
            raise Killed

    (tmp_path / "killed").mkdir()
    with pytest.raises(Killed):
        written(warm, tmp_path / "killed", rows, kill)
    asked = []
    monkeypatch.setattr(
        av,
        "generate",
        lambda self, vectors, _own=av.generate, **more: (
            asked.append(len(vectors)) or _own(self, vectors, **more)
        ),
    )
    assert written(warm, tmp_path / "killed", rows) == whole
    assert asked == [2]


def test_the_engine_that_the_recipe_names_writes_once_and_ends(warm, tmp_path, monkeypatch):
    # Fails with: our own loop in its place; an engine left running; texts that are there written
    # again; pieces as small as our own loop's.
    monkeypatch.setattr(in_vllm, "VllmEngine", VllmStandIn)
    monkeypatch.setattr("nla_audit.train.generated_texts._PIECE", 4)
    monkeypatch.setattr(VllmStandIn, "started", [])
    monkeypatch.setattr(VllmStandIn, "running", [])
    asked = []
    generate = VllmStandIn.generate
    monkeypatch.setattr(
        VllmStandIn,
        "generate",
        lambda self, prompts, **how: (
            asked.append((len(prompts), how["max_new_tokens"])) or generate(self, prompts, **how)
        ),
    )
    rows = warm.dataset.training_rows[:10]

    def said(folder, **how):
        raw = copy.deepcopy(MINI)
        settings = {"texts": 20, "steps": 4, "optimizer": {"learning_rate": 1.0e-3}, **how}
        raw["warm_start"]["ar_on_generated"] = settings
        layout = Layout(parse_recipe(raw, "mini"), tmp_path, tmp_path / folder)
        if not layout.warm_start.is_dir():
            save_av(warm.verbalizer, layout.warm_start / "av")
        section = layout.recipe.warm_start.ar_on_generated
        return _said_by_the_av(layout, section, warm.dataset, rows, lambda *_: None)

    own = said("own")
    assert not VllmStandIn.started
    others = said("vllm", engine="vllm", engine_options={"enforce_eager": True})
    held_out = warm.dataset.held_out_rows(128)
    cap = cap_by_gold(warm.verbalizer, warm.dataset.gold(held_out))
    assert asked == [(COMPARED_ROWS, COMPARED_TOKENS), (10, cap)]
    assert VllmStandIn.started == [0]
    assert VllmStandIn.running == []
    assert 0 < len(others) <= len(rows)
    assert others != own
    assert said("vllm", engine="vllm") == others
    assert VllmStandIn.started == [0], "what is whole is read"


@pytest.mark.parametrize(("share", "golden"), [(0.0, 0), (0.25, 1), (0.5, 3)])
def test_what_was_said_stands_beside_a_share_of_gold(warm, share, golden):
    dataset = warm.dataset
    rows, held_out = dataset.training_rows[:4], dataset.held_out_rows(2)
    said = {int(row): f"said {row}" for row in [*rows[:3], *held_out]}
    mixed = with_generated(dataset, said, rows, held_out, share)
    own = [mixed.explanations[place] for place in mixed.training_rows]
    assert len(own) == 3 + golden
    assert sum(not text.startswith("said") for text in own) == golden
    assert len(mixed.held_out_rows()) == 2
    for place, text in enumerate(mixed.explanations):
        (row,) = np.flatnonzero(dataset.idx == mixed.idx[place])
        assert text in {dataset.explanations[row], said[int(row)]}
        np.testing.assert_array_equal(mixed.activations[place], dataset.activations[row])
        assert mixed.doc_ids[place] == dataset.doc_ids[row]
        assert mixed.is_held_out[place] == dataset.is_held_out[row]
    with pytest.raises(UserError, match=r"only 0 of 4 responses of the AV hold an explanation"):
        with_generated(dataset, {}, rows, held_out, share)


def test_an_ar_learns_not_to_trust_what_is_false(tmp_path):
    """Gold names the activation; the AV names another's. Read by an AR of gold, its texts are
    worse than none; by one that met them, they are not, while gold is still read."""
    # Fails with: generated texts left out; gold left out; held-out rows learnt from.
    rng = np.random.default_rng(0)
    words = ["harbour", "kitchen", "scene", "forest"]
    # As in models, all share a mean; an AR that knows nothing can say that.
    directions = 2 + rng.normal(size=(len(words), miniature.D_MODEL))
    facts = rng.integers(len(words), size=240)
    dataset = Dataset(
        idx=np.arange(240),
        activations=(directions[facts] + 0.2 * rng.normal(size=(240, 16))).astype(np.float32),
        doc_ids=[str(row) for row in range(240)],
        positions=[None] * 240,
        source_texts=[None] * 240,
        explanations=[f"{words[fact]} ." for fact in facts],
        is_held_out=np.arange(240) % 4 == 0,
    )
    reader = miniature.reconstructor()
    optimizer = Optimizer(learning_rate=1e-2, schedule="constant", warmup_steps=0)
    settings = WarmStart(
        ar={"steps": 60, "batch_size": 32, "optimizer": optimizer}, evaluate_every=60
    )
    more = {"stop": StopSignal(), "tell": lambda done: None}
    train_ar(reader, dataset, settings, seed=0, folder=tmp_path / "gold", key="k", **more)
    others = rng.integers(len(words), size=240)
    said = {row: f"scene {words[other]} ." for row, other in enumerate(others)}
    held_out = dataset.held_out_rows()
    before = fve(reader, dataset, held_out, [said[row] for row in held_out])
    assert before < -0.2
    second = settings.model_copy(
        update={"ar": OnGenerated(steps=100, batch_size=32, optimizer=optimizer, texts=200)}
    )
    mixed = with_generated(dataset, said, dataset.training_rows, held_out, 0.3)
    train_ar(reader, mixed, second, seed=1, folder=tmp_path / "more", key="k", **more)
    after = fve(reader, dataset, held_out, [said[row] for row in held_out])
    gold = fve(reader, dataset, held_out, dataset.gold(held_out))
    assert after > -0.1
    assert gold > 0.5
    logged = [one for one in read_metrics(tmp_path / "more" / METRICS_FILE) if "rows" not in one]
    last = [one for one in logged if one["kind"] == "held_out"][-1]
    assert last["fve_raw_variance"] == pytest.approx(after, abs=1e-4)


def fve(reader, dataset, rows, texts):
    targets = dataset.activations[rows]
    error, _ = squared_error(reader.reconstruct(texts), targets, reader.mse_scale)
    variance = measure_baselines(targets, reader.mse_scale).raw_variance
    return 1 - float(error.mean()) / variance


@pytest.mark.slow
def test_a_course_whose_ar_reads_what_its_av_writes(tmp_path, capsys):
    raw = copy.deepcopy(MINI)
    raw["rl"]["length_penalties"] = [0.0]
    raw["warm_start"]["av"]["steps"] = 120
    raw["warm_start"]["ar_on_generated"] = {
        "texts": 20,
        "steps": 4,
        "batch_size": 8,
        "optimizer": {"learning_rate": 1.0e-3},
    }
    out = tmp_path / "out"
    for stage in ("target", "activations", "warm-start", "rl", "completions"):
        command = ["train", write(tmp_path, raw), "--out", str(out), "--stage", stage]
        assert run(command) == 0, stage
    warm = out / "warm-start"
    # Stopped before its end, and taken up again by a recipe of other texts.
    (warm / "done.json").unlink()
    other = copy.deepcopy(raw)
    other["warm_start"]["ar_on_generated"]["texts"] = 10
    again = ["--out", str(out), "--stage", "warm-start"]
    assert run(["train", write(tmp_path, other), *again]) == 2
    assert "made by another recipe" in capsys.readouterr().err
    assert run(["train", write(tmp_path, raw), *again]) == 0
    first, last = (load(ar=warm / name).reconstructor for name in ("ar-of-gold", "ar"))
    assert not np.array_equal(first.reconstruct(["harbour ."]), last.reconstruct(["harbour ."]))
    records = read_metrics(warm / "ar-on-generated-training" / METRICS_FILE)
    assert [one["step"] for one in records if one["kind"] == "step"] == [1, 2, 3, 4]
    said = pl.read_parquet(warm / "generated.parquet")
    assert said["explanation"].str.len_chars().min() > 0
    table = pl.read_parquet(out / "completions" / "completions.parquet")
    assert set(table["model"]) == {"warm-start", "p0.0"}
