"""The course from the warm start to a table of completions."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import polars as pl
import torch
from transformers.utils.logging import disable_progress_bar

from nla_audit.errors import UserError
from nla_audit.files import whole_file, whole_folder
from nla_audit.nla.fve import measure_baselines
from nla_audit.nla.load import Pair, load
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.tokenizer_check import check_survives_saving
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.train.adapters import RL_ADAPTER, has_adapter, save_adapter
from nla_audit.train.dataset import Dataset, read_dataset
from nla_audit.train.held_out import RULER, completions_of, gold_texts
from nla_audit.train.interruption import Stopped, Wish, WorkerWish, begin_worker, stopping
from nla_audit.train.layout import Layout
from nla_audit.train.pair import (
    layer_of,
    load_config,
    new_reconstructor,
    new_verbalizer,
    placement_of,
    save_trained_ar,
    save_trained_ar_adapter,
    save_trained_av,
)
from nla_audit.train.prefix_fve import PREFIX_FILE, prefix_fve, sampled
from nla_audit.train.prepare import Tell, make_activations, make_target, target_reference
from nla_audit.train.ranks import Ranks
from nla_audit.train.recipe import path_of, run_name
from nla_audit.train.rl import Arms, RlRun
from nla_audit.train.seeds import Use, derived
from nla_audit.train.separating import with_separators
from nla_audit.train.state import METRICS_FILE, read_metrics
from nla_audit.train.warm_start import train_ar, train_av

#: Seconds between looks at the logs of runs in other processes.
_LOOK_EVERY = 1.0
WARM_START_MODEL = "warm-start"
#: Beside the completions: the gold explanations of the same activations, the reference texts of a
#: steganography probe.
GOLD_FILE = "gold.parquet"


def settle_in(layout: Layout, processes: int = 1) -> None:
    """Share the processor's threads among ``processes``; one set of progress bars is enough."""
    disable_progress_bar()
    threads = layout.recipe.threads or os.cpu_count() or 1
    torch.set_num_threads(max(1, threads // processes))


def warm_start_references(layout: Layout) -> tuple[str | Path, str | Path]:
    """AV and AR that RL begins from: the recipe's own, or those of the warm start."""
    pair = layout.recipe.pair
    if pair.av is None or pair.ar is None:
        return layout.warm_start / "av", layout.warm_start / "ar"
    local_av, local_ar = path_of(pair.av, layout.folder), path_of(pair.ar, layout.folder)
    return (
        local_av if local_av.is_dir() else pair.av,
        local_ar if local_ar.is_dir() else pair.ar,
    )


def warm_start(layout: Layout, tell: Tell) -> None:
    """Train AV and AR on gold explanations; nothing to do where the recipe brings a pair."""
    recipe, key = layout.recipe, layout.key("warm-start")
    if recipe.pair.av is not None or layout.is_done(layout.warm_start, key):
        return
    dataset = read_dataset(layout.activations)
    reference = target_reference(layout)
    layer_index = layer_of(recipe.target, load_config(reference))
    settings = recipe.warm_start
    history = {"stage": "warm_start", "seed": recipe.seed, "ar_trained_in_rl": False}
    with stopping() as stop:
        if not (layout.warm_start / "ar").is_dir():
            reconstructor = new_reconstructor(reference, layer_index, recipe.target, recipe.pair)
            train_ar(
                reconstructor,
                dataset,
                settings,
                seed=recipe.seed,
                folder=layout.warm_start / "ar-training",
                key=key,
                stop=stop,
                tell=lambda done: tell("warm start of the AR", done, settings.ar.steps),
            )
            save_trained_ar(reconstructor, layout.warm_start / "ar", history)
        if not (layout.warm_start / "av").is_dir():
            separator, most = recipe.rl.grading.separator(), recipe.rl.grading.most_separators()
            verbalizer = new_verbalizer(
                reference,
                layer_index,
                recipe.target,
                recipe.pair,
                separator=separator,
                seed=derived(recipe.seed, Use.SEPARATOR),
            )
            train_av(
                verbalizer,
                # The AR, trained above, never sees a separator.
                dataset if separator is None else with_separators(dataset, separator, most),
                settings,
                reader=load(
                    ar=layout.warm_start / "ar", placement=placement_of(recipe.target)
                ).reconstructor,
                seed=recipe.seed,
                folder=layout.warm_start / "av-training",
                key=key,
                stop=stop,
                tell=lambda done: tell("warm start of the AV", done, settings.av.steps),
            )
            save_trained_av(verbalizer, layout.warm_start / "av", history)
    layout.mark_done(layout.warm_start, key)


def reinforce(layout: Layout, tell: Tell, ranks: Ranks) -> None:
    """One run for each λ: ``rl.processes`` of them at a time, or all ``ranks`` on each in turn."""
    rl = layout.recipe.rl
    waiting = [penalty for penalty in rl.length_penalties if not layout.is_trained(penalty)]
    ranks.wait()  # all have looked before any finishes one
    if ranks.size > 1 or rl.processes == 1 or len(waiting) <= 1:
        settle_in(layout, ranks.size)
        for penalty in waiting:
            with stopping() as stop:
                train_one(layout, penalty, stop, tell, ranks)
        return
    _in_processes(layout, waiting, min(rl.processes, len(waiting)), tell)


def train_one(layout: Layout, penalty: float, stop: Wish, tell: Tell, ranks: Ranks) -> None:
    """Train one λ and write what came of it.

    Raises:
        Stopped: the user asked to; the state is saved.
        UserError: as :meth:`RlRun.run`, or what comes of it could not be saved.
    """
    recipe, folder, key = layout.recipe, layout.run(penalty), layout.key("rl", penalty)
    pair, ruler = _load_warm_start(layout)
    verbalizer, training = _both(pair)
    if recipe.rl.train_ar and training.keeps_final_norm:
        raise UserError(
            f"rl.train_ar: the AR {training.name} keeps its final norm, with which it could not be "
            "saved in the release's layout; leave it frozen"
        )
    for half in (verbalizer, training):
        check_survives_saving(half.tokenizer, half.model.config, half.sidecar)
    run = RlRun(
        verbalizer,
        Arms(training if recipe.rl.train_ar else ruler, ruler),
        read_dataset(layout.activations),
        recipe.rl,
        length_penalty=penalty,
        seed=recipe.seed,
        folder=folder,
        key=key,
        ranks=ranks,
    )
    done = run.run(stop, lambda step: tell(f"RL at λ = {penalty:g}", step, recipe.rl.steps))
    history = {
        "stage": "rl",
        "seed": recipe.seed,
        "length_penalty": penalty,
        "rl_steps": done.step,
        "ar_trained_in_rl": recipe.rl.train_ar,
    }
    with run.to_be_saved():
        if ranks.is_first:
            _save_run(layout, penalty, run, history)
            layout.mark_done(
                folder, key, **history, seconds=done.seconds, skipped_steps=done.skipped
            )
    ranks.wait()


def _save_run(layout: Layout, penalty: float, run: RlRun, history: dict[str, Any]) -> None:
    """Both halves in the release's layout (the AR where it was trained), and their adapters."""
    recipe, folder, verbalizer = layout.recipe, layout.run(penalty), run.policy.verbalizer
    base_av, base_ar = warm_start_references(layout)
    for name in ("av", "ar", "adapter", "ar-adapter"):  # left over from a kill while saving
        shutil.rmtree(folder / name, ignore_errors=True)
    if recipe.rl.lora is not None:
        with whole_folder(folder / "adapter") as partial:
            save_adapter(verbalizer.model, recipe.rl.lora, RL_ADAPTER, partial, base=str(base_av))
    if not recipe.target.load_in_4bit:
        save_trained_av(verbalizer, folder / "av", history)
    if not recipe.rl.train_ar:
        return
    training = run.arms.training
    save_trained_ar(training, folder / "ar", history)
    # An AR-LoRA names one base, so on an AR that is one itself only the merged AR can be written.
    if recipe.rl.ar_lora is not None and not has_adapter(training.model, besides=RL_ADAPTER):
        save_trained_ar_adapter(
            training, folder / "ar-adapter", history, recipe.rl.ar_lora, base=str(base_ar)
        )


def _load_warm_start(layout: Layout) -> tuple[Pair, Reconstructor]:
    """The pair to train, and a ruler that no one trains (the same AR where none is trained)."""
    av, ar = warm_start_references(layout)
    target = layout.recipe.target
    pair = Pair(
        load(av, placement=placement_of(target, is_av_in_rl=True)).verbalizer,
        load(ar=ar, placement=placement_of(target)).reconstructor,
    )
    assert pair.reconstructor is not None
    if not layout.recipe.rl.train_ar:
        return pair, pair.reconstructor
    ruler = load(ar=ar, placement=placement_of(target)).reconstructor
    assert ruler is not None
    return pair, ruler


def _both(pair: Pair) -> tuple[Verbalizer, Reconstructor]:
    assert pair.verbalizer is not None
    assert pair.reconstructor is not None
    return pair.verbalizer, pair.reconstructor


def _in_processes(layout: Layout, penalties: list[float], processes: int, tell: Tell) -> None:
    """Train several λ's at once; progress is read from their logs.

    On Ctrl-C each child finishes its step and saves, and the parent waits for that.
    """
    steps = layout.recipe.rl.steps
    context = get_context("spawn")
    wish = context.Event()
    with (
        stopping() as stop,
        ProcessPoolExecutor(
            processes, mp_context=context, initializer=begin_worker, initargs=(wish,)
        ) as pool,
    ):
        futures: dict[Future[str | None], float] = {
            pool.submit(_train_in_process, layout, penalty, processes): penalty
            for penalty in penalties
        }
        running = set(futures)
        stopped: list[str] = []
        while running:
            finished, running = wait(running, _LOOK_EVERY, return_when=FIRST_COMPLETED)
            for future in finished:
                reason = future.result()
                stopped += [reason] if reason is not None else []
            for future, penalty in futures.items():
                done = steps if future in finished else _steps_logged(layout.run(penalty))
                tell(f"RL at λ = {penalty:g}", done, steps)
            if stop.requested:
                wish.set()
                for future in running:
                    future.cancel()
                running = {future for future in running if not future.cancelled()}
    if stop.requested:
        raise Stopped(", ".join(stopped) or "RL stopped")


def _train_in_process(layout: Layout, penalty: float, processes: int) -> str | None:
    """Train one λ here; returns why it stopped early, ``None`` if it did not."""
    settle_in(layout, processes)
    if WorkerWish().requested:  # it was next in line when the user asked to stop
        return None
    try:
        train_one(layout, penalty, WorkerWish(), lambda *_: None, Ranks())
    except Stopped as stopped:
        return str(stopped)
    return None


def _steps_logged(folder: Path) -> int:
    records = read_metrics(folder / METRICS_FILE)
    return max((record["step"] for record in records), default=0)


def write_completions(layout: Layout, tell: Tell) -> None:
    """Held-out explanations of the warm start and of every λ, in one table."""
    folder, key = layout.completions.parent, layout.key("completions")
    if layout.is_done(folder, key):
        return
    settle_in(layout)
    recipe = layout.recipe
    models: list[float | None] = [None, *recipe.rl.length_penalties]
    dataset = read_dataset(layout.activations)
    pair, ruler = _load_warm_start(layout)
    parts = []
    for number, penalty in enumerate(models):
        tell("completions", number, len(models))
        name = WARM_START_MODEL if penalty is None else run_name(penalty)
        part = folder / f"part-{name}-{key}.parquet"
        if not part.is_file():
            frame = _completions_of_model(
                layout, penalty, name, dataset=dataset, warm=pair, ruler=ruler
            )
            with whole_file(part) as partial:
                frame.write_parquet(partial)
        parts.append(pl.read_parquet(part))
    # Parts that an older version left behind may lack a column.
    completions = pl.concat(parts, how="diagonal")
    with whole_file(layout.completions) as partial:
        completions.write_parquet(partial)
    if recipe.evaluation.prefix_activations:
        assert pair.verbalizer is not None
        rows = sampled(completions, RULER, recipe.evaluation.prefix_activations)
        by_prefix = prefix_fve(rows, ruler, dataset, pair.verbalizer.tokenizer)
        with whole_file(folder / PREFIX_FILE) as partial:
            by_prefix.write_parquet(partial)
    gold = gold_texts(dataset, recipe.evaluation)
    if gold.height:
        with whole_file(folder / GOLD_FILE) as partial:
            gold.write_parquet(partial)
    baselines = measure_baselines(dataset.activations[dataset.held_out_rows()], ruler.mse_scale)
    layout.mark_done(
        folder,
        key,
        ar_trained_in_rl=recipe.rl.train_ar,
        baseline="raw_variance",
        baselines={
            "raw_variance": baselines.raw_variance,
            "mean_normalized": baselines.mean_normalized,
            "activations": baselines.activations,
        },
    )
    for part in folder.glob("part-*.parquet"):
        part.unlink()


def _completions_of_model(
    layout: Layout,
    penalty: float | None,
    name: str,
    *,
    dataset: Dataset,
    warm: Pair,
    ruler: Reconstructor,
) -> pl.DataFrame:
    """Rows of one model, by the ruler and, where it was co-trained, by its own AR as well."""
    recipe = layout.recipe
    verbalizer, rulers = warm.verbalizer, {RULER: ruler}
    if penalty is not None:
        folder = layout.run(penalty)
        if not layout.is_trained(penalty):
            raise UserError(f"{folder}: this λ is not trained to the end; run the stage rl first")
        if (folder / "av").is_dir():
            verbalizer = load(folder / "av", placement=placement_of(recipe.target)).verbalizer
        else:
            verbalizer = load(
                warm_start_references(layout)[0],
                adapter=folder / "adapter",
                placement=placement_of(recipe.target, is_av_in_rl=True),
            ).verbalizer
        if recipe.rl.train_ar:
            own = load(ar=folder / "ar", placement=placement_of(recipe.target)).reconstructor
            assert own is not None
            rulers["own"] = own
    assert verbalizer is not None
    return completions_of(
        verbalizer,
        rulers,
        dataset,
        recipe.evaluation,
        model=name,
        length_penalty=penalty,
        step=0 if penalty is None else int(layout.facts(layout.run(penalty))["rl_steps"]),
        reward=recipe.rl,
        seed=recipe.seed,
    )


#: Stages that one process runs while any others wait; the audit is run by the command.
RUNNERS: dict[str, Callable[[Layout, Tell], None]] = {
    "target": make_target,
    "activations": make_activations,
    "warm-start": warm_start,
    "completions": write_completions,
}


def run_stage(stage: str, layout: Layout, tell: Tell, ranks: Ranks) -> float:
    """Run one stage if it is not done; returns the seconds it took."""
    began = time.perf_counter()
    if stage == "rl":
        reinforce(layout, tell, ranks)
    elif ranks.is_first:
        settle_in(layout)
        RUNNERS[stage](layout, tell)
    ranks.wait()
    return time.perf_counter() - began
