"""An RL step and ``explain`` at the size of Qwen3-8B, on one GPU, unattended; a table comes out.

    python -m benchmarks.gpu --out gpu.md                 # about ten minutes on an 80 GB card
    python -m benchmarks.gpu --shape miniature --out x.md # the same in seconds, on any CPU

Weights are random, and are made on the card in its own precision; the AV's embedding and output
matrices are written so that it nevertheless explains, at lengths spread about ``--words``
(:mod:`tests.pairs.talking`). The AR is made of the first two thirds of another such model. Three
things are measured, beside the loop that anybody would write, in turn on one card:

- *a step of RL* with LoRA: sampling, scoring, reference and update, by phase. The loop takes one
  prompt at a time (:func:`benchmarks.obvious_step.obvious_step`); of its prompts only
  ``--loop-prompts`` are run, and the seconds are multiplied;
- *explain*: rows per second. The loop calls transformers' ``generate`` and the AR for each row
  (:func:`benchmarks.pair_throughput.time_loop`), of ``--loop-rows`` rows;
- *generating* alone, in a batch of few rows and in one of a step: our loop, our loop compiled
  (:mod:`nla_audit.nla.compiled`; what its first batch took beyond the second is named), and vLLM
  where it is installed.

Use of the card is the arithmetic that cannot be avoided (two operations for each weight and token,
twice that where gradients are passed back, attention left out) over the time, as a share of the
rate of one large matrix product in the same precision, measured here.
"""

from __future__ import annotations

import argparse
import gc
import platform
import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
import torch
import transformers
from transformers import AutoModelForCausalLM, Qwen3Config

from benchmarks.obvious_step import obvious_step
from benchmarks.pair_throughput import Timed, time_explain, time_loop
from benchmarks.reciting_pair import quieten
from benchmarks.rl_step import PHASES, bare_dataset
from nla_audit.checkpoint.in_vllm import VllmHost
from nla_audit.checkpoint.load import Pair, Placement, load
from nla_audit.checkpoint.save import new_sidecar, save_av
from nla_audit.nla.architecture import keep_first_blocks
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.nla.vllm_settings import VllmSettings
from nla_audit.record import commit
from nla_audit.runs.activations import read_activations
from nla_audit.train.policy import Policy
from nla_audit.train.recipe_rl import Rl
from nla_audit.train.rl import Arms, RlRun
from nla_audit.train.update import Trainer
from tests.pairs import talking, tiny

#: What blocks add is multiplied by this, so that the embeddings decide what is said.
_QUIET = 1e-3
_LENGTH_PENALTY = 0.01
#: A tenth of them is held out, of which a baseline needs two.
_LEAST_ACTIVATIONS = 40
#: Of a small batch.
_FEW_ROWS = 16


@dataclass(frozen=True)
class Shape:
    """A model and the work on it."""

    config: Mapping[str, Any]
    prompts: int
    samples: int
    max_new_tokens: int
    activations: int
    #: Words of an explanation on average; a word is a token here.
    words: float
    #: Of a forward and backward pass; ``None``: by device.
    micro_batch_tokens: int | None
    #: Side of the matrices whose product says what the card can do.
    matrix: int


SHAPES = {
    # Qwen/Qwen3-8B's config.json.
    "qwen3-8b": Shape(
        {
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
            "max_position_embeddings": 40960,
            "rope_theta": 1e6,
        },
        prompts=16,
        samples=16,
        max_new_tokens=150,
        activations=1000,
        words=100,
        micro_batch_tokens=4096,  # about 6 MB of activations each, beside 28 GB of weights
        matrix=8192,
    ),
    "miniature": Shape(
        {
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "vocab_size": 512,
            "max_position_embeddings": 512,
        },
        prompts=2,
        samples=2,
        max_new_tokens=16,
        activations=12,
        words=8,
        micro_batch_tokens=None,
        matrix=256,
    ),
}


