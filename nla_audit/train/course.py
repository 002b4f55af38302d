"""The stages of a course, from a target to a table of completions."""

from __future__ import annotations

import time
from collections.abc import Callable

from nla_audit.runs.ray_crew import RaySettings
from nla_audit.train.completions_stage import write_completions
from nla_audit.train.layout import Layout
from nla_audit.train.prepare import Tell, make_activations, make_target
from nla_audit.train.ranks import Ranks
from nla_audit.train.rl_stage import reinforce
from nla_audit.train.scheduling import settle_in
from nla_audit.train.warm_start_stage import warm_start

#: Stages that one process runs while any others wait; the audit is run by the command.
RUNNERS: dict[str, Callable[[Layout, Tell], None]] = {
    "target": make_target,
    "activations": make_activations,
    "warm-start": warm_start,
    "completions": write_completions,
}


def run_stage(
    stage: str, layout: Layout, tell: Tell, ranks: Ranks, cluster: RaySettings | None = None
) -> float:
    """Run one stage if it is not done; returns the seconds it took.

    Args:
        cluster: trains the runs of stage ``rl``.
    """
    began = time.perf_counter()
    if stage == "rl":
        reinforce(layout, tell, ranks, cluster)
    elif ranks.is_first:
        settle_in(layout)
        RUNNERS[stage](layout, tell)
    ranks.wait()
    return time.perf_counter() - began
