"""Whatever an endpoint sends ends as an answer, as a counted failure, or as one line."""

from __future__ import annotations

import itertools
import json
import sqlite3
import threading
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nla_audit.errors import UserError
from nla_audit.llm import exchange
from nla_audit.llm.address import address_of
from nla_audit.llm.cache import AnswerCache
from nla_audit.llm.client import EndpointSettings
from nla_audit.llm.endpoint import Endpoint
from nla_audit.llm.interface import Request
from nla_audit.llm.names import check_name
from nla_audit.probes.stego.writers import writer_of
from nla_audit.train import labeler
from nla_audit.train.labeler import cached, labeler_of
from nla_audit.train.recipe_data import Labeler
from tests.llm.raw_server import completion, http, raw_server

LINE = "The text is a dry legal notice about a boat"
GOOD = completion(json.dumps({"lines": ["A dry legal notice on a boat is the text"]}))
REQUEST = Request("paraphrase", "", (LINE,))


def _settings(**changes):
    plain = {"attempts": 2, "first_pause": 0.001, "longest_pause": 0.001, "timeout": 20.0}
    return EndpointSettings(**{**plain, **changes})


def _ask(answering, **changes):
    with (
        raw_server(answering) as url,
        Endpoint("m", url, cache=AnswerCache(None), settings=_settings(**changes)) as endpoint,
    ):
        (answer,) = endpoint.write([REQUEST])
        return answer, endpoint.account


def _bomb(wbits):
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return packer.compress(bytes(64 << 20)) + packer.flush()


BOMBS = {"gzip": _bomb(31), "deflate": _bomb(15)}
ENDLESS_HEAD = b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n"
CHUNK = b"10000\r\n" + b"x" * 65536 + b"\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: itertools.chain([ENDLESS_HEAD], itertools.repeat(b"x" * 65536)),
        lambda _: itertools.chain(
            [ENDLESS_HEAD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")],
            itertools.repeat(CHUNK),
        ),
        lambda _: [http(BOMBS["gzip"], 200, "Content-Encoding: gzip")],
        lambda _: [http(BOMBS["deflate"], 200, "Content-Encoding: deflate")],
        lambda _: itertools.chain([ENDLESS_HEAD.replace(b"200", b"400")], itertools.repeat(CHUNK)),
    ],
    ids=["no end", "no end in chunks", "gzip", "deflate", "no end to a refusal"],
)
def test_a_body_without_bound_is_left_alone_soon(answer, monkeypatch):
    monkeypatch.setattr(exchange, "MOST_BYTES", 1 << 20)
    tracemalloc.start()
    try:
        # Nobody who sends that has answered: it is told at once.
        with pytest.raises(UserError, match=r"a response of more than 1 MiB, 2 times"):
            _ask(answer)
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()


def test_a_body_that_drips_ends_in_time():
    def drip(_):
        yield ENDLESS_HEAD
        while True:
            time.sleep(0.05)
            yield b" "

    began = time.monotonic()
    with pytest.raises(UserError, match=r"no end after 0.3 s, 2 times"):
        _ask(drip, longest=0.3)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "body",
    [
        completion('{"lines": ["x"], "n": ' + "9" * 5000 + "}"),
        b'{"choices": ' + b"9" * 5000 + b"}",
        completion('{"lines": ' + "[" * 100_000),
        b"[" * 100_000,
        b"\xff\xfe{{",
        b"null",
        b'{"choices": "abc", "usage": [1]}',
        b'{"choices": [{"message": {"content": ["x"]}, "finish_reason": {"a": 1}}]}',
        completion(json.dumps({"lines": [LINE + " \ud800"]})),
        completion(json.dumps({"lines": ["x" * 3_000_000]})),
        completion("<" * 3_000_000),
    ],
)
def test_an_answer_that_is_none_is_a_counted_failure(body):
    began = time.monotonic()
    answer, account = _ask(lambda _: [http(body)])
    assert answer.lines is None
    assert answer.reason
    assert account.requests == 2
    assert time.monotonic() - began < 5


