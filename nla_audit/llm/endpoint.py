"""Any OpenAI-compatible endpoint: ``openai:MODEL@URL``.

Requests run side by side up to a limit; 408, 429, 5xx, time-outs and dropped connections are tried
again after a pause that grows, or as long as ``Retry-After`` says; so are answers that fail the
checks. What was accepted is in the cache before anything else happens.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import urllib3

from nla_audit.errors import UserError
from nla_audit.llm.cache import AnswerCache, key_of
from nla_audit.llm.checks import NotAnAnswer
from nla_audit.llm.interface import Account, Answer, Closing, Progress, Request, silent
from nla_audit.llm.prompts import messages, parse

#: Variables that may hold the key, the first that is set. It is sent, and never shown.
KEY_VARIABLES = ("NLA_AUDIT_API_KEY", "OPENAI_API_KEY")
_TRY_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


@dataclass(frozen=True)
class EndpointSettings:
    """How to ask.

    Attributes:
        concurrency: requests under way at once.
        attempts: tries of one request, answers that fail the checks included.
        timeout: seconds to connect, and between two bytes.
        first_pause: seconds before the second try; doubled at each.
        longest_pause: seconds, whatever ``Retry-After`` says.
        temperature: sent along.
        max_tokens: most tokens of an answer.
    """

    concurrency: int = 8
    attempts: int = 6
    timeout: float = 120.0
    first_pause: float = 1.0
    longest_pause: float = 120.0
    temperature: float = 0.0
    max_tokens: int = 2048


class _TryAgain(Exception):
    """A failure that may pass; ``pause`` is what the server asked for, in seconds."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class Endpoint(Closing):
    """A :class:`~nla_audit.llm.interface.Paraphraser` behind HTTP.

    Args:
        model: name of the model there.
        url: base address, with or without ``/chat/completions``.
        cache: of answers.
        settings: how to ask.
        account: where costs are counted.

    Raises:
        UserError: the address is none.
    """

    def __init__(
        self,
        model: str,
        url: str,
        *,
        cache: AnswerCache | None = None,
        settings: EndpointSettings | None = None,
        account: Account | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"{url}: no http address: write openai:MODEL@http://host:port/v1")
        if parts.username or parts.password:
            raise UserError(f"put the key into {KEY_VARIABLES[0]}, not into the address")
        self.name = f"openai:{model}"
        self.account = account or Account()
        self._model = model
        base = url.rstrip("/")
        self._url = base if base.endswith("/chat/completions") else f"{base}/chat/completions"
        self._settings = settings or EndpointSettings()
        self._cache = cache or AnswerCache(None)
        self._pool = urllib3.PoolManager(maxsize=self._settings.concurrency, retries=False)
        self._resume_at = 0.0
        #: Whether anything there has ever answered; if not, the other requests need not try.
        self._is_reached = False
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def close(self) -> None:
        """Close connections and cache."""
        self._pool.clear()
        self._cache.close()

    def write(self, requests: Sequence[Request], *, progress: Progress = silent) -> list[Answer]:
        """``[n]`` answers; equal requests are asked once.

        Raises:
            UserError: nobody answers at the address, or the endpoint refuses for a reason that no
                second try mends (no such model, no valid key).
        """
        keys = [self._key(request) for request in requests]
        answers: dict[str, Answer] = {}
        open_requests: dict[str, Request] = {}
        for key, request in zip(keys, requests, strict=True):
            if key in answers or key in open_requests:
                continue
            kept = self._cache.get(key)
            if kept is None:
                open_requests[key] = request
            else:
                answers[key] = Answer(kept)
                self.account.add(cached=1)
        total = len(answers) + len(open_requests)
        progress("writing", len(answers), total)
        executor = ThreadPoolExecutor(self._settings.concurrency)
        try:
            pending: dict[Future[Answer], str] = {
                executor.submit(self._ask, key, request): key
                for key, request in open_requests.items()
            }
            while pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    answers[pending.pop(future)] = future.result()
                progress("writing", len(answers), total)
        except BaseException:
            self._stopped.set()
            raise
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
            self._stopped.clear()
        return [answers[key] for key in keys]

    def _key(self, request: Request) -> str:
        settings = self._settings
        return key_of(
            f"{self._model}@{self._url}",
            messages(request),
            {"temperature": settings.temperature, "max_tokens": settings.max_tokens},
        )

    def _ask(self, key: str, request: Request) -> Answer:
        pause = self._settings.first_pause
        reason = "stopped"
        for attempt in range(self._settings.attempts):
            if attempt:
                self.account.add(retries=1)
            if not self._wait_for_turn():
                break
            try:
                lines = parse(self._post(request), request)
            except NotAnAnswer as error:
                reason = str(error)
                continue
            except _TryAgain as error:
                reason = str(error)
                # Jitter, so that requests that failed together do not come back together.
                jitter = random.Random(f"{key}{attempt}").uniform(1.0, 1.25)
                longest = self._settings.longest_pause
                if error.pause is not None:
                    self._hold_all(min(error.pause, longest) * jitter)
                # Its own pause in any case: "Retry-After: 0" would use up all attempts at once.
                if attempt + 1 < self._settings.attempts:
                    self._stopped.wait(min(pause, longest) * jitter)
                pause *= 2
                continue
            self._cache.put(key, lines)
            return Answer(lines)
        if not self._is_reached and not self._stopped.is_set():
            raise UserError(
                f"{self._url}: {reason}, {self._settings.attempts} times: check the address and "
                "that a server runs there"
            )
        self.account.fail(reason)
        return Answer(None, reason)

    def _hold_all(self, seconds: float) -> None:
        """``Retry-After`` is about the key, not about one request: nobody asks before."""
        with self._lock:
            self._resume_at = max(self._resume_at, time.monotonic() + seconds)

    def _wait_for_turn(self) -> bool:
        while True:
            with self._lock:
                left = self._resume_at - time.monotonic()
            if self._stopped.is_set():
                return False
            if left <= 0:
                return True
            self._stopped.wait(left)

    def _post(self, request: Request) -> str:
        body = {
            "model": self._model,
            "messages": messages(request),
            "temperature": self._settings.temperature,
            "max_tokens": self._settings.max_tokens,
        }
        headers = {"Content-Type": "application/json", **_authorization()}
        self.account.add(requests=1)
        try:
            response = self._pool.request(
                "POST",
                self._url,
                body=json.dumps(body).encode(),
                headers=headers,
                timeout=self._settings.timeout,
                redirect=False,  # the key belongs to this address only
            )
        except urllib3.exceptions.HTTPError as error:
            raise _TryAgain(f"no answer ({type(error).__name__})") from None
        self._is_reached = True
        if response.status in _TRY_AGAIN:
            raise _TryAgain(f"status {response.status}", _retry_after(response.headers))
        if response.status != 200:
            raise UserError(
                f"{self._url}: status {response.status} for model {self._model}: check the "
                f"address, the model's name and {KEY_VARIABLES[0]}"
            )
        return self._content(response.data)

    def _content(self, data: bytes) -> str:
        try:
            value: Any = json.loads(data)
            usage = value.get("usage")
            # Paid for whatever the rest of the response looks like.
            self.account.add(
                input_tokens=_whole(usage, "prompt_tokens"),
                output_tokens=_whole(usage, "completion_tokens"),
            )
            choice = value["choices"][0]
            content = choice["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise _TryAgain("truncated or damaged response") from None
        if not isinstance(content, str):
            raise NotAnAnswer("no text")
        if choice.get("finish_reason") == "length":
            raise NotAnAnswer("cut off at the token limit")
        return content


def _authorization() -> dict[str, str]:
    """The header that carries the key, if there is one.

    Raises:
        UserError: the key cannot stand in a header. Checked here because the HTTP library would
            show the key in its own error.
    """
    for name in KEY_VARIABLES:
        key = os.environ.get(name, "").strip()
        if not key:
            continue
        if not (key.isascii() and key.isprintable()):
            raise UserError(f"{name}: holds characters that no key has: set it again")
        return {"Authorization": f"Bearer {key}"}
    return {}


def _whole(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) else 0


def _retry_after(headers: Any) -> float | None:
    """Seconds of a ``Retry-After`` header, which holds a number or a date (RFC 9110 §10.2.3)."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
