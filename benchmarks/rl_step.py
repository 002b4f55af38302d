"""Seconds per RL step by phase, against the obvious loop and against bare passes.

    python benchmarks/rl_step.py runs/tiny [--steps 5] [--threads 2]

Reads the warm start of a course. Three things are timed on the same activations, in turn in each
round, so that whatever else the machine does falls on all of them:

- *ours*: a step of the trainer;
- *obvious*: one prompt at a time, explanations scored one by one, log-probabilities (policy and
  anchor) of two samples at a time, as nanoNLA's single-GPU trainer does;
- *bare*: the batched forward and backward passes that no trainer can do without, on the shapes of
  our step, with nothing around them.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np
import torch

from nla_audit.checkpoint.load import load
from nla_audit.nla.cache import RowCache
from nla_audit.nla.generation import NO_TOKEN
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.train.clock import Clock
from nla_audit.train.credit import end_advantages
from nla_audit.train.dataset import read_dataset
from nla_audit.train.grpo import Settings, response_weights
from nla_audit.train.lengths import Charge
from nla_audit.train.log_probs import micro_batches
from nla_audit.train.policy import Policy
from nla_audit.train.read_recipe import read_recipe
from nla_audit.train.recipe_rl import Rl
from nla_audit.train.reconstruction import predict
from nla_audit.train.responses import Responses
from nla_audit.train.rewards import rewards_of
from nla_audit.train.rl import Arms, RlRun
from nla_audit.train.rollout import repeated, sample, scored
from nla_audit.train.sampling import Draw
from nla_audit.train.update import Experience, Trainer, accumulate_gradients, warm_log_probs

PHASES = ("generate", "score", "reference", "update")
#: Samples of one forward and backward pass of the obvious loop.
PAIR = 2


def obvious_step(policy: Policy, trainer: Trainer, reconstructor, *, vectors, idx, settings, step):
    """A whole step without batching across prompts; returns seconds by phase."""
    verbalizer = policy.verbalizer
    clock, device = Clock(verbalizer.device), verbalizer.device
    collected = []
    for row in range(len(vectors)):
        prompts = repeated(vectors[row : row + 1], idx[row : row + 1], settings.samples)
        with clock.phase("generate"):
            said = sample(
                verbalizer,
                prompts,
                seed=step,
                max_new_tokens=settings.max_new_tokens,
                generation_batch=None,
            )
        with clock.phase("score"):
            for text in said.explanations:
                reconstructor.reconstruct([text])
        collected.append((prompts, said))
    for prompts, said in collected:
        responses = Responses(said, verbalizer.decode, verbalizer.tokenizer)
        ends = settings.grading.ends(responses, 0.01)
        samples = scored(
            reconstructor,
            prompts,
            responses,
            ends,
            tokenizer=verbalizer.tokenizer,
            charge=Charge(),
        )
        rewards, _ = rewards_of(samples, settings.rewards, length_penalty=0.01, charge=Charge())
        advantages = end_advantages(
            rewards[:, None], ends.is_reached, settings.samples, "standardized"
        )
        for start in range(0, settings.samples, PAIR):
            rows = slice(start, start + PAIR)
            lengths = said.generated.lengths[rows]
            experience = Experience(
                torch.from_numpy(prompts.activations[rows]).to(device),
                torch.from_numpy(said.generated.log_probs[rows]).to(device),
                np.repeat(advantages[rows], said.generated.token_ids.shape[1], axis=1),
                response_weights(lengths, "sample", settings.max_new_tokens),
                micro_batches(
                    said.generated.token_ids[rows],
                    lengths,
                    len(verbalizer.prompt.ids),
                    10**9,
                    device,
                ),
            )
            with clock.phase("reference"):
                warm = warm_log_probs(policy, experience)
            with clock.phase("update"):
                accumulate_gradients(policy, experience, warm, Settings(settings.clip, settings.kl))
    with clock.phase("update"):
        trainer.step(step)
    return clock.seconds


def bare_passes(run: RlRun, draw: Draw) -> dict[str, float]:
    """The model's own passes on the shapes of a step, and nothing else."""
    seconds = {}
    drawn, model = draw.drawn, run.policy.verbalizer.model
    rows, tokens = drawn.token_ids.shape
    prompt = torch.tensor(run.policy.verbalizer.prompt.ids)
    ids = torch.from_numpy(np.where(drawn.token_ids == NO_TOKEN, 0, drawn.token_ids))
    running = [int((drawn.lengths > step).sum()) for step in range(tokens)]
    with torch.inference_mode():
        began = time.perf_counter()
        cache = RowCache(model.config, capacity=len(prompt) + tokens)
        model(input_ids=prompt.expand(rows, -1), past_key_values=cache, use_cache=True)
        for step in range(tokens - 1):
            alive = running[step + 1]
            if alive < cache.layers[0].keys.shape[0]:
                cache.keep_rows(torch.arange(alive))
            model(input_ids=ids[:alive, step : step + 1], past_key_values=cache, use_cache=True)
        seconds["generate"] = time.perf_counter() - began
        texts = sorted({text for text in drawn.samples.explanations if text is not None})
        ar_ids = run.arms.training.prompt_ids(texts)
        ar_batches = [ar_ids[start : start + 64] for start in range(0, len(ar_ids), 64)]
        began = time.perf_counter()
        for batch in ar_batches:
            predict(run.arms.training, batch)
        seconds["score"] = time.perf_counter() - began
    experience = run._experience(draw)
    full = [
        torch.cat([prompt.expand(len(one.rows), -1), one.token_ids[:, :-1]], dim=1)
        for one in experience.batches
    ]
    with torch.no_grad():
        began = time.perf_counter()
        for one in full:
            model(input_ids=one, use_cache=False)
        seconds["reference"] = time.perf_counter() - began
    began = time.perf_counter()
    for one in full:
        model(input_ids=one, use_cache=False).logits.logsumexp(-1).mean().backward()
    seconds["update"] = time.perf_counter() - began
    run.trainers["av"].zero_grad()
    return seconds


