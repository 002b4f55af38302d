"""What an analyzer returns, and the registry from which commands, help and captions derive.

This module imports neither torch nor any plotting library: a finding is data, and only the
reports decide how it looks. It imports polars where a table is at hand, so that the help of a
probe, which is made from its card, does without.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Literal

from nla_audit.unicode_form import well_formed

if TYPE_CHECKING:
    import polars as pl

#: model → metric → value. A metric with an interval also has ``metric_low`` and ``metric_high``.
#: ``None`` is "not known" (see the caveats for the reason); it is never zero.
Headline = dict[str, dict[str, float | None]]

#: What a number counts. Shares are of one, and shown in percent; their differences are not.
Unit = Literal[
    "share",
    "difference of shares",
    "FVE",
    "FVE points",
    "tokens",
    "tokens a step",
    "words",
    "count",
    "per explanation",
    "per 100 words",
    "p value",
    "correlation",
    "ratio",
    "place",
    "perplexity",
    "nats",
    "yes or no",
]
Better = Literal["higher", "lower", "neither"]
#: How a figure is drawn.
Kind = Literal["line", "bar", "stacked", "scatter", "heatmap", "waterfall"]


@dataclass(frozen=True)
class Metric:
    """One number of a headline, declared: help, reports, reference and tests derive from it.

    Attributes:
        name: its key in the headline; ``"retained.*"`` is every key that begins ``retained.``.
        unit: what it counts.
        better: which way is good news about the model, if either is.
        meaning: what it is, in words that complete "``name`` is …".
        interval: whether ``name_low`` and ``name_high`` stand beside it.
        chance: whether ``chance_name`` does, the same against another activation.
        needs: the option without which it is not measured.
    """

    name: str
    unit: Unit
    better: Better
    meaning: str
    interval: bool = True
    chance: bool = False
    needs: str = ""

    def described(self) -> str:
        """Unit, direction and what it needs, in words: ``"share; lower is better"``."""
        better = "" if self.better == "neither" else f"{self.better} is better"
        chance = f"beside chance_{self.name}" if self.chance else ""
        needs = f"with {self.needs}" if self.needs else ""
        return "; ".join(filter(None, (self.unit, better, chance, needs)))

    def covers(self, key: str) -> bool:
        """Whether ``key`` of a headline is this number, its chance level or an end of theirs."""
        if self.interval:
            key = key.removesuffix("_low").removesuffix("_high")
        if self.chance:
            key = key.removeprefix("chance_")
        family = self.name.removesuffix("*")
        return key.startswith(family) if family != self.name else key == self.name


@dataclass(frozen=True)
class Method:
    """How the numbers of a finding are measured, in words."""

    unit: str
    control: str
    high_means: str


@dataclass(frozen=True)
class Figure:
    """A picture in words: which columns of one of the finding's tables are drawn, and how.

    In a waterfall each step's bar begins at the column ``low`` and ends ``y`` above or below it.
    ``table`` names an entry of :attr:`Finding.tables`. ``low`` and ``high`` are the columns of
    a 95 % interval around ``y``. ``reference`` draws a horizontal line at the value (or the
    column) that a reader compares with, such as the chance level.
    """

    name: str
    title: str
    kind: Kind
    table: str
    x: str
    y: str
    x_label: str
    y_label: str
    caption: str = ""
    low: str | None = None
    high: str | None = None
    #: Column whose values become separate lines, bar groups, stacks or heat map rows.
    group: str | None = None
    #: Column whose text is written beside each point (scatter and line).
    label: str | None = None
    #: Column holding a comparison level for each x, drawn dashed (e.g. ``chance``).
    chance: str | None = None
    #: What the dashed level is called in the legend.
    chance_label: str = "chance"
    log_x: bool = False
    percent: bool = False


@dataclass
class Finding:
    """The typed answer of one analyzer to one question.

    Attributes:
        analyzer: registered name, e.g. ``"frontier"``.
        question: the question in one sentence.
        reference: name of the model that all differences are taken against, or ``None``.
        headline: the numbers by which the finding is quoted, per model.
        verdict: one or two plain sentences computed from the numbers.
        caveats: what a reader has to know before quoting the verdict.
        tables: named polars frames, so that a user can go on from Python.
        figures: what to draw from those tables.
        parameters: every option that changes the answer, resolved.
        private_tables: names of tables that quote other people's texts; they are shown in the
            reports, and left out of them with ``--no-texts``.
        metrics: what the numbers of the headline are; from the card.
        columns: units of columns of the tables that are no metrics; a column that is in neither
            is a plain number. From the card.
        rows: what the rows of the headline are.
        method: how all this was measured; from the card.
        headline_table: the table that a report shows in place of the headline, if it says more.
        examples_table: the table of texts before and after changes, shown beside each other:
            ``variant, shown, model, idx, fve_before, fve_after, similarity, before, after``.
    """

    analyzer: str
    question: str
    reference: str | None
    headline: Headline
    verdict: str
    caveats: list[str] = field(default_factory=list)
    tables: dict[str, pl.DataFrame] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    private_tables: frozenset[str] = frozenset()
    metrics: tuple[Metric, ...] = ()
    columns: Mapping[str, Unit] = field(default_factory=dict)
    rows: str = "model"
    method: Method | None = None
    headline_table: str | None = None
    examples_table: str | None = None

    def unit_of(self, name: str) -> Unit | None:
        """The declared unit of a number of the headline or of a column of a table."""
        for metric in self.metrics:
            if metric.covers(name):
                return metric.unit
        return self.columns.get(name.removesuffix("_low").removesuffix("_high"))

    def without_texts(self) -> Finding:
        """This finding without the tables that quote texts, and the figures drawn from them."""
        return replace(
            self,
            tables={k: v for k, v in self.tables.items() if k not in self.private_tables},
            figures=[one for one in self.figures if one.table not in self.private_tables],
        )

    def plain(self) -> Finding:
        """This finding as it is read again from its JSON: what is not finite is not known."""
        return replace(
            self,
            headline=_plain(self.headline),
            caveats=list(self.caveats),
            parameters=_plain(self.parameters),
            tables={name: _finite(frame) for name, frame in self.tables.items()},
        )

    def to_dict(self, *, texts: bool = True) -> dict[str, Any]:
        """The whole finding as plain data; non-finite floats become ``None``."""
        found = self if texts else self.without_texts()
        return _plain(
            {
                "analyzer": found.analyzer,
                "question": found.question,
                "reference": found.reference,
                "headline": found.headline,
                "verdict": found.verdict,
                "caveats": found.caveats,
                "parameters": found.parameters,
                "rows": found.rows,
                "metrics": [vars(metric) for metric in found.metrics],
                "method": None if found.method is None else vars(found.method),
                "figures": [vars(figure) for figure in found.figures],
                "headline_table": found.headline_table,
                "examples_table": found.examples_table,
                "private_tables": sorted(found.private_tables),
                "units": found.columns,
                "types": {
                    name: {column: str(kind) for column, kind in frame.schema.items()}
                    for name, frame in found.tables.items()
                },
                "tables": {name: frame.to_dicts() for name, frame in found.tables.items()},
            }
        )

    def to_json(self, *, texts: bool = True, indent: int | None = 2) -> str:
        """Strict JSON (no ``NaN``), keys in a stable order."""
        return json.dumps(
            self.to_dict(texts=texts), ensure_ascii=False, indent=indent, allow_nan=False
        )


def _plain(value: Any) -> Any:
    """``value`` as JSON gives it back."""
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _finite(frame: pl.DataFrame) -> pl.DataFrame:
    import polars as pl  # keeps --help fast
    import polars.selectors as cs

    floats = cs.float()
    return frame.with_columns(pl.when(floats.is_finite()).then(floats).otherwise(None))


@dataclass(frozen=True)
class Option:
    """One option of an analyzer or a probe; the command line flag is derived from ``name``.

    Attributes:
        name: of the argument.
        kind: type of its value, or a tuple of types for several.
        default: where it is not given.
        help: what it does.
        multiple: whether it can be given several times.
        choices: the values it may have, if not any.
        flag: the flag, where it is not the name.
        metavar: what help calls the value.
        least: the smallest number that it may be.
    """

    name: str
    kind: type | tuple[type, ...]
    default: Any
    help: str
    multiple: bool = False
    choices: tuple[str, ...] = ()
    flag: str = ""
    metavar: str | None = None
    least: int | None = None


@dataclass(frozen=True)
class Card:
    """What an analyzer is, in words. Help, docs and captions are made from it."""

    name: str
    question: str
    #: Columns without which there is no answer.
    reads: tuple[str, ...]
    #: Columns that make the answer better, each with what is lost without it.
    uses: Mapping[str, str]
    unit: str
    control: str
    high_means: str
    example: str
    #: From the table and options to the finding; ``None`` where the command is the probe's own,
    #: which gathers what its finding judges (:func:`probe_with_command`).
    run: Callable[..., Finding] | None = None
    #: Every number of its headline.
    metrics: tuple[Metric, ...] = ()
    #: Units of columns of its tables that are no metrics.
    columns: Mapping[str, Unit] = field(default_factory=dict)
    options: tuple[Option, ...] = ()
    #: Place among the sections of a report; what others build on comes first.
    order: int = 100
    #: Reads another table than completions that ``run`` takes as well: called with the tables
    #: named, ``reference``, ``ar`` and ``models``; ``None`` where these are no such tables.
    door: Callable[..., Any] | None = None
    #: What the rows of its headline are.
    rows: str = "model"

    def answer(self, table: Any, *, seed: int, **options: Any) -> Finding:
        """What :attr:`run` finds in ``table``; the seed is for those that draw anything."""
        assert self.run is not None, f"{self.name} has a command of its own"
        if "seed" in inspect.signature(self.run).parameters:
            options["seed"] = seed
        return self.run(table, **options)

    def sign(self, finding: Finding) -> Finding:
        """``finding`` with what this card says of its numbers and of how they were measured.

        Raises:
            ValueError: a number of the headline is not declared, which is a bug.
        """
        keys = {key for row in finding.headline.values() for key in row}
        unknown = [key for key in sorted(keys) if not any(m.covers(key) for m in self.metrics)]
        if unknown:
            raise ValueError(f"{self.name}: not declared on the card: {', '.join(unknown)}")
        return replace(
            finding,
            metrics=self.metrics,
            columns=self.columns,
            rows=self.rows,
            method=Method(self.unit, self.control, self.high_means),
        )


_REGISTRY: dict[str, Card] = {}
_PROBES: dict[str, Card] = {}


def analyzer(
    *,
    name: str,
    question: str,
    reads: tuple[str, ...],
    uses: Mapping[str, str],
    unit: str,
    control: str,
    high_means: str,
    example: str,
    metrics: tuple[Metric, ...],
    columns: Mapping[str, Unit] | None = None,
    options: tuple[Option, ...] = (),
    order: int = 100,
    door: Callable[..., Any] | None = None,
    rows: str = "model",
    among: dict[str, Card] | None = None,
) -> Callable[[Callable[..., Finding]], Callable[..., Finding]]:
    """Register ``function(completions, **options) -> Finding`` under ``name``; see :class:`Card`.

    The function runs with one linear algebra thread: the arrays of a table are small, and threads
    that wait for each other made an audit take nearly twice as long.
    """

    def register(function: Callable[..., Finding]) -> Callable[..., Finding]:
        @wraps(function)
        def run(*arguments: Any, **chosen: Any) -> Finding:
            from threadpoolctl import threadpool_limits  # imports numpy

            with threadpool_limits(limits=1):
                return card.sign(function(*arguments, **chosen))

        card = Card(
            name=name,
            question=question,
            reads=reads,
            uses=uses,
            unit=unit,
            control=control,
            high_means=high_means,
            example=example,
            run=run,
            metrics=metrics,
            columns=columns or {},
            options=options,
            order=order,
            door=door,
            rows=rows,
        )
        (_REGISTRY if among is None else among)[name] = card
        return run

    return register


#: Registers a question that an AR answers, and which ``nla-audit audit`` does not ask.
probe = partial(analyzer, among=_PROBES)


def probe_with_command(card: Card) -> None:
    """Register a probe whose own command gathers what its finding judges."""
    _PROBES[card.name] = card


def registered() -> dict[str, Card]:
    """The analyzers that were imported so far, in the order of the report."""
    return _in_order(_REGISTRY)


def registered_probes() -> dict[str, Card]:
    """The probes that were imported so far."""
    return _in_order(_PROBES)


def _in_order(cards: Mapping[str, Card]) -> dict[str, Card]:
    return dict(sorted(cards.items(), key=lambda item: (item[1].order, item[0])))
