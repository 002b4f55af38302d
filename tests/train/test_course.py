"""A whole course in miniature, through the command line."""

from __future__ import annotations

import copy
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from safetensors.torch import load_file

from nla_audit.checkpoint import in_vllm
from nla_audit.checkpoint.load import load
from nla_audit.cli import run
from nla_audit.errors import UserError
from nla_audit.runs.activations import read_activations
from nla_audit.table.completions import load as load_completions
from nla_audit.train import completions_stage, course, rl_stage
from nla_audit.train import in_vllm as in_vllm_of_course
from nla_audit.train.interruption import Stopped
from nla_audit.train.layout import Layout
from nla_audit.train.pair import layer_of
from nla_audit.train.read_recipe import parse_recipe
from nla_audit.train.rl import RlRun
from nla_audit.train.state import read_metrics
from tests.pairs.engines import VllmStandIn
from tests.train.close import close
from tests.train.test_faults import leave_room, limits_restored

#: Whole trainings, from the world to the report.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MINI = {
    "name": "mini",
    "threads": 1,
    "target": {
        "world": {"steps": 5, "documents": 30, "d_model": 16, "blocks": 2, "batch_size": 8},
        "layer_index": 1,
    },
    "pair": {
        "injection": "replace:4",
        "av_template": "describe <concept> {injection_char} </concept>",
        "ar_template": "summary <text> {explanation} </text> <summary>",
    },
    "warm_start": {
        "av": {"steps": 40, "batch_size": 16, "optimizer": {"learning_rate": 2.0e-2}},
        "ar": {
            "steps": 5,
            "batch_size": 16,
            "optimizer": {"learning_rate": 1.0e-3},
            "lora": {"rank": 2, "alpha": 4},
        },
        "evaluate_every": 5,
    },
    "rl": {
        "length_penalties": [0.0, 0.01],
        "steps": 2,
        "prompts": 3,
        "samples": 4,
        "max_new_tokens": 70,
        "lora": {"rank": 2, "alpha": 4},
        "optimizer": {"learning_rate": 1.0e-2, "schedule": "constant", "warmup_steps": 0},
        "train_ar": True,
        "ar_lora": {"rank": 2, "alpha": 4},
        "ar_optimizer": {"learning_rate": 1.0e-2, "schedule": "constant", "warmup_steps": 0},
        "evaluate": {"every": 2, "rows": 6},
    },
    "evaluation": {"activations": 10, "samples": 2},
}


def write(folder, raw):
    path = folder / "mini.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    assert run(["train", write(folder, MINI), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_what_ran_is_on_record(out):
    record = json.loads((out / "record.json").read_text())
    assert record["written_by"] == "nla-audit train"
    assert record["arguments"]["out"] == str(out)
    assert record["seed"] == 0  # the default
    assert {"torch", "peft", "polars", "scipy"} <= set(record["versions"])
    assert "commit" in record


def test_completions_are_what_an_audit_reads(out):
    table = pl.read_parquet(out / "completions" / "completions.parquet")
    assert table.height == 3 * 10 * 2 + 2 * 10 * 2  # warm start by one ruler, λ's by two
    completions = load_completions([out / "completions" / "completions.parquet"], ar="warm-start")
    assert completions.models == ("warm-start", "p0.0", "p0.01")
    assert completions.reference == "p0.0"
    folder = json.loads((out / "completions" / "done.json").read_text())
    assert completions.baseline.name == "raw_variance"
    assert completions.baseline.value == pytest.approx(folder["baselines"]["raw_variance"])
    assert completions.length_penalties == {"warm-start": None, "p0.0": 0.0, "p0.01": 0.01}
    per_model = completions.rows.group_by("model").agg(
        pl.col("idx").n_unique(), pl.col("sample").n_unique()
    )
    assert per_model["idx"].to_list() == [10] * 3
    assert per_model["sample"].to_list() == [2] * 3
    assert completions.rows["doc_id"].null_count() == 0
    read = completions.rows.filter(pl.col("extracted"))
    assert read.height > 0
    fixed = read["n_tokens"] - read["content_tokens"]
    assert (fixed >= 3).all()
    failed = completions.rows.filter(~pl.col("extracted"))
    assert failed["fve"].null_count() == failed.height
    # Fails with: a failed response counted as a whole, which explain leaves null.
    raw = pl.read_parquet(out / "completions" / "completions.parquet")
    assert failed.height > 0
    assert (raw["content_tokens"].is_null() == ~raw["extracted"]).all()


