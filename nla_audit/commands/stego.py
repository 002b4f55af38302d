"""``nla-audit stego``: change the words, keep the meaning, measure FVE again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from nla_audit.commands.pair_options import given_baselines, load_ar
from nla_audit.commands.probe import probe_command
from nla_audit.commands.progress import counting
from nla_audit.commands.ray_options import pool_of, ray_parameters
from nla_audit.errors import UserError
from nla_audit.probes.stego.card import CARD
from nla_audit.wording import count

if TYPE_CHECKING:
    import polars as pl

    from nla_audit.findings import Finding
    from nla_audit.probes.stego.scores import Scores
    from nla_audit.runs.remote import AnyReconstructor

_TITLE = "Steganography probe"
#: Changes of which the terminal shows an example, the costliest that keep the meaning.
_EXAMPLES_SHOWN = 3


def _run(**arguments: Any) -> None:
    modes = [name for name in ("scores", "pair", "ar", "self_test") if arguments[name]]
    if modes == ["pair", "ar"]:  # a folder with several ARs, and the name of one of them
        modes = ["pair"]
    if len(modes) != 1:
        raise UserError(
            "stego needs one of --scores TABLE, --pair PAIR (or --ar AR) with --completions and "
            "--activations, or --self-test"
        )
    from nla_audit.llm.names import check_name  # keeps --help fast

    check_name(arguments["paraphraser"])
    console = Console(stderr=True)
    if modes == ["self_test"]:
        _self_test(arguments, console)
        return
    _make_folders(arguments)
    from nla_audit.probes.stego.scores import read_scores  # keeps --help fast

    if modes == ["scores"]:
        with console.status("reading the scores"):
            scores = read_scores(
                arguments["scores"],
                ar=arguments["own_ar"],
                variants=_named(arguments["variants"]),
            )
            study = _StudiedScores(scores, tables=[asdict(source) for source in scores.sources])
    else:
        study = _scored(arguments, console)
    _report(study, arguments, console)


def _named(pairs: tuple[str, ...]) -> dict[str, str]:
    """``NAME=TRANSFORM`` of ``--variant`` as name → transform."""
    named = {}
    for pair in pairs:
        name, equals, meant = pair.rpartition("=")
        if not (name.strip() and equals and meant.strip()):
            raise UserError(
                f"--variant {pair}: expected NAME=TRANSFORM, such as para_v2=paraphrase"
            )
        named[name.strip()] = meant.strip()
    return named


def _make_folders(arguments: dict[str, Any]) -> None:
    """Make the folders that are written into: better now than when all has been read."""
    from nla_audit.files import must_be_parquet, writing

    if arguments["keep_scores"] is not None:
        must_be_parquet(arguments["keep_scores"], "scores")
    for name in ("out", "keep_scores"):
        path: Path | None = arguments[name]
        if path is not None:
            with writing(path):
                (path if name == "out" else path.parent).mkdir(parents=True, exist_ok=True)


@dataclass
class _StudiedScores:
    """Scores, and what the report says of where they come from."""

    scores: Scores
    notes: list[str] = field(default_factory=list)
    examples: pl.DataFrame | None = None
    tables: list[dict[str, Any]] = field(default_factory=list)
    models: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)


def _scored(arguments: dict[str, Any], console: Console) -> _StudiedScores:
    """Change the texts, read them; scores, caveats and examples."""
    from nla_audit.checkpoint.find_pair import find_pair
    from nla_audit.llm.options import endpoint_settings
    from nla_audit.probes.stego.examples import chosen_examples
    from nla_audit.probes.stego.reading import ProbeSettings, probe
    from nla_audit.probes.stego.scores import scores_from_frame
    from nla_audit.probes.stego.writers import writer_of
    from nla_audit.runs.activations import read_activations  # torch
    from nla_audit.runs.made_from import activations_record
    from nla_audit.runs.remote import record_of
    from nla_audit.runs.score import beginnings, read_unscored

    for name in ("completions", "activations"):
        if not arguments[name]:
            raise UserError(
                f"--pair and --ar need --{name} as well: the texts, and what they explain"
            )
    with console.status("reading the tables"):
        texts = read_unscored([arguments["completions"]])
        reference = (
            read_unscored([arguments["reference_texts"]]) if arguments["reference_texts"] else None
        )
        activations = read_activations(arguments["activations"])
    own = arguments["ar"]
    if arguments["pair"]:
        own = find_pair(arguments["pair"], ar=own).ar
    rulers = {"own": own, "second": arguments["second_ar"]}
    with pool_of(arguments) as pool, counting(console) as tell:
        readers: dict[str, AnyReconstructor] = {}
        for name, path in rulers.items():
            if path is None:
                continue
            readers[name] = load_ar(path, arguments, pool, tell.say)
        first: int | None = arguments["prefix_tokens"]
        if first is not None:
            tokenizer = readers["own"].tokenizer
            texts = beginnings(texts, tokenizer, first)
            reference = None if reference is None else beginnings(reference, tokenizer, first)
        settings = ProbeSettings(
            seed=arguments["seed"],
            limit=arguments["limit"],
            token_budget=arguments["token_budget"],
            baseline=arguments["baseline"],
            given_baselines=given_baselines(arguments["baseline_value"]),
            similarity=arguments["similarity"],
            force=arguments["force"],
            written=arguments["written"],
            cache=arguments["cache"],
        )
        with writer_of(
            arguments["paraphraser"],
            cache=arguments["cache"],
            price_per_million=arguments["price"],
            settings=endpoint_settings(arguments),
        ) as writer:
            frame = probe(
                readers,
                texts,
                activations,
                settings,
                reference=reference,
                writer=writer,
                progress=tell,
                notice=tell.say,
            )
            account = writer.account.describe()
            tell.say(account)
    if arguments["keep_scores"] is not None:
        from nla_audit.files import write_parquet

        write_parquet(frame, arguments["keep_scores"])
    notes = [f"Paraphrases by {writer.name}; {account}."]
    if first is not None:
        notes.append(f"Only the first {count(first, 'token')} of each explanation were probed.")
    if writer.name == "rules":
        notes.append(
            "Rules change few words (see shared words): a code in the rest of the wording would "
            "not be seen. Name a language model with --paraphraser."
        )
    sources = [*texts.sources, *(reference.sources if reference is not None else ())]
    return _StudiedScores(
        scores_from_frame(frame, ar="own", path=arguments["completions"]),
        notes=notes,
        examples=chosen_examples(frame, ar="own"),
        tables=[asdict(source) for source in sources],
        models={name: record_of(reader) for name, reader in readers.items()}
        | {"activations": activations_record(activations)},
        facts={
            "AR": ", ".join(f"{name}: {reader.name}" for name, reader in readers.items()),
            "FVE": f"baseline {arguments['baseline']}, activations of {activations.path}",
            "Paraphraser": writer.name,
            "Similarity": arguments["similarity"] or "a dictionary learnt from the texts",
        },
    )


def _report(study: _StudiedScores, arguments: dict[str, Any], console: Console) -> None:
    from nla_audit.probes.stego.finding import stego

    with console.status("judging"):
        finding = stego(
            study.scores,
            seed=arguments["seed"],
            notes=study.notes,
            examples=study.examples,
            series=arguments["series"],
        )
    if arguments["as_json"]:
        click.echo(finding.to_json())
    else:
        _print(finding)
    out: Path | None = arguments["out"]
    if out is not None:
        from nla_audit.record import ANALYSIS, MODELS, run_record
        from nla_audit.report.single import by_penalty, write_probe  # plotting

        record = {
            **run_record("stego", arguments, [*ANALYSIS, *(MODELS if study.models else ())]),
            "tables": study.tables,
            "models": study.models,
        }
        with console.status("drawing"):
            write_probe(
                finding,
                out,
                record=record,
                what=_facts(study),
                title=_TITLE,
                length_penalties=by_penalty(study.scores.models),
            )
        console.print(Text(f"report: {out / 'stego.html'}"), soft_wrap=True)


def _print(finding: Finding) -> None:
    """Verdict, numbers, and what the costliest changes that keep the meaning look like."""
    from nla_audit.report.examples import print_examples
    from nla_audit.report.terminal import print_finding

    console = Console()
    print_finding(finding, console)
    examples, variants = finding.tables.get("examples"), finding.tables["variants"]
    if examples is not None and variants.height:
        costly = variants.filter(~variants["aspect"].is_in(["control", "meaning cut"]))
        names = costly.sort("retention", "variant")["variant"].unique(maintain_order=True)
        print_examples(examples, names.to_list()[:_EXAMPLES_SHOWN], console)


def _facts(study: _StudiedScores) -> dict[str, str]:
    from nla_audit.report.document import tables_in_words  # plotting

    rows = study.scores.rows
    return {
        "Table": tables_in_words(study.tables),
        "Texts": f"{rows.filter(rows['fve'].is_not_null()).height:,} readings of "
        f"{rows['variant'].n_unique()} versions of the explanations of "
        f"{rows['idx'].n_unique():,} activations",
        "Models": ", ".join(study.scores.models),
        **study.facts,
    }


def _self_test(arguments: dict[str, Any], console: Console) -> None:
    from nla_audit.probes.stego.power import (
        ACTIVATIONS,
        clean_cases,
        measure,
        planted_cases,
    )
    from nla_audit.report.tables import frame_table
    from nla_audit.report.terminal import print_table

    with counting(console) as tell:
        table = measure([*clean_cases(), *planted_cases()], seeds=arguments["seeds"], progress=tell)
    if arguments["as_json"]:
        click.echo(json.dumps(table.to_dicts(), indent=2))
        return
    target = Console()
    target.print(
        f"Simulated pairs, {ACTIVATIONS} activations, {arguments['seeds']} seeds each. "
        "called code: detection power where something is hidden, false alarms where nothing is."
    )
    print_table(frame_table(table), target)


command = probe_command(
    CARD,
    _run,
    [
        click.Option(
            ["--self-test"],
            is_flag=True,
            help="Power on planted codes and false alarms on clean pairs; reads no table.",
        ),
        click.Option(
            ["--seeds"],
            type=click.IntRange(min=1),
            default=20,
            show_default=True,
            help="Studies of each simulated pair in --self-test.",
        ),
        *ray_parameters(),
    ],
)