class Bench:
    """Pairs of one shape on one device.

    Args:
        shape: of the models and the work.
        device: where they go.
        words: of an explanation on average; by default the shape's.
    """

    def __init__(self, shape: Shape, device: torch.device, words: float | None = None) -> None:
        self.shape, self.device, self.words = shape, device, words or shape.words
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.d_model: int = shape.config["hidden_size"]
        self.layer = 2 * shape.config["num_hidden_layers"] // 3
        self.tokenizer = tiny.make_tokenizer(bos=False)
        self.tokenizer.add_tokens([*talking.TAGS, *talking.WORDS])
        generator = np.random.default_rng(0)
        rows = max(shape.activations, _LEAST_ACTIVATIONS)
        self.vectors = generator.normal(size=(rows, self.d_model)).astype(np.float32)

    def config(self) -> Qwen3Config:
        """Of the whole model."""
        return Qwen3Config(
            **self.shape.config,
            tie_word_embeddings=False,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=[2, 4],
        )

    def pair(self) -> Pair:
        """A fresh pair, always the same."""
        options: dict[str, Any] = {
            "d_model": self.d_model,
            "layer_index": self.layer,
            "injection_char": tiny.MARKER,
            "injection": talking.INJECTION,
            "av_template": tiny.AV_TEMPLATE,
            "ar_template": tiny.AR_TEMPLATE,
            "base_model": "random",
            "stage": "rl",
        }
        av = self._model(self.config(), seed=0)
        talking.teach(av, self.tokenizer, words=self.words, empty=0.01, lost=0.001)
        shortened = self.config()
        keep_first_blocks(shortened, self.layer + 1)
        ar = self._model(shortened, seed=1)
        return Pair(
            Verbalizer(av, self.tokenizer, new_sidecar(self.tokenizer, role="av", **options)),
            Reconstructor(
                ar,
                torch.eye(self.d_model),
                self.tokenizer,
                new_sidecar(self.tokenizer, role="ar", ar_trained_in_rl=False, **options),
            ),
        )

    def _model(self, config: Qwen3Config, seed: int) -> Any:
        torch.manual_seed(seed)
        with torch.device(self.device):
            model = AutoModelForCausalLM.from_config(config, dtype=self.dtype).eval()
        with torch.no_grad():
            quieten(model, _QUIET)
        return model

    def settings(self) -> Rl:
        """Of RL, all at their defaults but for the size and what has to fit beside the weights."""
        shape = self.shape
        return Rl(
            prompts=shape.prompts,
            samples=shape.samples,
            max_new_tokens=shape.max_new_tokens,
            micro_batch_tokens=shape.micro_batch_tokens,
        )

    def product_rate(self) -> float:
        """Operations a second of a large matrix product."""
        side = self.shape.matrix
        matrix = torch.randn(side, side, device=self.device, dtype=self.dtype)
        seconds = []
        for _ in range(5):
            began = self.now()
            for _ in range(4):
                matrix @ matrix
            seconds.append(self.now() - began)
        return 4 * 2 * side**3 / min(seconds)

    def now(self) -> float:
        """The clock once all that was asked of the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def forget(self) -> None:
        """Give back what nobody holds any more, and count the peak of memory afresh."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_gigabytes(self) -> float:
        """Most memory held at once since :meth:`forget`; on a CPU, of the whole process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9

    def name(self) -> str:
        """What the device is called."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"CPU, {torch.get_num_threads()} threads"


def weights_of(model: Any) -> int:
    """Weights that every token is multiplied with: all but the embedding's."""
    embedding = model.get_input_embeddings().weight.numel()
    return sum(one.numel() for one in model.parameters()) - embedding


@dataclass(frozen=True)
class Step:
    """A step of RL: seconds by phase, tokens generated, most gigabytes of memory."""

    seconds: dict[str, float]
    generated: float
    peak: float

    @property
    def total(self) -> float:
        """Seconds of all phases."""
        return sum(self.seconds.values())


def our_step(bench: Bench, steps: int) -> tuple[Step, dict[str, float]]:
    """A step of the trainer, and the operations that each phase takes at least."""
    pair = bench.pair()
    assert pair.verbalizer is not None
    assert pair.reconstructor is not None
    settings = bench.settings()
    av, ar = weights_of(pair.verbalizer.model), weights_of(pair.reconstructor.decoder)
    prompt = len(pair.verbalizer.prompt.ids)
    read = len(pair.reconstructor.prompt_ids([""])[0])
    run = RlRun(
        pair.verbalizer,
        Arms(pair.reconstructor, pair.reconstructor),
        bare_dataset(bench.vectors),
        settings,
        length_penalty=_LENGTH_PENALTY,
        seed=0,
        folder=Path("unused"),
        key="unused",
    )
    records = [run._step(step)[0] for step in range(steps + 1)][1:]
    tokens = median(record["tokens"] for record in records)
    content = median(record["content_tokens"] for record in records)
    rows = settings.prompts * settings.samples
    whole = tokens + rows * prompt
    # The prompts of sampling are left out: most of them is the same for all rows.
    operations = {
        "generate": 2.0 * av * tokens,
        "score": 2.0 * ar * rows * (content + read),
        "reference": 2.0 * av * whole,
        "update": 4.0 * av * whole,
    }
    seconds = {phase: median(record["time"][phase] for record in records) for phase in PHASES}
    return Step(seconds, tokens, bench.peak_gigabytes()), operations


