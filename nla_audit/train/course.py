"""The course from the warm start to a table of completions."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from transformers.utils.logging import disable_progress_bar

from nla_audit.checkpoint.load import Pair, load
from nla_audit.checkpoint.tokenizer_check import check_survives_saving
from nla_audit.errors import UserError
from nla_audit.files import whole_file, whole_folder
from nla_audit.nla.fve import measure_baselines
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.train.adapters import RL_ADAPTER, has_adapter, save_adapter
from nla_audit.train.best import Kept, kept_step
from nla_audit.train.dataset import Dataset, read_dataset
from nla_audit.train.generated_texts import explained, rows_to_explain, with_generated
from nla_audit.train.held_out import RULER, completions_of, gold_texts
from nla_audit.train.interruption import Stopped, Wish, WorkerWish, stopping
from nla_audit.train.judging import Judges
from nla_audit.train.layout import Layout
from nla_audit.train.learned import shortcomings
from nla_audit.train.pair import (
    check_prompts,
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
from nla_audit.train.recipe import Rl, path_of
from nla_audit.train.rl import Arms, RlRun
from nla_audit.train.runs import Run
from nla_audit.train.scheduling import in_processes, share_threads
from nla_audit.train.seeds import Use, derived
from nla_audit.train.separating import with_separators
from nla_audit.train.state import METRICS_FILE, read_metrics
from nla_audit.train.warm_start import cap_by_gold, train_ar, train_av

_log = logging.getLogger(__name__)

WARM_START_MODEL = "warm-start"
#: Beside the completions: the gold explanations of the same activations, the reference texts of a
#: steganography probe.
GOLD_FILE = "gold.parquet"


def settle_in(layout: Layout, processes: int = 1) -> None:
    """Share the processor's threads among ``processes``; one set of progress bars is enough."""
    disable_progress_bar()
    share_threads(layout.recipe, processes)


def warm_start_references(layout: Layout, run: Run | None = None) -> tuple[str | Path, str | Path]:
    """AV and AR that RL begins from: the recipe's own, or those of the warm start.

    Args:
        run: whose grading may need an AV with separators of its own.
    """
    pair = layout.recipe.pair
    if pair.av is None or pair.ar is None:
        return layout.av_warm_start(run) / "av", layout.warm_start / "ar"
    local_av, local_ar = path_of(pair.av, layout.folder), path_of(pair.ar, layout.folder)
    return (
        local_av if local_av.is_dir() else pair.av,
        local_ar if local_ar.is_dir() else pair.ar,
    )


def check_before(layout: Layout) -> None:
    """What the warm start would refuse, before activations and gold cost hours.

    Raises:
        UserError: as :func:`nla_audit.train.pair.check_prompts`.
    """
    recipe = layout.recipe
    if recipe.target.model is not None and recipe.pair.av is None:
        check_prompts(target_reference(layout), recipe.target, recipe.pair)


def warm_start(layout: Layout, tell: Tell) -> None:
    """Train AV and AR on gold explanations; nothing to do where the recipe brings a pair.

    Runs whose gradings need other separators than the recipe's get an AV of their own; the AR is
    the same for all.
    """
    recipe, key = layout.recipe, layout.key("warm-start")
    if recipe.pair.av is not None:
        return
    base = layout.warm_start
    if not layout.is_done(base, key):
        layout.begin(base, key)
        _warm_start_ar(layout, tell)
        _warm_start_av(layout, recipe.rl, base, key, tell)
        _warm_start_ar_on_generated(layout, tell)
        layout.mark_done(base, key)
    for run in layout.runs:
        folder, key = layout.av_warm_start(run), layout.key("warm-start", run)
        if not layout.is_done(folder, key):
            layout.begin(folder, key)
            _warm_start_av(layout, run.rl, folder, key, tell)
            layout.mark_done(folder, key)


def _warm_start_ar(layout: Layout, tell: Tell) -> None:
    recipe, settings = layout.recipe, layout.recipe.warm_start
    if layout.ar_of_gold.is_dir():
        return
    reference = target_reference(layout)
    layer_index = layer_of(recipe.target, load_config(reference))
    reconstructor = new_reconstructor(reference, layer_index, recipe.target, recipe.pair)
    with stopping() as stop:
        kept = train_ar(
            reconstructor,
            read_dataset(layout.activations),
            settings,
            seed=recipe.seed,
            folder=layout.warm_start / "ar-training",
            key=layout.key("warm-start"),
            stop=stop,
            tell=lambda done: tell("warm start of the AR", done, settings.ar.steps),
            tracking=recipe.tracking,
        )
    save_trained_ar(reconstructor, layout.ar_of_gold, _warm_history(layout, kept))
    for line in shortcomings(_held_out_of_kept(layout.warm_start / "ar-training"), None):
        _log.warning("%s", line)