def test_fve_by_prefix_stands_beside_the_completions(out):
    # Fails with: whole texts left out, or repeated behind their ends; another baseline than the
    # table's.
    table = pl.read_parquet(out / "completions" / "completions.parquet")
    by_prefix = pl.read_parquet(out / "completions" / "prefix_fve.parquet")
    wanted = ["model", "idx", "sample", "unit", "length", "fve", "tokens", "text_tokens"]
    assert [name for name in by_prefix.columns if name in wanted] == wanted
    assert set(by_prefix["unit"]) == {"tokens", "claims"}
    key = ["model", "idx", "sample"]
    assert not by_prefix.select(*key, "unit", "length").is_duplicated().any()
    ends = by_prefix.group_by(*key, "unit").agg(
        pl.col("tokens", "text_tokens").max(),
        whole=(pl.col("tokens") == pl.col("text_tokens")).sum(),
    )
    assert (ends["tokens"] == ends["text_tokens"]).all()
    assert (ends["whole"] == 1).all()
    longest = by_prefix.filter(pl.col("unit") == "tokens", pl.col("length") == pl.max("length"))
    whole = table.filter(pl.col("ar") == "warm-start", pl.col("fve").is_not_null())
    joined = whole.join(
        by_prefix.filter(pl.col("unit") == "tokens").sort("length").group_by(key).last(), on=key
    )
    assert joined.height == whole.height > 0
    np.testing.assert_allclose(joined["fve"], joined["fve_right"], atol=1e-5)
    assert longest.height <= whole.height
    firsts = by_prefix.filter(pl.col("unit") == "tokens", pl.col("length") == 1)
    assert not np.allclose(firsts["fve"].mean(), whole["fve"].mean(), atol=1e-6)


def test_gold_texts_of_the_same_activations_stand_beside_them(out):
    gold = pl.read_parquet(out / "completions" / "gold.parquet")
    table = pl.read_parquet(out / "completions" / "completions.parquet")
    assert set(gold["idx"]) == set(table["idx"])
    assert gold["model"].unique().to_list() == ["gold"]
    data = pl.read_parquet(out / "activations" / "activations.parquet")
    joined = gold.join(data, on="idx")
    assert (joined["explanation"] == joined["explanation_right"]).all()


def test_held_out_documents_are_in_no_training_row(out):
    assert read_activations(out / "activations" / "activations.parquet").layer == 1
    data = pl.read_parquet(out / "activations" / "activations.parquet")
    held_out = set(data.filter(pl.col("held_out"))["doc_id"])
    assert held_out.isdisjoint(data.filter(~pl.col("held_out"))["doc_id"])
    table = pl.read_parquet(out / "completions" / "completions.parquet")
    assert set(table["doc_id"]) <= held_out


def test_whether_the_ar_was_trained_is_on_record_everywhere(out):
    # Fails with: "ar_trained_in_rl" left out of the history.
    for folder in (out / "rl" / "p0.01" / "av", out / "rl" / "p0.01" / "ar"):
        meta = yaml.safe_load((folder / "nla_meta.yaml").read_text(encoding="utf-8"))
        assert meta["ar_trained_in_rl"] is True
        assert meta["length_penalty"] == 0.01
        assert meta["stage"] == "rl"
    warm = yaml.safe_load((out / "warm-start" / "av" / "nla_meta.yaml").read_text("utf-8"))
    assert warm["ar_trained_in_rl"] is False
    for done in (out / "rl" / "p0.0" / "done.json", out / "completions" / "done.json"):
        assert json.loads(done.read_text())["ar_trained_in_rl"] is True
    assert "AR co-trained" in (out / "report" / "report.html").read_text(encoding="utf-8")


def test_adapter_on_the_warm_start_is_the_merged_checkpoint(out):
    vectors = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    merged = load(out / "rl" / "p0.01" / "av").verbalizer
    adapted = load(out / "warm-start" / "av", adapter=out / "rl" / "p0.01" / "adapter").verbalizer
    start = load(out / "warm-start" / "av").verbalizer
    logits = [one.first_logits(vectors) for one in (merged, adapted, start)]
    assert (logits[0] - logits[1]).abs().max() < 1e-4
    assert (logits[0] - logits[2]).abs().max() > 1e-3


