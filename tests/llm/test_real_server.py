"""``transformers serve``, a real OpenAI-compatible server, behind a proxy that fails.

The models are made on the spot: one whose answers are known (:mod:`tests.llm.chat_model`) and one
with random weights, whose rubbish the checks have to catch.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import urllib3

from nla_audit import cli
from nla_audit.llm.client import EndpointSettings
from nla_audit.llm.endpoint import Endpoint
from nla_audit.llm.interface import Request
from tests.llm.chat_model import save_answering_model, save_rubbish_model
from tests.llm.proxy import FAULTS, FaultyProxy, proxying
from tests.pairs import planted_pair

_MISSING = [
    name for name in ("fastapi", "uvicorn", "openai") if importlib.util.find_spec(name) is None
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(_MISSING),
        reason=f"{', '.join(_MISSING)} missing: pip install 'transformers[serving]'",
    ),
]

#: A text holds one of these, which chooses the answer; every third text has two lines.
NAMES = [f"Quay{number:02}" for number in range(36)]
SETTINGS = EndpointSettings(concurrency=3, attempts=4, timeout=60.0, first_pause=0.01)
#: Long enough for any answer of the model, once it is loaded; what takes longer is a fault.
TIME_OUT = 8.0


def _is_short(name: str) -> bool:
    return NAMES.index(name) % 3 > 0


def _text(name: str) -> tuple[str, ...]:
    first = f"Likely begins with a report on {name} in the morning and its ships"
    return (first,) if _is_short(name) else (first, "then a list of cold places")


def _answer(name: str) -> tuple[str, ...]:
    first = f"Presumably opens by reporting of ships at {_renamed(name)} at daybreak"
    return (first,) if _is_short(name) else (first, "cold places in a list after that")


def _renamed(name: str) -> str:
    return name.replace("Quay", "Pier")


def _planned_answers() -> dict[str, tuple[str, ...]]:
    """By keyword, to the texts and to the answers themselves (for what is translated back)."""
    planned = {}
    for name in NAMES:
        planned[name] = _answer(name)
        planned[_renamed(name)] = ("It may open with news of ships at dawn", *_answer(name)[1:])
    return planned


def _requests(names: list[str]) -> list[Request]:
    return [Request("paraphrase", "Paraphrase the text.", _text(name)) for name in names]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``answering`` and ``rubbish``."""
    root = tmp_path_factory.mktemp("models")
    save_answering_model(root / "answering", _planned_answers())
    save_rubbish_model(root / "rubbish")
    return root


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[str]:
    """The base address of a running ``transformers serve``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "transformers.cli.transformers",
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    log = models / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + 120
        while not _is_up(port):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, "transformers serve does not start"
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_up(port: int) -> bool:
    try:
        answer = urllib3.request(
            "GET", f"http://127.0.0.1:{port}/health", retries=False, timeout=2.0
        )
    except urllib3.exceptions.HTTPError:
        return False
    return answer.status == 200


def test_its_answers_are_read(server: str, models: Path) -> None:
    with Endpoint(str(models / "answering"), server, settings=SETTINGS) as endpoint:
        answers = endpoint.write(_requests(NAMES[:6]))
        account = endpoint.account
    assert [answer.lines for answer in answers] == [_answer(name) for name in NAMES[:6]]
    assert (account.requests, account.retries, account.failures) == (6, 0, 0)
    # An answer of this model is one token and an end; the prompt is the server's to count.
    assert account.output_tokens in (6, 12)
    assert account.input_tokens > 6 * 100


def test_rubbish_and_refusals_are_counted_failures(server: str, models: Path) -> None:
    settings = EndpointSettings(concurrency=2, attempts=2, first_pause=0.01, max_tokens=24)
    with Endpoint(str(models / "rubbish"), server, settings=settings) as endpoint:
        answers = endpoint.write(_requests(NAMES[:4]))
        assert [answer.lines for answer in answers] == [None] * 4
        assert (endpoint.account.failures, endpoint.account.requests) == (4, 8)
    unknown = Request("paraphrase", "Paraphrase the text.", ("a text that it has no answer to",))
    with Endpoint(str(models / "answering"), server, settings=settings) as endpoint:
        (answer,) = endpoint.write([unknown])
    assert answer.reason == "a refusal or a comment"


def test_every_fault_in_front_of_it_is_got_over(server: str, models: Path) -> None:
    def fault(number: int, tries: int) -> str | None:
        return FAULTS[number] if tries == 0 and number < len(FAULTS) else None

    proxy = FaultyProxy(server, fault, time_out=TIME_OUT + 0.5)
    requests = _requests(NAMES)
    with (
        proxying(proxy) as address,
        Endpoint(
            str(models / "answering"), address, settings=replace(SETTINGS, timeout=TIME_OUT)
        ) as endpoint,
    ):
        answers = endpoint.write([*requests, *requests[:3]])
        account = endpoint.account
    expected = [_answer(name) for name in NAMES]
    assert [answer.lines for answer in answers] == [*expected, *expected[:3]]
    assert proxy.faults == dict.fromkeys(FAULTS, 1)
    assert list(proxy.delivered.values()) == [1] * len(NAMES)
    assert proxy.tries.total() == account.requests == len(NAMES) + len(FAULTS)
    assert account.failures == 0


SPOILING = ("500", "truncated JSON", "dropped in mid-body", "502", "one line less")
SHORT = [name for name in NAMES if _is_short(name)]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planted AR, its activations, and one explanation of one line for each."""
    root = tmp_path_factory.mktemp("study")
    generator = np.random.default_rng(0)
    texts = ["".join(_text(name)) for name in SHORT]
    vectors = []
    for _ in texts:
        weights = np.zeros(len(planted_pair.KEYWORDS))
        weights[generator.permutation(len(weights))[:3]] = 1
        vectors.append(planted_pair.activation(weights))
    rows = [
        {"model": "p0.0", "idx": idx, "explanation": text, "extracted": True}
        for idx, text in enumerate(texts)
    ]
    planted_pair.save_study(root, rows, vectors)
    return root


