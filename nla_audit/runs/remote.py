"""Halves of a pair, and target models, that other processes hold.

A run plans its work here and has it done there, piece by piece, through a
:class:`~nla_audit.runs.pool.Pool`. No weights are loaded here. What a worker holds is checked with
each answer: one whose weights or libraries differ from those of the first is refused, as its
digits may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from nla_audit.checkpoint.in_vllm import VllmHost
from nla_audit.checkpoint.load import Pair, Placement, load
from nla_audit.errors import UserError
from nla_audit.nla.batching import Notice
from nla_audit.nla.injection import Injection
from nla_audit.nla.reconstructor import ReadingPlan, Reconstructor
from nla_audit.nla.sidecar import Sidecar
from nla_audit.nla.transform import ActivationTransform
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.record import MODELS, versions
from nla_audit.runs.made_from import reconstructor_record, target_record, verbalizer_record
from nla_audit.runs.pool import Pool
from nla_audit.runs.target import TargetModel, load_target

#: A function of what a worker holds and of a piece of work. Workers find it by its name.
Task = Callable[[Any, Any, Notice], Any]


@dataclass(frozen=True)
class HeldModel:
    """What a worker is to hold, and how it loads it.

    Attributes:
        role: which half, or a target model.
        options: of :func:`nla_audit.checkpoint.load.load`, or of
            :func:`nla_audit.runs.target.load_target`.
    """

    role: Literal["av", "ar", "target"]
    options: Mapping[str, Any]

    def load(self, notice: Notice) -> Any:
        """Load it.

        Raises:
            UserError: as the function that loads it.
        """
        if self.role == "target":
            return load_target(**self.options)
        pair = load(**self.options, only=self.role, notice=notice)
        return pair.verbalizer if self.role == "av" else pair.reconstructor


@dataclass(frozen=True)
class WorkerAnswer:
    """What a worker says to one piece of work.

    Attributes:
        result: of the task; ``None`` where it was refused.
        refused: the :class:`~nla_audit.errors.UserError` that ended it, in words.
        notices: what the user should know.
        identity: all that decides the digits of what the worker computes.
    """

    result: Any
    refused: str | None
    notices: tuple[str, ...]
    identity: Mapping[str, Any]


class Holder:
    """A worker's inside: holds one thing at a time, and works with it.

    Args:
        threads: of torch; ``None`` leaves them as they are.
    """

    def __init__(self, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._held: HeldModel | None = None
        self._loaded: Any = None
        self._identity: dict[str, Any] = {}

    def answer(self, held: HeldModel, task: Task, item: Any) -> WorkerAnswer:
        """Do ``task`` with what is to be held, which is loaded first if need be."""
        notices: list[str] = []
        result, refused = None, None
        try:
            if held != self._held:
                self._held, self._loaded = None, None  # two need not fit into memory
                self._loaded = held.load(notices.append)
                self._identity = {"record": record_of(self._loaded), "versions": versions(MODELS)}
                self._held = held
            result = task(self._loaded, item, notices.append)
        except UserError as error:
            refused = str(error)
        except MemoryError:
            refused = "out of memory: give a worker more, or smaller batches"
        return WorkerAnswer(result, refused, tuple(notices), self._identity)


class _Remote:
    """Something that workers hold.

    Args:
        pool: the workers.
        held: what they hold.
        facts: attributes of it that are known here as well.
        record: as :mod:`nla_audit.runs.made_from` makes it of what is loaded.
    """

    def __init__(self, pool: Pool, held: HeldModel, facts: Mapping[str, Any], record: Any) -> None:
        self.pool, self.held, self.record = pool, held, record
        self._told: set[str] = set()
        for name, value in facts.items():
            setattr(self, name, value)

    def each(
        self, task: Task, items: Iterable[tuple[int, Any]], notice: Notice
    ) -> Iterator[tuple[int, Any]]:
        """``(number, result)`` of ``task`` for each numbered item, as they are finished.

        Raises:
            UserError: of the task, or as :meth:`nla_audit.runs.pool.Pool.each`; or a worker that
                holds something else than the first one held.
        """
        asked = ((number, (self.held, task, item)) for number, item in items)
        expected = {"record": self.record, "versions": versions(MODELS)}
        for number, answer in self.pool.each(asked, notice):
            _refuse_failed(answer)
            _refuse_different(answer.identity, expected)
            for sentence in answer.notices:
                if sentence not in self._told:  # workers say the same of the same model
                    self._told.add(sentence)
                    notice(sentence)
            yield number, answer.result


def _refuse_failed(answer: WorkerAnswer) -> None:
    if answer.refused is not None:
        raise UserError(f"a worker says: {answer.refused}")


def _refuse_different(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse an answer from other weights, another precision or other libraries.

    Raises:
        UserError: it names the first thing that differs.
    """
    for part in expected:
        for name, value in expected[part].items():
            other = found[part].get(name)
            if other == value:
                continue
            if name in ("files", "model"):
                raise UserError(
                    f"{_other_file(other, value)} is another on some worker: copy the same weights "
                    "to every node"
                )
            raise UserError(
                f"a worker differs in {name} ({other}, not {value}): install the same versions and "
                "use the same kind of device on every node, or results would not be those of one "
                "process"
            )


