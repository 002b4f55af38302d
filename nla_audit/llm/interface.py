"""The one interface to whatever writes text: requests in, checked answers out."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from nla_audit.progress import Progress, silent

#: Options by which a user changes what an endpoint calls its token limit, and the temperature;
#: messages name them.
HOW_TO_CHANGE = ("--token-limit-name", "--temperature")


@dataclass(frozen=True)
class Request:
    """One text to be rewritten.

    Attributes:
        task: short name of what is asked, as ``paraphrase``.
        instruction: the same in words, for a language model.
        lines: the text; as many lines have to come back.
        changes_language: whether the answer is in another language.
    """

    task: str
    instruction: str
    lines: tuple[str, ...]
    changes_language: bool = False


@dataclass(frozen=True)
class Answer:
    """What came back: ``lines``, or the ``reason`` why there are none."""

    lines: tuple[str, ...] | None
    reason: str | None = None


class Question(Protocol):
    """What a language model is asked, and what counts as an answer; answers are lines."""

    def messages(self) -> list[dict[str, str]]:
        """System and user message, which tell apart what is asked for in a cache."""
        ...

    def read(self, content: str) -> tuple[str, ...]:
        """The lines of what the model wrote.

        Raises:
            NotAnAnswer: it is none.
        """
        ...

    def check(self, lines: Sequence[str]) -> tuple[str, ...]:
        """Lines that were kept of an earlier answer.

        Raises:
            NotAnAnswer: they are no answer.
        """
        ...


class Account:
    """What was asked and what it cost; counts are safe under threads.

    Args:
        price_per_million: of input and of output tokens, where known.
    """

    def __init__(self, price_per_million: tuple[float, float] | None = None) -> None:
        self._lock = threading.Lock()
        self._price = price_per_million
        self.requests = self.cached = self.retries = self.failures = 0
        self.input_tokens = self.output_tokens = 0
        self.reasons: Counter[str] = Counter()

    def add(self, **counts: int) -> None:
        """Add to the counts by name."""
        with self._lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)

    def fail(self, reason: str) -> None:
        """Count a request that failed for good, and why."""
        with self._lock:
            self.failures += 1
            # Numbers out: "3 lines for 2" and "5 lines for 4" are one reason.
            self.reasons[re.sub(r"\d+", "n", reason)] += 1

    @property
    def cost(self) -> float | None:
        """In the currency of the price, ``None`` where no price is known."""
        if self._price is None:
            return None
        spent = self.input_tokens * self._price[0] + self.output_tokens * self._price[1]
        return spent / 1e6

    def describe(self) -> str:
        """One sentence."""
        cost = "" if self.cost is None else f", cost {self.cost:.4f}"
        ordered = sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))
        why = ", ".join(f"{count:,} {reason}" for reason, count in ordered)
        return (
            f"language model: {self.requests:,} requests sent, {self.cached:,} answers from the "
            f"cache, {self.retries:,} retries, {self.failures:,} failed{f' ({why})' if why else ''}"
            f"; {self.input_tokens:,} tokens in, {self.output_tokens:,} out{cost}"
        )


class Paraphraser(Protocol):
    """Writes texts. Failures are answers without lines, counted in ``account``."""

    name: str
    account: Account
    #: Whether it does what an instruction says, in several passes if need be. If not it is asked
    #: for the final text at once, with the lines as they are.
    is_language_model: bool

    def write(self, requests: Sequence[Request], *, progress: Progress = silent) -> list[Answer]:
        """``[n]`` answers, in the order of ``requests``."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class LanguageModel(Paraphraser, Protocol):
    """Answers any :class:`Question` as well."""

    def ask(
        self, questions: Sequence[Question], *, stage: str, progress: Progress = silent
    ) -> list[Answer]:
        """``[n]`` answers, in the order of ``questions``; ``stage`` names the work."""
        ...


class Closing:
    """A context manager that has nothing to close, unless a subclass has."""

    is_language_model = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what is held."""
