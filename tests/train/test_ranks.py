"""Two processes take the step that one would have taken."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
from safetensors.torch import load_file

from nla_audit.errors import UserError
from nla_audit.train.interruption import StopSignal
from nla_audit.train.ranks import Ranks
from nla_audit.train.state import STATE_FILE
from tests.train.test_resume import SETTINGS, make_run, without_times

#: Two activations a process, and a cap that not every response keeps to, so that the processes
#: differ in how many explanations they read.
SHARED = SETTINGS.model_copy(update={"prompts": 4, "steps": 3, "max_new_tokens": 9})


def close(first, second):
    """Equal but for rounding, at every depth."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(close(first[k], second[k]) for k in first)
    if isinstance(first, float) and isinstance(second, float):
        return abs(first - second) <= 1e-5 * max(1.0, abs(first))
    return first == second


@pytest.mark.parametrize("how", ["sample", "batch"])
def test_two_gloo_processes_give_the_single_process_result(warm, tmp_path, how):
    # Fails with: gradients averaged instead of summed; weights of a rank's own share; the AR's
    # gradient not weighted by how many explanations each process read.
    settings = SHARED.model_copy(update={"length_normalization": how})
    make_run(warm, tmp_path / "one", settings).run(StopSignal(), lambda _: None)

    def work(rank):
        ranks = Ranks.join(rank, 2, f"file://{tmp_path}/meeting")
        run = make_run(warm, tmp_path / "two", settings, ranks=ranks)
        run.run(StopSignal(), lambda _: None)

    context = multiprocessing.get_context("fork")
    children = [context.Process(target=work, args=(rank,)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(timeout=120)
    assert [child.exitcode for child in children] == [0, 0]
    one, two = without_times(tmp_path / "one"), without_times(tmp_path / "two")
    assert len(one) == len(two) == 3 + 3
    assert any(0 < record["extracted"] < 1 for record in one if record["kind"] == "step")
    for ours, theirs in zip(two, one, strict=True):
        assert close(ours, theirs), (ours, theirs)
    weights, wanted = (load_file(tmp_path / name / STATE_FILE) for name in ("two", "one"))
    for name in wanted:
        np.testing.assert_allclose(weights[name], wanted[name], atol=1e-5, err_msg=name)


def test_prompts_must_be_shared_out_evenly(warm, tmp_path):
    with pytest.raises(UserError, match=r"rl\.prompts 3 cannot be shared by 2 processes"):
        make_run(warm, tmp_path, ranks=Ranks(0, 2))


def test_every_row_is_someones():
    parts = [Ranks(rank, 3).share(12) for rank in range(3)]
    assert sorted(place for part in parts for place in range(12)[part]) == list(range(12))
