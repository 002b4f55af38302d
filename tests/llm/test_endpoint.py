"""Nothing is lost, nothing is asked for twice, whatever the server does."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest

from nla_audit.errors import UserError
from nla_audit.llm.cache import AnswerCache
from nla_audit.llm.checks import NotAnAnswer
from nla_audit.llm.client import EndpointSettings, TryAgain, retry_after
from nla_audit.llm.endpoint import Endpoint
from nla_audit.llm.interface import Request
from nla_audit.probes.stego.writers import writer_of
from tests.llm.server import Behaviour, rewritten, serving

FAST = EndpointSettings(concurrency=4, attempts=5, timeout=1.5, first_pause=0.01)
FAULTS = [
    "429",
    "500",
    "503",
    "hang",
    "drop",
    "truncated",
    "wrong count",
    "refusal",
    "comment",
    "cut",
    "prose",
]


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


def test_as_many_requests_at_once_as_allowed_and_no_more():
    behaviour = Behaviour()
    behaviour.delay = 0.1
    with serving(behaviour) as url, _endpoint(url) as endpoint:
        endpoint.write(_requests(12))
    assert behaviour.most_under_way == FAST.concurrency


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


def test_a_pause_of_zero_does_not_use_up_all_tries():
    times: list[float] = []

    def fault(text, tries):
        times.append(time.monotonic())
        return "429 at once" if tries < 3 else None

    behaviour = Behaviour(fault)
    settings = EndpointSettings(concurrency=1, attempts=4, first_pause=0.05)
    with serving(behaviour) as url, _endpoint(url, settings=settings) as endpoint:
        assert _right(_requests(1), endpoint.write(_requests(1)))
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert [pause > least for pause, least in zip(pauses, (0.05, 0.1, 0.2), strict=True)] == [
        True
    ] * 3


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        (None, None, None),
        ("", None, None),
        ("soon", None, None),
        ("-3", 0, 0),
        ("1.5", 1.5, 1.5),
        ("nan", 0, 0),
        ("inf", float("inf"), float("inf")),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None, None),
    ],
)
def test_what_retry_after_may_say(value, least, most):
    pause = retry_after({} if value is None else {"Retry-After": value})
    assert (pause is None) if least is None else (least <= pause <= most)


@pytest.mark.parametrize(
    "message",
    [{"content": None}, {"content": None, "refusal": "I cannot"}, {}, "text", {"content": ["a"]}],
)
def test_tokens_are_counted_whatever_the_message_is(message):
    endpoint = Endpoint("tiny", "http://localhost/v1")
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    data = json.dumps({"choices": [{"message": message}], "usage": usage}).encode()
    with pytest.raises((NotAnAnswer, TryAgain)):
        endpoint._client._content(data)
    assert (endpoint.account.input_tokens, endpoint.account.output_tokens) == (7, 3)


def test_what_it_costs_is_told_with_every_try_counted():
    behaviour = Behaviour(lambda text, tries: "refusal" if tries == 0 else None)
    price = (2.0, 6.0)
    with (
        serving(behaviour) as url,
        writer_of(f"openai:tiny@{url}", price_per_million=price) as endpoint,
    ):
        endpoint.write(_requests(3))
        account = endpoint.account
    assert (account.input_tokens, account.output_tokens) == (2 * 3 * 10, 2 * 3 * 5)
    assert account.cost == pytest.approx((60 * 2.0 + 30 * 6.0) / 1e6)
    assert "60 tokens in, 30 out, cost 0.0003" in account.describe()


def test_why_requests_failed_is_told():
    faults = {"0": "refusal", "1": "wrong count", "2": "refusal"}
    behaviour = Behaviour(lambda text, tries: faults.get(text.split()[1]))
    with serving(behaviour) as url, _endpoint(url) as endpoint:
        endpoint.write(_requests(4))
        assert "3 failed (2 a refusal or a comment, 1 n lines for n)" in endpoint.account.describe()


SECRET = "sk-secret-42"


def _holds_the_secret(folder):
    return [
        path.name
        for path in folder.rglob("*")
        if path.is_file() and SECRET.encode() in path.read_bytes()
    ]


@pytest.mark.parametrize("fault", ["401", "500", "drop", "truncated", "refusal", None])
def test_the_key_is_sent_and_never_shown(monkeypatch, capsys, caplog, tmp_path, fault):
    monkeypatch.setenv("NLA_AUDIT_API_KEY", SECRET + "\n")  # as out of a file
    caplog.set_level(logging.DEBUG)
    behaviour = Behaviour(lambda text, tries: fault)
    settings = EndpointSettings(attempts=2, timeout=1.5, first_pause=0.01)
    shown = []
    with serving(behaviour) as url, _endpoint(url, tmp_path / "cache", settings) as endpoint:
        try:
            shown += map(repr, endpoint.write(_requests(2)))
        except UserError as error:
            shown += traceback.format_exception(error)
        shown += [endpoint.account.describe(), endpoint.name, repr(endpoint), repr(vars(endpoint))]
        assert _holds_the_secret(tmp_path) == []
    assert behaviour.keys == {f"Bearer {SECRET}"}
    assert SECRET not in "".join([*shown, *capsys.readouterr(), caplog.text])


@pytest.mark.parametrize("key", [f"{SECRET}\r\nX-Other: 1", f"“{SECRET}”", f"{SECRET}\x00"])
def test_a_key_that_no_header_can_hold_is_not_shown_either(monkeypatch, key):
    monkeypatch.setattr(os, "environ", {**os.environ, "OPENAI_API_KEY": key})
    with (
        _endpoint("http://127.0.0.1:9/v1") as endpoint,
        pytest.raises(UserError, match="OPENAI_API_KEY") as error,
    ):
        endpoint.write(_requests(1))
    assert SECRET not in "".join(traceback.format_exception(error.value))


def test_nobody_at_the_address_is_said_at_once():
    with serving(Behaviour()) as url:
        pass  # closed again
    began = time.monotonic()
    with (
        _endpoint(url) as endpoint,
        pytest.raises(UserError, match=r"no answer .*check the address"),
    ):
        endpoint.write(_requests(500))
    assert endpoint.account.requests <= (FAST.concurrency + 1) * FAST.attempts
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("url", ["ftp://host/v1", "nothing", "http://me:key@host/v1"])
def test_an_address_that_is_none(url):
    with pytest.raises(UserError):
        Endpoint("m", url)


def test_a_cache_that_is_none(tmp_path):
    (tmp_path / "cache").write_bytes(b"this is no database, " * 100)
    with pytest.raises(UserError, match="cache of answers"):
        AnswerCache(tmp_path / "cache")


def test_a_date_to_come_is_how_long_it_is_till_then():
    # Made here and not with the cases above: those are made when tests are collected, and a test
    # may come to its turn many minutes later.
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    pause = retry_after({"Retry-After": later})
    assert pause is not None
    assert 3500 <= pause <= 3600