def _other_file(found: Sequence[dict[str, str]], expected: Sequence[dict[str, str]]) -> str:
    """The name of the first file that only one side has, or has otherwise."""
    sides = [{one["file"]: one["sha256"] for one in side} for side in (found, expected)]
    names = [*sides[1], *sides[0]]
    return next(name for name in names if sides[0].get(name) != sides[1].get(name))


class RemoteVerbalizer(_Remote):
    """An AV that workers hold; what :func:`nla_audit.runs.explain.explain` asks of one."""

    name: str
    d_model: int
    sidecar: Sidecar
    injection: Injection
    transform: ActivationTransform | None


class RemoteReconstructor(_Remote):
    """An AR that workers hold; what reading and scoring texts asks of one."""

    name: str
    d_model: int
    sidecar: Sidecar
    transform: ActivationTransform | None
    layer_index: int
    mse_scale: float | None
    tokenizer: Any
    longest_prompt: int

    def plan(self, texts: Iterable[str | None], *, token_budget: int | None = None) -> ReadingPlan:
        """As :meth:`nla_audit.nla.reconstructor.Reconstructor.plan`."""
        distinct = sorted({text for text in texts if text is not None})
        ((_, plan),) = self.each(_plan, [(0, (distinct, token_budget))], _say_nothing)
        return plan

    def read_each(
        self, reading: ReadingPlan, numbers: Iterable[int], *, notice: Notice
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """As :meth:`nla_audit.nla.reconstructor.Reconstructor.read_each`, in any order."""
        items = ((number, _one_batch(reading, number)) for number in numbers)
        return self.each(_read, items, notice)


class RemoteTarget(_Remote):
    """A target model that workers hold; what :func:`nla_audit.runs.extract.extract` asks of it."""

    d_model: int
    layer_index: int
    device: torch.device


AnyVerbalizer = Verbalizer | RemoteVerbalizer
AnyReconstructor = Reconstructor | RemoteReconstructor
AnyTarget = TargetModel | RemoteTarget


def record_of(model: AnyVerbalizer | AnyReconstructor | AnyTarget) -> dict[str, Any]:
    """All that decides what ``model`` computes, wherever it is."""
    if isinstance(model, Verbalizer):
        return verbalizer_record(model)
    if isinstance(model, Reconstructor):
        return reconstructor_record(model)
    return target_record(model) if isinstance(model, TargetModel) else model.record


def each_of(
    model: AnyVerbalizer | AnyTarget, task: Task, items: Iterable[tuple[int, Any]], notice: Notice
) -> Iterator[tuple[int, Any]]:
    """``(number, result)`` of ``task`` for each numbered item, here or where ``model`` is."""
    if isinstance(model, _Remote):
        yield from model.each(task, items, notice)
        return
    for number, item in items:
        yield number, task(model, item, notice)


@dataclass(frozen=True)
class RemotePair:
    """The two halves; either may be missing where only one was asked for."""

    verbalizer: RemoteVerbalizer | None
    reconstructor: RemoteReconstructor | None


_FACTS = {
    "av": ("name", "d_model", "sidecar", "injection", "transform"),
    "ar": (
        "name",
        "d_model",
        "sidecar",
        "transform",
        "layer_index",
        "mse_scale",
        "tokenizer",
        "longest_prompt",
    ),
    "target": ("d_model", "layer_index", "device"),
}


def load_pair(
    pool: Pool | None,
    av: str | Path | None = None,
    ar: str | Path | None = None,
    *,
    adapter: str | Path | None = None,
    base: str | Path | None = None,
    sidecar: str | Path | None = None,
    injection: Injection | None = None,
    placement: Placement | None = None,
    force: bool = False,
    engine: VllmHost | None = None,
    compiled: bool = False,
    notice: Notice,
) -> Pair | RemotePair:
    """:func:`nla_audit.checkpoint.load.load`, here or, with a pool, in its workers.

    Raises:
        UserError: as there; or the workers cannot be had.
    """
    options: dict[str, Any] = {
        "av": av,
        "ar": ar,
        "adapter": adapter,
        "base": base,
        "sidecar": sidecar,
        "injection": injection,
        "placement": placement,
        "force": force,
        "engine": engine,
        "compiled": compiled,
    }
    if pool is None:
        return load(**options, notice=notice)
    for name in ("av", "ar", "adapter", "base", "sidecar"):
        options[name] = _from_anywhere(options[name])
    # The AR first, so that the worker that is asked has the AV when it begins to explain.
    reconstructor = verbalizer = None
    if ar is not None:
        reconstructor = RemoteReconstructor(*_described(pool, HeldModel("ar", options), notice))
    if av is not None:
        verbalizer = RemoteVerbalizer(*_described(pool, HeldModel("av", options), notice))
    return RemotePair(verbalizer, reconstructor)


def load_reconstructor(pool: Pool | None, ar: str | Path, **options: Any) -> AnyReconstructor:
    """An AR alone; ``options`` as for :func:`load_pair`.

    Raises:
        UserError: as there.
    """
    reconstructor = load_pair(pool, ar=ar, **options).reconstructor
    assert reconstructor is not None
    return reconstructor


def load_target_in(
    pool: Pool | None,
    reference: str | Path,
    *,
    layer_index: int,
    placement: Placement,
    force: bool = False,
    notice: Notice,
) -> AnyTarget:
    """:func:`nla_audit.runs.target.load_target`, here or, with a pool, in its workers.

    Raises:
        UserError: as there; or the workers cannot be had.
    """
    options: dict[str, Any] = {"layer_index": layer_index, "placement": placement, "force": force}
    if pool is None:
        return load_target(reference, **options)
    held = HeldModel("target", {"reference": _from_anywhere(reference), **options})
    return RemoteTarget(*_described(pool, held, notice))


def _from_anywhere(reference: str | Path | None) -> str | None:
    """A path as it is called from any folder; the name of what is on the Hub as it is."""
    if reference is None:
        return None
    path = Path(reference).expanduser()
    return str(path.absolute()) if path.exists() else str(reference)


def _described(
    pool: Pool, held: HeldModel, notice: Notice
) -> tuple[Pool, HeldModel, dict[str, Any], dict[str, Any]]:
    """The arguments of a :class:`_Remote`, from the first worker that has loaded it."""
    ((_, answer),) = pool.each([(0, (held, _describe, _FACTS[held.role]))], notice)
    _refuse_failed(answer)
    _refuse_different(answer.identity, {"versions": versions(MODELS)})
    for sentence in answer.notices:
        notice(sentence)
    return pool, held, answer.result, answer.identity["record"]


def _describe(loaded: Any, names: Sequence[str], notice: Notice) -> dict[str, Any]:
    return {name: getattr(loaded, name) for name in names}


def _plan(
    reconstructor: Reconstructor, asked: tuple[list[str], int | None], notice: Notice
) -> ReadingPlan:
    texts, token_budget = asked
    return reconstructor.plan(texts, token_budget=token_budget)


def _one_batch(reading: ReadingPlan, number: int) -> ReadingPlan:
    """The part of a plan that reading one of its batches takes."""
    batch = reading.batches[number]
    prompts = [reading.prompts[place] for place in batch]
    return ReadingPlan([], prompts, reading.shared, [list(range(len(batch)))])


def _read(
    reconstructor: Reconstructor, reading: ReadingPlan, notice: Notice
) -> npt.NDArray[np.float32]:
    return reconstructor.read(reading, reading.batches[0], notice=notice)


def _say_nothing(sentence: str) -> None:
    """A plan is asked for before there is anything to tell."""
