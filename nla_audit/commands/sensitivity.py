"""``nla-audit sensitivity``: plant a concept; when is it said, and when only carried?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from nla_audit.commands.model_options import placement
from nla_audit.commands.probe import probe_command
from nla_audit.commands.progress import Teller, counting
from nla_audit.errors import UserError
from nla_audit.probes.sensitivity.card import CARD
from nla_audit.wording import count

if TYPE_CHECKING:
    import polars as pl

    from nla_audit.probes.sensitivity.directions import Direction
    from nla_audit.probes.sensitivity.mentions import Sought
    from nla_audit.probes.sensitivity.sweep import DirectionOf, Named
    from nla_audit.runs.activations import Activations

_TITLE = "Said against carried"
_TABLE = "sensitivity.parquet"


@dataclass
class _StudiedTable:
    """The table, and what the report says of where it comes from."""

    table: pl.DataFrame
    notes: list[str] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    has_models: bool = False


def _run(**arguments: Any) -> None:
    console = Console(stderr=True)
    subjects: tuple[str, ...] = arguments["subjects"]
    if not subjects:
        raise UserError("sensitivity needs a PAIR to ask, several, or a TABLE that it wrote before")
    is_table = [Path(one).suffix.lower() == ".parquet" for one in subjects]
    if any(is_table) and len(subjects) > 1:
        raise UserError("give one TABLE alone, or PAIRs alone")
    study = _read_again(subjects[0]) if is_table[0] else _asked(arguments, console)
    _report(study, arguments, console)


def _read_again(path: str) -> _StudiedTable:
    """A table of a former run."""
    from nla_audit.probes.sensitivity.table import read_table  # polars: keeps --help fast

    table, source = read_table(Path(path))
    return _StudiedTable(table, tables=[asdict(source)])


def _asked(arguments: dict[str, Any], console: Console) -> _StudiedTable:
    """Plant, and ask every pair."""
    _check(arguments)
    from nla_audit.files import sha256_of, writing
    from nla_audit.probes.sensitivity.planting import ladder_of
    from nla_audit.probes.sensitivity.sweep import SweepSettings, must_not_be_there, planted_table
    from nla_audit.record import MODELS, run_record
    from nla_audit.runs.activations import read_activations  # torch

    out: Path = arguments["out"]
    settings = SweepSettings(
        strengths=ladder_of(arguments["strengths"]),
        limit=arguments["limit"],
        seed=arguments["seed"],
        temperature=arguments["temperature"],
        max_new_tokens=arguments["max_new_tokens"],
        batch_size=arguments["batch_size"],
        token_budget=arguments["token_budget"],
    )
    must_not_be_there(out / _TABLE)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with console.status("reading the activations"):
        activations = read_activations(arguments["activations"])
    with counting(console) as tell:
        problems = activations.describe_problems()
        if problems is not None:
            tell.say(problems)
        concept, direction, other = _concepts(arguments, activations, tell)
        table, notes = planted_table(
            _pairs(arguments, tell),
            activations,
            concept,
            direction=direction,
            out=out / _TABLE,
            settings=settings,
            other=other,
            similarity=arguments["similarity"],
            record=run_record("sensitivity", arguments, MODELS),
            force=arguments["force"],
            progress=tell,
            notice=tell.say,
        )
    console.print(Text(f"wrote {out / _TABLE}"), soft_wrap=True)
    return _StudiedTable(
        table,
        notes=notes,
        tables=[
            {"path": str(out / _TABLE), "rows": table.height, "sha256": sha256_of(out / _TABLE)}
        ],
        facts={"Activations": str(activations.path)},
        has_models=True,
    )


def _check(arguments: dict[str, Any]) -> None:
    """What can be said before anything is loaded."""
    if not arguments["activations"]:
        raise UserError("sensitivity needs --activations FILE: what the concept is planted into")
    if arguments["out"] is None:
        raise UserError(
            "asking pairs needs --out DIR: the table is written there, and a run that was stopped "
            "goes on from it"
        )
    if (arguments["target"] is None) == (arguments["direction"] is None):
        raise UserError(
            "the concept's direction comes of --target MODEL, which reads its texts, or of "
            "--direction FILE: give one of them"
        )
    if (arguments["concept"] is None) == (arguments["words"] is None):
        raise UserError("say what names the concept: --concept NAME, or --words 'NAME=A|B'")
    if arguments["target"] is not None and arguments["concept"] is None:
        raise UserError("--target reads the texts of --concept NAME: give that in place of --words")
    if arguments["other"] is not None and arguments["target"] is None:
        raise UserError("--other is read by --target MODEL: give that as well")
    if arguments["detector"] == "similarity" and arguments["similarity"] is None:
        raise UserError("--detector similarity needs --similarity MODEL")


def _concepts(
    arguments: dict[str, Any], activations: Activations, tell: Teller
) -> tuple[Sought, DirectionOf, DirectionOf | None]:
    """What is looked for, and the directions that are planted."""
    from nla_audit.concepts.contrast_sets import load_contrast_set
    from nla_audit.probes.sensitivity.mentions import sought
    from nla_audit.text.concepts import parse_concept

    chosen = arguments["concept"]
    if chosen is None:
        parsed = parse_concept(arguments["words"])
        concept = sought(parsed.name, "", [" ".join(one) for one in parsed.phrases])
    else:
        texts = load_contrast_set(chosen)
        concept = sought(texts.name, texts.what, texts.words)
    if arguments["direction"] is not None:
        return concept, _from_file(arguments["direction"], concept.name, activations), None
    sets = [texts] if arguments["other"] is None else [texts, load_contrast_set(arguments["other"])]
    directions = _from_texts(sets, arguments, activations, tell)
    return concept, directions[0], directions[1] if len(directions) > 1 else None


def _from_file(reference: str, name: str, activations: Activations) -> DirectionOf:
    from nla_audit.nla.transform import ActivationTransform
    from nla_audit.probes.sensitivity.directions import from_file, in_the_pairs_space

    found = from_file(reference, activations.vectors.shape[1], name=name)

    def direction(transform: ActivationTransform | None) -> Direction:
        return found.turned(in_the_pairs_space(found.vector, transform))

    return direction


def _from_texts(
    sets: Sequence[Any], arguments: dict[str, Any], activations: Activations, tell: Teller
) -> list[DirectionOf]:
    """The difference of means of each of some contrast sets, read by one target."""
    from nla_audit.nla.transform import ActivationTransform
    from nla_audit.probes.sensitivity.directions import from_pairs
    from nla_audit.probes.sensitivity.pairs import last_activations
    from nla_audit.runs.target import load_target

    layer = activations.layer if arguments["layer"] is None else arguments["layer"]
    if layer is None:
        raise UserError(f"{activations.path} does not say its layer: say it with --layer K")
    target = load_target(
        arguments["target"],
        layer_index=layer,
        placement=placement(arguments),
        force=arguments["force"],
    )
    width = activations.vectors.shape[1]
    if target.d_model != width:
        raise UserError(
            f"{arguments['target']}: its activations are {target.d_model} wide, those of "
            f"{activations.path} {width}: name the model that they were extracted from"
        )
    found: list[DirectionOf] = []
    for texts in sets:
        sides = [
            last_activations(
                target,
                side,
                token_budget=arguments["token_budget"],
                progress=tell,
                notice=tell.say,
            )
            for side in (texts.with_concept, texts.without_concept)
        ]

        def direction(
            transform: ActivationTransform | None, sides: Any = sides, name: str = texts.name
        ) -> Direction:
            seen = sides if transform is None else [transform.apply(side) for side in sides]
            return from_pairs(name, *seen)

        found.append(direction)
    return found


def _pairs(arguments: dict[str, Any], tell: Teller) -> Iterator[Named]:
    """The pairs, loaded one after the other."""
    from nla_audit.checkpoint.find_pair import display_name, find_pair
    from nla_audit.checkpoint.load import load
    from nla_audit.probes.sensitivity.sweep import Named
    from nla_audit.table.model_names import length_penalty_of

    # All are found before the first is asked: a name that is wrong is told at once.
    found = []
    for subject in arguments["subjects"]:
        name, path = _named(subject)
        halves = find_pair(path, ar=arguments["ar"])
        found.append((name or display_name(halves.av), halves))
    for name, halves in found:
        pair = load(
            av=halves.av,
            ar=halves.ar,
            base=arguments["base"],
            sidecar=arguments["sidecar"],
            placement=placement(arguments),
            force=arguments["force"],
            notice=tell.say,
        )
        yield Named(name, length_penalty_of(name), display_name(halves.ar), pair)


def _named(subject: str) -> tuple[str | None, str]:
    """``"p0.0=runs/x"`` as name and path; a path may hold an equals sign."""
    name, equals, path = subject.partition("=")
    return (name, path) if equals and not Path(subject).exists() else (None, subject)


def _report(study: _StudiedTable, arguments: dict[str, Any], console: Console) -> None:
    from nla_audit.probes.sensitivity.finding import sensitivity

    with console.status("judging"):
        finding = sensitivity(
            study.table,
            detector=arguments["detector"],
            reference=arguments["reference"],
            seed=arguments["seed"],
            notes=study.notes,
        )
    if arguments["as_json"]:
        click.echo(finding.to_json())
    else:
        from nla_audit.report.terminal import print_finding

        print_finding(finding, Console())
    out: Path | None = arguments["out"]
    if out is None:
        return
    from nla_audit.record import ANALYSIS, MODELS, run_record
    from nla_audit.report.document import tables_in_words
    from nla_audit.report.single import write_probe  # plotting is slow

    table = study.table
    penalties = dict(table.select("model", "length_penalty").unique("model").iter_rows())
    record = {
        **run_record("sensitivity", arguments, [*ANALYSIS, *(MODELS if study.has_models else ())]),
        "tables": study.tables,
    }
    what = {
        "Table": tables_in_words(study.tables),
        "Texts": f"{count(table.height, 'row')} on {count(table['idx'].n_unique(), 'activation')}",
        "Models": ", ".join(finding.headline),
        "AR": ", ".join(table["ar"].drop_nulls().unique().sort()),
        **study.facts,
    }
    with console.status("drawing"):
        files = write_probe(
            finding,
            out,
            record=record,
            what=what,
            title=_TITLE,
            length_penalties={name: penalties[name] for name in finding.headline},
        )
    console.print(f"wrote {count(len(files), 'file')} into {out}", markup=False, highlight=False)


command = probe_command(
    CARD,
    _run,
    [click.Argument(["subjects"], metavar="PAIR...|TABLE", nargs=-1)],
    out="Write the table, a report, its figures and a record of the run into DIR; an interrupted "
    "run goes on from there.",
    measures_fve=False,
)
