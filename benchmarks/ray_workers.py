"""How much sooner two workers of a Ray cluster are done than one, and what the cluster costs.

    OMP_WAIT_POLICY=passive .venv/bin/python -m benchmarks.ray_workers \\
        --out benchmarks/ray_workers.md

A cluster of this machine: a head without CPUs and two nodes of one CPU each. In each round
``explain`` and ``score`` of the same rows are run by one process, by one worker and by two, in
turn, so that whatever else the machine does falls on all of them. Workers are started, and have
loaded the pair, before the clock starts; all tables are compared with that of one process.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
import ray
import torch
from ray.cluster_utils import Cluster

from nla_audit.checkpoint.load import Placement, load
from nla_audit.runs.activations import read_activations
from nla_audit.runs.explain import ExplainSettings, explain
from nla_audit.runs.ray_crew import RaySettings, ray_pool
from nla_audit.runs.remote import load_pair
from nla_audit.runs.score import ScoreSettings, read_unscored, score
from tests.pairs import talking

D_MODEL, BLOCKS, LAYER, WORDS = 64, 4, 2, 12
PLACEMENT = Placement(dtype="float32", device="cpu")
WAYS = ("one process", "one worker", "two workers")


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Workers are as important as this process; by itself Ray lets all others go first.
    os.environ.update(RAY_worker_niceness="0")
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    with tempfile.TemporaryDirectory() as name:
        text = measure(Path(name), arguments.rows, arguments.rounds)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


def measure(folder: Path, rows: int, rounds: int) -> str:
    """Run everything in turn, ``rounds`` times, and tell the medians."""
    load_before = os.getloadavg()[0]
    halves = talking.save_pair(
        folder / "pair", d_model=D_MODEL, blocks=BLOCKS, layer=LAYER, words=WORDS
    )
    vectors = np.random.default_rng(0).normal(size=(rows, D_MODEL)).astype(np.float32)
    pl.DataFrame({"activation_vector": vectors.tolist()}).write_parquet(folder / "a.parquet")
    store = {"object_store_memory": 80 << 20}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **store}
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, **store)
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(rounds):
        for way, workers in zip(WAYS, (0, 1, 2), strict=True):
            for stage, taken in timed(folder, halves, cluster.address, workers, number).items():
                seconds[stage, way].append(taken)
    cluster.shutdown()
    lines = []
    for stage in ("explain", "score"):
        times = {way: median(seconds[stage, way]) for way in WAYS}
        lines += [
            f"| {stage} | {way} | {times[way]:.1f} | {rows / times[way]:,.0f} | "
            f"{times['one worker'] / times[way]:.2f} |"
            for way in WAYS
        ]
    return "\n".join(
        [
            "# Workers of a Ray cluster",
            "",
            f"{rows:,} activations, d_model {D_MODEL}, {BLOCKS} blocks (AR: {LAYER + 1}), "
            f"explanations of {WORDS} words on average, batches of {BATCH} rows and "
            f"{BUDGET:,} tokens; float32, one thread a worker, two nodes of one CPU on one machine "
            f"of {os.cpu_count()} cores. torch {torch.__version__}, Ray {ray.__version__}, Python "
            f"{platform.python_version()}. Medians of {rounds} rounds, measured in turn:",
            "",
            "    OMP_WAIT_POLICY=passive .venv/bin/python -m benchmarks.ray_workers "
            f"--rounds {rounds} --out benchmarks/ray_workers.md",
            "",
            "| what | by | seconds | rows/s | times one worker's rate |",
            "|---|---|--:|--:|--:|",
            *lines,
            "",
            "All tables hold the same bytes, whoever wrote them.",
            "",
            f"Load average of the machine: {load_before:.1f} before, {os.getloadavg()[0]:.1f} "
            "after; far above 2, other work had a good part of the cores, and two workers could "
            "not be twice as fast as one.",
            "",
        ]
    )


BATCH, BUDGET = 32, 1024


def timed(folder: Path, halves: Path, address: str, workers: int, number: int) -> dict[str, float]:
    """Seconds of each stage by ``workers`` workers; 0 is this process."""
    settings = ExplainSettings("m", "r", max_new_tokens=48, batch_size=BATCH, token_budget=BUDGET)
    given = read_activations(folder / "a.parquet")
    names = {
        stage: folder / f"{stage}-{workers}-{number}.parquet" for stage in ("explain", "score")
    }
    seconds = {}
    with ExitStack() as stack:
        pool = None
        if workers:
            pool = stack.enter_context(ray_pool(RaySettings(address, workers=workers)))
        av, ar = halves / "av", halves / "ar"
        pair = (
            load(av, ar, placement=PLACEMENT)
            if pool is None
            else load_pair(pool, av, ar, placement=PLACEMENT, notice=print)
        )
        assert pair.verbalizer is not None
        assert pair.reconstructor is not None
        held_by_all(pair.verbalizer, workers)
        seconds["explain"] = taken(lambda: explain(pair, given, names["explain"], settings))
        texts = read_unscored([str(names["explain"])])
        held_by_all(pair.reconstructor, workers)
        seconds["score"] = taken(
            lambda: score(
                pair.reconstructor,
                texts,
                given,
                names["score"],
                ScoreSettings("s", token_budget=BUDGET),
            )
        )
    for stage, out in names.items():
        assert out.read_bytes() == (folder / f"{stage}-0-0.parquet").read_bytes()
    return seconds


def held_by_all(half: Any, workers: int) -> None:
    """Wait until every worker holds ``half``: the first pieces would else be those of loading."""
    seen: set[int] = set()
    while workers and len(seen) < workers:
        seen |= {process for _, process in half.each(process_of, enumerate(range(8)), print)}


def process_of(half: Any, item: int, notice: Any) -> int:
    """Which process works."""
    time.sleep(0.1)
    return os.getpid()


def taken(work: Callable[[], Any]) -> float:
    """Seconds that ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    # As a module of its own name: workers find `process_of` by it.
    from benchmarks import ray_workers

    ray_workers.main()
