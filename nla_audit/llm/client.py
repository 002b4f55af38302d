"""Any OpenAI-compatible endpoint: chat completions, tried again where that may help.

408, 429, 5xx, time-outs and dropped connections are tried again after a pause that grows, or as
long as ``Retry-After`` says; so are answers that the caller does not accept. A refusal that no
second try mends ends the run with the server's own reason.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, TypeVar

import urllib3

from nla_audit.errors import UserError
from nla_audit.llm.address import KEY_VARIABLES, address_of, key
from nla_audit.llm.checks import NotAnAnswer
from nla_audit.llm.exchange import Exchanges, TooMuch
from nla_audit.llm.interface import HOW_TO_CHANGE, Account
from nla_audit.unicode_form import half_pair

Item = TypeVar("Item")
Result = TypeVar("Result")

_TRY_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
#: Between two looks of a waiting main thread: Ctrl-C is not heard within a wait.
_LOOK_UP = 0.2
#: Characters of a server's reason that are shown.
_REASON = 200
#: No response counts as many tokens.
_MOST_TOKENS = 10**9
#: What servers call the limit.
TokenLimitName = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True)
class EndpointSettings:
    """How to ask.

    Attributes:
        concurrency: requests under way at once.
        attempts: tries of one request, answers that fail the checks included.
        timeout: seconds to connect, and between two bytes.
        longest: seconds of one try in all, however steadily bytes come.
        first_pause: seconds before the second try; doubled at each.
        longest_pause: seconds, whatever ``Retry-After`` says.
        temperature: sent along; ``None``: not sent, for models that take their own only.
        max_tokens: most tokens of an answer, a model's reasoning included.
        token_limit_name: what the server calls that limit.
    """

    concurrency: int = 8
    attempts: int = 6
    timeout: float = 120.0
    longest: float = 600.0
    first_pause: float = 1.0
    longest_pause: float = 120.0
    temperature: float | None = 0.0
    max_tokens: int = 2048
    token_limit_name: TokenLimitName = "max_tokens"


class TryAgain(Exception):
    """A failure that may pass; ``pause`` is what the server asked for, in seconds."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class Client:
    """A model behind HTTP; safe under threads.

    Args:
        model: name of the model there.
        url: base address, with or without ``/chat/completions``.
        settings: how to ask.
        account: where costs are counted.
        how_to_change: what the user changes where the server refuses the token limit, and where
            it refuses the temperature.

    Raises:
        UserError: the address is none, or holds a key.
    """

    def __init__(
        self,
        model: str,
        url: str,
        settings: EndpointSettings,
        account: Account,
        how_to_change: tuple[str, str] = HOW_TO_CHANGE,
    ) -> None:
        self.url = address_of(url)
        self._model = model
        self._settings = settings
        self._account = account
        self._how_to_change = how_to_change
        self._exchanges = Exchanges(settings.concurrency, settings.timeout, settings.longest)
        self._resume_at = 0.0
        #: Whether anything there has ever answered; if not, the other requests need not try.
        self._is_reached = False
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def close(self) -> None:
        """Close connections."""
        self._exchanges.close()

    def ask(
        self,
        messages: list[dict[str, str]],
        accept: Callable[[str], Result],
        *,
        takes_cut: bool = False,
    ) -> tuple[Result | None, str]:
        """What ``accept`` makes of an answer to ``messages``; ``None`` and why there is none.

        Args:
            accept: raises :class:`NotAnAnswer` for one that is asked for again.
            takes_cut: whether an answer may end at the token limit.

        Raises:
            UserError: nobody answers at the address, or the endpoint refuses for a reason that no
                second try mends (no such model, no valid key).
        """
        settings, stopped = self._settings, self._stopped
        pause, reason = settings.first_pause, "stopped"
        for attempt in range(settings.attempts):
            if attempt:
                self._account.add(retries=1)
            if not self._wait_for_turn(stopped):
                break
            try:
                return accept(self._post(messages, takes_cut=takes_cut)), ""
            except NotAnAnswer as error:
                reason = str(error)
            except TryAgain as error:
                reason = str(error)
                # Jitter, so that requests that failed together do not come back together.
                jitter = random.Random(f"{messages}{attempt}").uniform(1.0, 1.25)
                if error.pause is not None:
                    self._hold_all(min(error.pause, settings.longest_pause) * jitter)
                # Its own pause in any case: "Retry-After: 0" would use up all attempts at once.
                if attempt + 1 < settings.attempts:
                    stopped.wait(min(pause, settings.longest_pause) * jitter)
                pause *= 2
        if not self._is_reached and not stopped.is_set():
            raise UserError(
                f"{self.url}: {reason}, {settings.attempts} times: check the address and that a "
                "server runs there"
            )
        return None, reason

    def stop(self) -> None:
        """End the requests under way; those that come after are asked again as ever."""
        stopped, self._stopped = self._stopped, threading.Event()
        stopped.set()
        self._exchanges.break_off()

    def _hold_all(self, seconds: float) -> None:
        """``Retry-After`` is about the key, not about one request: nobody asks before."""
        with self._lock:
            self._resume_at = max(self._resume_at, time.monotonic() + seconds)

    def _wait_for_turn(self, stopped: threading.Event) -> bool:
        while True:
            with self._lock:
                left = self._resume_at - time.monotonic()
            if stopped.is_set():
                return False
            if left <= 0:
                return True
            stopped.wait(left)

    def _post(self, messages: list[dict[str, str]], *, takes_cut: bool) -> str:
        settings = self._settings
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            settings.token_limit_name: settings.max_tokens,
        }
        if settings.temperature is not None:
            body["temperature"] = settings.temperature
        headers = {"Content-Type": "application/json"}
        secret = key()
        if secret is not None:
            headers["Authorization"] = f"Bearer {secret}"
        self._account.add(requests=1)
        try:
            status, answered, data = self._exchanges.post(
                self.url, json.dumps(body).encode(), headers
            )
        except urllib3.exceptions.HTTPError as error:
            raise TryAgain(f"no answer ({type(error).__name__})") from None
        except TooMuch as error:
            raise TryAgain(str(error)) from None
        self._is_reached = True
        if status in _TRY_AGAIN:
            raise TryAgain(f"status {status}", retry_after(answered))
        if status != 200:
            raise UserError(self._refusal(status, _said(data, secret)))
        return self._content(data, takes_cut=takes_cut)

    def _refusal(self, status: int, said: str) -> str:
        """One line: what the server says, and what may help."""
        limit, temperature = self._how_to_change
        # Servers name what they do not take, in fields that differ; the words are all they share.
        if self._settings.token_limit_name in said:
            other = next(
                name
                for name in ("max_tokens", "max_completion_tokens")
                if name != self._settings.token_limit_name
            )
            hint = f"say {limit} {other}, or another limit"
        elif "temperature" in said.lower():
            hint = f"say {temperature} with one that it takes, or none"
        else:
            hint = f"check the address, the model's name and {KEY_VARIABLES[0]}"
        reason = f" ({said})" if said else ""
        return f"{self.url}: status {status} for model {self._model}{reason}: {hint}"

    def _content(self, data: bytes, *, takes_cut: bool = False) -> str:
        try:
            value: Any = json.loads(data)
            usage = value.get("usage")
            # Paid for whatever the rest of the response looks like.
            self._account.add(
                input_tokens=_whole(usage, "prompt_tokens"),
                output_tokens=_whole(usage, "completion_tokens"),
            )
            choice = value["choices"][0]
            content = choice["message"]["content"]
            is_cut = choice.get("finish_reason") == "length"
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise TryAgain("truncated or damaged response") from None
        if is_cut and not (takes_cut and isinstance(content, str)):
            raise NotAnAnswer("cut off at the token limit")
        if not isinstance(content, str):
            raise NotAnAnswer("no text")
        if half_pair(content) is not None:  # cannot be written down, nor read by a tokenizer
            raise NotAnAnswer("half of a surrogate pair, which is no sign")
        return content


