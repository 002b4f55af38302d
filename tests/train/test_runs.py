"""Named runs: what they override, where they start, and what they are known by."""

from __future__ import annotations

import copy
import json
import shutil
import signal
import subprocess
import sys

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from nla_audit.checkpoint.load import load
from nla_audit.cli import run
from nla_audit.errors import UserError
from nla_audit.train.keys import digest
from nla_audit.train.layout import Layout
from nla_audit.train.policy import Policy
from nla_audit.train.read_recipe import parse_recipe
from nla_audit.train.recipe_data import Labeler, Target
from nla_audit.train.recipe_rl import Rl
from nla_audit.train.runs import run_name
from tests.train import miniature
from tests.train.test_course import MINI, metrics, write
from tests.train.test_prefix_warm_start import TOKEN

SEPARATORS = {"grading": {"kind": "separators", "at_most": 2}}


def recipe(*runs, **rl):
    raw = copy.deepcopy(MINI)
    del raw["rl"]["length_penalties"]
    raw["rl"] |= rl
    return {**raw, "runs": list(runs)}


def layout(raw, folder):
    return Layout(parse_recipe(raw, "x"), folder, folder)


def test_runs_override_the_base_key_by_key(tmp_path):
    # Fails with: a section replaced as a whole; a grading's keys merged into another kind's.
    lora = {"lora": {"rank": 4}, "grading": {"kind": "fixed_prefixes", "lengths": [2]}}
    raw = recipe(
        {"name": "plain"},
        {"name": "b", "length_penalty": 0.5, "rl": lora},
        {"name": "c", "rl": {"lora": None, "rewards": {"negative_mse": 2.0}}},
        grading={"kind": "random_prefix", "longest": 9},
    )
    plain, second, third = layout(raw, tmp_path).runs
    assert [one.name for one in (plain, second, third)] == ["plain", "b", "c"]
    assert (plain.length_penalty, second.length_penalty) == (0.0, 0.5)
    assert plain.rl == parse_recipe(raw, "x").rl
    assert second.rl.lora is not None
    assert (second.rl.lora.rank, second.rl.lora.alpha) == (4, 4.0)
    assert second.rl.grading.kind == "fixed_prefixes"
    assert second.rl.steps == plain.rl.steps
    assert third.rl.lora is None
    assert third.rl.rewards == {"negative_mse": 2.0}


def test_lists_of_penalties_are_the_short_form(tmp_path):
    # Fails with: runs of the default λ beside named ones that did not ask for them.
    both = layout(recipe({"name": "a"}, length_penalties=[0.0, 0.01]), tmp_path)
    assert [one.name for one in both.runs] == ["p0.0", "p0.01", "a"]
    assert [one.name for one in layout(recipe({"name": "a"}), tmp_path).runs] == ["a"]
    assert [one.name for one in layout(recipe(), tmp_path).runs] == ["p0.0"]
    resolved = parse_recipe(recipe({"name": "a"}), "x")
    assert parse_recipe(resolved.model_dump(mode="json"), "x") == resolved


def test_a_chain_is_a_list_of_runs(tmp_path):
    raw = recipe({"name": "c", "chain": [0.1, 0.01, 0.0], "anchor": "predecessor"})
    runs = layout(raw, tmp_path).runs
    assert [(one.name, one.start, one.length_penalty) for one in runs] == [
        ("c-p0.1", None, 0.1),
        ("c-p0.01", "c-p0.1", 0.01),
        ("c-p0.0", "c-p0.01", 0.0),
    ]
    assert [one.anchor for one in runs] == ["warm_start", "predecessor", "predecessor"]
    written_out = recipe({"name": "late", "start": "first"}, {"name": "first"})
    assert [one.name for one in layout(written_out, tmp_path).runs] == ["first", "late"]


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([{"name": "a"}, {"name": "A"}], "two are called A"),
        ([{"name": "p0.01"}], "two are called p0.01"),
        ([{"name": "warm-start"}], "stands for something else"),
        ([{"name": "a/b"}], "runs.0.name"),
        ([{"nam": "a"}], "unknown key runs.0.nam; did you mean name?"),
        ([{"name": "a", "rl": {"stepz": 1}}], "unknown key runs.0.rl.stepz; did you mean steps?"),
        ([{"name": "a", "rl": {"lora": {"rnk": 1}}}], "runs.0.rl.lora.rnk; did you mean rank?"),
        ([{"name": "a", "rl": {"steps": -1}}], "runs.0.rl.steps: input should be"),
        ([{"name": "a", "rl": {"processes": 2}}], "rl.processes is not of one run"),
        ([{"name": "a", "rl": {"length_penalties": [1]}}], "give the run its length_penalty"),
        ([{"name": "a", "start": "b"}], "start b is no run; known: p0.01"),
        ([{"name": "a", "start": "a"}], "in a circle: a"),
        ([{"name": "a", "start": "b"}, {"name": "b", "start": "a"}], "in a circle: a, b"),
        ([{"name": "a", "chain": [0.0, 0.1]}], "λ must fall along chain, found 0.1 after 0"),
        ([{"name": "a", "chain": [0.1, 0.1]}], "λ must fall along chain"),
        ([{"name": "a", "chain": []}], "chain is empty"),
        ([{"name": "a", "chain": [0.1], "length_penalty": 0.1}], "not both"),
        ([{"name": "a", "anchor": "predecessor"}], "needs a start or a chain"),
        ([{"name": "a", "start": "p0.01", "rl": SEPARATORS}], "the AV of p0.01 does not have"),
    ],
)
def test_what_is_wrong_is_one_line(runs, message):
    with pytest.raises(UserError) as caught:
        parse_recipe(recipe(*runs, length_penalties=[0.01]), "x.yaml")
    text = str(caught.value)
    assert text.startswith("x.yaml: ")
    assert message in text
    assert "\n" not in text


