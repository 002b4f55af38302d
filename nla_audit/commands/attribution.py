"""``nla-audit attribution``: which words, claims and order of claims the AR lives on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from nla_audit.commands.pair_options import given_baselines, load_ar
from nla_audit.commands.probe import probe_command
from nla_audit.commands.progress import counting
from nla_audit.commands.ray_options import pool_of, ray_parameters
from nla_audit.errors import UserError
from nla_audit.files import must_be_parquet
from nla_audit.probes.attribution.card import CARD
from nla_audit.wording import count

if TYPE_CHECKING:
    from nla_audit.findings import Finding
    from nla_audit.probes.attribution.reading import Attributed
    from nla_audit.runs.score import UnscoredTable


def _run(**arguments: Any) -> None:
    if not (arguments["pair"] or arguments["ar"]):
        raise UserError("attribution needs an AR to read with: give --pair PAIR or --ar AR")
    for name in ("completions", "activations"):
        if not arguments[name]:
            raise UserError(
                f"attribution needs --{name} as well: the explanations, and what they explain"
            )
    kept: Path | None = arguments["keep_scores"]
    if kept is not None and not kept.parent.is_dir():  # said before the reading, not after
        raise UserError(f"--keep-scores {kept}: no such folder: make {kept.parent} first")
    if kept is not None:
        must_be_parquet(kept, "scores")
    console = Console(stderr=True)
    texts, found, parameters = _read(arguments, console)
    penalties = dict(texts.rows.select("model", "length_penalty").unique("model").iter_rows())
    if kept is not None:
        from nla_audit.files import write_parquet

        write_parquet(found.scores.tokens, kept)
    finding = _judged(found, arguments, parameters, console)
    if arguments["as_json"]:
        click.echo(finding.to_json())
    else:
        from nla_audit.report.terminal import print_finding

        print_finding(finding, Console())
    out: Path | None = arguments["out"]
    if out is not None:
        from nla_audit.record import ANALYSIS, MODELS, run_record
        from nla_audit.report.single import write_probe  # plotting is slow

        tables = [asdict(source) for source in texts.sources]
        record = {**run_record("attribution", arguments, [*ANALYSIS, *MODELS]), "tables": tables}
        with console.status("drawing"):
            files = write_probe(
                finding,
                out,
                record=record,
                what=_facts(found, tables, parameters),
                length_penalties={name: penalties[name] for name in found.models},
            )
        console.print(
            f"wrote {count(len(files), 'file')} into {out}", markup=False, highlight=False
        )


def _read(
    arguments: dict[str, Any], console: Console
) -> tuple[UnscoredTable, Attributed, dict[str, Any]]:
    """Take the explanations apart and read them; with the texts, and what was done."""
    from nla_audit.checkpoint.find_pair import find_pair
    from nla_audit.probes.attribution.reading import AttributionSettings, attribute_with
    from nla_audit.runs.activations import read_activations  # torch
    from nla_audit.runs.score import read_unscored

    given = given_baselines(arguments["baseline_value"])
    with console.status("reading the tables"):
        texts = read_unscored([arguments["completions"]])
        activations = read_activations(arguments["activations"])
    path = arguments["ar"]
    if arguments["pair"]:
        path = find_pair(arguments["pair"], ar=path).ar
    out: Path | None = arguments["out"]
    if out is not None:
        from nla_audit.files import writing

        with writing(out):  # before hours of reading, not after
            out.mkdir(parents=True, exist_ok=True)
    with pool_of(arguments) as pool, counting(console) as tell:
        reader = load_ar(path, arguments, pool, tell.say)
        settings = AttributionSettings(
            seed=arguments["seed"],
            limit=arguments["limit"] or None,
            token_budget=arguments["token_budget"],
            baseline=arguments["baseline"],
            given_baselines=given,
        )
        found = attribute_with(
            reader,
            texts,
            activations,
            settings,
            resume=None if out is None else out / "attribution.json",
            force=arguments["force"],
            progress=tell,
            notice=tell.say,
        )
    parameters = {
        "ar": reader.name,
        "baseline": settings.baseline,
        "limit": settings.limit,
        "texts_read": found.scores.texts_read,
    }
    return texts, found, parameters


def _facts(
    found: Attributed, tables: list[dict[str, Any]], parameters: dict[str, Any]
) -> dict[str, str]:
    """What stands under the title of the report."""
    from nla_audit.report.document import tables_in_words  # plotting

    return {
        "Table": tables_in_words(tables),
        "Read": f"{found.scores.texts.height:,} explanations, as {found.scores.texts_read:,} texts",
        "Models": ", ".join(found.models),
        "AR": parameters["ar"],
        "FVE": f"baseline {parameters['baseline']}",
    }


def _judged(
    found: Attributed, arguments: dict[str, Any], parameters: dict[str, Any], console: Console
) -> Finding:
    from nla_audit.probes.attribution.finding import attribution

    with console.status("judging"):
        return attribution(
            found.scores,
            models=found.models,
            left_out=found.left_out,
            seed=arguments["seed"],
            parameters=parameters,
        )


command = probe_command(
    CARD,
    _run,
    ray_parameters(),
    out="Also write a report, its figures and a record of the run into DIR; an interrupted run "
    "goes on from there.",
)
