"""Workers of a run that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

PARENT = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from nla_audit.train.interruption import begin_worker

def work():
    print(os.getpid(), flush=True)
    time.sleep(120)

if __name__ == "__main__":
    context = get_context("spawn")
    with ProcessPoolExecutor(
        1, mp_context=context, initializer=begin_worker, initargs=(context.Event(),)
    ) as pool:
        pool.submit(work).result()
"""


@pytest.mark.skipif(os.name == "nt", reason="no kill -9")
def test_a_worker_ends_with_the_parent_that_was_killed(tmp_path):
    # Fails with: no thread that waits for the parent in begin_worker.
    script = tmp_path / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    os.kill(worker, 0)  # it lives
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(200):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its parent")
