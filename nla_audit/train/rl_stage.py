"""The stage ``rl``: every run of the sweep, from its start to what it leaves on disk."""

from __future__ import annotations

import logging
import shutil
from typing import Any

from nla_audit.checkpoint.tokenizer_check import check_survives_saving
from nla_audit.errors import UserError
from nla_audit.files import whole_folder
from nla_audit.runs.ray_crew import RaySettings
from nla_audit.train.adapters import RL_ADAPTER, has_adapter, save_adapter
from nla_audit.train.best import facts_of
from nla_audit.train.dataset import read_dataset
from nla_audit.train.interruption import Stopped, Wish, WorkerWish, stopping
from nla_audit.train.judging import Judges
from nla_audit.train.layout import Layout
from nla_audit.train.on_ray import on_ray
from nla_audit.train.pair import save_trained_ar, save_trained_ar_adapter, save_trained_av
from nla_audit.train.prepare import Tell
from nla_audit.train.ranks import Ranks
from nla_audit.train.rl import Arms, RlRun
from nla_audit.train.runs import Run
from nla_audit.train.scheduling import in_processes, settle_in
from nla_audit.train.starts import anchor_of, both_of, load_start, start_references

_log = logging.getLogger(__name__)


def reinforce(layout: Layout, tell: Tell, ranks: Ranks, cluster: RaySettings | None = None) -> None:
    """Every run: ``rl.processes`` of them at a time, or all ``ranks`` on each in turn.

    Args:
        cluster: trains them instead, a run a worker.
    """
    processes = layout.recipe.rl.processes
    waiting = [run for run in layout.runs if not layout.is_trained(run)]
    ranks.wait()  # all have looked before any finishes one
    if cluster is not None and waiting:
        on_ray(layout, waiting, cluster, _train_for_crew, tell)
        return
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
    pair, ruler = load_start(layout, run)
    verbalizer, training = both_of(pair)
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
        anchor=anchor_of(layout, run),
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
        **facts_of(kept),
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
    base_av, base_ar = start_references(layout, run)
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


def _train_for_crew(layout: Layout, run: Run, stop: Wish) -> str | None:
    """Train one run as a worker; returns why it stopped early, ``None`` if it did not."""
    if stop.requested:  # it was next in line when the user asked to stop
        return None
    try:
        train_one(layout, run, stop, lambda *_: None, Ranks())
    except Stopped as stopped:
        return str(stopped)
    return None


def _train_in_process(layout: Layout, run: Run, processes: int) -> str | None:
    """:func:`_train_for_crew` in one of so many processes."""
    settle_in(layout, processes)
    return _train_for_crew(layout, run, WorkerWish())
