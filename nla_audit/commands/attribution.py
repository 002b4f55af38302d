"""``nla-audit attribution``: which words, claims and order of claims the AR lives on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from nla_audit.commands.model_options import placement
from nla_audit.commands.pair_options import (
    baseline_parameters,
    given_baselines,
    half_parameters,
    provenance,
)
from nla_audit.commands.progress import counting
from nla_audit.commands.seed_option import SEED
from nla_audit.errors import UserError
from nla_audit.wording import count

if TYPE_CHECKING:
    from nla_audit.findings import Finding
    from nla_audit.probes.attribution.reading import Attributed
    from nla_audit.runs.score import Texts

#: As :data:`nla_audit.probes.attribution.reading.DEFAULT_LIMIT`, which takes torch to import.
_DEFAULT_LIMIT = 100


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
    console = Console(stderr=True)
    texts, found, parameters = _read(arguments, console)
    penalties = dict(texts.rows.select("model", "length_penalty").unique("model").iter_rows())
    if kept is not None:
        from nla_audit.shards import write_parquet  # noqa: PLC0415

        write_parquet(found.scores.tokens, kept)
    finding = _judged(found, arguments, parameters, console)
    if arguments["as_json"]:
        click.echo(finding.to_json())
    else:
        from nla_audit.report.terminal import print_finding  # noqa: PLC0415

        print_finding(finding, Console())
    out: Path | None = arguments["out"]
    if out is not None:
        from nla_audit.report.single import write_probe  # noqa: PLC0415  (plotting is slow)

        record = provenance("attribution", arguments)
        with console.status("drawing"):
            files = write_probe(
                finding, out, record={**record, "tables": [asdict(one) for one in texts.sources]},
                what=_facts(found, texts, parameters),
                length_penalties={name: penalties[name] for name in found.models},
            )  # fmt: skip
        console.print(
            f"wrote {count(len(files), 'file')} into {out}", markup=False, highlight=False
        )


def _read(arguments: dict[str, Any], console: Console) -> tuple[Texts, Attributed, dict[str, Any]]:
    """Take the explanations apart and read them; with the texts, and what was done."""
    from nla_audit.checkpoint.find_pair import find_pair  # noqa: PLC0415
    from nla_audit.checkpoint.load import load  # noqa: PLC0415
    from nla_audit.probes.attribution.reading import AttributionSettings, attribute_with  # noqa: PLC0415
    from nla_audit.runs.activations import read_activations  # noqa: PLC0415  (torch)
    from nla_audit.runs.score import read_texts  # noqa: PLC0415

    given = given_baselines(arguments["baseline_value"])
    with console.status("reading the tables"):
        texts = read_texts([arguments["completions"]])
        activations = read_activations(arguments["activations"])
    path = arguments["ar"]
    if arguments["pair"]:
        path = find_pair(arguments["pair"], ar=path).ar
    out: Path | None = arguments["out"]
    if out is not None:
        from nla_audit.files import writing  # noqa: PLC0415

        with writing(out):  # before hours of reading, not after
            out.mkdir(parents=True, exist_ok=True)
    with counting(console) as tell:
        pair = load(
            ar=path, base=arguments["base"], sidecar=arguments["sidecar"],
            placement=placement(arguments), force=arguments["force"], notice=tell.say,
        )  # fmt: skip
        assert pair.reconstructor is not None
        settings = AttributionSettings(
            seed=arguments["seed"],
            limit=arguments["limit"] or None,
            token_budget=arguments["token_budget"],
            baseline=arguments["baseline"],
            given_baselines=given,
        )
        found = attribute_with(
            pair.reconstructor, texts, activations, settings,
            resume=None if out is None else out / "attribution.json",
            force=arguments["force"], progress=tell, notice=tell.say,
        )  # fmt: skip
    parameters = {
        "ar": pair.reconstructor.name,
        "baseline": settings.baseline,
        "limit": settings.limit,
        "texts_read": found.scores.texts_read,
    }
    return texts, found, parameters


def _facts(found: Attributed, texts: Texts, parameters: dict[str, Any]) -> dict[str, str]:
    """What stands under the title of the report."""
    return {
        "Table": "; ".join(
            f"{source.path} ({source.rows:,} rows, sha256 {source.sha256[:16]}…)"
            for source in texts.sources
        ),
        "Read": f"{found.scores.texts.height:,} explanations, as {found.scores.texts_read:,} texts",
        "Models": ", ".join(found.models),
        "AR": parameters["ar"],
        "FVE": f"baseline {parameters['baseline']}",
    }


def _judged(
    found: Attributed, arguments: dict[str, Any], parameters: dict[str, Any], console: Console
) -> Finding:
    from nla_audit.probes.attribution.finding import attribution  # noqa: PLC0415

    with console.status("judging"):
        return attribution(
            found.scores,
            models=found.models,
            left_out=found.left_out,
            seed=arguments["seed"],
            parameters=parameters,
        )


command = click.Command(
    "attribution",
    callback=_run,
    params=[
        click.Option(["--pair"], metavar="PAIR",
                     help="The pair whose AR reads; --ar names one of several."),
        click.Option(["--ar"], metavar="PATH", help="The AR that reads."),
        click.Option(["--completions"], metavar="TABLE", help="The explanations."),
        click.Option(["--activations"], metavar="FILE", help="What they explain, joined by idx."),
        click.Option(
            ["--limit"], type=click.IntRange(min=0), default=_DEFAULT_LIMIT, show_default=True,
            metavar="N",
            help="Explanations of each model, the first by idx; 0 is all. One of 100 words is "
            "read in about 350 pieces.",
        ),
        click.Option(
            ["--token-budget"], type=click.IntRange(min=1), metavar="N",
            help="Tokens read at once; halved where memory runs out.  [default: by device]",
        ),
        click.Option(
            ["--keep-scores"], type=click.Path(path_type=Path), metavar="FILE",
            help="Write what every word is worth, a row each, to go on from.",
        ),
        click.Option(["--seed"], type=SEED, default=0, show_default=True,
                     help="Seed of random orders, controls and intervals."),
        click.Option(["--json", "as_json"], is_flag=True,
                     help="Print the finding as JSON to standard output, and nothing else."),
        click.Option(["--out"], type=click.Path(path_type=Path), metavar="DIR",
                     help="Also write the finding, its figures and a record of the run into DIR; "
                     "an interrupted run goes on from there."),
        *baseline_parameters(),
        *half_parameters(),
    ],
    help=(
        "Which words, claims and order of claims carry the reconstruction?\n\n"
        "Every word and every claim of an explanation is deleted, the text is cut short after "
        "every word, and its claims are put in another order; the AR reads all these texts. Words "
        "are words, numbers and punctuation marks, the same for every AR.\n\n"
        "Control: the same texts read against another activation, and, for the order that a "
        "greedy search finds, texts on which it was not selected.\n\n"
        "What a high value means: FVE is lost with the word or claim.\n\n"
        "\b\nExample:\n"
        "  nla-audit attribution --pair PAIR --completions c.parquet --activations a.parquet"
    ),
)  # fmt: skip
