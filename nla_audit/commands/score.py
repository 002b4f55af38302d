"""``nla-audit score``: read texts with an AR, write the completions with its scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nla_audit.commands.pair_options import (
    baseline_parameters,
    given_baselines,
    half_parameters,
    load_ar,
    prefixes_parameter,
    units,
)
from nla_audit.commands.progress import Teller, counting
from nla_audit.commands.ray_options import pool_of, ray_parameters
from nla_audit.errors import UserError
from nla_audit.files import must_be_parquet
from nla_audit.unicode_form import well_formed

if TYPE_CHECKING:
    import polars as pl


def _run(**arguments: Any) -> None:
    # Here, and not above: torch is slow to import, and --help needs none of it.
    from nla_audit.checkpoint.find_pair import display_name
    from nla_audit.runs.activations import read_activations
    from nla_audit.runs.prefix_curves import curve_path
    from nla_audit.runs.score import ScoreSettings, prefixes_path, read_unscored, score

    console = Console(stderr=True)
    out: Path = arguments["out"]
    must_be_parquet(out, "completions")
    settings = ScoreSettings(
        ruler=well_formed(arguments["ruler"] or display_name(arguments["ar"])),
        prefix_tokens=_lengths(arguments["prefix_tokens"]),
        prefixes=units(arguments["prefixes"]),
        token_budget=arguments["token_budget"],
        baseline=arguments["baseline"],
        given_baselines=given_baselines(arguments["baseline_value"]),
    )
    with console.status("reading the tables"):
        texts = read_unscored(arguments["tables"])
        activations = read_activations(arguments["activations"])
    with pool_of(arguments) as pool:
        with console.status("loading the AR"):
            reconstructor = load_ar(arguments["ar"], arguments, pool, Teller(console).say)
        with counting(console) as tell:
            scored = score(
                reconstructor,
                texts,
                activations,
                out,
                settings,
                arguments=arguments,
                force=arguments["force"],
                progress=tell,
                notice=tell.say,
            )
    Console().print(_summary(scored.completions, ["model"], settings.baseline))
    files = str(out)
    if scored.prefixes is not None:
        Console().print(_summary(scored.prefixes, ["model", "prefix_tokens"], settings.baseline))
        files = f"{out} and {prefixes_path(out)}"
    if scored.curves is not None:
        files += f" and {curve_path(out)}"
    console.print(Text(f"wrote {files}"), soft_wrap=True)


#: Longer than any text that a model reads.
_LONGEST_PREFIX = 1 << 30


def _lengths(text: str | None) -> tuple[int, ...]:
    """``"1,2,4"`` → ``(1, 2, 4)``."""
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--prefix-tokens {text}: expected whole numbers with commas, as 1,2,4,8")
    lengths = tuple(sorted({int(part) for part in parts}))
    if lengths and lengths[-1] > _LONGEST_PREFIX:
        raise UserError(
            f"--prefix-tokens {text}: no text is longer than {_LONGEST_PREFIX:,} tokens"
        )
    return lengths


def _summary(table: pl.DataFrame, by: list[str], baseline: str) -> Table:
    """Mean and median FVE of each group, with the interval of the mean."""
    import numpy as np

    from nla_audit.report.escape import safe_text
    from nla_audit.stats import Resampler

    ruler = safe_text(str(table["ar"][0]))
    shown = Table(box=SIMPLE_HEAD, title=f"FVE by {ruler}, baseline {baseline}", pad_edge=False)
    for name in (*by, "n", "unscored", "mean [95 %]", "median"):
        shown.add_column(name.replace("_", " "), justify="left" if name == "model" else "right")
    has_documents = table["doc_id"].null_count() == 0
    for group, rows in table.group_by(by, maintain_order=True):
        known = rows.drop_nulls("fve")
        mean = median = "–"
        if known.height:
            clusters = known["doc_id" if has_documents else "idx"].to_numpy()
            values = known["fve"].to_numpy()
            mean = str(Resampler(clusters).mean(values))
            median = f"{np.median(values):.3f}"
        shown.add_row(
            *(safe_text(str(name)) for name in group),
            f"{known.height:,}",
            f"{rows.height - known.height:,}",
            Text(mean),
            median,
        )
    return shown


command = click.Command(
    "score",
    callback=_run,
    params=[
        click.Argument(["tables"], metavar="COMPLETIONS...", nargs=-1, required=True),
        click.Option(
            ["--ar"],
            metavar="PATH",
            required=True,
            help="The AR that reads: a folder or owner/name[@revision][/subfolder].",
        ),
        click.Option(
            ["--activations"],
            metavar="FILE",
            required=True,
            help="Parquet file with the activations; rows are joined by idx.",
        ),
        click.Option(
            ["--out"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            required=True,
            help="Parquet file for the scored table; a record is written beside it.",
        ),
        click.Option(["--ruler"], metavar="NAME", help="Name in column ar.  [default: the AR's]"),
        click.Option(
            ["--prefix-tokens"],
            metavar="1,2,4,…",
            help="Also score the first tokens of each text, into OUT.prefixes.parquet.",
        ),
        prefixes_parameter(),
        click.Option(
            ["--token-budget"],
            type=click.IntRange(min=1),
            metavar="N",
            help="Tokens read at once; halved where memory runs out.  [default: by device]",
        ),
        *baseline_parameters(),
        *half_parameters(),
        *ray_parameters(),
    ],
    help=(
        "Read the explanations of a table with any AR and score them.\n\n"
        "COMPLETIONS are tables as `nla-audit audit` reads them, scored before or not: another "
        "AR is another ruler, named in column ar. Every distinct text is read once.\n\n"
        "A run that was stopped goes on where it was when the same command is given again.\n\n"
        "\b\nExample:\n"
        "  nla-audit score completions.parquet --ar warm-start/ar \\\n"
        "      --activations activations.parquet --prefix-tokens 1,2,4,8,16,32,64 "
        "--out frozen.parquet"
    ),
)
