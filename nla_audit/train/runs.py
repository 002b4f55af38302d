"""A sweep as a list of named runs, each the base recipe with something overridden.

``rl.length_penalties`` is the short form for runs that differ in λ only; a run's ``chain`` is the
short form for runs that each start from the AV of the one before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from nla_audit.train.complaints import complaint
from nla_audit.train.grading import Grading
from nla_audit.train.section import Penalty, RecipeSection

if TYPE_CHECKING:
    from nla_audit.train.recipe_rl import Rl

Anchor = Literal["warm_start", "predecessor"]
#: Names that stand for something else among completions or folders.
_TAKEN = frozenset({"warm-start", "gold"})
#: Overrides that mean nothing for one run, with what to write instead.
_NOT_OF_ONE_RUN = {
    "length_penalties": "give the run its length_penalty",
    "processes": "how many runs are trained at once is the recipe's",
}


class NamedRun(RecipeSection):
    """A run of the sweep: the base recipe, but for what is said here."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
    """Of its folder, and of its model in the completions and the report."""
    length_penalty: Penalty | None = None
    """λ: reward lost per token; 0 where it is left out."""
    rl: dict[str, Any] = Field(default_factory=dict)
    """Settings of rl that this run has otherwise, as {kl: 0.1, grading: {kind: separators}}. A
    section is overridden key by key, a grading and the rewards as a whole."""
    start: str | None = None
    """Another run, whose AV this one starts from (and AR, where both train it), instead of the
    warm start."""
    chain: tuple[Penalty, ...] | None = None
    """Falling λ's: a run for each, called NAME-p0.01, that starts from the one before."""
    anchor: Anchor = "warm_start"
    """What the KL is to: the warm start, or the AV that the run starts from."""

    @model_validator(mode="after")
    def _fits(self) -> NamedRun:
        where = f"run {self.name}"
        if self.name.casefold() in _TAKEN:
            raise ValueError(f"{where}: the name stands for something else; take another")
        for key, instead in _NOT_OF_ONE_RUN.items():
            if key in self.rl:
                raise ValueError(f"{where}: rl.{key} is not of one run; {instead}")
        if self.chain is not None:
            self._check_chain(where, self.chain)
        elif self.anchor == "predecessor" and self.start is None:
            raise ValueError(f"{where}: anchor: predecessor needs a start or a chain")
        return self

    def _check_chain(self, where: str, chain: Sequence[float]) -> None:
        if self.length_penalty is not None:
            raise ValueError(f"{where}: give chain or length_penalty, not both")
        if not chain:
            raise ValueError(f"{where}: chain is empty; give λ's that fall")
        for before, after in pairwise(chain):
            if after >= before:
                raise ValueError(
                    f"{where}: λ must fall along chain, found {after:g} after {before:g}"
                )


@dataclass(frozen=True)
class Run:
    """A run with all its settings.

    Attributes:
        name: of its folder and of its model in the completions.
        title: what progress and messages call it.
        length_penalty: λ.
        rl: the base recipe's settings with the run's own in their place.
        start: the run that it starts from; ``None`` is the warm start.
        anchor: what the KL is to.
    """

    name: str
    title: str
    length_penalty: float
    rl: Rl
    start: str | None = None
    anchor: Anchor = "warm_start"


def run_name(length_penalty: float) -> str:
    """Folder and model name of a λ, as the field writes it: ``p0.006``."""
    return f"p{length_penalty!r}"


def all_runs(base: Rl, named: Sequence[NamedRun]) -> tuple[Run, ...]:
    """Every run of a sweep, each behind the one it starts from.

    Raises:
        ValueError: two runs of one name, a start that is none, or an override that cannot be.
    """
    runs = [
        Run(run_name(penalty), f"λ = {penalty:g}", penalty, base)
        for penalty in base.length_penalties
    ]
    for place, one in enumerate(named):
        runs += _expanded(one, overridden(base, one.rl, f"runs.{place}.rl."))
    if not runs:
        raise ValueError("rl.length_penalties is empty and there are no runs; name a λ or a run")
    # Some file systems do not tell folders apart by case.
    by_name: dict[str, Run] = {}
    for run in runs:
        if run.name.casefold() in by_name:
            raise ValueError(f"runs: two are called {run.name}; each run has its own folder")
        by_name[run.name.casefold()] = run
    ordered = _behind_their_starts(runs)
    _check_starts(ordered)
    return tuple(ordered)


def _expanded(one: NamedRun, rl: Rl) -> Iterator[Run]:
    if one.chain is None:
        penalty = one.length_penalty or 0.0
        title = f"{one.name} (λ = {penalty:g})"
        yield Run(one.name, title, penalty, rl, one.start, one.anchor)
        return
    start = one.start
    for penalty in one.chain:
        name = f"{one.name}-{run_name(penalty)}"
        # The first link has no predecessor unless it is given one.
        anchor: Anchor = "warm_start" if start is None else one.anchor
        yield Run(name, name, penalty, rl, start, anchor)
        start = name


def overridden(base: Rl, overrides: Mapping[str, Any], above: str) -> Rl:
    """``base`` with some settings otherwise.

    Raises:
        ValueError: one is unknown or cannot be.
    """
    if not overrides:
        return base
    try:
        return type(base).model_validate(_merged(base, overrides))
    except ValidationError as error:
        raise ValueError(complaint(error, type(base), above)) from None


def _merged(base: BaseModel, overrides: Mapping[str, Any]) -> dict[str, Any]:
    plain = base.model_dump(mode="json")
    for name, value in overrides.items():
        current = getattr(base, name, None)
        if (
            isinstance(current, BaseModel)
            and not isinstance(current, Grading)
            and isinstance(value, Mapping)
        ):
            plain[name] = _merged(current, value)
        else:
            plain[name] = value
    return plain


def _behind_their_starts(runs: Sequence[Run]) -> list[Run]:
    names = {run.name for run in runs}
    for run in runs:
        if run.start is not None and run.start not in names:
            known = ", ".join(sorted(names - {run.name}))
            raise ValueError(f"run {run.name}: start {run.start} is no run; known: {known}")
    ordered: list[Run] = []
    waiting = list(runs)
    while waiting:
        done = {run.name for run in ordered}
        ready = next((run for run in waiting if run.start is None or run.start in done), None)
        if ready is None:
            circle = ", ".join(run.name for run in waiting)
            raise ValueError(f"runs start from each other in a circle: {circle}")
        ordered.append(ready)
        waiting.remove(ready)
    return ordered


def _check_starts(runs: Sequence[Run]) -> None:
    by_name = {run.name: run for run in runs}
    for run in runs:
        own = run.rl.grading.separator()
        if run.start is None or own is None:
            continue
        if own != by_name[run.start].rl.grading.separator():
            raise ValueError(
                f"run {run.name}: its grading looks for separators, which the AV of {run.start} "
                "does not have"
            )