def _head(*headers, status="200 X"):
    return "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *headers, "", ""]).encode()


CHUNKED = _head("Transfer-Encoding: chunked")
#: name → what is sent: streams that end too early, and responses that break the protocol.
ODD = {
    "nothing": b"",
    "half a status line": b"HTTP/1.",
    "half a head": b"HTTP/1.1 200 X\r\nContent-Le",
    "a body alone": GOOD,
    "shorter than it says": _head(f"Content-Length: {len(GOOD) + 9}") + GOOD,
    "two lengths": _head("Content-Length: 5", "Content-Length: 6") + GOOD,
    "a length of no number": _head("Content-Length: many") + GOOD[:-9],
    "a negative length": _head("Content-Length: -7") + GOOD[:-9],
    "a status of no number": _head(status="OK") + GOOD,
    "a status of four digits": _head(status="2000 X") + GOOD,
    "a switch of protocols": _head("Upgrade: h2c", status="101 X"),
    "a part of the content": _head(f"Content-Length: {len(GOOD)}", status="206 X") + GOOD,
    "a chunk cut short": CHUNKED + b"ff\r\n" + GOOD[:9],
    "no last chunk": CHUNKED + f"{len(GOOD):x}\r\n".encode() + GOOD + b"\r\n",
    "a chunk of no size": CHUNKED + b"ZZ\r\n" + GOOD,
    "a negative chunk": CHUNKED + b"-5\r\n" + GOOD[:-9],
    "an enormous chunk": CHUNKED + b"f" * 5000 + b"\r\n" + GOOD[:-9],
    "half of a gzip": http(zlib.compress(GOOD)[:9], 200, "Content-Encoding: gzip"),
    "no gzip": http(GOOD, 200, "Content-Encoding: gzip"),
    "many heads": _head(*(f"X-{n}: a" for n in range(200))) + GOOD,
    "a long head": _head("X: " + "a" * 100_000) + GOOD,
    "a head of no text": _head("X: \u0080\u0001", "Y") + GOOD[:-9],
    "events": http(b"data: " + GOOD + b"\n\ndata: [DONE]\n\n"),
    "half a surrogate pair": http(completion("a boat \ud800")),
    "parts of a message": http(completion([{"type": "text", "text": "a boat"}])),
    "no message": http(b'{"choices": [{"text": "a boat"}]}'),
    "an error with status 200": http(b'{"error": {"message": "overloaded"}}'),
    "odd times to wait": http(b"", 503, "Retry-After: Mon, 99 Foo 2024 99:99:99 +999999999999"),
}


@pytest.mark.parametrize("who", ["writer", "labeler"])
@pytest.mark.parametrize("name", ODD)
def test_what_breaks_off_or_breaks_the_protocol_is_one_line(name, who, tmp_path, monkeypatch):
    def hurried(**settings):
        return _settings(**{**settings, "attempts": 2})

    def ask(url):
        if who == "labeler":
            label = labeler_of(Labeler(model="m", base_url=url))
            return cached(label, Labeler(model="m", base_url=url), tmp_path)("x")
        with Endpoint("m", url, cache=AnswerCache(None), settings=_settings()) as endpoint:
            return endpoint.write([REQUEST])[0].reason

    monkeypatch.setattr(labeler, "EndpointSettings", hurried)
    with raw_server(lambda _: [ODD[name]]) as url:
        try:
            said = ask(url)
            assert who == "writer"
        except UserError as error:
            said = str(error)
    assert said
    assert said.isprintable()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_negative_chunk_is_not_followed_without_end(monkeypatch):
    monkeypatch.setattr(exchange, "MOST_BYTES", 1 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"no answer \(ProtocolError\), 2 times"):
            _ask(lambda _: itertools.chain([CHUNKED, b"-1\r\n"], itertools.repeat(CHUNK, 2000)))
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("number", [10**400, -5, 1e400, True, "7", None, 10**4000])
def test_what_an_answer_says_it_cost_cannot_break_the_account(number):
    usage = {"prompt_tokens": number, "completion_tokens": number}
    body = GOOD.replace(b"null", json.dumps(usage).encode())
    answer, account = _ask(lambda _: [http(body)])
    assert answer.lines is not None
    assert account.output_tokens in (0, 1)


