"""``nla-audit train``: a whole course, or one stage of it, from a recipe."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from nla_audit.commands.progress import stage_bars
from nla_audit.commands.ray_options import ray_parameters, ray_settings
from nla_audit.commands.seed_option import SEED
from nla_audit.errors import UserError
from nla_audit.files import only_run
from nla_audit.interrupt import INTERRUPTED

if TYPE_CHECKING:
    import polars as pl

    from nla_audit.findings import Finding
    from nla_audit.runs.ray_crew import RaySettings
    from nla_audit.train.layout import Layout
    from nla_audit.train.prepare import Tell
    from nla_audit.train.ranks import Ranks
    from nla_audit.train.runs import Run

_STAGES = ("target", "activations", "warm-start", "rl", "completions", "audit")


def _run(
    *,
    recipe_path: Path,
    out: Path | None,
    stage: str | None,
    seed: int | None,
    settings: tuple[str, ...],
    dry_run: bool,
    **ray: Any,
) -> None:
    from nla_audit.train.layout import Layout  # torch takes seconds
    from nla_audit.train.ranks import Ranks
    from nla_audit.train.read_recipe import read_recipe
    from nla_audit.train.rewards import check_terms
    from nla_audit.train.tracker import check_installed

    recipe = read_recipe(recipe_path, settings)
    for run in recipe.sweep():
        check_terms(run.rl.rewards, run.rl.judges)
    check_installed(recipe.tracking or ())
    if seed is not None:
        recipe = recipe.model_copy(update={"seed": seed})
    layout = Layout(recipe, recipe_path.parent.absolute(), out or Path("runs") / recipe.name)
    if dry_run:
        _print_plan(layout, Console())
        return
    ranks, cluster = Ranks.from_environment(), ray_settings(ray)
    if cluster is not None:
        from nla_audit.runs.ray_crew import check_there

        if ranks.size > 1:
            raise UserError("--ray trains each run in a task of its own: start it without torchrun")
        check_there(cluster)
    with only_run(layout.out) if ranks.is_first else nullcontext():
        _train(layout, stage, ranks, cluster)


def _train(layout: Layout, stage: str | None, ranks: Ranks, cluster: RaySettings | None) -> None:
    """Run the stages, all or one, and say how each went."""
    from nla_audit.train import in_vllm
    from nla_audit.train.interruption import Stopped
    from nla_audit.train.lora_targets import check_lora_targets
    from nla_audit.train.sampling import check_decoding
    from nla_audit.train.warm_start_stage import check_before

    if stage in (None, "target", "activations", "warm-start", "rl"):
        check_lora_targets(layout)
        in_vllm.check_before(layout, ranks)
        check_decoding(layout)
    if stage in (None, "activations", "warm-start"):
        check_before(layout)
    if ranks.is_first:
        layout.write_recipe()
        _write_record(layout)
    console = Console(stderr=True, quiet=not ranks.is_first)
    for line in _cautions(layout):
        console.print(Text(line), soft_wrap=True)
    for name in [stage] if stage else _STAGES:
        if name == "rl":
            _warn_of_warm_start(layout, console)
        try:
            with _printing_log(console):
                seconds = _stage(name, layout, console, ranks, cluster)
        except Stopped as stopped:
            again = shlex.join(["nla-audit", *sys.argv[1:]])
            line = f"{stopped}; its state is saved. Go on with: {again}"
            console.print(Text(line), soft_wrap=True)
            raise click.exceptions.Exit(INTERRUPTED) from None
        console.print(Text(f"{name}: done in {seconds:.0f} s"))
    if ranks.is_first and stage in (None, "audit"):
        Console().print(Text(f"report: {layout.report / 'report.html'}"), soft_wrap=True)


def _warn_of_warm_start(layout: Layout, console: Console) -> None:
    """Say what the warm start has not learnt, before the long part begins."""
    from nla_audit.train.warm_start_stage import warm_start_shortcomings

    if all(layout.is_trained(run) for run in layout.runs):
        return
    for line in warm_start_shortcomings(layout):
        console.print(Text(f"before RL: {line}"), soft_wrap=True)


@contextmanager
def _printing_log(console: Console) -> Iterator[None]:
    """What training logs is printed, above the progress bars; also where there are none."""
    logger, handler = logging.getLogger("nla_audit.train"), _Lines(console)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Lines(logging.Handler):
    """Prints each message as a line."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print it."""
        self._console.print(Text(record.getMessage()), soft_wrap=True)


def _stage(
    name: str, layout: Layout, console: Console, ranks: Ranks, cluster: RaySettings | None
) -> float:
    """Run one stage with a progress bar for each of its parts."""
    from nla_audit.train.course import run_stage

    with stage_bars(console) as bar:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        if name == "audit":
            return _audit(layout, tell) if ranks.is_first else 0.0
        return run_stage(name, layout, tell, ranks, cluster)