def test_the_ars_adapter_on_the_warm_start_is_the_merged_ar(out):
    # Fails with: the target named as the adapter's base; the head left out of the adapter.
    texts = ["about the kitchen .", "", "harbour scene at noon"]
    run_folder = out / "rl" / "p0.01"
    merged, adapted, start = (
        load(ar=folder).reconstructor.reconstruct(texts)
        for folder in (run_folder / "ar", run_folder / "ar-adapter", out / "warm-start" / "ar")
    )
    np.testing.assert_allclose(adapted, merged, atol=1e-4)
    assert np.abs(merged - start).max() > 1e-3
    meta = yaml.safe_load((run_folder / "ar-adapter" / "nla_meta.yaml").read_text("utf-8"))
    assert meta["ar_trained_in_rl"] is True


def test_an_ar_that_could_not_be_saved_is_not_trained(tmp_path, out, capsys, monkeypatch):
    """The release's layout cannot say that an AR keeps its final norm."""
    # Fails with: the check left out of train_one, for then only saving refuses, after all steps.
    for name in ("target", "activations", "warm-start"):
        shutil.copytree(out / name, tmp_path / "o" / name)
    real = rl_stage.load_start

    def keeping_its_norm(*arguments):
        pair, ruler = real(*arguments)
        pair.reconstructor.keeps_final_norm = True
        return pair, ruler

    monkeypatch.setattr(rl_stage, "load_start", keeping_its_norm)
    command = ["train", write(tmp_path, MINI), "--out", str(tmp_path / "o"), "--stage", "rl"]
    assert run(command) == 2
    assert "keeps its final norm" in capsys.readouterr().err
    assert not (tmp_path / "o" / "rl").exists()


