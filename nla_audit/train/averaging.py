"""A running average of what is trained, which stands in for it where it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn


class Average:
    """An exponential moving average of ``parameters``, which begins as what they are.

    Args:
        decay: share of the average that a step leaves as it was.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self._parameters = dict(parameters)
        self._decay = decay
        self.tensors = {name: one.detach().clone() for name, one in parameters.items()}

    def update(self) -> None:
        """Take in what the parameters are now."""
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                self.tensors[name].mul_(self._decay).add_(parameter, alpha=1 - self._decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The average in the place of the parameters, for reading; they come back as they were."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        # Values and not tensors: optimisers and divided models hold on to the tensors.
        for name, parameter in self._parameters.items():
            now = parameter.detach().clone()
            parameter.copy_(self.tensors[name])
            self.tensors[name].copy_(now)
