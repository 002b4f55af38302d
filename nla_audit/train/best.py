"""The best weights of a run so far, by a held-out figure, kept beside its saved state.

A file is named by its step and is only written when it is better than the one before, so the
latest is the best. One that a saved state does not cover yet never replaces one that it covers: a
run that is killed goes on from its state, and forgets what was better only behind it.

Each holds the trained weights and no averages of the optimiser: a third of a saved state. There is
one, and a second one from a better measurement until the next saved state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nla_audit.train.state import opened_state, restore_weights, write_tensors
from nla_audit.train.update import Trainer, trained_tensors


@dataclass(frozen=True)
class Kept:
    """Which weights were kept.

    Attributes:
        step: steps they had been trained for.
        figure: by what they were the best.
        value: of that figure on held-out rows, when they were measured.
    """

    step: int
    figure: str
    value: float

    def facts(self) -> dict[str, Any]:
        """For the record of a run and the sidecar of a checkpoint."""
        return {"kept_step": self.step, "kept_by": self.figure, "kept_value": self.value}


def facts_of(kept: Kept | None) -> dict[str, Any]:
    """The same; nothing where the last weights were kept, whatever they were worth."""
    return {} if kept is None else kept.facts()


class Best:
    """The best weights of ``trainers``.

    Args:
        folder: of the run.
        key: hash of all that changes the result.
        figure: what is measured; the highest is the best.
        is_writer: whether this process writes; all must call every method.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        trainers: Mapping[str, Trainer],
        figure: str,
        *,
        is_writer: bool = True,
    ) -> None:
        self._folder = folder
        self._key = key
        self._trainers = trainers
        self.figure = figure
        self._is_writer = is_writer
        self._kept: Kept | None = None
        self._covered = 0

    def go_on_from(self, step: int) -> None:
        """Know what was kept up to the state at ``step``, and forget what came behind it.

        Raises:
            UserError: a file is damaged, or of other settings.
        """
        self._covered = step
        # A run that begins at 0 measures its first weights anew.
        steps = [kept for kept in _steps(self._folder) if 0 < step >= kept]
        self._keep_only(steps)
        self._kept = None
        if steps:
            with opened_state(self._path(max(steps)), self._key) as file:
                value = float(file.metadata()["value"])
            self._kept = Kept(max(steps), self.figure, value)

    def offer(self, step: int, value: float) -> None:
        """Keep the weights of now if ``value`` is higher than all before; NaN is not.

        Raises:
            UserError: they cannot be written.
        """
        if not value > (float("-inf") if self._kept is None else self._kept.value):
            return
        tensors = trained_tensors(self._trainers, is_wanted=self._is_writer)
        self._kept = Kept(step, self.figure, value)
        if self._is_writer:
            metadata = {"key": self._key, "figure": self.figure, "value": repr(value)}
            write_tensors(self._path(step), tensors, metadata)
            self._keep_only(
                [kept for kept in _steps(self._folder) if kept <= self._covered or kept == step]
            )

    def covered(self, step: int) -> None:
        """A state was saved at ``step``: from here on nothing goes back behind it."""
        self._covered = step
        if self._kept is not None:
            self._keep_only([self._kept.step])

    def restore(self) -> Kept | None:
        """Put the best weights in the place of the last; ``None`` where nothing was measured.

        Raises:
            UserError: the file is damaged or gone.
        """
        if self._kept is not None:
            with opened_state(self._path(self._kept.step), self._key) as file:
                restore_weights(file, self._trainers)
        return self._kept

    def _path(self, step: int) -> Path:
        return self._folder / f"best-{step}.safetensors"

    def _steps(self) -> list[int]:
        names = (
            path.stem.removeprefix("best-") for path in self._folder.glob("best-*.safetensors")
        )
        return [int(name) for name in names if name.isdecimal()]

    def _keep_only(self, steps: list[int]) -> None:
        if self._is_writer:
            for step in set(_steps(self._folder)) - set(steps):
                self._path(step).unlink()


def kept_step(folder: Path) -> int | None:
    """Steps of the best weights in a run's folder; ``None`` where only the last are kept."""
    return max(_steps(folder), default=None)


def _steps(folder: Path) -> list[int]:
    names = (path.stem.removeprefix("best-") for path in folder.glob("best-*.safetensors"))
    return [int(name) for name in names if name.isdecimal()]