def test_done_stages_are_left_alone_and_other_settings_refused(out, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    for stage in ("target", "activations", "warm-start", "rl", "completions"):
        assert run(["train", write(tmp_path, MINI), "--out", str(out), "--stage", stage]) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == before
    other = copy.deepcopy(MINI)
    other["rl"]["kl"] = 0.5
    assert run(["train", write(tmp_path, other), "--out", str(out), "--stage", "rl"]) == 2
    assert "made by another recipe" in capsys.readouterr().err


def test_stopping_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def stop(*_):
        raise Stopped("λ = 0.01 stopped after step 3")

    monkeypatch.setattr(course, "reinforce", stop)
    path = write(tmp_path, MINI)
    assert run(["train", path, "--out", str(tmp_path / "o"), "--stage", "rl"]) == 130
    assert "stopped after step 3; its state is saved. Go on with:" in capsys.readouterr().err


def test_ctrl_c_in_rl_and_the_same_command_again(tmp_path, out, capsys, monkeypatch):
    """The signal itself, in the first step of the first λ."""
    # Fails with: KeyboardInterrupt at the first Ctrl-C.
    for name in ("target", "activations", "warm-start"):
        shutil.copytree(out / name, tmp_path / "o" / name)
    command = ["train", write(tmp_path, MINI), "--out", str(tmp_path / "o"), "--stage", "rl"]
    real = RlRun._step

    def interrupted(run, step):
        if step == 0 and run.length_penalty == 0.0:
            signal.raise_signal(signal.SIGINT)
        return real(run, step)

    monkeypatch.setattr(RlRun, "_step", interrupted)
    assert run(command) == 130
    said = capsys.readouterr().err
    assert "λ = 0 stopped after step 1; its state is saved. Go on with:" in said
    assert "Traceback" not in said
    assert not (tmp_path / "o" / "rl" / "p0.01").exists()
    monkeypatch.setattr(RlRun, "_step", real)
    assert run(command) == 0
    for name in ("p0.0", "p0.01"):
        assert metrics(tmp_path / "o" / "rl" / name) == metrics(out / "rl" / name)


def test_adapters_of_a_sweep_share_the_engine_that_writes_completions(tmp_path, out, monkeypatch):
    for where in (in_vllm, in_vllm_of_course):
        monkeypatch.setattr(where, "VllmEngine", VllmStandIn)
    monkeypatch.setattr("nla_audit.nla.vllm_settings.find_spec", lambda name: object())
    monkeypatch.setattr(VllmStandIn, "started", [])
    raw = copy.deepcopy(MINI)
    raw["rl"]["engine"] = "vllm"
    for name in ("target", "activations", "warm-start"):
        shutil.copytree(out / name, tmp_path / "o" / name)
    for stage in ("rl", "completions"):
        command = ["train", write(tmp_path, raw), "--out", str(tmp_path / "o"), "--stage", stage]
        assert run(command) == 0
    # Each run has its own while it learns; then the warm start, and both adapters together.
    assert VllmStandIn.started == [2, 2, 0, 2]
    tables = [
        pl.read_parquet(folder / "completions" / "completions.parquet")
        for folder in (out, tmp_path / "o")
    ]
    assert tables[0].schema == tables[1].schema
    assert tables[0].select("model", "idx", "ar").equals(tables[1].select("model", "idx", "ar"))


#: Stage → what the test takes away from it, and what is called, where, once all is trained.
LAST = {
    "rl": ("rl/p0.0/done.json", rl_stage, "_save_run"),
    "completions": ("completions", completions_stage, "_completions_of_model"),
}


@pytest.mark.parametrize("stage", LAST)
def test_a_disk_that_is_full_at_the_end_of_a_stage(tmp_path, out, capsys, monkeypatch, stage):
    """One line; with room again the same command goes on."""
    shutil.copytree(out, tmp_path / "o")
    lost, where, last = LAST[stage]
    gone = tmp_path / "o" / lost
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    command = ["train", write(tmp_path, MINI), "--out", str(tmp_path / "o"), "--stage", stage]
    real = getattr(where, last)

    def on_a_full_disk(*arguments, **options):
        leave_room(3000)
        return real(*arguments, **options)

    with limits_restored(), monkeypatch.context() as patched:
        patched.setattr(where, last, on_a_full_disk)
        assert run(command) == 2
    # Before it stands what the course says of a warm start that has not learnt.
    *said, line = capsys.readouterr().err.strip().splitlines()
    assert all(text.startswith("before RL: ") for text in said)
    assert line.startswith("error: ")
    assert "cannot write" in line
    assert run(command) == 0
    assert gone.exists()


def test_a_layer_that_is_not_there():
    raw = copy.deepcopy(MINI)
    target = parse_recipe(raw, "x").target.model_copy(update={"layer_index": 2})
    with pytest.raises(UserError, match="blocks 0 to 1"):  # a model's, known when it is there
        layer_of(target, _Config())
    raw["target"]["layer_index"] = 2
    with pytest.raises(UserError, match="blocks 0 to 1"):  # the world's, known at once
        parse_recipe(raw, "x")


class _Config:
    num_hidden_layers = 2

    def get_text_config(self, decoder):
        return self


def test_no_gold_at_all(tmp_path, capsys, out):
    data = pl.read_parquet(out / "activations" / "activations.parquet")
    data.with_columns(explanation=pl.lit("")).write_parquet(tmp_path / "t.parquet")
    raw = copy.deepcopy(MINI)
    raw["target"] = {"model": str(out / "target" / "model"), "layer_index": 1}
    raw["data"] = {"table": "t.parquet"}
    path = write(tmp_path, raw)
    common = ["train", path, "--out", str(tmp_path / "o"), "--stage"]
    assert run([*common, "activations"]) == 0
    assert run([*common, "warm-start"]) == 2
    assert "have no gold explanation" in capsys.readouterr().err


def test_documents_of_ones_own(tmp_path, out):
    """A model from a folder and documents from a file instead of a world."""
    texts = pl.read_parquet(out / "activations" / "activations.parquet")["source_text"].to_list()
    pl.DataFrame({"text": texts[:12]}).write_ndjson(tmp_path / "texts.jsonl")
    raw = copy.deepcopy(MINI)
    raw["target"] = {"model": str(out / "target" / "model"), "layer_index": 1}
    raw["data"] = {"texts": "texts.jsonl", "positions_per_document": 2, "first_position": 5}
    path = write(tmp_path, raw)
    command = ["train", path, "--out", str(tmp_path / "o"), "--stage", "activations"]
    assert run(command) == 0
    made = pl.read_parquet(tmp_path / "o" / "activations" / "activations.parquet")
    assert made.height == 24
    assert made["doc_id"].n_unique() == 12
    for row in made.iter_rows(named=True):
        assert len(row["source_text"].split()) == row["position"] + 1


def test_runs_in_processes_of_their_own_give_the_same(tmp_path, out):
    for name in ("target", "activations", "warm-start"):
        shutil.copytree(out / name, tmp_path / "o" / name)
    raw = copy.deepcopy(MINI)
    raw["rl"]["processes"] = 2
    command = ["train", write(tmp_path, raw), "--out", str(tmp_path / "o"), "--stage", "rl"]
    assert run(command) == 0
    for name in ("p0.0", "p0.01"):
        assert metrics(tmp_path / "o" / "rl" / name) == metrics(out / "rl" / name)


#: The command, with an AdamW whose steps are smooth in its gradients: why is said at
#: ``make_smooth_run`` of ``test_ranks``. Gradients are clipped to a norm of 1 here.
SMOOTH_COMMAND = """
import functools, sys, torch
torch.optim.AdamW = functools.partial(torch.optim.AdamW, eps=0.1)
from nla_audit.cli import run
sys.exit(run(sys.argv[1:]))
"""


def test_torchrun_with_divided_weights_gives_the_same(tmp_path, out, monkeypatch):
    """Two processes from the command line, weights divided, against one that has them whole."""
    smooth = tmp_path / "smooth.py"
    smooth.write_text(SMOOTH_COMMAND, encoding="utf-8")
    raw = copy.deepcopy(MINI)
    # Short responses: every token of two processes is a pass with weights gathered anew.
    raw["rl"] |= {"prompts": 4, "length_penalties": [0.01], "max_new_tokens": 24}
    for name in ("one", "two"):
        for stage in ("target", "activations", "warm-start"):
            shutil.copytree(out / stage, tmp_path / name / stage)
    command = ["train", write(tmp_path, raw), "--stage", "rl", "--out"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with monkeypatch.context() as patched:
        patched.setattr(torch.optim, "AdamW", functools.partial(torch.optim.AdamW, eps=0.1))
        assert run([*command, str(tmp_path / "one")]) == 0
    raw["rl"]["sharding"] = "fsdp2"
    write(tmp_path, raw)
    done = subprocess.run(
        [sys.executable, *launcher, str(smooth), *command, str(tmp_path / "two")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    one, two = (tmp_path / name / "rl" / "p0.01" for name in ("one", "two"))
    assert len(metrics(one)) == len(metrics(two)) == 4
    for ours, theirs in zip(metrics(two), metrics(one), strict=True):
        assert close(ours, theirs), (ours, theirs)
    for name in ("av/model", "adapter/adapter_model", "ar/model", "ar/value_head"):
        ours, theirs = (load_file(folder / f"{name}.safetensors") for folder in (two, one))
        assert ours.keys() == theirs.keys()
        for key, tensor in theirs.items():
            assert torch.allclose(ours[key], tensor, atol=1e-5), (name, key)
    for name in ("av", "ar", "adapter", "ar-adapter"):
        files = [sorted(path.name for path in (folder / name).iterdir()) for folder in (one, two)]
        assert files[0] == files[1]


def metrics(folder):
    timed = ("time", "seconds")
    records = read_metrics(folder / "metrics.jsonl")
    return [{key: value for key, value in one.items() if key not in timed} for one in records]


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path, out):
    for name in ("target", "activations", "warm-start", "rl"):
        shutil.copytree(out / name, tmp_path / "o" / name)
    raw = copy.deepcopy(MINI)
    raw["rl"] |= {"steps": 4, "length_penalties": [0.01]}
    common = ["train", write(tmp_path, raw), "--out"]
    assert run([*common, str(tmp_path / "o"), "--stage", "rl"]) == 0
    for name in ("target", "activations", "warm-start"):
        shutil.copytree(out / name, tmp_path / "whole" / name)
    assert run([*common, str(tmp_path / "whole"), "--stage", "rl"]) == 0
    longer, whole = (tmp_path / name / "rl" / "p0.01" for name in ("o", "whole"))
    assert json.loads((longer / "done.json").read_text())["rl_steps"] == 4
    assert metrics(longer) == metrics(whole)


def test_a_decaying_rate_makes_another_run_of_another_length(tmp_path):
    def key(steps, schedule):
        raw = copy.deepcopy(MINI)
        raw["rl"]["steps"] = steps
        raw["rl"]["optimizer"]["schedule"] = schedule
        layout = Layout(parse_recipe(raw, "x"), tmp_path, tmp_path)
        return layout.key("rl", layout.runs[0])

    assert key(2, "constant") == key(4, "constant")
    assert key(2, "cosine") != key(4, "cosine")