def test_a_key_is_of_what_changes_the_result(tmp_path):
    # Fails with: the name in the key; the predecessor's settings or the anchor left out of it.
    def key(*runs, **rl):
        found = layout(recipe(*runs, **rl), tmp_path)
        return found.key("rl", found.runs[-1])

    penalty = {"name": "a", "length_penalty": 0.01}
    assert key(penalty) == key(length_penalties=[0.01]) == key({**penalty, "name": "b"})
    assert key(penalty) == key(penalty, processes=4, checkpoint_every=3)
    assert key(penalty) != key({**penalty, "rl": {"kl": 0.3}})
    chain = {"name": "c", "chain": [0.1, 0.0]}
    variants = [
        {"name": "c", "length_penalty": 0.0},
        chain,
        {**chain, "anchor": "predecessor"},
        {**chain, "chain": [0.2, 0.0]},
        {**chain, "rl": {"steps": 3}},
    ]
    assert len({key(one) for one in variants}) == len(variants)
    completions = [layout(recipe(one), tmp_path).key("completions") for one in variants]
    assert len(set(completions)) == len(variants)


def test_devices_and_workers_are_in_no_hash_nor_are_new_defaults():
    # Fails with: a section hashed by model_dump.
    assert digest(Target(model="a", device="cpu")) == digest(Target(model="a"))
    assert digest(Labeler(model="a", workers=1)) == digest(Labeler(model="a"))
    assert digest(Labeler(model="a", temperature=0.5)) != digest(Labeler(model="a"))
    assert digest(Target(model="a", dtype="bfloat16")) != digest(Target(model="a"))

    class Later(Rl):
        new: int = 3

    Later.__name__ = "Rl"
    assert digest(Later()) == digest(Rl())
    assert digest(Later(new=4)) != digest(Rl())


def test_a_grading_with_separators_has_its_own_warm_start_of_the_av(tmp_path):
    raw = recipe({"name": "plain"}, {"name": "s", "rl": SEPARATORS})
    found = layout(raw, tmp_path)
    plain, other = (found.av_warm_start(one) for one in found.runs)
    assert plain == found.av_warm_start() == found.warm_start
    assert other.parent == found.warm_start
    keys = [found.key("warm-start", one) for one in found.runs]
    assert keys[0] == found.key("warm-start") != keys[1]
    as_base = layout(recipe({"name": "s"}, **SEPARATORS), tmp_path)
    assert as_base.av_warm_start(as_base.runs[0]) == as_base.warm_start
    assert as_base.key("rl", as_base.runs[0]) == found.key("rl", found.runs[1])


@pytest.mark.parametrize("with_lora", [True, False])
def test_the_kl_is_to_the_anchor_that_is_given(with_lora):
    # Fails with: the anchor ignored where there are adapters; a copy of the start taken instead.
    settings = parse_recipe(MINI, "x").rl.lora if with_lora else None
    vectors = torch.from_numpy(miniature.activations(2))
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    other = miniature.verbalizer(seed=4)
    wanted = miniature.warm_log_probs(
        Policy(miniature.verbalizer(seed=4), settings, seed=0), vectors, ids
    )
    policy = Policy(miniature.verbalizer(), settings, seed=0, anchor=other)
    assert torch.equal(miniature.warm_log_probs(policy, vectors, ids), wanted)
    own = miniature.warm_log_probs(Policy(miniature.verbalizer(), settings, seed=0), vectors, ids)
    assert not torch.allclose(own, wanted)
    assert not any(one.requires_grad for one in other.model.parameters())


def test_dry_run_lists_runs_and_help_lists_gradings(tmp_path, capsys):
    short, long = ({"grading": {"kind": "random_prefix", "longest": most}} for most in (3, 900))
    raw = recipe(
        {"name": "a", "rl": SEPARATORS},
        {"name": "c", "chain": [0.1, 0.0]},
        {"name": "short", "rl": short},
        {"name": "long", "rl": long},
    )
    assert run(["train", write(tmp_path, raw), "--dry-run"]) == 0
    told = capsys.readouterr().out
    cautions = [line for line in told.splitlines() if "may forget to end its texts" in line]
    assert [line.split(" of the")[0] for line in cautions] == ["# run short: 0%"]
    assert "# run a: λ = 0, separators, 2 steps\n" in told
    assert "# run c-p0.0: λ = 0, final, 2 steps, from c-p0.1, KL to the warm_start\n" in told
    assert run(["train", "--help"]) == 0
    told = capsys.readouterr().out
    for kind in ("final", "fixed_prefixes", "random_prefix", "separators"):
        assert f"  {kind} " in told