def _audit(layout: Layout, tell: Tell) -> float:
    """Audit the completions as ``nla-audit audit`` does."""
    import time

    from nla_audit.report.audit import run_audit
    from nla_audit.table.completions import load
    from nla_audit.train.held_out import RULER
    from nla_audit.train.prefix_fve import PREFIX_FILE

    began = time.perf_counter()
    trained = {run.rl.train_ar for run in layout.runs}
    how = " or ".join("co-trained" if one else "frozen" for one in sorted(trained))
    completions = load([layout.completions], ar=RULER, reference=_reference(layout))
    prefixes = layout.completions.with_name(PREFIX_FILE)
    chain = [f"{run.start},{run.name}" for run in layout.runs if run.start is not None]
    of_multiscale = {"chain": chain} | ({"prefixes": str(prefixes)} if prefixes.is_file() else {})
    run_audit(
        completions,
        layout.report,
        seed=layout.recipe.seed,
        title=f"Audit of {layout.recipe.name} (AR {how} in RL)",
        arguments={"recipe": layout.recipe.name, "ar": RULER, "ar_trained_in_rl": any(trained)},
        progress=tell,
        draw_aside=True,
        further=_known_facts(layout, completions.rows),
        options={"multiscale": of_multiscale},
    )
    return time.perf_counter() - began


def _reference(layout: Layout) -> str | None:
    """The plain model of named runs: whole texts graded, the smallest λ, the warm start's AV."""
    if not layout.recipe.runs:
        return None
    runs = sorted(layout.runs, key=lambda run: run.length_penalty)
    plain = [run for run in runs if run.rl.grading.kind == "final" and run.start is None]
    return (plain or runs)[0].name


def _known_facts(layout: Layout, completions: pl.DataFrame) -> list[Finding]:
    """Where the target's language is ours, what explanations name of the facts in it."""
    facts = layout.activations.with_name("facts.parquet")
    if not facts.is_file():
        return []
    import polars as pl

    from nla_audit.train.dataset import read_dataset
    from nla_audit.world.toy.facts import facts_named, probe_accuracy

    known, dataset = pl.read_parquet(facts), read_dataset(layout.activations)
    probe = probe_accuracy(dataset.activations, known, dataset.is_held_out)
    return [facts_named(completions, known, probe, seed=layout.recipe.seed)]


def _write_record(layout: Layout) -> None:
    """What ran: command, seed, versions, commit."""
    import torch

    from nla_audit.files import write_json
    from nla_audit.record import ANALYSIS, MODELS, run_record

    record = {
        **run_record("train", click.get_current_context().params, [*ANALYSIS, *MODELS]),
        "seed": layout.recipe.seed,
        "threads": torch.get_num_threads(),
    }
    write_json(record, layout.out / "record.json")


def _print_plan(layout: Layout, console: Console) -> None:
    """The resolved recipe as YAML, then what it will cost, as comments."""
    import yaml

    from nla_audit.train.estimate import estimate, missing_inputs

    plain = layout.recipe.model_dump(mode="json")
    console.print(
        yaml.safe_dump(plain, sort_keys=False, allow_unicode=True),
        markup=False,
        highlight=False,
        soft_wrap=True,
        end="",
    )
    cost = estimate(layout)
    lines = [f"# output: {layout.out}"]
    if cost.parameters is None:
        lines.append(f"# memory: unknown, because the target's config is not here: {cost.unknown}")
    else:
        lines += [
            f"# target: {cost.parameters:,} parameters; RL trains {cost.trained_parameters:,}",
            f"# memory: {cost.weights_gb:.2f} GB of weights, {cost.training_gb:.2f} GB of "
            f"gradients and averages; a micro-batch: {_gigabytes(cost.kept_gb)} of states for the "
            f"backward pass, {_gigabytes(cost.logits_gb)} of logits",
            f"# disk: {_disk(layout, cost.training_gb)}",
        ]
    lines += [
        *(f"# run {_about(run)}" for run in layout.runs),
        *(f"# {line}" for line in _cautions(layout)),
        f"# RL generates at most {cost.rl_tokens_at_most:,} tokens over all runs",
        f"# completions: at most {cost.completion_tokens_at_most:,} tokens",
        *(f"# judges: {line}" for line in _judged(layout)),
    ]
    # Where its config is not here there is nothing to time, and the Hub has been asked already.
    time = "unknown, for the same reason" if cost.parameters is None else _expected_time(layout)
    lines.append(f"# time: {time}")
    if any(run.rl.sharding != "none" for run in layout.runs):
        lines.append(
            "# sharding: of the AV's and a trained AR's part of that, each of N processes holds an "
            "N-th; whole models only while it loads, samples or scores"
        )
    lines += [f"# not here yet: {missing}" for missing in missing_inputs(layout)]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _expected_time(layout: Layout) -> str:
    from nla_audit.errors import UserError
    from nla_audit.train.hours import expected

    try:
        seconds = expected(layout)
    except UserError as error:
        return f"unknown ({error})"
    stages = {
        "activations": seconds.activations,
        "warm start": seconds.warm_start,
        "RL": seconds.rl,
        "completions": seconds.completions,
    }
    parts = [f"{name} {_hours(value)}" for name, value in stages.items() if value is not None]
    whole = sum(value for value in stages.values() if value is not None)
    more = layout.recipe.warm_start.ar_on_generated
    engines = [run.rl.engine for run in layout.runs] + ([] if more is None else [more.engine])
    other = any(engine != "own" for engine in engines)
    return f"about {_hours(whole)} on this machine, as busy as it is now ({', '.join(parts)})" + (
        "; sampling reckoned as by our own loop" if other else ""
    )


