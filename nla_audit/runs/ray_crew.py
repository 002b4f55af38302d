"""Workers on a Ray cluster: one actor each, which holds a model and works with it.

An actor that dies, or whose node does, is not restarted by Ray: :mod:`nla_audit.runs.pool` gives
its work to another, so that nothing depends on what Ray does about it.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch

from nla_audit.errors import UserError, first_line
from nla_audit.runs.pool import Pool, WorkerLost
from nla_audit.runs.remote import Holder
from nla_audit.wording import count

#: The address that starts a cluster of this machine alone, which ends with the run.
LOCAL = "local"
#: Seconds that the head of a cluster has to answer; Ray itself would wait for minutes.
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class RaySettings:
    """Where the workers are, and what each gets.

    Attributes:
        address: ``HOST:PORT`` of a cluster's head, or :data:`LOCAL`.
        workers: how many; ``None``: as many as the cluster has room for.
        cpus: CPUs, and threads of torch, of each; ``None``: 1 beside a GPU, otherwise those of
            the smallest node, so that weights lie in its memory once.
        gpus: of each; ``None``: 1 where the cluster has GPUs and ``device`` may be one.
        device: that the models are to go to, as for
            :class:`~nla_audit.checkpoint.load.Placement`.
    """

    address: str
    workers: int | None = None
    cpus: int | None = None
    gpus: float | None = None
    device: str | None = None


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that is connected to.

    Attributes:
        ray: the module.
        cpus, gpus: of each worker.
        workers: how many.
    """

    ray: Any
    cpus: float
    gpus: float
    workers: int

    def needs(self) -> str:
        """What each worker needs, in words."""
        return _in_words(self.cpus, self.gpus)

    def free(self) -> str:
        """How much of that the cluster has free now, and has at all, in words."""
        has, free = self.ray.cluster_resources(), self.ray.available_resources()
        kinds = [kind for kind, needed in (("CPU", self.cpus), ("GPU", self.gpus)) if needed]
        return " and ".join(
            f"{free.get(kind, 0):g} of {has.get(kind, 0):g} {kind}s" for kind in kinds
        )


def check_there(settings: RaySettings) -> None:
    """Refuse a cluster that cannot be had, before hours of other work.

    Raises:
        UserError: Ray is not installed, or nobody answers at the address.
    """
    _ray()
    if settings.address != LOCAL:
        _check_answers(settings.address)


@contextmanager
def ray_cluster(settings: RaySettings) -> Iterator[Cluster]:
    """A connection for as long as the block runs.

    Raises:
        UserError: Ray is not installed, nobody answers at the address, or no node has what a
            worker is to get.
    """
    ray = _ray()
    _connect(ray, settings.address)
    # Ray prints the logs of dead nodes on standard output, which belongs to results.
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        try:
            cpus, gpus, room = _shares(ray, settings)
            yield Cluster(ray, cpus, gpus, settings.workers or room)
        finally:
            ray.shutdown()


@contextmanager
def ray_pool(settings: RaySettings) -> Iterator[Pool]:
    """Workers for as long as the block runs; raises as :func:`ray_cluster`."""
    with ray_cluster(settings) as cluster:
        pool = Pool(_RayCrew(cluster), cluster.workers)
        try:
            yield pool
        finally:
            pool.close()


def _ray() -> Any:
    # Before Ray is imported, which reads it then: it reports to its makers unless told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Or Ray would hide the GPUs of a worker that asked for none, and say that it will change that.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise UserError("--ray needs Ray: pip install 'nla-audit[ray]'") from None
    return ray


def _connect(ray: Any, address: str) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        ray.init(address=LOCAL, include_dashboard=False, **options)
        return
    _check_answers(address)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"--ray {address}: {first_line(error)}: give the address of the head of a cluster that "
            "this machine belongs to"
        ) from None


def _check_answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()) or "/" in host:
        raise UserError(
            f"--ray {address}: give HOST:PORT of a cluster's head, from one of its machines, or "
            f"{LOCAL}"
        )
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--ray {address}: nobody answers there ({error}): check the address, or start "
            "Ray with `ray start --head`"
        ) from None


def _shares(ray: Any, settings: RaySettings) -> tuple[float, float, int]:
    """CPUs and GPUs of a worker, and how many workers there is room for."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    has_gpus = any(node.get("GPU", 0) for node in nodes)
    may_be_gpu = settings.device is None or settings.device.startswith("cuda")
    gpus = settings.gpus
    if gpus is None:
        gpus = float(has_gpus and may_be_gpu)
    with_cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    cpus = settings.cpus or (1 if gpus or not with_cpus else min(with_cpus))
    room = sum(
        int(min(node.get("CPU", 0) / cpus, node.get("GPU", 0) / gpus if gpus else float("inf")))
        for node in nodes
    )
    if room == 0:
        raise UserError(
            f"--ray {settings.address}: no node has {_in_words(cpus, gpus)}, which a worker is to "
            "get: ask for less with --ray-cpus or --ray-gpus"
        )
    return cpus, gpus, room


def _in_words(cpus: float, gpus: float) -> str:
    return count(int(cpus), "CPU") + (f" and {gpus:g} GPU" if gpus else "")


class _RayCrew:
    """:class:`~nla_audit.runs.pool.Crew` of actors."""

    def __init__(self, cluster: Cluster) -> None:
        self._ray, self._cluster = cluster.ray, cluster
        self._actor = cluster.ray.remote(_Actor).options(
            num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_restarts=0, max_task_retries=0
        )

    def start(self) -> tuple[Any, Any]:
        actor = self._actor.remote(int(self._cluster.cpus))
        return actor, actor.ready.remote()

    def submit(self, worker: Any, payload: Any) -> Any:
        return worker.answer.remote(*payload)

    def finished(self, tickets: Sequence[Any], seconds: float) -> Sequence[Any]:
        done, _ = self._ray.wait(list(tickets), num_returns=1, timeout=seconds)
        return done

    def result(self, ticket: Any) -> Any:
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(ticket)
        except exceptions.RayTaskError:
            raise  # a bug in what ran there, with its traceback
        except exceptions.RayError as error:
            raise WorkerLost(why_lost(error)) from None

    def stop(self, worker: Any) -> None:
        self._ray.kill(worker)

    def needs(self) -> str:
        return self._cluster.needs()


class _Actor(Holder):
    """A :class:`~nla_audit.runs.remote.Holder` that says when it is there."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        torch.set_grad_enabled(False)

    def ready(self) -> None:
        """Nothing: to be asked is enough."""


def why_lost(error: BaseException) -> str:
    """What Ray says of a death, in a few words."""
    text = str(error)
    known = {
        "OUT_OF_MEMORY": "a worker was killed because its node ran out of memory",
        "running low on memory": "a worker was killed because its node ran out of memory",
        "its node has died": "the node of a worker died",
        "No module named": f"a worker cannot load nla-audit: {first_line(error)[:200]}",
        # Ray cannot tell who it was, and lists what it may have been.
        "OOM killer": "a worker was killed, perhaps for want of memory",
    }
    return next((said for sign, said in known.items() if sign in text), "a worker or its node died")
