"""Metrics to TensorBoard too, where it is installed; the JSONL log is the record either way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

#: Takes one record of the metrics log.
Track = Callable[[Mapping[str, Any]], None]

FOLDER = "tensorboard"


def tracker(folder: Path, after_step: int) -> Track:
    """A function that sends records on; it does nothing where TensorBoard is not installed.

    Args:
        folder: of the run.
        after_step: the state that the run goes on from; what was shown behind it is dropped.
    """
    if find_spec("tensorboard") is None:
        return lambda record: None
    from torch.utils.tensorboard import SummaryWriter  # not always there

    writer = SummaryWriter(str(folder / FOLDER), purge_step=after_step + 1)

    def track(record: Mapping[str, Any]) -> None:
        for name, value in scalars(record).items():
            writer.add_scalar(name, value, int(record["step"]))
        writer.flush()

    return track


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record under ``kind/name`` or ``kind/group/name``; unknown ones left out."""
    prefix = str(record["kind"])
    found: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            found |= {f"{prefix}/{name}/{inner}": number for inner, number in value.items()}
        elif name not in ("kind", "step"):
            found[f"{prefix}/{name}"] = value
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