def _warm_start_av(layout: Layout, rl: Rl, folder: Path, key: str, tell: Tell) -> None:
    recipe, settings = layout.recipe, layout.recipe.warm_start
    if (folder / "av").is_dir():
        return
    reference = target_reference(layout)
    title = "warm start of the AV" + ("" if folder == layout.warm_start else f", {folder.name}")
    separator, most = rl.grading.separator(), rl.grading.most_separators()
    dataset = read_dataset(layout.activations)
    verbalizer = new_verbalizer(
        reference,
        layer_of(recipe.target, load_config(reference)),
        recipe.target,
        recipe.pair,
        separator=separator,
        seed=derived(recipe.seed, Use.SEPARATOR),
    )
    reader = load(ar=layout.ar_of_gold, placement=placement_of(recipe.target))
    with stopping() as stop:
        kept = train_av(
            verbalizer,
            # The AR never sees a separator.
            dataset if separator is None else with_separators(dataset, separator, most),
            settings,
            reader=reader.reconstructor,
            seed=recipe.seed,
            folder=folder / "av-training",
            key=key,
            stop=stop,
            tell=lambda done: tell(title, done, settings.av.steps),
            tracking=recipe.tracking,
        )
    save_trained_av(verbalizer, folder / "av", _warm_history(layout, kept))


def _warm_start_ar_on_generated(layout: Layout, tell: Tell) -> None:
    """Let the AR of gold learn from what the AV writes, too, if the recipe says so."""
    recipe, settings = layout.recipe, layout.recipe.warm_start.ar_on_generated
    if settings is None or (layout.warm_start / "ar").is_dir():
        return
    placement, key = placement_of(recipe.target), layout.key("warm-start")
    pair = load(layout.warm_start / "av", ar=layout.ar_of_gold, placement=placement)
    verbalizer, reconstructor = _both(pair)
    dataset = read_dataset(layout.activations)
    rows = rows_to_explain(dataset, settings.texts, recipe.seed)
    held_out = dataset.held_out_rows(recipe.warm_start.evaluation_rows)
    asked = np.concatenate([held_out, rows])
    title = "warm start: the AV writes for the AR"
    said = explained(
        verbalizer,
        dataset,
        asked,
        seed=recipe.seed,
        max_new_tokens=cap_by_gold(verbalizer, dataset.gold(held_out)),
        out=layout.warm_start / "generated.parquet",
        key=key,
        tell=lambda done: tell(title, done, len(asked)),
    )
    with stopping() as stop:
        kept = train_ar(
            reconstructor,
            with_generated(dataset, said, rows, held_out, settings.gold_share),
            recipe.warm_start.model_copy(update={"ar": settings}),
            seed=derived(recipe.seed, Use.GENERATED),
            folder=layout.warm_start / "ar-on-generated-training",
            key=key,
            stop=stop,
            tell=lambda done: tell("warm start of the AR on generated texts", done, settings.steps),
            read="generated",
            tracking=recipe.tracking,
        )
    save_trained_ar(reconstructor, layout.warm_start / "ar", _warm_history(layout, kept))


def warm_start_shortcomings(layout: Layout) -> list[str]:
    """What the recipe's warm start has not learnt that RL needs, a line each."""
    folder = layout.warm_start
    av = _held_out_of_kept(folder / "av-training")
    # How the AR reads what is generated has changed since the AV was measured.
    read_again = _held_out_of_kept(folder / "ar-on-generated-training")
    if av is not None and read_again is not None:
        av = {**av, **read_again}
    return shortcomings(_held_out_of_kept(folder / "ar-training"), av)


def _held_out_of_kept(folder: Path) -> dict[str, Any] | None:
    """The record of a measurement of the weights that a warm start left."""
    kept = kept_step(folder)
    records = (
        one for one in reversed(read_metrics(folder / METRICS_FILE)) if one["kind"] == "held_out"
    )
    return next((one for one in records if kept in (None, one["step"])), None)


def _warm_history(layout: Layout, kept: Kept | None) -> dict[str, Any]:
    return {
        "stage": "warm_start",
        "seed": layout.recipe.seed,
        "ar_trained_in_rl": False,
        **_kept_facts(kept),
    }


def _kept_facts(kept: Kept | None) -> dict[str, Any]:
    return {} if kept is None else kept.facts()


