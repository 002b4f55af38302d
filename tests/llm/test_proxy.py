"""Nothing is lost and nothing asked twice for good, whatever is between us and the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nla_audit.llm.cache import AnswerCache
from nla_audit.llm.client import EndpointSettings
from nla_audit.llm.endpoint import Endpoint
from nla_audit.llm.interface import Request
from tests.llm.proxy import FAULTS, RETRY_AFTER, FaultyProxy, proxying
from tests.llm.server import Behaviour, rewritten, serving

#: Seconds that the client waits: no answer of these servers takes as long, however busy the
#: machine, and a fault takes longer.
TIMEOUT, TIME_OUT = 2.0, 2.3
SETTINGS = EndpointSettings(concurrency=3, attempts=4, timeout=TIMEOUT, first_pause=0.01)
N = 24


def _requests(n: int) -> list[Request]:
    return [Request("paraphrase", "Paraphrase.", (f"text {i} of harbours", "b")) for i in range(n)]


def _right(requests, answers) -> bool:
    return [answer.lines for answer in answers] == [
        tuple(rewritten(line) for line in request.lines) for request in requests
    ]


def test_every_fault_is_got_over():
    def fault(number: int, tries: int) -> str | None:
        return FAULTS[number] if tries == 0 and number < len(FAULTS) else None

    behaviour = Behaviour()
    with serving(behaviour) as url:
        proxy = FaultyProxy(url, fault, time_out=TIME_OUT)
        with proxying(proxy) as address, Endpoint("tiny", address, settings=SETTINGS) as endpoint:
            requests = _requests(N)
            answers = endpoint.write(requests)
            account = endpoint.account
    assert _right(requests, answers)
    assert proxy.faults == dict.fromkeys(FAULTS, 1)
    # Every request was answered once; what was asked again is what failed, no more.
    assert list(proxy.delivered.values()) == [1] * N
    assert proxy.tries.total() == account.requests == N + len(FAULTS)
    assert (account.retries, account.failures) == (len(FAULTS), 0)
    # Answers that came whole and were no answers are paid for: three of the faults.
    assert account.input_tokens == 10 * (N + 3)
    # While a Retry-After runs nobody asks; what was under way when it came may still arrive.
    assert len(proxy.held) == 3
    for told, pause in proxy.held:
        assert pause >= RETRY_AFTER
        assert not [
            at for at in proxy.arrivals if told + RETRY_AFTER / 2 < at < told + pause - 0.01
        ]


@pytest.mark.parametrize(
    "fault", [name for name in FAULTS if "429" not in name and "in s" not in name]
)
def test_what_fails_for_good_is_counted_and_the_rest_is_there(fault):
    behaviour = Behaviour()
    # One after the other, and the last one fails: an address where nobody has answered yet is
    # taken for a wrong one.
    settings = replace(SETTINGS, attempts=2, concurrency=1)
    with serving(behaviour) as url:
        proxy = FaultyProxy(
            url, lambda number, tries: fault if number == 3 else None, time_out=TIME_OUT
        )
        with proxying(proxy) as address, Endpoint("tiny", address, settings=settings) as endpoint:
            answers = endpoint.write(_requests(4))
            account = endpoint.account
    failed = [answer for answer in answers if answer.lines is None]
    assert len(failed) == account.failures == account.reasons.total() == 1
    assert failed[0].reason
    assert len(proxy.delivered) == 3
    assert proxy.tries.total() == account.requests == 3 + settings.attempts


CHILD = """
import sys
from pathlib import Path
from nla_audit.llm.cache import AnswerCache
from nla_audit.llm.client import EndpointSettings
from nla_audit.llm.endpoint import Endpoint
from tests.llm.test_proxy import _requests
settings = EndpointSettings(concurrency=3)
with Endpoint("tiny", sys.argv[1], cache=AnswerCache(Path(sys.argv[2])), settings=settings) as e:
    e.write(_requests(30))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_nothing_that_was_answered_is_asked_again_after_kill_9(tmp_path: Path):
    behaviour = Behaviour()
    with serving(behaviour) as url:
        proxy = FaultyProxy(url)
        proxy.stalls_after = 12
        with proxying(proxy) as address:
            cache = tmp_path / "cache"
            child = subprocess.Popen(
                [sys.executable, "-c", CHILD, address, str(cache)], env=dict(os.environ)
            )
            # All three workers wait for an answer: whatever was delivered has been kept.
            proxy.wait_for_stall(3, seconds=60)
            child.kill()
            child.wait()
            answered = dict(proxy.delivered)
            asked = proxy.tries.copy()
            assert 12 <= len(answered) < 30
            proxy.stalls_after = None
            settings = EndpointSettings(concurrency=3)
            with Endpoint("tiny", address, cache=AnswerCache(cache), settings=settings) as endpoint:
                assert _right(_requests(30), endpoint.write(_requests(30)))
                assert endpoint.account.cached == len(answered)
            again = proxy.tries - asked
    assert not set(again) & set(answered)
    assert again.total() == 30 - len(answered)
    assert list(proxy.delivered.values()) == [1] * 30