def side_by_side(
    ask: Callable[[Item], Result],
    items: Iterable[Item],
    each: Callable[[Item, Result], None],
    *,
    workers: int,
    stop: Callable[[], None],
) -> None:
    """Call ``ask`` with every item, in ``workers`` threads, and ``each`` here as they end.

    Whatever ends it early, Ctrl-C too, calls ``stop`` and waits for nobody.
    """
    pool = ThreadPoolExecutor(workers)
    try:
        pending: dict[Future[Result], Item] = {pool.submit(ask, item): item for item in items}
        while pending:
            done, _ = wait(pending, timeout=_LOOK_UP, return_when=FIRST_COMPLETED)
            for future in done:
                each(pending.pop(future), future.result())
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        stop()
        raise
    pool.shutdown()


def _said(data: bytes, secret: str | None) -> str:
    """The reason that a server gives, on one line, short, and without the key."""
    text = data.decode("utf-8", "replace")
    try:
        value: Any = json.loads(text)
        error = value.get("error", value)
        text = str(error["message"] if isinstance(error, dict) and "message" in error else error)
    except (ValueError, AttributeError, TypeError, RecursionError):
        text = re.sub(r"<[^<>]{0,1000}>", " ", text[: 20 * _REASON])
    if secret:
        text = text.replace(secret, "…")
    text = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return text if len(text) <= _REASON else f"{text[: _REASON - 1]}…"


def _whole(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and 0 <= value <= _MOST_TOKENS else 0


def retry_after(headers: Any) -> float | None:
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
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError, TypeError):
        return None