def reinforce(layout: Layout, tell: Tell, ranks: Ranks) -> None:
    """Every run: ``rl.processes`` of them at a time, or all ``ranks`` on each in turn."""
    processes = layout.recipe.rl.processes
    waiting = [run for run in layout.runs if not layout.is_trained(run)]
    ranks.wait()  # all have looked before any finishes one
    if ranks.size > 1 or processes == 1 or len(waiting) <= 1:
        settle_in(layout, ranks.size)
        for run in waiting:
            with stopping() as stop:
                train_one(layout, run, stop, tell, ranks)
        return
    in_processes(layout, waiting, min(processes, len(waiting)), _train_in_process, tell)


def train_one(layout: Layout, run: Run, stop: Wish, tell: Tell, ranks: Ranks) -> None:
    """Train one run and write what came of it.

    Raises:
        Stopped: the user asked to; the state is saved.
        UserError: as :meth:`RlRun.run`, or what comes of it could not be saved.
    """
    recipe, rl, folder, key = layout.recipe, run.rl, layout.run(run), layout.key("rl", run)
    pair, ruler = _load_warm_start(layout, run)
    verbalizer, training = _both(pair)
    if rl.train_ar and training.keeps_final_norm:
        raise UserError(
            f"rl.train_ar: the AR {training.name} keeps its final norm, with which it could not be "
            "saved in the release's layout; leave it frozen"
        )
    for half in (verbalizer, training):
        check_survives_saving(half.tokenizer, half.model.config, half.sidecar)
    judges = Judges(rl.judges, layout.judges)
    training_run = RlRun(
        verbalizer,
        Arms(training if rl.train_ar else ruler, ruler),
        read_dataset(layout.activations),
        rl,
        length_penalty=run.length_penalty,
        seed=recipe.seed,
        folder=folder,
        key=key,
        ranks=ranks,
        title=run.title,
        anchor=_anchor(layout, run),
        tracking=recipe.tracking,
        judges=judges,
    )
    with judges:
        done = training_run.run(stop, lambda step: tell(f"RL at {run.title}", step, rl.steps))
    for name, account in judges.accounts.items():
        _log.info("RL at %s, judge %s: %s", run.title, name, account.describe())
    kept = training_run.restore_kept()
    history = {
        "stage": "rl",
        "seed": recipe.seed,
        "length_penalty": run.length_penalty,
        "rl_steps": done.step,
        "ar_trained_in_rl": rl.train_ar,
        **_kept_facts(kept),
        **({} if run.start is None else {"start": run.start, "anchor": run.anchor}),
    }
    with training_run.to_be_saved():
        if ranks.is_first:
            _save_run(layout, run, training_run, history)
            layout.mark_done(
                folder, key, **history, seconds=done.seconds, skipped_steps=done.skipped
            )
    ranks.wait()


def _save_run(layout: Layout, run: Run, trained: RlRun, history: dict[str, Any]) -> None:
    """Both halves in the release's layout (the AR where it was trained), and their adapters."""
    rl, folder, verbalizer = run.rl, layout.run(run), trained.policy.verbalizer
    base_av, base_ar = _start_references(layout, run)
    for name in ("av", "ar", "adapter", "ar-adapter"):  # left over from a kill while saving
        shutil.rmtree(folder / name, ignore_errors=True)
    if rl.lora is not None:
        with whole_folder(folder / "adapter") as partial:
            save_adapter(verbalizer.model, rl.lora, RL_ADAPTER, partial, base=str(base_av))
    if not layout.recipe.target.load_in_4bit:
        save_trained_av(verbalizer, folder / "av", history)
    if not rl.train_ar:
        return
    training = trained.arms.training
    save_trained_ar(training, folder / "ar", history)
    # An AR-LoRA names one base, so on an AR that is one itself only the merged AR can be written.
    if rl.ar_lora is not None and not has_adapter(training.model, besides=RL_ADAPTER):
        save_trained_ar_adapter(
            training, folder / "ar-adapter", history, rl.ar_lora, base=str(base_ar)
        )


def _start_references(layout: Layout, run: Run) -> tuple[str | Path, str | Path]:
    """AV and AR that a run begins from: those of another run, or of the warm start.

    The AR is another run's only where both train it, for a frozen one is the ruler.
    """
    av, ar = warm_start_references(layout, run)
    if run.start is None:
        return av, ar
    before = layout.named(run.start)
    if not layout.is_trained(before):
        raise UserError(
            f"{layout.run(before)}: {run.name} starts from this run, which is untrained"
        )
    own = layout.run(before)
    return own / "av", own / "ar" if run.rl.train_ar and before.rl.train_ar else ar


def _anchor(layout: Layout, run: Run) -> Verbalizer | None:
    """What the KL is to, where that is not the AV that the run starts from."""
    if run.start is None or run.anchor == "predecessor":
        return None
    av, _ = warm_start_references(layout, run)
    placement = placement_of(layout.recipe.target, is_av_in_rl=True)
    return load(av, placement=placement).verbalizer