CHAIN = recipe(
    {"name": "c", "chain": [0.1, 0.01], "anchor": "predecessor"},
    {"name": "s", "rl": SEPARATORS},
    steps=3,
    checkpoint_every=1,
)
LINKS = ("c-p0.1", "c-p0.01")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain")
    command = ["train", write(folder, CHAIN), "--out", str(folder / "out"), "--stage"]
    for stage in ("target", "activations", "warm-start", "rl", "completions"):
        assert run([*command, stage]) == 0, stage
    return folder / "out"


def begun(out, folder):
    for name in ("target", "activations", "warm-start"):
        shutil.copytree(out / name, folder / "o" / name)
    return folder / "o"


@pytest.mark.slow
def test_a_course_of_named_runs(out):
    """A chain with a trained AR beside separators with an AV of their own."""
    table = pl.read_parquet(out / "completions" / "completions.parquet")
    seen = dict(table.select("model", "length_penalty").unique().iter_rows())
    assert seen == {"warm-start": None, "c-p0.1": 0.1, "c-p0.01": 0.01, "s": 0.0}
    first, second = (metrics(out / "rl" / name) for name in LINKS)
    # Fails with: the second link started from the warm start.
    assert second[0]["fve_raw_variance"] == pytest.approx(first[-1]["fve_raw_variance"], abs=1e-4)
    assert first[0]["fve_raw_variance"] != pytest.approx(first[-1]["fve_raw_variance"], abs=1e-4)
    starts = [json.loads((out / "rl" / name / "done.json").read_text()) for name in LINKS]
    assert "start" not in starts[0]
    assert (starts[1]["start"], starts[1]["anchor"]) == ("c-p0.1", "predecessor")
    # Fails with: the AR of the warm start trained again instead of the predecessor's.
    ars = [load_file(out / "rl" / name / "ar" / "value_head.safetensors") for name in LINKS]
    assert not all(torch.equal(ars[0][name], ars[1][name]) for name in ars[0])
    assert second[0]["own_fve_raw_variance"] == pytest.approx(
        first[-1]["own_fve_raw_variance"], abs=1e-4
    )
    with_token = load(out / "rl" / "s" / "av").verbalizer
    assert TOKEN in with_token.tokenizer.get_vocab()
    assert TOKEN not in load(out / "rl" / "c-p0.01" / "av").verbalizer.tokenizer.get_vocab()
    ends = table.filter(pl.col("segment_ends").is_not_null())
    assert set(ends["model"]) <= {"s"}


@pytest.mark.slow
def test_the_audit_reads_the_chain(out, tmp_path):
    assert run(["train", write(tmp_path, CHAIN), "--out", str(out), "--stage", "audit"]) == 0
    findings = json.loads((out / "report" / "findings.json").read_text())["findings"]
    multiscale = next(one for one in findings if one["analyzer"] == "multiscale")
    links = [row for row in multiscale["tables"]["stages"] if row["kind"] == "chain"]
    assert [(row["before"], row["stage"]) for row in links] == [LINKS]


#: Trains by a command line, and dies in the second link's second step.
DYING = """
import os, signal, sys
from nla_audit.cli import run
from nla_audit.train.rl import RlRun
real = RlRun._step
def dying(one, step):
    if step == 2 and one.length_penalty == 0.01:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(one, step)
RlRun._step = dying
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.slow
def test_killed_in_the_second_link_and_resumed(out, tmp_path):
    # Fails with: the second link's start taken from its own last state, or from the warm start.
    folder = begun(out, tmp_path)
    command = ["train", write(tmp_path, CHAIN), "--out", str(folder), "--stage", "rl"]
    # Not forked: a child of a process with polars' threads waits for them for ever.
    child = subprocess.run([sys.executable, "-c", DYING, *command], check=False, timeout=300)
    assert child.returncode == -signal.SIGKILL
    assert (folder / "rl" / "c-p0.1" / "done.json").exists()
    assert not (folder / "rl" / "c-p0.01" / "done.json").exists()
    assert run(command) == 0
    for name in (*LINKS, "s"):
        assert metrics(folder / "rl" / name) == metrics(out / "rl" / name)


@pytest.mark.slow
def test_links_wait_for_each_other_in_processes_too(out, tmp_path):
    # Fails with: all runs handed to the pool at once.
    folder = begun(out, tmp_path)
    raw = copy.deepcopy(CHAIN)
    raw["rl"]["processes"] = 3
    command = ["train", write(tmp_path, raw), "--out", str(folder), "--stage", "rl"]
    assert run(command) == 0
    for name in (*LINKS, "s"):
        assert metrics(folder / "rl" / name) == metrics(out / "rl" / name)


def test_names_of_penalties_are_as_they_were():
    assert [run_name(one) for one in (0.0, 0.006, 1e-05)] == ["p0.0", "p0.006", "p1e-05"]
