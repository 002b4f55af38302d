"""The options of every command whose work a Ray cluster can do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from nla_audit.runs.pool import Pool
    from nla_audit.runs.ray_crew import RaySettings


def ray_parameters() -> list[click.Parameter]:
    """Fresh options that say which cluster works, and what its workers get."""
    return [
        click.Option(
            ["--ray"],
            metavar="ADDRESS",
            help="Have a Ray cluster do the work: HOST:PORT of its head, or local. Results are "
            "those of one process; a node may die. (pip install 'nla-audit[ray]')",
        ),
        click.Option(
            ["--ray-workers"],
            type=click.IntRange(min=1),
            metavar="N",
            help="Processes that each hold a model.  [default: as many as there is room for]",
        ),
        click.Option(
            ["--ray-cpus"],
            type=click.IntRange(min=1),
            metavar="N",
            help="CPUs of each worker.  [default: 1 beside a GPU, else all of the smallest node]",
        ),
        click.Option(
            ["--ray-gpus"],
            type=click.FloatRange(min=0),
            metavar="N",
            help="GPUs of each worker.  [default: 1 where there are any]",
        ),
    ]


@contextmanager
def pool_of(arguments: Mapping[str, Any]) -> Iterator[Pool | None]:
    """The workers that ``arguments`` ask for while the block runs; ``None`` without ``--ray``.

    Raises:
        UserError: they cannot be had, or nothing asks for a cluster that others are told of.
    """
    settings = ray_settings(arguments)
    if settings is None:
        yield None
        return
    from nla_audit.runs.ray_crew import ray_pool

    with ray_pool(settings) as pool:
        yield pool


def ray_settings(arguments: Mapping[str, Any]) -> RaySettings | None:
    """The cluster that ``arguments`` ask for, if they do.

    Raises:
        UserError: nothing asks for a cluster that others are told of.
    """
    if arguments["ray"] is None:
        _refuse_orphans(arguments)
        return None
    from nla_audit.runs.ray_crew import RaySettings  # torch: keeps --help fast

    return RaySettings(
        arguments["ray"],
        workers=arguments["ray_workers"],
        cpus=arguments["ray_cpus"],
        gpus=arguments["ray_gpus"],
        device=arguments.get("device"),
    )


def _refuse_orphans(arguments: Mapping[str, Any]) -> None:
    from nla_audit.errors import UserError

    for name in ("ray_workers", "ray_cpus", "ray_gpus"):
        if arguments[name] is not None:
            raise UserError(f"--{name.replace('_', '-')} needs --ray ADDRESS as well")
