"""``nla-audit audit``: every analyzer that the table allows, written down as one report."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nla_audit.analyzers import registry
from nla_audit.analyzers._trials import trials_begun
from nla_audit.errors import UserError
from nla_audit.files import writing
from nla_audit.findings import Card, Finding
from nla_audit.progress import Progress
from nla_audit.report.analysis_record import analysis_record
from nla_audit.report.colours import ModelColours
from nla_audit.report.contents import Report, ready
from nla_audit.report.document import what_was_audited
from nla_audit.report.drawing import COLLECTIONS_APART, Rendered, begin_drawing, draw
from nla_audit.report.folder import WRITTEN_BY, replaced_folder
from nla_audit.report.viewer import choose_viewed, viewer_data
from nla_audit.report.writing import Files, all_files, record_file
from nla_audit.unicode_form import well_formed

if TYPE_CHECKING:
    import polars as pl

    from nla_audit.table.completions import Completions
    from nla_audit.text.reading import Reading


#: Analyzers that need nothing of the others, and so can answer while the table is read.
_ASIDE = ("faithfulness",)
#: A larger table (in bytes) is not copied into a second process.
_LARGEST_ASIDE = 400 << 20


@dataclass(frozen=True)
class AuditResult:
    """What an audit found and wrote.

    Attributes:
        findings: the caller's own, then one per analyzer that ran, in the order of the report.
        left_out: analyzer → why it did not run.
        files: paths of everything written.
    """

    findings: list[Finding]
    left_out: dict[str, str]
    files: list[Path]


def run_audit(
    completions: Completions,
    out: Path,
    *,
    seed: int,
    texts: bool = True,
    title: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    draw_aside: bool = False,
    further: Sequence[Finding] = (),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    similarity: str | None = None,
) -> AuditResult:
    """Run all registered analyzers on ``completions`` and write the report into ``out``.

    Writes ``report.html``, ``report.md``, ``findings.json``, ``record.json`` and
    ``figures/<analyzer>-<figure>.svg`` and ``.png``. All but ``record.json``, which holds the
    times, are the same bytes for the same table, seed and versions.

    Args:
        completions: the table.
        out: folder for the report; new, empty, or a former report, which is replaced.
        seed: for the analyzers' intervals and the viewer's sample.
        texts: whether explanations and sources may be in the files. Without them there is no
            viewer, and tables that quote are left out.
        title: of the report; by default it names the table.
        arguments: as the user gave them, for the record.
        progress: called as each step begins.
        draw_aside: draw the figures, try the reading on the table's own twins, and run an analyzer
            that needs nothing of the others, in a second process while these run. A script that
            asks for it must guard its entry point, as with any spawned process.
        further: findings of the caller's own, shown before those of the analyzers.
        options: of analyzers by name, instead of their defaults.
        similarity: sentence-transformers model by which claims are read, instead of the built-in
            one, by all analyzers that have the option.

    Raises:
        UserError: ``out`` cannot take the report (found before anything is computed).
    """
    started = datetime.now(UTC)
    tell = progress or (lambda step, number, total: None)
    colours = ModelColours.of(completions.models, completions.length_penalties)
    with (
        _few_collections(),
        replaced_folder(Path(out)) as folder,
        _elsewhere(draw_aside) as have_done,
        # A model is loaded in one process: embedding takes longer than all that could be aside.
        trials_begun(completions, seed=seed, elsewhere=have_done)
        if draw_aside and similarity is None
        else nullcontext(),
    ):
        cards = registry()
        own = {
            name: {**_read_by(card, similarity), **(options or {}).get(name, {})}
            for name, card in cards.items()
        }
        total = len(cards) + 2
        findings: list[Finding] = []
        drawn: list[Callable[[], list[Rendered]]] = []
        left_out: dict[str, str] = {}
        shown: list[Finding] = []

        def take(finding: Finding) -> None:
            findings.append(ready(finding))
            shown.append(findings[-1] if texts else findings[-1].without_texts())
            drawn.append(have_done(draw, shown[-1], colours))

        for finding in further:
            take(finding)
        answers = {
            card.name: _begun(card, completions, seed, own[card.name], have_done)
            for card in cards.values()
        }
        for number, card in enumerate(cards.values()):
            tell(card.name, number, total)
            try:
                take(answers[card.name]())
            except UserError as error:
                left_out[card.name] = str(error)
        tell("figures", len(cards), total)
        record = analysis_record(completions, findings, seed=seed, arguments=arguments)
        viewer, note = _viewer(completions, seed, similarity) if texts else (None, "")
        report = Report(
            title=well_formed(title or f"Audit of {_table_name(completions)}"),
            findings=tuple(shown),
            length_penalties=record["length_penalties"],
            record=record,
            what=what_was_audited(record),
            notes=completions.notes,
            left_out=left_out,
            texts=texts,
            viewer=viewer,
            viewer_note=note,
        )
        figures = [rendered() for rendered in drawn]
        tell("report", len(cards) + 1, total)
        with writing(Path(out)):
            names = _write(folder, report, all_files(report, figures), started)
        tell("done", total, total)
    return AuditResult(findings, left_out, [Path(out) / name for name in names])


@contextmanager
def _few_collections() -> Iterator[None]:
    """Look for unreachable cycles more seldom than Python does.

    An audit makes millions of small objects that stay, and every search goes through them again.
    """
    usual = gc.get_threshold()
    gc.set_threshold(COLLECTIONS_APART * usual[0], *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@contextmanager
def _elsewhere(aside: bool) -> Iterator[Callable[..., Callable[[], Any]]]:
    """Has a function called in a second process, one call after the other, if ``aside``.

    What is there takes the function and its arguments, and returns how to get what it returns;
    where nothing is done aside, that calls it.
    """
    if not aside:
        yield partial
        return
    with ProcessPoolExecutor(
        1,
        mp_context=get_context("spawn"),
        initializer=begin_drawing,
    ) as pool:
        try:
            yield lambda *call, **named: pool.submit(*call, **named).result
        except BaseException:
            # What has begun there could not be cancelled, and nobody waits for it any more.
            for process in list(pool._processes.values()):
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begun(
    card: Card,
    completions: Completions,
    seed: int,
    own: Mapping[str, Any],
    have_done: Callable[..., Callable[[], Finding]],
) -> Callable[[], Finding]:
    """How to get what an analyzer answers; some answer meanwhile, in the second process."""
    if card.name in _ASIDE and completions.rows.estimated_size() <= _LARGEST_ASIDE:
        # Without what analyzers work out for each other: it stays in their process.
        return have_done(_answer, card.name, replace(completions), seed, dict(own))
    return partial(_run, card, completions, seed, own)


def _read_by(card: Card, similarity: str | None) -> dict[str, Any]:
    """The option of an analyzer that reads claims."""
    has = any(option.name == "similarity" for option in card.options)
    return {"similarity": similarity} if has else {}


def _answer(name: str, completions: Completions, seed: int, own: Mapping[str, Any]) -> Finding:
    """:func:`_run`, of an analyzer by name, as another process knows it."""
    return _run(registry()[name], completions, seed, own)


def _run(card: Card, completions: Completions, seed: int, own: Mapping[str, Any]) -> Finding:
    """Run one analyzer with its default options but for its ``own``.

    Raises:
        UserError: the table lacks a column that the analyzer reads, or the analyzer says why
            it has no answer.
    """
    missing = [name for name in card.reads if name not in completions.columns]
    if missing:
        raise UserError(f"the table has no column {', '.join(missing)}")
    options = {option.name: option.default for option in card.options} | dict(own)
    return card.answer(completions, seed=seed, **options)


def _viewer(
    completions: Completions, seed: int, similarity: str | None
) -> tuple[dict[str, Any], str]:
    """What the viewer embeds, and the sentence that says which activations it holds."""
    from nla_audit.text.reading import read  # compiles much that --help has no need of

    reading = read(completions, similarity=similarity, seed=seed)
    activations, note = choose_viewed(completions, reading.idx, seed=seed)
    spans = _fate_spans(completions, activations, reading)
    return viewer_data(completions, activations, spans), note


def _fate_spans(completions: Completions, activations: list[int], reading: Reading) -> pl.DataFrame:
    """What happened to each claim of the activations that the viewer shows."""
    from nla_audit.text.fates import fate_spans

    return fate_spans(completions, activations, reading)


def _table_name(completions: Completions) -> str:
    names = [Path(source.path).stem for source in completions.sources]
    return names[0] if len(names) == 1 else f"{len(names)} tables of completions"


def _write(folder: Path, report: Report, files: Files, started: datetime) -> list[str]:
    """Write all files into ``folder``; returns their names relative to it."""
    names = [report.record_name, *files]
    record = {
        "written_by": WRITTEN_BY,
        "files": names,
        **report.record,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for name, content in {**files, report.record_name: record_file(record)}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return names
