"""``nla-audit explain``: load a pair, explain activations, write completions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from nla_audit.commands.engine_options import engine_of, engine_parameters, is_compiled
from nla_audit.commands.model_options import placement
from nla_audit.commands.pair_options import (
    baseline_parameters,
    given_baselines,
    half_parameters,
    prefixes_parameter,
    units,
)
from nla_audit.commands.progress import Teller, counting
from nla_audit.commands.ray_options import pool_of, ray_parameters
from nla_audit.commands.seed_option import SEED
from nla_audit.files import must_be_parquet
from nla_audit.unicode_form import well_formed

if TYPE_CHECKING:
    import polars as pl


def _run(**arguments: Any) -> None:
    # Here, and not above: torch is slow to import, and --help needs none of it.
    from nla_audit.checkpoint.find_pair import display_name, find_pair
    from nla_audit.nla.injection import parse_injection
    from nla_audit.runs.activations import read_activations
    from nla_audit.runs.explain import ExplainSettings, explain
    from nla_audit.runs.prefix_curves import curve_path
    from nla_audit.runs.remote import load_pair

    console = Console(stderr=True)
    out: Path = arguments["out"]
    must_be_parquet(out, "completions")
    halves = find_pair(arguments["pair"], av=arguments["av"], ar=arguments["ar"])
    settings = ExplainSettings(
        model=well_formed(arguments["model"] or display_name(arguments["adapter"] or halves.av)),
        ruler=well_formed(arguments["ruler"] or display_name(halves.ar)),
        length_penalty=arguments["length_penalty"],
        samples=arguments["samples"],
        seed=arguments["seed"],
        temperature=0.0 if arguments["greedy"] else arguments["temperature"],
        max_new_tokens=arguments["max_new_tokens"],
        batch_size=arguments["batch_size"],
        token_budget=arguments["token_budget"],
        baseline=arguments["baseline"],
        given_baselines=given_baselines(arguments["baseline_value"]),
        prefixes=units(arguments["prefixes"]),
    )
    settings.check()
    injection = arguments["injection"]
    with engine_of(arguments) as engine:
        with console.status("reading the activations"):
            activations = read_activations(arguments["activations"])
        with pool_of(arguments) as pool:
            with console.status("loading the pair"):
                pair = load_pair(
                    pool,
                    av=halves.av,
                    ar=halves.ar,
                    adapter=arguments["adapter"],
                    base=arguments["base"],
                    sidecar=arguments["sidecar"],
                    injection=parse_injection(injection) if injection is not None else None,
                    placement=placement(arguments),
                    force=arguments["force"],
                    engine=engine,
                    compiled=is_compiled(arguments),
                    notice=Teller(console).say,
                )
            with counting(console) as tell:
                table = explain(
                    pair,
                    activations,
                    out,
                    settings,
                    arguments=arguments,
                    force=arguments["force"],
                    progress=tell,
                    notice=tell.say,
                )
    for line in summary(table):
        click.echo(line)
    also = f" and {curve_path(out)}" if settings.prefixes else ""
    console.print(Text(f"wrote {out}{also}"), soft_wrap=True)


def summary(table: pl.DataFrame) -> list[str]:
    """The table in a few lines: how many explanations, how long, how good."""
    failed = int((~table["extracted"]).sum())
    empty = int((table["explanation"] == "").sum())
    lines = [
        f"{table.height:,} explanations of {table['idx'].n_unique():,} activations: "
        f"{failed:,} failed, {empty:,} empty"
    ]
    length = table["n_tokens"].mean()
    if isinstance(length, float):
        lines.append(f"length: {length:.1f} tokens on average, tags and end token included")
    scored = table["fve"].drop_nulls()
    if len(scored):
        lines += [_fve_line(table, name) for name in ("raw_variance", "mean_normalized")]
        chosen, ruler = table["fve_baseline"][0], table["ar"][0]
        lines.append(f"column fve: {chosen}, read by {ruler}")
    return lines


def _fve_line(table: pl.DataFrame, baseline: str) -> str:
    import numpy as np

    from nla_audit.stats import Resampler

    known = table.drop_nulls("fve")
    clusters = known["doc_id"] if known["doc_id"].null_count() == 0 else known["idx"]
    values = known[f"fve_{baseline}"].to_numpy()
    mean = Resampler(clusters.to_numpy()).mean(values)
    median = np.median(values)
    return f"FVE, {baseline}: mean {mean}, median {median:.3f}, n = {known.height:,}"


def _parameters() -> list[click.Parameter]:
    return [
        click.Argument(["pair"], metavar="PAIR"),
        click.Argument(["activations"], metavar="ACTIVATIONS"),
        click.Option(
            ["--out"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            required=True,
            help="Parquet file for the completions; a record is written beside it.",
        ),
        click.Option(["--av"], metavar="NAME", help="Which AV of PAIR, or an AV elsewhere."),
        click.Option(["--ar"], metavar="NAME", help="Which AR of PAIR, or an AR elsewhere."),
        click.Option(["--adapter"], metavar="PATH", help="PEFT adapter on top of the AV."),
        click.Option(
            ["--model"], metavar="NAME", help="Name in column model.  [default: the AV's]"
        ),
        click.Option(["--ruler"], metavar="NAME", help="Name in column ar.  [default: the AR's]"),
        click.Option(
            ["--length-penalty"],
            type=click.FloatRange(min=0),
            metavar="λ",
            help="The AV's length penalty, where its name does not say.",
        ),
        click.Option(
            ["--samples"],
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            metavar="N",
            help="Explanations of each activation; two or more show the resampling floor.",
        ),
        click.Option(["--greedy"], is_flag=True, help="Take the likeliest token every time."),
        click.Option(
            ["--temperature"],
            type=click.FloatRange(min=0),
            default=1.0,
            show_default=True,
            help="1 samples from the AV's own distribution.",
        ),
        click.Option(
            ["--seed"],
            type=SEED,
            default=0,
            show_default=True,
            help="Seed of the sampling.",
        ),
        click.Option(
            ["--max-new-tokens"],
            type=click.IntRange(min=1),
            default=160,
            show_default=True,
            metavar="N",
            help="Cap; an explanation that hits it has failed.",
        ),
        click.Option(
            ["--batch-size"],
            type=click.IntRange(min=1),
            default=256,
            show_default=True,
            metavar="N",
            help="Explanations generated at once; halved where memory runs out. vLLM is handed so "
            "many, and is faster with thousands.",
        ),
        click.Option(
            ["--token-budget"],
            type=click.IntRange(min=1),
            metavar="N",
            help="Tokens the AR reads at once.  [default: by device]",
        ),
        click.Option(
            ["--injection"],
            metavar="HOW",
            help="replace:SCALE, replace:raw or add:BLOCK.  [default: as the sidecar says]",
        ),
        prefixes_parameter(),
        *baseline_parameters(),
        *half_parameters(),
        *engine_parameters(),
        *ray_parameters(),
    ]


command = click.Command(
    "explain",
    callback=_run,
    params=_parameters(),
    help=(
        "Explain activations with a pair's AV, score every explanation with its AR.\n\n"
        "PAIR is a folder with an AV and an AR in it, or an AV whose AR has the same name but "
        "for its ending; each a folder or owner/name[@revision][/subfolder] on the Hub. "
        "ACTIVATIONS is a Parquet file with a column activation_vector (as `nla-audit extract` "
        "writes it). The output is a table of completions, which every analyzer reads.\n\n"
        "A run that was stopped goes on where it was when the same command is given again.\n\n"
        "\b\nExample:\n"
        "  nla-audit explain kitft/nla-qwen2.5-7b-L20-av activations.parquet "
        "--out completions.parquet\n"
        "  nla-audit explain pair activations.parquet --ray 10.0.0.1:6379 "
        "--out completions.parquet\n"
        "  nla-audit explain pair activations.parquet --engine vllm --batch-size 2048 "
        "--out completions.parquet\n"
        "  nla-audit explain pair activations.parquet --adapter rl/p0.01/adapter --engine vllm "
        "--out p0.01.parquet"
    ),
)
