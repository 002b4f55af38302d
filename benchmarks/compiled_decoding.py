"""What a token costs our own decode loop, plain and compiled, and what compiling costs.

Run from the repository root, with a C++ compiler at hand::

    taskset -c 0 .venv/bin/python -m benchmarks.compiled_decoding \\
        --out benchmarks/compiled_decoding.md

The AVs have random weights and explain nevertheless, at lengths spread about ``--words``
(:mod:`tests.pairs.talking`). Both loops write the same rows in turn in one process. Times are
processor seconds, of one thread and of the compilers that it starts; what is cached of former
compilations is not used. On a GPU, for which this is made, ``benchmarks.gpu`` measures it.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import torch
import transformers

from nla_audit.checkpoint.load import Placement, load
from nla_audit.record import commit
from tests.pairs import talking

#: Width and blocks: the world of ``recipes/tiny.yaml``, and a larger one.
SHAPES = ((64, 4), (256, 6))
BATCHES = (8, 64)


def processor_seconds() -> float:
    """Of this process and of those it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(d_model: int, blocks: int, *, words: float, rounds: int, folder: Path) -> list[str]:
    """The lines of one AV."""
    talking.save_pair(folder, d_model=d_model, blocks=blocks, words=words)
    placement = Placement(dtype="float32", device="cpu")
    av = load(av=folder / "av", placement=placement).verbalizer
    assert av is not None
    vectors = np.random.default_rng(0).normal(size=(max(BATCHES), d_model)).astype(np.float32)

    def written(rows: int) -> tuple[int, float]:
        began = processor_seconds()
        said = av.generate(vectors[:rows], batch_size=rows)
        return int(said.generated.lengths.sum()), processor_seconds() - began

    av.compile()
    steps, lines = av.steps, []
    for rows in BATCHES:
        first = written(rows)[1]
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(rounds):
            for compiled, times in seconds.items():
                av.steps = steps if compiled else None
                tokens, taken = written(rows)
                times.append(taken)
        plain, compiled = median(seconds[False]), median(seconds[True])
        ratio = median(a / b for a, b in zip(seconds[False], seconds[True], strict=True))
        lines.append(
            f"| {d_model} | {blocks} | {rows} | {tokens / plain:,.0f} | {tokens / compiled:,.0f} | "
            f"**{ratio:.2f}** | {first - compiled:.0f} |"
        )
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--words", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(name) / "compiled")
        # Compilers that are started by others than this process would not be counted.
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        lines = [
            line
            for d_model, blocks in SHAPES
            for line in measure(
                d_model,
                blocks,
                words=given.words,
                rounds=given.rounds,
                folder=Path(name) / str(d_model),
            )
        ]
    text = "\n".join(
        [
            "# Compiled decoding",
            "",
            f"Random weights, float32, one thread, sampled at temperature 1, about {given.words:g} "
            f"words, torch {torch.__version__}, transformers {transformers.__version__}, Python "
            f"{platform.python_version()}, commit {commit()}. Tokens a second of processor time, "
            f"medians of {given.rounds} rounds in turn, and the median ratio within a round:",
            "",
            "    taskset -c 0 .venv/bin/python -m benchmarks.compiled_decoding "
            "--out benchmarks/compiled_decoding.md",
            "",
            "| d_model | blocks | rows at once | plain | compiled | times faster | compiling: s |",
            "|--:|--:|--:|--:|--:|--:|--:|",
            *lines,
            "",
            "Compiling is what the first batch of that many rows takes beyond the later ones. Rows "
            "that have ended stay longer in a compiled batch, and attention reads room that is "
            "still empty.",
            "",
        ]
    )
    print(text)
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