def _hours(seconds: float) -> str:
    if seconds < 60:
        return "under a minute"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _cautions(layout: Layout) -> list[str]:
    """What is likely to go wrong in runs, a line each."""
    every = ((run, run.rl.grading.caution(run.rl.max_new_tokens)) for run in layout.runs)
    return [f"run {run.name}: {caution}" for run, caution in every if caution is not None]


def _judged(layout: Layout) -> list[str]:
    """How often each run asks its judges."""
    evaluation = layout.recipe.evaluation
    found = []
    for run in layout.runs:
        rl = run.rl
        rounds = 1 + (rl.replacement_rounds if rl.flat_groups == "replace" else 0)
        in_rl = rl.steps * rl.prompts * rl.samples * rounds
        held_out = evaluation.activations * evaluation.samples
        if rl.judges:
            found.append(
                f"run {run.name} asks {', '.join(rl.judges)} at most {in_rl:,} times each, and "
                f"{held_out:,} times for its completions"
            )
    return found


def _disk(layout: Layout, state_gb: float | None) -> str:
    """What each run keeps while it trains; weights are a third of a state, and there may be two."""
    best = None if state_gb is None else 2 / 3 * state_gb
    keeps_best = any(run.rl.keep != "last" for run in layout.runs)
    more = f", up to {_gigabytes(best)} for its best weights" if keeps_best else ""
    return f"{_gigabytes(state_gb)} for the saved state of a run{more}"


def _gigabytes(size: float | None) -> str:
    return "an unknown size" if size is None else f"{size:.2f} GB"


def _about(run: Run) -> str:
    """A run in one line, by its name."""
    grading = run.rl.grading.kind
    start = "" if run.start is None else f", from {run.start}, KL to the {run.anchor}"
    return f"{run.name}: λ = {run.length_penalty:g}, {grading}, {run.rl.steps} steps{start}"


class _Command(click.Command):
    """Looks for the gradings only when it is asked for help."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The gradings with their cards."""
        from nla_audit.train.grading import cards  # pydantic takes its time

        with formatter.section("Gradings (rl.grading in the recipe)"):
            formatter.write_dl([(kind, card.sentence) for kind, card in cards().items()])


command = _Command(
    "train",
    callback=_run,
    params=[
        click.Argument(
            ["recipe_path"], metavar="RECIPE", type=click.Path(path_type=Path, dir_okay=False)
        ),
        click.Option(
            ["--out"],
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="Where everything goes.  [default: runs/NAME]",
        ),
        click.Option(["--stage"], type=click.Choice(_STAGES), help="Run this stage only."),
        click.Option(["--seed"], type=SEED, help="Instead of the recipe's."),
        click.Option(
            ["--set", "settings"],
            multiple=True,
            metavar="KEY=VALUE",
            help="Instead of what the recipe says, as target.model=/models/mine or rl.steps=10; "
            "may be repeated. Relative paths start from the recipe's folder.",
        ),
        click.Option(
            ["--dry-run"],
            is_flag=True,
            help="Print the resolved recipe, and estimates of memory, tokens and hours.",
        ),
        *ray_parameters(),
    ],
    help=(
        "Train NLAs from a recipe: activations, warm start, GRPO for each run of a sweep (length "
        "penalties, gradings, chains), held-out completions, audit.\n\n"
        "Stages that are done are not done again; a run that was stopped or killed goes on where "
        "its last saved state is, with the same result.\n\n"
        "With --ray the runs of a sweep are trained on a cluster, a worker each; all nodes must "
        "see the course's folder.\n\n"
        "\b\nExample:\n  nla-audit train recipes/tiny.yaml --out runs/tiny\n"
        "  nla-audit train recipes/tiny.yaml --out /shared/tiny --ray head:6379"
    ),
)