def _stego(study: Path, writer: str, cache: Path, scores: Path) -> list[str]:
    return [
        "stego",
        "--ar",
        str(study / "ar"),
        "--completions",
        str(study / "texts.parquet"),
        "--activations",
        str(study / "activations.parquet"),
        "--paraphraser",
        writer,
        "--cache",
        str(cache),
        "--keep-scores",
        str(scores),
        "--json",
    ]


def test_the_probe_killed_and_resumed(
    server: str, models: Path, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``nla-audit stego`` over the server, killed half-way; nothing answered is asked again."""
    spoil = dict(zip(range(3, 18, 3), SPOILING, strict=True))
    proxy = FaultyProxy(server, lambda number, tries: spoil.get(number) if tries == 0 else None)
    # So early that there are requests left for each worker to wait with.
    proxy.stalls_after = 8
    with proxying(proxy) as address:
        arguments = _stego(
            study,
            f"openai:{models / 'answering'}@{address}",
            tmp_path / "cache",
            tmp_path / "scores.parquet",
        )
        child = subprocess.Popen([sys.executable, "-m", "nla_audit.cli", *arguments])
        try:
            # All of its workers wait for an answer: whatever was delivered has been kept.
            proxy.wait_for_stall(EndpointSettings().concurrency, seconds=90)
        finally:
            child.kill()
            child.wait()
        answered, asked = dict(proxy.delivered), proxy.tries.copy()
        assert 8 <= len(answered) < len(SHORT)
        assert not (tmp_path / "scores.parquet").exists()
        proxy.stalls_after = None
        assert cli.run(arguments) == 0
        finding = json.loads(capsys.readouterr().out)
    assert not set(proxy.tries - asked) & set(answered)
    assert set(proxy.faults) == set(spoil.values())
    # Everything was answered, once: a row without a text would say why.
    assert set(proxy.delivered.values()) == {1}
    assert set(proxy.delivered) == set(proxy.tries)
    scores = pl.read_parquet(tmp_path / "scores.parquet").filter(pl.col("variant") == "paraphrase")
    by_idx = dict(scores.select(pl.col("idx").cast(pl.Int64), "text").iter_rows())
    assert by_idx == {number: _answer(name)[0] for number, name in enumerate(SHORT)}
    (caveat,) = (line for line in finding["caveats"] if line.startswith("Paraphrases by"))
    assert " 0 failed" in caveat
