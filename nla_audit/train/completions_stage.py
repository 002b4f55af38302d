"""The stage ``completions``: held-out explanations of every model, read and written down."""

from __future__ import annotations

from contextlib import closing

import polars as pl

from nla_audit.checkpoint.in_vllm import VllmHost
from nla_audit.checkpoint.load import load
from nla_audit.errors import UserError
from nla_audit.files import write_parquet
from nla_audit.nla.fve import measure_baselines
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.train.dataset import Dataset, read_dataset
from nla_audit.train.held_out import RULER, completions_of, gold_texts
from nla_audit.train.in_vllm import Hosts
from nla_audit.train.judging import Judges
from nla_audit.train.layout import Layout
from nla_audit.train.pair import placement_of
from nla_audit.train.prefix_fve import PREFIX_FILE, prefix_fve, sampled
from nla_audit.train.prepare import Tell
from nla_audit.train.runs import Run
from nla_audit.train.scheduling import settle_in
from nla_audit.train.starts import load_ruler, start_references, warm_start_references

WARM_START_MODEL = "warm-start"
#: Beside the completions: the gold explanations of the same activations, the reference texts of a
#: steganography probe.
GOLD_FILE = "gold.parquet"


def write_completions(layout: Layout, tell: Tell) -> None:
    """Held-out explanations of the warm start and of every run, in one table.

    Raises:
        UserError: a run is not trained to the end.
    """
    folder, key = layout.completions.parent, layout.key("completions")
    if layout.is_done(folder, key):
        return
    # Before texts of others cost minutes.
    untrained = next((run for run in layout.runs if not layout.is_trained(run)), None)
    if untrained is not None:
        raise UserError(
            f"{layout.run(untrained)}: this run is not trained to the end; run the stage rl first"
        )
    settle_in(layout)
    recipe = layout.recipe
    models: list[Run | None] = [None, *layout.runs]
    dataset = read_dataset(layout.activations)
    ruler = load_ruler(layout)
    parts = []
    with closing(Hosts()) as hosts:
        for number, run in enumerate(models):
            tell("completions", number, len(models))
            name = WARM_START_MODEL if run is None else run.name
            part = folder / f"part-{name}-{key}.parquet"
            if not part.is_file():
                frame = _completions_of_model(
                    layout, run, name, dataset=dataset, ruler=ruler, hosts=hosts
                )
                write_parquet(frame, part)
            parts.append(pl.read_parquet(part))
    # Parts that an older version left behind may lack a column.
    completions = pl.concat(parts, how="diagonal")
    write_parquet(completions, layout.completions)
    if recipe.evaluation.prefix_activations:
        rows = sampled(completions, RULER, recipe.evaluation.prefix_activations)
        by_prefix = prefix_fve(rows, ruler, dataset)
        write_parquet(by_prefix, folder / PREFIX_FILE)
    gold = gold_texts(dataset, recipe.evaluation)
    if gold.height:
        write_parquet(gold, folder / GOLD_FILE)
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
    ruler: Reconstructor,
    hosts: Hosts,
) -> pl.DataFrame:
    """Rows of one model, by the ruler and, where it was co-trained, by its own AR as well."""
    recipe, rulers = layout.recipe, {RULER: ruler}
    reward = recipe.rl if run is None else run.rl
    verbalizer = _verbalizer_of(layout, run, hosts.host_of(reward))
    if run is not None and run.rl.train_ar:
        placement = placement_of(recipe.target)
        own = load(ar=layout.run(run) / "ar", placement=placement).reconstructor
        assert own is not None
        rulers["own"] = own
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


def _verbalizer_of(layout: Layout, run: Run | None, host: VllmHost | None) -> Verbalizer:
    """The AV of a trained run, or of the warm start.

    It is put together from the adapter where there is no whole AV, or where the adapters of a
    sweep share one vLLM.
    """
    target = layout.recipe.target
    on_base = placement_of(target, is_av_in_rl=True)
    whole, adapter = warm_start_references(layout)[0], None
    if run is not None:
        whole, adapter = layout.run(run) / "av", layout.run(run) / "adapter"
        shares = host is not None and not host.settings.merges_adapters and adapter.is_dir()
        if whole.is_dir() and not shares:
            adapter, on_base = None, placement_of(target)
        else:
            whole = start_references(layout, run)[0]
    verbalizer = load(whole, adapter=adapter, placement=on_base, engine=host).verbalizer
    assert verbalizer is not None
    return verbalizer


def _kept_step(layout: Layout, run: Run) -> int:
    """Steps that the saved weights of a run were trained for."""
    facts = layout.facts(layout.run(run))
    return int(facts.get("kept_step", facts["rl_steps"]))
