"""Metrics to TensorBoard and Weights & Biases too; the JSONL log is the record in any case.

Neither is needed, and neither ends a run: what cannot be sent is told once and then left.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from nla_audit.errors import UserError, first_line
from nla_audit.files import write_text

_log = logging.getLogger(__name__)

TrackerName = Literal["tensorboard", "wandb"]
#: Folder of TensorBoard's event files, in that of a run.
FOLDER = "tensorboard"
#: Holds the id under which Weights & Biases knows a run, so that it goes on under it.
WANDB_ID_FILE = "wandb-id"
_WANDB_PROJECT = "nla-audit"


class Tracker(Protocol):
    """Where numbers go, by name and step."""

    def show(self, numbers: Mapping[str, float], step: int) -> None:
        """Send the numbers of one record."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class Tracking:
    """All trackers of one run.

    Args:
        names: which; ``None`` is TensorBoard where it is installed.
        folder: of the run.
        after_step: the state that the run goes on from; what was shown behind it is shown again.

    Raises:
        UserError: one is not installed, or cannot begin.
    """

    def __init__(self, names: Sequence[TrackerName] | None, folder: Path, after_step: int) -> None:
        by_default: Sequence[TrackerName] = ["tensorboard"] if find_spec("tensorboard") else []
        wanted = by_default if names is None else names
        check_installed(wanted)
        self._trackers: dict[str, Tracker] = {
            name: _KINDS[name](folder, after_step) for name in wanted
        }

    def show(self, record: Mapping[str, Any]) -> None:
        """Send one record of the metrics log."""
        self._all("show", scalars(record), int(record["step"]))

    def close(self) -> None:
        """No more records will come."""
        self._all("close")

    def _all(self, method: str, *arguments: Any) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                getattr(tracker, method)(*arguments)
            except Exception as error:  # anyone's code, on anyone's network
                del self._trackers[name]
                _log.warning(
                    "%s: %s; the run goes on without it, and its metrics.jsonl has everything",
                    name,
                    first_line(error),
                )


class _TensorBoard:
    """Event files in the folder of the run."""

    def __init__(self, folder: Path, after_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # not always there

        self._writer = SummaryWriter(str(folder / FOLDER), purge_step=after_step + 1)

    def show(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """A run of Weights & Biases, under its own environment variables.

    It takes no step twice: those that a run which was killed does again are left as they were,
    which they equal.
    """

    def __init__(self, folder: Path, after_step: int) -> None:
        import wandb

        identity = folder / WANDB_ID_FILE
        if after_step == 0 or not identity.is_file():
            write_text(identity, uuid.uuid4().hex[:16] + "\n")
        course = folder.absolute().parents[1].name
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", _WANDB_PROJECT),
                group=course,
                name=f"{course}/{folder.name}",
                id=identity.read_text(encoding="utf-8").strip(),
                resume="allow",
                dir=str(folder),
                reinit="create_new",
                settings=wandb.Settings(console="off", silent=True),
            )
        except Exception as error:  # its own errors are of many kinds
            raise UserError(
                f"tracking: wandb cannot begin ({first_line(error)}); log in with wandb login, set "
                "WANDB_MODE=offline, or leave it out"
            ) from None

    def show(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


_KINDS: dict[str, type[_TensorBoard] | type[_Wandb]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
}


def check_installed(names: Sequence[TrackerName]) -> None:
    """Check that every tracker is here, before hours are spent.

    Raises:
        UserError: one is not.
    """
    for name in names:
        if find_spec(name) is None:
            raise UserError(
                f"tracking: {name} is not installed; pip install 'nla-audit[{name}]', or leave it "
                "out"
            )


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