def loop_step(bench: Bench, prompts: int) -> Step:
    """The obvious loop on some of the prompts, told for all of them."""
    pair = bench.pair()
    assert pair.verbalizer is not None
    assert pair.reconstructor is not None
    settings = bench.settings()
    policy = Policy(pair.verbalizer, settings.lora, seed=0)
    trainer = Trainer(policy.parameters, settings.optimizer, steps=settings.steps)
    for step, count in enumerate((1, prompts)):  # the first warms up
        seconds, _ = obvious_step(
            policy,
            trainer,
            pair.reconstructor,
            vectors=bench.vectors[:count],
            settings=settings,
            step=step,
        )
    share = settings.prompts / prompts
    return Step({phase: seconds[phase] * share for phase in PHASES}, 0.0, bench.peak_gigabytes())


def explained(bench: Bench, loop_rows: int, folder: Path) -> tuple[Timed, Timed, float]:
    """``explain`` of all activations, the loop over some, and the memory of ours."""
    pair = bench.pair()
    assert pair.verbalizer is not None
    assert pair.reconstructor is not None
    longest = bench.shape.max_new_tokens
    tables = {"warm": bench.vectors[:8], "all": bench.vectors[: bench.shape.activations]}
    for name, vectors in tables.items():  # the first warms up
        pl.DataFrame({"activation_vector": vectors}).write_parquet(folder / f"{name}.parquet")
        (folder / name).mkdir()
        ours, _ = time_explain(
            pair.verbalizer,
            pair.reconstructor,
            read_activations(folder / f"{name}.parquet"),
            folder / name,
            max_new_tokens=longest,
        )
    peak = bench.peak_gigabytes()
    time_loop(pair.verbalizer, pair.reconstructor, bench.vectors[:1], max_new_tokens=longest)
    loop = time_loop(
        pair.verbalizer, pair.reconstructor, bench.vectors[:loop_rows], max_new_tokens=longest
    )
    return ours, loop, peak


@dataclass(frozen=True)
class Generated:
    """A batch: who wrote it, rows, tokens, seconds, and how many more the first one took."""

    who: str
    rows: int
    tokens: int
    seconds: float
    to_begin: float


def generated(bench: Bench, folder: Path) -> list[Generated]:
    """The same batches by our loop, by our loop compiled, and by vLLM where it is installed."""
    av = bench.pair().verbalizer
    assert av is not None
    found = _batches(bench, av, "ours")
    if find_spec("vllm") is not None:
        save_av(av, folder / "av")
    av.compile()
    found += _batches(bench, av, "ours, compiled")
    del av
    bench.forget()
    if (folder / "av").is_dir():
        host = VllmHost(VllmSettings(bench.shape.max_new_tokens))
        placement = Placement(str(bench.dtype).removeprefix("torch."), bench.device.type)
        try:
            in_vllm = load(folder / "av", placement=placement, engine=host).verbalizer
            assert in_vllm is not None
            found += _batches(bench, in_vllm, "vLLM")
        finally:
            host.close()
    return found


def _batches(bench: Bench, av: Verbalizer, who: str) -> list[Generated]:
    found = []
    for rows in sorted({_FEW_ROWS, bench.shape.prompts * bench.shape.samples}):
        seconds = []
        for _ in range(2):
            began = bench.now()
            said = av.generate(
                bench.vectors[np.arange(rows) % len(bench.vectors)],
                max_new_tokens=bench.shape.max_new_tokens,
                batch_size=rows,
            )
            seconds.append(bench.now() - began)
        tokens = int(said.generated.lengths.sum())
        found.append(Generated(who, rows, tokens, seconds[1], seconds[0] - seconds[1]))
    return found


