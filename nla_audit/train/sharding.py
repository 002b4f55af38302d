"""Weights, gradients and optimiser averages divided among the processes of a run (FSDP2).

Between steps each process holds its share of every tensor. A forward or backward pass puts one
block together at a time, so all processes must make the same passes; sampling and measuring, in
which each process goes its own way, happen with the whole model put together beforehand
(:func:`whole`). Without sharding everything here does nothing, and callers need not ask.

torch's ``fully_shard`` itself and not accelerate's plugin around it: that one takes over the
optimiser, clipping and checkpoints, and those of :mod:`nla_audit.train.update` and
:mod:`nla_audit.train.state` have to stay what they are, exact to the bit on one process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from nla_audit.errors import UserError
from nla_audit.nla.architecture import blocks_of, decoder_of


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Divide the weights of ``model`` (or of its decoder alone), in place.

    New parameters take the place of the old ones, under the same names. Gradients are summed over
    the processes, not averaged: each already holds its responses' weights within the whole step.

    Raises:
        UserError: a torch that cannot do that.
    """
    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise UserError(
            f"rl.sharding: fsdp2 cannot sum gradients in torch {torch.__version__}; "
            "update torch, or leave sharding out"
        )
    for block in blocks_of(decoder_of(model)):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    for part in _parts(model):
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)


def is_sharded(model: nn.Module) -> bool:
    """Whether :func:`shard` has been at ``model``."""
    return any(True for _ in _parts(model))


@contextmanager
def whole(*models: nn.Module) -> Iterator[None]:
    """All weights of ``models`` in every process, for passes that the others do not make.

    All processes must enter; inside, none waits for another. Weights must not be changed.
    """
    # Also outside of any inference mode: what is made in one cannot be trained on later.
    with torch.no_grad(), ExitStack() as stack:
        for model in models:
            for part in _parts(model):
                part.set_reshard_after_forward(False, recurse=False)
                part.unshard()
                stack.callback(_divide_again, part)
        yield


def _divide_again(part: FSDPModule) -> None:
    part.set_reshard_after_forward(True, recurse=False)
    part.reshard()


@contextmanager
def plain_weights(*models: nn.Module, keep: bool) -> Iterator[None]:
    """Ordinary whole tensors in the place of the divided ones, for saving.

    All processes must enter; those that do not ``keep`` the tensors only help to put them
    together, and keep what they have.
    """
    divided: list[tuple[nn.Module, str, nn.Parameter]] = []
    for module in (module for model in models for module in model.modules()):
        for name, parameter in module._parameters.items():
            if parameter is not None and isinstance(parameter.data, DTensor):
                divided.append((module, name, parameter))
    plain: dict[int, nn.Parameter] = {}  # by parameter, so that tied weights stay tied
    for _, _, parameter in divided:
        if id(parameter) not in plain:
            tensor = whole_tensor(parameter)
            ordinary = nn.Parameter(tensor, parameter.requires_grad) if keep else parameter
            plain[id(parameter)] = ordinary
    for module, name, parameter in divided:
        module._parameters[name] = plain[id(parameter)]
    try:
        yield
    finally:
        for module, name, parameter in divided:
            module._parameters[name] = parameter


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` put together from all processes, who must all ask; as it is if not divided."""
    plain = tensor.detach()
    return plain.full_tensor() if isinstance(plain, DTensor) else plain


def placed_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's share of ``tensor``, divided (and on the device) as ``like`` is.

    All processes hold the same ``tensor``; nothing is sent.
    """
    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    on_device = tensor.to(like.to_local().device)
    return distribute_tensor(on_device, like.device_mesh, like.placements, src_data_rank=None)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> float:
    """L2 norm of all gradients together, the same in every process.

    Norms of single tensors in float32, their sum in float64.
    """
    shares: list[torch.Tensor] = []
    norms: list[torch.Tensor] = []
    mesh = None
    for parameter in parameters:
        grad = parameter.grad
        if isinstance(grad, DTensor):
            mesh = grad.device_mesh
            shares.append(torch.linalg.vector_norm(grad.to_local().float()))
        elif grad is not None:
            norms.append(torch.linalg.vector_norm(grad.float()))
    if mesh is not None:
        squares = (torch.stack(shares).double() ** 2).sum()
        distributed.all_reduce(squares, group=mesh.get_group())
        norms.append(squares.sqrt())
    if not norms:
        return 0.0
    return float(torch.linalg.vector_norm(torch.stack([norm.double() for norm in norms])))


def _parts(model: nn.Module) -> Iterator[FSDPModule]:
    """The modules that are put together as one: blocks, and what is around them."""
    return (module for module in model.modules() if isinstance(module, FSDPModule))
