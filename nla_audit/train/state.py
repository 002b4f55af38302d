"""State of a run on disk, from which it goes on exactly, and its log of metrics.

Everything random is drawn from a generator made of the seed and the step, so weights, optimiser
averages and the number of the step are all there is to save. The state is one safetensors file,
written under another name and then renamed: a full disk or a kill leaves the previous one whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nla_audit.errors import UserError
from nla_audit.files import whole_file, writing
from nla_audit.nla.adamw import place_of_count
from nla_audit.train.sharding import placed_like
from nla_audit.train.tracker import TrackerName, Tracking
from nla_audit.train.update import Trainer, trained_tensors

STATE_FILE = "state.safetensors"
METRICS_FILE = "metrics.jsonl"


@dataclass(frozen=True)
class Progress:
    """Where a run stands: steps finished, and training seconds they took."""

    step: int = 0
    seconds: float = 0.0
    skipped: int = 0


def save_state(
    folder: Path,
    key: str,
    progress: Progress,
    trainers: Mapping[str, Trainer],
    *,
    is_writer: bool = True,
) -> None:
    """Save weights and optimiser averages of all ``trainers`` after ``progress.step`` steps.

    The tensors are whole: a run goes on with any number of processes, divided or not.

    Args:
        is_writer: whether this process writes. Where weights are divided all processes must call
            this, to put them together; otherwise only the one that writes needs to.

    Raises:
        UserError: the disk is full or the folder cannot be written; the previous state is intact.
    """
    tensors = trained_tensors(trainers, is_wanted=is_writer, with_optimizer=True)
    if not is_writer:
        return
    metadata = {
        "key": key,
        "step": str(progress.step),
        "seconds": repr(progress.seconds),
        "skipped": str(progress.skipped),
    }
    write_tensors(folder / STATE_FILE, tensors, metadata)


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file that is whole or not there at all.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    with whole_file(path) as partial:
        save_file(dict(tensors), str(partial), metadata=dict(metadata))
        with partial.open("rb") as written:
            os.fsync(written.fileno())


def load_state(folder: Path, key: str, trainers: Mapping[str, Trainer]) -> Progress:
    """Restore ``trainers`` from the last state, if there is one of this ``key``.

    Raises:
        UserError: the state is damaged, or was made by other settings.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return Progress()
    with opened_state(path, key) as file:
        metadata = file.metadata()
        restore_weights(file, trainers)
        for part, trainer in trainers.items():
            _restore_optimizer(file, part, trainer)
        return Progress(
            int(metadata["step"]), float(metadata["seconds"]), int(metadata.get("skipped", 0))
        )


def saved_step(folder: Path) -> int:
    """The step of the last state in a run's folder; 0 where there is none that can be read."""
    try:
        with safe_open(str(folder / STATE_FILE), framework="pt") as file:
            return int(file.metadata()["step"])
    except (SafetensorError, OSError, KeyError, TypeError):
        return 0


@contextmanager
def opened_state(path: Path, key: str) -> Iterator[Any]:
    """The safetensors file at ``path``, if it is one of this ``key``.

    Raises:
        UserError: it, or what is asked of it within, is damaged, or it was made by other settings.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            if file.metadata()["key"] != key:
                raise UserError(
                    f"{path}: made by another recipe; name another --out, or delete the folder"
                )
            yield file
    except (SafetensorError, OSError, KeyError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it to begin this run again") from None


@torch.no_grad()
def restore_weights(file: Any, trainers: Mapping[str, Trainer]) -> None:
    """Put the trained tensors of an open file, and their averages, into ``trainers``."""
    for part, trainer in trainers.items():
        for name, parameter in trainer.parameters.items():
            found: dict[str, torch.Tensor] = {"weight": parameter}
            if trainer.average is not None:
                found["average"] = trainer.average.tensors[name]
            for field, tensor in found.items():
                tensor.copy_(placed_like(file.get_tensor(f"{part}/{name}/{field}"), tensor))


def _restore_optimizer(file: Any, part: str, trainer: Trainer) -> None:
    names = set(file.keys())
    for name, parameter in trainer.parameters.items():
        state = {}
        for field in ("step", "exp_avg", "exp_avg_sq"):
            key = f"{part}/{name}/{field}"
            if key in names:
                value = file.get_tensor(key)
                if field == "step":
                    state[field] = value.to(place_of_count(trainer.optimizer, parameter))
                else:
                    state[field] = placed_like(value, parameter)
        if state:
            trainer.optimizer.state[parameter] = state


class MetricsLog:
    """One JSON object a line, each with its ``step`` and ``kind``; appended as training goes.

    Args:
        folder: of the run.
        tracking: where records go as well; see :class:`nla_audit.train.tracker.Tracking`.
    """

    def __init__(self, folder: Path, tracking: Sequence[TrackerName] | None = None) -> None:
        self.path = folder / METRICS_FILE
        self._names = tracking
        self._tracking: Tracking | None = None

    def keep_until(self, step: int) -> None:
        """Drop what was logged behind the state that the run goes on from (``0``: everything)."""
        kept = [record for record in read_metrics(self.path) if record["step"] <= step and step > 0]
        with whole_file(self.path) as partial:
            partial.write_text("".join(_json_line(record) for record in kept), encoding="utf-8")
        self._tracking = Tracking(self._names, self.path.parent, step)

    def close(self) -> None:
        """Let trackers send what is left."""
        if self._tracking is not None:
            self._tracking.close()

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record.

        Raises:
            UserError: it cannot be written; going on from the last state writes it again.
        """
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_json_line(record))
        if self._tracking is not None:
            self._tracking.show(record)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole records of a log; a line cut off by a kill is left out. Empty if there is none."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        with suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


def _json_line(record: Mapping[str, Any]) -> str:
    return json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """JSON has no NaN: what is not known is null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
