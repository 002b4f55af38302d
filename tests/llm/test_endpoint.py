"""Nothing is lost, nothing is asked for twice, whatever the server does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from nla_audit.errors import UserError
from nla_audit.llm.cache import AnswerCache
from nla_audit.llm.endpoint import Endpoint, EndpointSettings
from nla_audit.llm.interface import Request
from tests.llm.server import Behaviour, rewritten, serving

FAST = EndpointSettings(concurrency=4, attempts=5, timeout=0.5, first_pause=0.01)
FAULTS = ["429", "500", "503", "hang", "drop", "truncated", "wrong count", "refusal", "comment",
          "cut", "prose"]  # fmt: skip


def _requests(n):
    return [Request("paraphrase", "Paraphrase.", (f"text {i} of harbours", "b")) for i in range(n)]


def _endpoint(url, cache=None, settings=FAST):
    return Endpoint("tiny", url, cache=AnswerCache(cache), settings=settings)


def _right(requests, answers):
    return [answer.lines for answer in answers] == [
        tuple(rewritten(line) for line in request.lines) for request in requests
    ]


def test_every_fault_once_loses_and_duplicates_nothing():
    def fault(text, tries):
        number = int(text.split()[1])
        return FAULTS[number % len(FAULTS)] if tries == 0 else None

    behaviour = Behaviour(fault)
    requests = _requests(22)
    with serving(behaviour) as url, _endpoint(url) as endpoint:
        answers = endpoint.write([*requests, *requests[:5]])
        account = endpoint.account
    assert _right([*requests, *requests[:5]], answers)
    assert set(behaviour.answered.values()) == {1}
    assert len(behaviour.answered) == 22
    assert (account.retries, account.failures, account.requests) == (22, 0, 44)
    # What was paid for and not accepted counts too; a damaged response says no number.
    assert account.input_tokens == 10 * (22 + 2 * 5)
    assert behaviour.most_under_way <= FAST.concurrency


@pytest.mark.parametrize("fault", ["500", "refusal", "wrong count"])
def test_what_never_comes_is_a_counted_failure(fault):
    behaviour = Behaviour(lambda text, tries: fault if text.startswith("text 1 ") else None)
    with serving(behaviour) as url, _endpoint(url) as endpoint:
        answers = endpoint.write(_requests(3))
        assert endpoint.account.failures == 1
    assert answers[1].lines is None
    assert answers[1].reason
    assert answers[0].lines is not None
    assert max(behaviour.tries.values()) == FAST.attempts


def test_retry_after_holds_everybody_back():
    behaviour = Behaviour(
        lambda text, tries: "429" if text.startswith("text 0 ") and not tries else None
    )
    one_by_one = EndpointSettings(concurrency=1, first_pause=0.001)
    with serving(behaviour) as url, _endpoint(url, settings=one_by_one) as endpoint:
        endpoint.write(_requests(2))
    assert behaviour.arrivals[1] - behaviour.arrivals[0] >= 0.29


def test_what_was_answered_is_never_asked_again(tmp_path):
    requests = _requests(6)
    behaviour = Behaviour(lambda text, tries: "500" if text.startswith("text 5 ") else None)
    with serving(behaviour) as url:
        with _endpoint(url, tmp_path / "cache") as endpoint:
            assert endpoint.write(requests)[5].lines is None
        behaviour.fault = lambda text, tries: None
        with _endpoint(url, tmp_path / "cache") as endpoint:
            assert _right(requests, endpoint.write(requests))
            assert (endpoint.account.cached, endpoint.account.requests) == (5, 1)
    assert set(behaviour.answered.values()) == {1}


_CHILD = """
import sys
from pathlib import Path
from tests.llm.test_endpoint import _endpoint, _requests, EndpointSettings
settings = EndpointSettings(concurrency=2)
with _endpoint(sys.argv[1], Path(sys.argv[2]), settings) as endpoint:
    endpoint.write(_requests(40))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_kill_9_and_resume(tmp_path):
    behaviour = Behaviour()
    behaviour.delay = 0.1
    with serving(behaviour) as url:
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, url, str(tmp_path / "cache")], env=dict(os.environ)
        )
        deadline = time.monotonic() + 60
        while sum(behaviour.answered.values()) < 10 and time.monotonic() < deadline:
            time.sleep(0.02)
        child.kill()
        child.wait()
        time.sleep(0.3)
        before = dict(behaviour.answered)
        assert 10 <= len(before) < 40
        behaviour.delay = 0.0
        with _endpoint(url, tmp_path / "cache", EndpointSettings(concurrency=2)) as endpoint:
            assert _right(_requests(40), endpoint.write(_requests(40)))
            kept = endpoint.account.cached
    # At most what was under way when the process died (the limit is 2) is asked for again.
    assert kept >= len(before) - 2
    assert sum(behaviour.answered.values()) <= 42


def test_the_key_is_sent_and_never_shown(monkeypatch, capsys):
    monkeypatch.setenv("NLA_AUDIT_API_KEY", "secret-42")
    behaviour = Behaviour(lambda text, tries: "401")
    with serving(behaviour) as url, _endpoint(url) as endpoint:
        with pytest.raises(UserError, match="status 401") as error:
            endpoint.write(_requests(1))
        shown = str(error.value) + endpoint.account.describe() + endpoint.name
    assert behaviour.keys == {"Bearer secret-42"}
    assert "secret-42" not in shown + "".join(capsys.readouterr())


@pytest.mark.parametrize("url", ["ftp://host/v1", "nothing", "http://me:key@host/v1"])
def test_an_address_that_is_none(url):
    with pytest.raises(UserError):
        Endpoint("m", url)


def test_a_cache_that_is_none(tmp_path):
    (tmp_path / "cache").write_bytes(b"this is no database, " * 100)
    with pytest.raises(UserError, match="cache of answers"):
        AnswerCache(tmp_path / "cache")
