"""Ray itself: a real cluster of this machine, of which nodes are killed; addresses of nobody."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from nla_audit import cli
from nla_audit.checkpoint.load import load
from nla_audit.errors import UserError
from nla_audit.runs import ray_crew
from nla_audit.runs.activations import read_activations
from nla_audit.runs.explain import ExplainSettings, explain
from nla_audit.runs.ray_crew import RaySettings, ray_pool
from nla_audit.runs.remote import load_pair
from nla_audit.runs.score import ScoreSettings, read_unscored, score
from tests.pairs import tiny
from tests.pairs.explaining import FLOAT32, OPTIONS, run, table_of
from tests.ray_nodes import Nodes, two_nodes

ROWS = 2000


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    with two_nodes(monkeypatch) as found:
        yield found


def killing(nodes: Nodes, stage: str) -> tuple[Callable[[str, int, int], None], list[int]]:
    """A ``progress`` that kills a node at a third (another joins then) and at two thirds."""
    killed: list[int] = []

    def progress(told: str, done: int, total: int) -> None:
        if told == stage and done * 3 >= total * (len(killed) + 1) and len(killed) < 2:
            killed.append(done)
            nodes.kill()
            if len(killed) == 1:
                nodes.add()

    return progress, killed


def lost(said: list[str]) -> int:
    """Workers that died with work in hand. How soon after its node one dies is the system's."""
    return sum("done again by another" in sentence for sentence in said)


@pytest.mark.slow
def test_the_tables_of_a_cluster_whose_nodes_die_are_those_of_one_process(
    nodes: Nodes, pair_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = np.random.default_rng(1).normal(size=(ROWS, tiny.D_MODEL)).astype(np.float32)
    table_of(vectors).write_parquet(tmp_path / "a.parquet")
    given = read_activations(tmp_path / "a.parquet")
    halves = (pair_path / "av", pair_path / "ar")
    settings = ExplainSettings("m", "r", max_new_tokens=20, batch_size=16, token_budget=200)
    scoring = ScoreSettings("other", token_budget=40)
    here = load(*halves, placement=FLOAT32)
    explain(here, given, tmp_path / "one.parquet", settings)
    texts = read_unscored([str(tmp_path / "one.parquet")])
    assert here.reconstructor is not None
    score(here.reconstructor, texts, given, tmp_path / "one-scored.parquet", scoring)

    said: list[str] = []
    with ray_pool(RaySettings(nodes.address)) as pool:
        assert pool.size == 2
        there = load_pair(pool, *halves, placement=FLOAT32, notice=said.append)
        assert there.reconstructor is not None
        progress, killed = killing(nodes, "explaining")
        explain(
            there, given, tmp_path / "ray.parquet", settings, progress=progress, notice=said.append
        )
        assert len(killed) == 2
        assert lost(said) >= 1
        already = lost(said)
        nodes.add()
        progress, killed = killing(nodes, "reading")
        score(
            there.reconstructor,
            texts,
            given,
            tmp_path / "ray-scored.parquet",
            scoring,
            progress=progress,
            notice=said.append,
        )
        assert len(killed) == 2
    assert lost(said) > already
    assert "raylet" not in capsys.readouterr().out  # nor anything else that Ray has to say
    for name in ("parquet", "-scored.parquet"):
        dot = "" if name.startswith("-") else "."
        one, ray = (tmp_path / f"{which}{dot}{name}" for which in ("one", "ray"))
        assert one.read_bytes() == ray.read_bytes()


@pytest.mark.slow
def test_the_command_line(
    nodes: Nodes,
    pair_path: Path,
    activations: Path,
    explained: Path,
    *,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "c.parquet"
    assert run(pair_path, activations, "--out", out, *OPTIONS, "--ray", nodes.address) == 0
    assert out.read_bytes() == explained.read_bytes()
    scored = ["score", out, "--ar", pair_path / "ar", "--activations", activations]
    for name, more in (("here", []), ("there", ["--ray", nodes.address, "--ray-workers", "1"])):
        arguments = [*scored, "--out", tmp_path / f"{name}.parquet", *more]
        assert cli.run(list(map(str, arguments))) == 0
    assert (tmp_path / "here.parquet").read_bytes() == (tmp_path / "there.parquet").read_bytes()
    capsys.readouterr()
    asked = ["--ray", nodes.address, "--ray-cpus", "2"]
    assert run(pair_path, activations, "--out", tmp_path / "d.parquet", *OPTIONS, *asked) == 2
    assert "no node has 2 CPUs, which a worker is to get" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("The actor died because its node has died. Node Id: 5f", "the node of a worker died"),
        ("Worker exit type: NODE_OUT_OF_MEMORY Worker exit detail: x", "ran out of memory"),
        ("1 worker(s) were killed due to the node running low on memory.", "ran out of memory"),
        (
            "Worker exit type: SYSTEM_ERROR Worker exit detail: End of file. Some common causes "
            "include: (1) the process was killed by the OOM killer due to high memory usage",
            "a worker was killed, perhaps for want of memory",
        ),
        ("ModuleNotFoundError: No module named 'nla_audit'", "cannot load nla-audit"),
        ("RPC error: Socket closed", "a worker or its node died"),
    ],
)
def test_why_a_worker_died(told: str, said: str) -> None:
    """The words are Ray 2.60's."""
    assert said in ray_crew.why_lost(RuntimeError(told))


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nla_audit.runs.ray_crew._ray", lambda: None)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        began = time.monotonic()
        with (
            pytest.raises(UserError, match=rf"--ray 127.0.0.1:{port}: nobody answers there"),
            ray_pool(RaySettings(f"127.0.0.1:{port}")),
        ):
            pass
        assert time.monotonic() - began < 10
    for address in ("auto", "ray://head:10001", "head", ":6379"):
        with (
            pytest.raises(UserError, match="give HOST:PORT of a cluster's head"),
            ray_pool(RaySettings(address)),
        ):
            pass


def test_ray_is_not_installed(
    pair_path: Path,
    activations: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    asked = ("--out", tmp_path / "c.parquet", "--ray", "local")
    assert run(pair_path, activations, *asked) == 2
    assert capsys.readouterr().err == ("error: --ray needs Ray: pip install 'nla-audit[ray]'\n")


def test_what_a_worker_gets_is_said_of_a_cluster_only(
    pair_path: Path, activations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--out", tmp_path / "c.parquet", "--ray-workers", "2")
    assert run(pair_path, activations, *asked) == 2
    assert "--ray-workers needs --ray ADDRESS as well" in capsys.readouterr().err