@pytest.mark.parametrize(
    ("setting", "value", "reason", "option"),
    [
        ("max_tokens", 2048, "Unsupported parameter: 'max_tokens'", "--token-limit-name"),
        ("max_tokens", 2048, "max_tokens is too large: 2048", "--token-limit-name"),
        ("temperature", 0.0, "'temperature' does not support 0.0", "--temperature"),
        ("temperature", 0.0, "Temperature must be above 0", "--temperature"),
        ("model", "m", "no such model", "model's name"),
    ],
)
@pytest.mark.parametrize("shape", ["openai", "flat", "text"])
def test_a_refusal_is_told_in_the_servers_words(setting, value, reason, option, shape):
    shapes = {
        "openai": json.dumps({"error": {"message": reason, "type": "invalid_request_error"}}),
        "flat": json.dumps({"error": reason}),
        "text": f"<html><b>{reason}</b>\n</html>",
    }

    def answer(asked):
        return [http(shapes[shape].encode(), 400) if asked.get(setting) == value else http(GOOD)]

    with pytest.raises(UserError) as error:
        _ask(answer)
    assert reason in str(error.value)
    assert option in str(error.value)
    assert "\n" not in str(error.value)
    changes = {
        "max_tokens": {"token_limit_name": "max_completion_tokens"},
        "temperature": {"temperature": None},
    }.get(setting)
    if changes is not None:
        assert _ask(answer, **changes)[0].lines is not None