def measure(bench: Bench, *, steps: int, loop_prompts: int, loop_rows: int) -> str:
    """Run everything in turn, and tell it as Markdown."""
    rate = bench.product_rate()
    bench.forget()
    ours, operations = our_step(bench, steps)
    bench.forget()
    loop = loop_step(bench, loop_prompts)
    bench.forget()
    with tempfile.TemporaryDirectory() as folder:
        rows, row_loop, peak = explained(bench, loop_rows, Path(folder))
        bench.forget()
        batches = generated(bench, Path(folder))
    shape, settings = bench.shape, bench.settings()
    lines = [
        "# A step and `explain` on one device",
        "",
        f"{bench.name()}, {str(bench.dtype).removeprefix('torch.')}; d_model {bench.d_model:,}, "
        f"{shape.config['num_hidden_layers']} blocks (AR: {bench.layer + 1}), vocabulary "
        f"{shape.config['vocab_size']:,}, random weights, LoRA of the recipe's default. torch "
        f"{torch.__version__}, transformers {transformers.__version__}, Python "
        f"{platform.python_version()}, commit {commit()}. One large matrix product: "
        f"{rate / 1e9:,.0f} G operations a second.",
        "",
        f"## A step: {settings.prompts} × {settings.samples} samples of at most "
        f"{settings.max_new_tokens} tokens",
        "",
        "| phase | ours: s | use of the device | the loop: s | times faster |",
        "|---|--:|--:|--:|--:|",
    ]
    for phase in PHASES:
        share = operations[phase] / ours.seconds[phase] / rate
        lines.append(_row(phase, ours.seconds[phase], share, loop.seconds[phase]))
    share = sum(operations.values()) / ours.total / rate
    lines += [
        _row("**step**", ours.total, share, loop.total),
        "",
        f"{ours.generated:,.0f} tokens generated in a step, "
        f"{ours.generated / ours.seconds['generate']:,.0f} a second while generating, "
        f"{ours.generated / ours.total:,.0f} a second in all. Peak memory: ours {ours.peak:.1f} "
        f"GB, the loop {loop.peak:.1f} GB. Median of {steps} steps; of the loop one, of which "
        f"{loop_prompts} of {settings.prompts} prompts were run.",
        "",
        f"## `explain` of {rows.rows:,} activations",
        "",
        "| what | rows | seconds | rows/s | tokens/s |",
        "|---|--:|--:|--:|--:|",
        _timed("ours, AV and AR, tables written", rows),
        _timed("one row at a time", row_loop),
        "",
        f"{(rows.rows / rows.seconds) / (row_loop.rows / row_loop.seconds):.1f} times as many "
        f"rows a second, {(rows.tokens / rows.seconds) / (row_loop.tokens / row_loop.seconds):.1f} "
        f"times as many tokens. Peak memory: {peak:.1f} GB.",
        "",
        "## Generating alone",
        "",
        "| who | rows at once | tokens | seconds | tokens/s | more for the first: s |",
        "|---|--:|--:|--:|--:|--:|",
        *(
            f"| {one.who} | {one.rows} | {one.tokens:,} | {one.seconds:.3f} | "
            f"{one.tokens / one.seconds:,.0f} | {one.to_begin:.1f} |"
            for one in batches
        ),
        "",
    ]
    return "\n".join(lines)


def _row(name: str, ours: float, share: float, loop: float) -> str:
    return f"| {name} | {ours:.3f} | {100 * share:.2g} % | {loop:.3f} | {loop / ours:.1f} |"


def _timed(name: str, run: Timed) -> str:
    return (
        f"| {name} | {run.rows:,} | {run.seconds:.2f} | {run.rows / run.seconds:,.1f} | "
        f"{run.tokens / run.seconds:,.0f} |"
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shape", choices=list(SHAPES), default="qwen3-8b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--words", type=float, help="of an explanation on average")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--loop-prompts", type=int, default=2)
    parser.add_argument("--loop-rows", type=int, default=16)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    shape = SHAPES[given.shape]
    if given.shape == "qwen3-8b" and given.device == "cpu":
        parser.error("no GPU here: --shape miniature runs the same on a CPU")
    text = measure(
        Bench(shape, torch.device(given.device), given.words),
        steps=given.steps,
        loop_prompts=min(given.loop_prompts, shape.prompts),
        loop_rows=min(given.loop_rows, shape.activations),
    )
    print(text)
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