def fresh(verbalizer: Verbalizer) -> Verbalizer:
    return Verbalizer(
        copy.deepcopy(verbalizer.model),
        verbalizer.tokenizer,
        verbalizer.sidecar,
        injection=verbalizer.injection,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("course", type=Path)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = read_recipe(arguments.course / "recipe.yaml").rl
    dataset = read_dataset(arguments.course / "activations" / "activations.parquet")
    pair = load(arguments.course / "warm-start" / "av", arguments.course / "warm-start" / "ar")
    run = RlRun(
        fresh(pair.verbalizer),
        Arms(pair.reconstructor, pair.reconstructor),
        dataset,
        settings,
        length_penalty=0.01,
        seed=0,
        folder=Path("unused"),
        key="unused",
    )
    plain = Policy(fresh(pair.verbalizer), settings.lora, seed=0)
    trainer = Trainer(plain.parameters, settings.optimizer, steps=settings.steps)
    times = {name: defaultdict(list) for name in ("ours", "obvious", "bare")}
    for step in range(arguments.steps + 1):
        record, _ = run._step(step)
        prompts = run.sampler.prompts(step)
        draw = run.sampler.draw(step, Clock(run.policy.verbalizer.device))
        chosen = np.array(prompts.row_keys[:: settings.samples]) >> 16
        where = np.searchsorted(dataset.idx, chosen)
        obvious = obvious_step(
            plain,
            trainer,
            pair.reconstructor,
            vectors=dataset.activations[where],
            idx=dataset.idx[where],
            settings=settings,
            step=step,
        )
        bare = bare_passes(run, draw)
        if step == 0:  # warms up
            continue
        for name, seconds in (("ours", record["time"]), ("obvious", obvious), ("bare", bare)):
            for phase in PHASES:
                times[name][phase].append(seconds[phase])
    print(json.dumps(_summary(times, settings, arguments), indent=2))


def _summary(times, settings: Rl, arguments) -> dict:
    rows = {}
    for phase in (*PHASES, "step"):
        by_name = {}
        for name in times:
            series = (
                np.sum([times[name][one] for one in PHASES], axis=0)
                if phase == "step"
                else times[name][phase]
            )
            by_name[name] = median(series)
        rows[phase] = {
            **{f"{name}_seconds": round(value, 4) for name, value in by_name.items()},
            "times_faster_than_obvious": round(by_name["obvious"] / by_name["ours"], 2),
            "times_bare": round(by_name["ours"] / by_name["bare"], 2),
        }
    return {
        "samples": f"{settings.prompts} x {settings.samples}",
        "threads": arguments.threads,
        "rounds": arguments.steps,
        "phases": rows,
    }


if __name__ == "__main__":
    main()
