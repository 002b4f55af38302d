"""Several processes on one run: each samples and learns from a share of a step's activations.

Every process holds the whole model, or a share of it (:mod:`nla_audit.train.sharding`). Gradients
are summed before the optimiser's step, and all else that decides anything is gathered, so that
every process takes the same step and the result is that of a single one but for rounding.
Processes are those that ``torchrun`` started (on GPUs ``accelerate launch`` does so too); without
it there is one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from nla_audit.errors import UserError

#: The others wait while the first trains the target or the warm start.
_PATIENCE = timedelta(days=2)


class Ranks:
    """This process among all: ``rank`` of ``size``."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @classmethod
    def from_environment(cls) -> Ranks:
        """As the launcher's environment variables say."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        rank = int(os.environ["RANK"])
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        return cls.join(rank, size, "env://")

    @classmethod
    def join(cls, rank: int, size: int, address: str) -> Ranks:
        """Meet the other processes at ``address``, in torch's notation; waits for all."""
        if not distributed.is_initialized():
            distributed.init_process_group(
                "cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo",
                init_method=address,
                rank=rank,
                world_size=size,
                timeout=_PATIENCE,
            )
        return cls(rank, size)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Which of ``count`` things are this process's.

        Raises:
            UserError: they cannot be shared out evenly.
        """
        if count % self.size:
            raise UserError(
                f"rl.prompts {count} cannot be shared by {self.size} processes; use a multiple"
            )
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def gathered(self, value: Any) -> list[Any]:
        """``value`` of every process, in order of rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by the sum over all processes, in one message.

        Gradients of divided weights were summed while they were divided, in the backward pass.
        """
        trained = [
            parameter
            for parameter in parameters
            if parameter.requires_grad and not isinstance(parameter, DTensor)
        ]
        if self.size == 1 or not trained:
            return
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        grads = [parameter.grad for parameter in trained if parameter.grad is not None]
        flat = torch.cat([grad.float().flatten() for grad in grads])
        distributed.all_reduce(flat)
        start = 0
        for grad in grads:
            grad.copy_(flat[start : start + grad.numel()].view_as(grad))
            start += grad.numel()

    def mesh(self, device: torch.device) -> DeviceMesh:
        """All processes in a row, each with its ``device``."""
        return init_device_mesh(device.type, (self.size,))

    def most(self, count: int) -> int:
        """The largest ``count`` of all processes."""
        return max(self.gathered(count))

    def wait(self) -> None:
        """Go on when all are here."""
        if self.size > 1:
            distributed.barrier()