def test_a_refusal_that_repeats_the_key_does_not_show_it(monkeypatch):
    monkeypatch.setenv("NLA_AUDIT_API_KEY", "sk-SECRET-123")
    with pytest.raises(UserError, match=r"status 401 .*bad key …") as error:
        _ask(lambda _: [http(b'{"error": "bad key sk-SECRET-123"}', 401)])
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://host/v1?key=SECRET",
        "https://host/v1/chat/completions?api-version=1&k=SECRET",
        "http://host/v1#SECRET",
        "http://SECRET@host/v1",
        "http://me:SECRET@host/v1",
        "http://me:SECR?ET@host/v1",
    ],
)
def test_a_key_in_the_address_is_refused_and_not_shown(url, tmp_path):
    cache = tmp_path / "cache.db"
    for refused in (
        lambda: address_of(url),
        lambda: check_name(f"openai:m@{url}"),
        lambda: writer_of(f"openai:m@{url}", cache=cache),
    ):
        with pytest.raises(UserError, match="NLA_AUDIT_API_KEY") as error:
            refused()
        assert "SECR" not in str(error.value)
    assert not cache.exists()
    with pytest.raises(ValueError, match="NLA_AUDIT_API_KEY"):
        Labeler(model="m", base_url=url)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_nobody_follows_a_redirect_with_the_key(status, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    followed = threading.Event()

    def elsewhere(_):
        followed.set()
        return [http(GOOD)]

    with raw_server(elsewhere) as other:
        where = f"Location: {other}/chat/completions"
        with pytest.raises(UserError, match=f"status {status}"):
            _ask(lambda _: [http(b"", status, where)])
        with (
            raw_server(lambda _: [http(b"", status, where)]) as url,
            pytest.raises(UserError, match=f"status {status}"),
        ):
            labeler_of(Labeler(model="m", base_url=url))("x")
    assert not followed.is_set()


def test_a_labeler_sends_what_its_recipe_says():
    asked = []

    def answer(body):
        asked.append(body)
        return [http(completion("a cut explanation"))]

    with raw_server(answer) as url:
        labeler_of(Labeler(model="m", base_url=url))("x")
        labeler_of(
            Labeler(
                model="m",
                base_url=url,
                max_new_tokens=9,
                temperature=1.0,
                token_limit_name="max_completion_tokens",
            )
        )("x")
    assert "temperature" not in asked[0]
    assert "max_tokens" not in asked[1]
    assert (asked[1]["max_completion_tokens"], asked[1]["temperature"]) == (9, 1.0)


OTHER_SCHEMAS = [
    "CREATE TABLE answers (id INTEGER, text TEXT)",
    "CREATE TABLE answers (key TEXT PRIMARY KEY, lines TEXT, cost REAL NOT NULL)",
    "CREATE VIEW answers AS SELECT 1 AS key, 2 AS lines",
]


@pytest.mark.parametrize("schema", OTHER_SCHEMAS)
def test_a_cache_of_another_schema_is_named(schema, tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as database:
        database.execute(schema)
    with pytest.raises(UserError, match=r"other\.db: cannot be used as a cache"):
        AnswerCache(path).put("k", ["x"])


def test_a_cut_cache_is_named(tmp_path):
    path = tmp_path / "cut.db"
    cache = AnswerCache(path)
    for number in range(120):
        cache.put(str(number), ["x" * 100])
    cache.close()
    path.write_bytes(path.read_bytes()[:9000])

    def read_all():
        again = AnswerCache(path)
        return [again.get(str(number)) for number in range(120)]

    with pytest.raises(UserError, match=r"cut\.db: cannot be used as a cache"):
        read_all()


@pytest.mark.parametrize(
    "kept",
    [
        "[1, 2]",
        "{",
        "null",
        '"x"',
        "9" * 5000,
        "[" * 100_000,
        "[]",
        '["a", "b"]',
        b"\xff\xfe",
        7,
        json.dumps(["I'm sorry, I cannot help with that."]),
    ],
)
def test_a_kept_answer_that_is_none_is_asked_again(kept, tmp_path):
    path = tmp_path / "cache.db"

    def once(url):
        with Endpoint("m", url, cache=AnswerCache(path), settings=_settings()) as endpoint:
            return endpoint.write([REQUEST])[0].lines, endpoint.account.requests

    with raw_server(lambda _: [http(GOOD)]) as url:
        good = once(url)
        assert good[1] == 1
        assert once(url) == (good[0], 0)
        with sqlite3.connect(path) as database:
            database.execute("UPDATE answers SET lines = ?", (kept,))
        assert once(url) == good
        assert once(url) == (good[0], 0)


def _texts():
    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
    content = st.one_of(
        st.text(),
        json_values.map(json.dumps),
        st.fixed_dictionaries({"lines": json_values}).map(json.dumps),
        st.lists(st.text(), min_size=1, max_size=1).map(lambda lines: json.dumps({"lines": lines})),
    )
    message = st.fixed_dictionaries({"message": st.fixed_dictionaries({"content": content})})
    bodies = st.one_of(
        st.binary(),
        json_values.map(json.dumps).map(str.encode),
        st.builds(completion, content | json_values, json_values),
        st.fixed_dictionaries({"choices": st.lists(json_values | message), "usage": json_values})
        .map(json.dumps)
        .map(str.encode),
    )
    statuses = st.sampled_from([200, 200, 200, 204, 301, 400, 401, 404, 429, 500])
    packings = st.sampled_from([(), ("Content-Encoding: gzip",), ("Content-Encoding: br",)])
    return st.one_of(
        st.builds(
            lambda body, status, packing: http(body, status, *packing), bodies, statuses, packings
        ),
        st.binary(),
    )


@settings(max_examples=40, deadline=None, database=None)
@given(raw=_texts())
def test_any_answer_is_a_result_or_one_line(served, raw):
    url, sends = served
    sends[:] = [raw]
    with Endpoint("m", url, cache=AnswerCache(None), settings=_settings()) as endpoint:
        try:
            (answer,) = endpoint.write([REQUEST])
        except UserError as error:
            told = str(error)
        else:
            told = answer.reason or ""
            assert (answer.lines is None) == bool(told)
            assert answer.lines is None or len(answer.lines) == 1
    assert told.isprintable()


@pytest.fixture(scope="module")
def served():
    sends: list[bytes] = []
    with raw_server(lambda _: list(sends)) as url:
        yield url, sends
