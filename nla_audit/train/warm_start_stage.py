"""The stage ``warm-start``: both halves learn from gold explanations before RL."""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nla_audit.checkpoint.in_vllm import VllmHost, placement_beside_vllm
from nla_audit.checkpoint.load import load
from nla_audit.nla.vllm_settings import VllmSettings
from nla_audit.train.best import Kept, facts_of, kept_step
from nla_audit.train.dataset import Dataset, read_dataset
from nla_audit.train.generated_texts import (
    GENERATED_FILE,
    explained,
    read_explained,
    rows_to_explain,
    with_generated,
)
from nla_audit.train.interruption import stopping
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
    save_trained_av,
)
from nla_audit.train.prepare import Tell, target_reference
from nla_audit.train.recipe_rl import Rl
from nla_audit.train.recipe_warm_start import OnGenerated
from nla_audit.train.seeds import Use, derived
from nla_audit.train.separating import with_separators
from nla_audit.train.state import METRICS_FILE, read_metrics
from nla_audit.train.warm_start import cap_by_gold, train_ar, train_av

_log = logging.getLogger(__name__)


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
    for line in shortcomings(held_out_of_kept(layout.warm_start / "ar-training"), None):
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
    dataset = read_dataset(layout.activations)
    rows = rows_to_explain(dataset, settings.texts, recipe.seed)
    held_out = dataset.held_out_rows(recipe.warm_start.evaluation_rows)
    said = _said_by_the_av(layout, settings, dataset, np.concatenate([held_out, rows]), tell)
    reconstructor = load(ar=layout.ar_of_gold, placement=placement_of(recipe.target)).reconstructor
    assert reconstructor is not None
    with stopping() as stop:
        kept = train_ar(
            reconstructor,
            with_generated(dataset, said, rows, held_out, settings.gold_share),
            recipe.warm_start.model_copy(update={"ar": settings}),
            seed=derived(recipe.seed, Use.GENERATED),
            folder=layout.warm_start / "ar-on-generated-training",
            key=layout.key("warm-start"),
            stop=stop,
            tell=lambda done: tell("warm start of the AR on generated texts", done, settings.steps),
            read="generated",
            tracking=recipe.tracking,
        )
    save_trained_ar(reconstructor, layout.warm_start / "ar", _warm_history(layout, kept))


def _said_by_the_av(
    layout: Layout,
    settings: OnGenerated,
    dataset: Dataset,
    asked: npt.NDArray[np.int64],
    tell: Tell,
) -> dict[int, str]:
    """What the AV says of the rows ``asked``, by our own loop or by vLLM, which then ends."""
    recipe, av = layout.recipe, layout.warm_start / "av"
    out, placement = layout.warm_start / GENERATED_FILE, placement_of(recipe.target)
    if out.is_file():
        return read_explained(out)
    by_vllm = settings.engine == "vllm"
    verbalizer = load(
        av, placement=placement_beside_vllm(placement) if by_vllm else placement
    ).verbalizer
    assert verbalizer is not None
    held_out = dataset.held_out_rows(recipe.warm_start.evaluation_rows)
    cap = cap_by_gold(verbalizer, dataset.gold(held_out))
    title = "warm start: the AV writes for the AR"
    with ExitStack() as while_it_writes:
        if by_vllm:
            host = VllmHost(VllmSettings(cap, settings.engine_options))
            while_it_writes.enter_context(closing(host))
            host.take(verbalizer, av, [], trust_remote_code=False)
        return explained(
            verbalizer,
            dataset,
            asked,
            seed=recipe.seed,
            max_new_tokens=cap,
            out=out,
            key=layout.key("warm-start"),
            tell=lambda done: tell(title, done, len(asked)),
        )


def warm_start_shortcomings(layout: Layout) -> list[str]:
    """What the recipe's warm start has not learnt that RL needs, a line each."""
    folder = layout.warm_start
    av = held_out_of_kept(folder / "av-training")
    # How the AR reads what is generated has changed since the AV was measured.
    read_again = held_out_of_kept(folder / "ar-on-generated-training")
    if av is not None and read_again is not None:
        av = {**av, **read_again}
    return shortcomings(held_out_of_kept(folder / "ar-training"), av)


def held_out_of_kept(folder: Path) -> dict[str, Any] | None:
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
        **facts_of(kept),
    }