def _load_warm_start(layout: Layout, run: Run | None = None) -> tuple[Pair, Reconstructor]:
    """The pair to train, and a ruler that no one trains (the same AR where none is trained).

    Args:
        run: whose start is loaded; by default the warm start of the recipe.
    """
    _, warm_ar = warm_start_references(layout)
    av, ar = warm_start_references(layout) if run is None else _start_references(layout, run)
    target = layout.recipe.target
    pair = Pair(
        load(av, placement=placement_of(target, is_av_in_rl=True)).verbalizer,
        load(ar=ar, placement=placement_of(target)).reconstructor,
    )
    assert pair.reconstructor is not None
    if run is None or not run.rl.train_ar:
        return pair, pair.reconstructor
    ruler = load(ar=warm_ar, placement=placement_of(target)).reconstructor
    assert ruler is not None
    return pair, ruler


def _both(pair: Pair) -> tuple[Verbalizer, Reconstructor]:
    assert pair.verbalizer is not None
    assert pair.reconstructor is not None
    return pair.verbalizer, pair.reconstructor


def _train_in_process(layout: Layout, run: Run, processes: int) -> str | None:
    """Train one run here; returns why it stopped early, ``None`` if it did not."""
    settle_in(layout, processes)
    if WorkerWish().requested:  # it was next in line when the user asked to stop
        return None
    try:
        train_one(layout, run, WorkerWish(), lambda *_: None, Ranks())
    except Stopped as stopped:
        return str(stopped)
    return None


def write_completions(layout: Layout, tell: Tell) -> None:
    """Held-out explanations of the warm start and of every run, in one table."""
    folder, key = layout.completions.parent, layout.key("completions")
    if layout.is_done(folder, key):
        return
    settle_in(layout)
    recipe = layout.recipe
    models: list[Run | None] = [None, *layout.runs]
    dataset = read_dataset(layout.activations)
    pair, ruler = _load_warm_start(layout)
    parts = []
    for number, run in enumerate(models):
        tell("completions", number, len(models))
        name = WARM_START_MODEL if run is None else run.name
        part = folder / f"part-{name}-{key}.parquet"
        if not part.is_file():
            frame = _completions_of_model(
                layout, run, name, dataset=dataset, warm=pair, ruler=ruler
            )
            with whole_file(part) as partial:
                frame.write_parquet(partial)
        parts.append(pl.read_parquet(part))
    # Parts that an older version left behind may lack a column.
    completions = pl.concat(parts, how="diagonal")
    with whole_file(layout.completions) as partial:
        completions.write_parquet(partial)
    if recipe.evaluation.prefix_activations:
        rows = sampled(completions, RULER, recipe.evaluation.prefix_activations)
        by_prefix = prefix_fve(rows, ruler, dataset)
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
        ar_trained_in_rl=any(run.rl.train_ar for run in layout.runs),
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
    run: Run | None,
    name: str,
    *,
    dataset: Dataset,
    warm: Pair,
    ruler: Reconstructor,
) -> pl.DataFrame:
    """Rows of one model, by the ruler and, where it was co-trained, by its own AR as well."""
    recipe = layout.recipe
    verbalizer, rulers = warm.verbalizer, {RULER: ruler}
    if run is not None:
        folder = layout.run(run)
        if not layout.is_trained(run):
            raise UserError(f"{folder}: this run is not trained to the end; run the stage rl first")
        if (folder / "av").is_dir():
            verbalizer = load(folder / "av", placement=placement_of(recipe.target)).verbalizer
        else:
            verbalizer = load(
                warm_start_references(layout, run)[0],
                adapter=folder / "adapter",
                placement=placement_of(recipe.target, is_av_in_rl=True),
            ).verbalizer
        if run.rl.train_ar:
            own = load(ar=folder / "ar", placement=placement_of(recipe.target)).reconstructor
            assert own is not None
            rulers["own"] = own
    assert verbalizer is not None
    reward = recipe.rl if run is None else run.rl
    with Judges(reward.judges, layout.judges) as judges:
        return completions_of(
            verbalizer,
            rulers,
            dataset,
            recipe.evaluation,
            model=name,
            length_penalty=None if run is None else run.length_penalty,
            step=0 if run is None else _kept_step(layout, run),
            reward=reward,
            seed=recipe.seed,
            judges=judges,
        )


def _kept_step(layout: Layout, run: Run) -> int:
    """Steps that the saved weights of a run were trained for."""
    facts = layout.facts(layout.run(run))
    return int(facts.get("kept_step", facts["rl_steps"]))


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
