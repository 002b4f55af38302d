"""What an analyzer returns, and the registry from which commands, help and captions derive.

This module imports neither torch nor any plotting library: a finding is data, and only the
reports decide how it looks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Literal

import polars as pl

#: model → metric → value. A metric with an interval also has ``metric_low`` and ``metric_high``.
#: ``None`` is "not known" (see the caveats for the reason); it is never zero.
Headline = dict[str, dict[str, float | None]]


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
    kind: Literal["line", "bar", "stacked", "scatter", "heatmap", "waterfall"]
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

    def to_dict(self, *, texts: bool = True) -> dict[str, Any]:
        """The whole finding as plain data; non-finite floats become ``None``."""
        tables = {
            name: frame.to_dicts()
            for name, frame in self.tables.items()
            if texts or name not in self.private_tables
        }
        plain = {
            "analyzer": self.analyzer,
            "question": self.question,
            "reference": self.reference,
            "headline": self.headline,
            "verdict": self.verdict,
            "caveats": self.caveats,
            "parameters": self.parameters,
            "tables": tables,
        }
        return _finite(plain)

    def to_json(self, *, texts: bool = True, indent: int | None = 2) -> str:
        """Strict JSON (no ``NaN``), keys in a stable order."""
        return json.dumps(
            self.to_dict(texts=texts), ensure_ascii=False, indent=indent, allow_nan=False
        )


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


@dataclass(frozen=True)
class Option:
    """One option of an analyzer; the command line flag is derived from ``name``."""

    name: str
    kind: type
    default: Any
    help: str
    multiple: bool = False
    choices: tuple[str, ...] = ()


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
    run: Callable[..., Finding]
    options: tuple[Option, ...] = ()
    #: Place among the sections of a report; what others build on comes first.
    order: int = 100
    #: Reads another table than completions that ``run`` takes as well: called with the tables
    #: named, ``reference``, ``ar`` and ``models``; ``None`` where these are no such tables.
    door: Callable[..., Any] | None = None


_REGISTRY: dict[str, Card] = {}


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
    options: tuple[Option, ...] = (),
    order: int = 100,
    door: Callable[..., Any] | None = None,
) -> Callable[[Callable[..., Finding]], Callable[..., Finding]]:
    """Register ``function(completions, **options) -> Finding`` under ``name``.

    The function runs with one linear algebra thread: the arrays of a table are small, and threads
    that wait for each other made an audit take nearly twice as long.
    """

    def register(function: Callable[..., Finding]) -> Callable[..., Finding]:
        @wraps(function)
        def run(*arguments: Any, **chosen: Any) -> Finding:
            from threadpoolctl import threadpool_limits  # imports numpy

            with threadpool_limits(limits=1):
                return function(*arguments, **chosen)

        _REGISTRY[name] = Card(
            name=name,
            question=question,
            reads=reads,
            uses=uses,
            unit=unit,
            control=control,
            high_means=high_means,
            example=example,
            run=run,
            options=options,
            order=order,
            door=door,
        )
        return run

    return register


def registered() -> dict[str, Card]:
    """The analyzers that were imported so far, in the order of the report."""
    return dict(sorted(_REGISTRY.items(), key=lambda item: (item[1].order, item[0])))
