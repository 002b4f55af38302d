"""``nla-audit sensitivity``: plant a concept; when is it said, and when only carried?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from nla_audit.commands.engine_options import engine_of, engine_parameters, is_compiled
from nla_audit.commands.model_options import placement
from nla_audit.commands.planted_concept import check_named, concepts_of, sought_of
from nla_audit.commands.probe import probe_command
from nla_audit.commands.progress import Teller, counting
from nla_audit.errors import UserError
from nla_audit.probes.sensitivity.card import CARD
from nla_audit.wording import count

if TYPE_CHECKING:
    import polars as pl

    from nla_audit.checkpoint.find_pair import Halves
    from nla_audit.checkpoint.in_vllm import VllmHost
    from nla_audit.llm.interface import LanguageModel
    from nla_audit.probes.sensitivity.sweep import Named

_TITLE = "Said against carried"
_TABLE, _ANSWERS = "sensitivity.parquet", "answers.sqlite"
#: Tries of one question.
_ATTEMPTS = 3


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
    if arguments["llm"] is not None:
        from nla_audit.llm.names import check_name  # keeps --help fast

        check_name(arguments["llm"])
    is_table = [Path(one).suffix.lower() == ".parquet" for one in subjects]
    if any(is_table) and len(subjects) > 1:
        raise UserError("give one TABLE alone, or PAIRs alone")
    read = _read_again if is_table[0] else _asked
    study = read(arguments, console)
    _report(study, arguments, console)


def _read_again(arguments: dict[str, Any], console: Console) -> _StudiedTable:
    """A table of a former run; where a language model is named it is asked about its texts."""
    from nla_audit.probes.sensitivity.table import read_table  # polars: keeps --help fast

    if arguments["similarity"] is not None:
        raise UserError(
            "--similarity is measured when a table is made: give the PAIRs, or leave it out"
        )
    if arguments["engine"] != "own" or arguments["engine_option"]:
        raise UserError("--engine generates when a table is made: give the PAIRs, or leave it out")
    if is_compiled(arguments):
        raise UserError("--decoding is how a table is made: give the PAIRs, or leave it out")
    path = arguments["subjects"][0]
    table, source = read_table(Path(path))
    if arguments["llm"] is None:
        return _StudiedTable(table, tables=[asdict(source)])
    from nla_audit.probes.sensitivity.asking import with_answers
    from nla_audit.probes.sensitivity.sweep import must_not_be_there
    from nla_audit.record import ANALYSIS, run_record
    from nla_audit.runs.made_from import table_and_record

    out = _folder(arguments, "asking about a TABLE needs --out DIR: a table with the answers")
    must_not_be_there(out / _TABLE)
    concept, _ = sought_of(arguments)
    names = table["concept"].drop_nulls().unique().sort().to_list()
    if names and names != [concept.name]:
        raise UserError(
            f"{path}: is about {', '.join(names)}, and not about {concept.name}: name its concept "
            "with --concept or --words"
        )
    study = _StudiedTable(table)
    with counting(console) as tell, _language_model(arguments, out, study.notes, tell) as asked:
        assert asked is not None
        study.table = with_answers(table, concept, asked, progress=tell)
    record = {**run_record("sensitivity", arguments, ANALYSIS), "table": asdict(source)}
    with table_and_record(out / _TABLE, record) as partial:
        study.table.write_parquet(partial)
    console.print(Text(f"wrote {out / _TABLE}"), soft_wrap=True)
    study.tables = [_written(out / _TABLE, table.height)]
    return study


def _written(path: Path, rows: int) -> dict[str, Any]:
    from nla_audit.files import sha256_of
    from nla_audit.table.completions import SourceFile

    return asdict(SourceFile(str(path), sha256_of(path), rows))


def _folder(arguments: dict[str, Any], why: str) -> Path:
    """``--out``, made if need be; ``why`` it is needed is told where it is not given."""
    from nla_audit.files import must_be_parquet, writing  # keeps --help fast

    out: Path | None = arguments["out"]
    if out is None:
        raise UserError(f"{why} is written there, and a run that was stopped goes on from it")
    must_be_parquet(out / _TABLE, "what the AV says")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    return out


@contextmanager
def _language_model(
    arguments: dict[str, Any], out: Path, notes: list[str], tell: Teller
) -> Iterator[LanguageModel | None]:
    """The model that is asked about mentions, if one is named; what it cost goes to ``notes``."""
    name = arguments["llm"]
    if name is None:
        yield None
        return
    from nla_audit.llm.address import without_secrets
    from nla_audit.llm.names import language_model
    from nla_audit.llm.options import endpoint_settings

    model = language_model(
        name,
        cache=arguments["cache"] or out / _ANSWERS,
        price_per_million=arguments["price"],
        settings=endpoint_settings(arguments, "llm_temperature", attempts=_ATTEMPTS),
        how_to_change=("--token-limit-name", "--llm-temperature"),
    )
    if model is None:
        raise UserError(
            f"--llm {without_secrets(name)}: write openai:MODEL@URL or hf:MODEL_OR_FOLDER"
        )
    with model:
        yield model
        account = model.account.describe()
        tell.say(account)
        notes.append(f"Asked whether texts name it: {model.name}; {account}.")


def _asked(arguments: dict[str, Any], console: Console) -> _StudiedTable:
    """Plant, and ask every pair."""
    _check(arguments)
    with engine_of(arguments) as engine:
        return _asked_of(engine, arguments, console)


def _asked_of(
    engine: VllmHost | None, arguments: dict[str, Any], console: Console
) -> _StudiedTable:
    from nla_audit.probes.sensitivity.planting import ladder_of
    from nla_audit.probes.sensitivity.sweep import SweepSettings, must_not_be_there, planted_table
    from nla_audit.record import MODELS, run_record
    from nla_audit.runs.activations import read_activations  # torch

    subjects = _found(arguments)
    settings = SweepSettings(
        strengths=ladder_of(arguments["strengths"]),
        limit=arguments["limit"],
        seed=arguments["seed"],
        temperature=arguments["temperature"],
        max_new_tokens=arguments["max_new_tokens"],
        batch_size=arguments["batch_size"],
        token_budget=arguments["token_budget"],
        separator=arguments["separator"],
    )
    out = _folder(arguments, "asking pairs needs --out DIR: the table")
    must_not_be_there(out / _TABLE)
    spent: list[str] = []
    with console.status("reading the activations"):
        activations = read_activations(arguments["activations"])
    with counting(console) as tell:
        problems = activations.describe_problems()
        if problems is not None:
            tell.say(problems)
        concept, direction, other = concepts_of(arguments, activations, tell)
        with _language_model(arguments, out, spent, tell) as asked:
            table, notes = planted_table(
                _pairs(subjects, arguments, engine, tell),
                activations,
                concept,
                direction=direction,
                out=out / _TABLE,
                settings=settings,
                other=other,
                similarity=arguments["similarity"],
                asked=asked,
                record=run_record("sensitivity", arguments, MODELS),
                force=arguments["force"],
                progress=tell,
                notice=tell.say,
            )
    console.print(Text(f"wrote {out / _TABLE}"), soft_wrap=True)
    return _StudiedTable(
        table,
        notes=[*notes, *spent],
        tables=[_written(out / _TABLE, table.height)],
        facts={"Activations": str(activations.path)},
        has_models=True,
    )


def _check(arguments: dict[str, Any]) -> None:
    """What can be said before anything is loaded."""
    if not arguments["activations"]:
        raise UserError("sensitivity needs --activations FILE: what the concept is planted into")
    if (arguments["target"] is None) == (arguments["direction"] is None):
        raise UserError(
            "the concept's direction comes of --target MODEL, which reads its texts, or of "
            "--direction FILE: give one of them"
        )
    check_named(arguments)
    if arguments["target"] is not None and arguments["concept"] is None:
        raise UserError("--target reads the texts of --concept NAME: give that in place of --words")
    if arguments["other"] is not None and arguments["other"] == arguments["concept"]:
        raise UserError(f"--other {arguments['other']}: is the concept itself: name another")
    if arguments["other"] is not None and arguments["target"] is None:
        raise UserError("--other is read by --target MODEL: give that as well")
    if arguments["detector"] == "similarity" and arguments["similarity"] is None:
        raise UserError("--detector similarity needs --similarity MODEL")
    if arguments["detector"] == "llm" and arguments["llm"] is None:
        raise UserError("--detector llm needs --llm MODEL")


def _found(arguments: dict[str, Any]) -> list[tuple[str, Halves]]:
    """Name and halves of every pair, before the first is asked: what is wrong is told at once."""
    from nla_audit.checkpoint.find_pair import display_name, find_pair

    found = []
    for subject in arguments["subjects"]:
        name, path = _named(subject)
        halves = find_pair(path, ar=arguments["ar"])
        found.append((name or display_name(halves.av), halves))
    names, reference = [name for name, _ in found], arguments["reference"]
    if reference is not None and reference not in names:
        raise UserError(f"--reference {reference}: none of the pairs, {', '.join(names)}")
    return found


def _pairs(
    found: list[tuple[str, Halves]],
    arguments: dict[str, Any],
    engine: VllmHost | None,
    tell: Teller,
) -> Iterator[Named]:
    """The pairs, loaded one after the other."""
    from nla_audit.checkpoint.find_pair import display_name
    from nla_audit.checkpoint.load import load
    from nla_audit.probes.sensitivity.sweep import Named
    from nla_audit.table.model_names import length_penalty_of

    for name, halves in found:
        pair = load(
            av=halves.av,
            ar=halves.ar,
            base=arguments["base"],
            sidecar=arguments["sidecar"],
            placement=placement(arguments),
            force=arguments["force"],
            engine=engine,
            compiled=is_compiled(arguments),
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
    [
        click.Argument(["subjects"], metavar="PAIR...|TABLE", nargs=-1),
        *engine_parameters(),
    ],
    out="Write the table, a report, its figures and a record of the run into DIR; an interrupted "
    "run goes on from there.",
    measures_fve=False,
)
