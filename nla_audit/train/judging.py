"""Scores that language models give explanations, as terms of the reward.

A judge is a section of the recipe: a model behind an OpenAI-compatible address, and a prompt that
asks for a number. An explanation that failed or is empty is not shown to it. Where it gives none,
for whatever reason, the score is missing and not zero
(:func:`nla_audit.train.rewards.judged_scores`).

Answers are kept on disk, and so is that there was none: a run that is resumed asks nothing twice
and finds the scores that it would have had.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import numpy.typing as npt

from nla_audit.errors import UserError
from nla_audit.llm.cache import AnswerCache, key_of
from nla_audit.llm.checks import NotAnAnswer
from nla_audit.llm.client import Client, EndpointSettings, side_by_side
from nla_audit.llm.interface import Account, Closing
from nla_audit.train.recipe_rl import Judge

Floats = npt.NDArray[np.float64]

_ATTEMPTS = 3
#: Seconds between two looks at whether judges have answered.
_LOOK_UP = 0.2
_NUMBER = re.compile(r"(?<![\w.])[-−]?\d+(?:\.\d+)?")


class Judges(Closing):
    """The judges of a run.

    Args:
        settings: by name.
        cache: file that answers are kept in; ``None`` keeps them as long as this lives.
    """

    def __init__(self, settings: Mapping[str, Judge], cache: Path | None) -> None:
        self.settings = dict(settings)
        self.accounts = {name: Account() for name in settings}
        # No file for who asks nothing.
        self._cache = AnswerCache(cache if settings else None)
        self._clients = {name: self._client(name, one) for name, one in settings.items()}

    def _client(self, name: str, judge: Judge) -> Client:
        how = EndpointSettings(
            concurrency=judge.workers,
            attempts=_ATTEMPTS,
            temperature=judge.temperature,
            max_tokens=judge.max_new_tokens,
            token_limit_name=judge.token_limit_name,
        )
        place = f"rl.judges.{name}"
        options = (f"{place}.token_limit_name", f"{place}.temperature")
        return Client(judge.model, judge.base_url, how, self.accounts[name], options)

    def close(self) -> None:
        """Close connections and cache."""
        for client in self._clients.values():
            client.close()
        self._cache.close()

    def check_sources(self, sources: Sequence[str | None]) -> None:
        """Check that judges who are shown the source text can be.

        Raises:
            UserError: an activation has none.
        """
        for name, judge in self.settings.items():
            if judge.reads_source and not all(sources):
                raise UserError(
                    f"rl.judges.{name}: its prompt shows the source text, which some activations "
                    "do not have; leave {source} out of it"
                )

    def scores(
        self, explanations: Sequence[str | None], sources: Sequence[str | None]
    ) -> dict[str, Floats]:
        """``[n]`` scores from 0 to 1 by judge; NaN where there is none.

        Args:
            sources: ``[n]`` text up to the activation's token.

        Raises:
            UserError: nobody answers, a refusal that no second try mends, or more scores are
                missing than the recipe allows.
        """
        with self.asked(explanations, sources) as scores:
            return scores()

    @contextmanager
    def asked(
        self, explanations: Sequence[str | None], sources: Sequence[str | None]
    ) -> Iterator[Callable[[], dict[str, Floats]]]:
        """Ask all judges at once, while the caller does something else, such as read with the AR.

        Within it is a function that waits for :meth:`scores`. Left by an exception, nobody is asked
        further.
        """
        over = Event()
        with ThreadPoolExecutor(max(1, len(self.settings))) as pool:
            asked = {
                name: pool.submit(self._scores, name, explanations, sources, over)
                for name in self.settings
            }
            try:
                yield lambda: _all_of(asked)
            except BaseException:
                over.set()
                self._break_off(asked.values())
                raise

    def _break_off(self, asked: Collection[Future[Floats]]) -> None:
        """End what is still asked: again and again, for a request may just be about to begin."""
        while any(not future.done() for future in asked):
            for client in self._clients.values():
                client.stop()
            wait(asked, timeout=_LOOK_UP)

    def spent(self) -> dict[str, dict[str, int]]:
        """What each judge was asked for so far, and the tokens that it cost."""
        counts = ("requests", "cached", "failures", "input_tokens", "output_tokens")
        return {
            name: {count: int(getattr(account, count)) for count in counts}
            for name, account in self.accounts.items()
        }

    def _scores(
        self,
        name: str,
        explanations: Sequence[str | None],
        sources: Sequence[str | None],
        over: Event,
    ) -> Floats:
        judge, account = self.settings[name], self.accounts[name]
        prompts = {
            row: judge.prompt.replace("{source}", source or "").replace("{explanation}", text)
            for row, (text, source) in enumerate(zip(explanations, sources, strict=True))
            if text
        }
        known: dict[str, float] = {}
        unknown: list[str] = []
        for prompt in dict.fromkeys(prompts.values()):
            kept = self._cache.get(self._key(name, prompt))
            if kept is None:
                unknown.append(prompt)
            else:
                known[prompt] = score_of(kept[0], judge) if kept else float("nan")
                account.add(cached=1)
        known |= self._asked(name, unknown, over)
        self._check_enough(name, [known[prompt] for prompt in prompts.values()])
        for prompt in unknown:  # that there is none is remembered only where the run goes on
            if np.isnan(known[prompt]):
                self._cache.put(self._key(name, prompt), [])
        found = np.full(len(explanations), np.nan)
        for row, prompt in prompts.items():
            found[row] = known[prompt]
        return found

    def _asked(self, name: str, prompts: Sequence[str], over: Event) -> dict[str, float]:
        """Scores of new prompts; NaN where there is none.

        Raises:
            CancelledError: ``over`` is set, so nobody waits for them.
        """
        judge, client = self.settings[name], self._clients[name]
        found: dict[str, float] = {}

        def accept(text: str) -> tuple[str, float]:
            return text, score_of(text, judge)

        def ask(prompt: str) -> float:
            if over.is_set():
                raise CancelledError
            message = {"role": "user", "content": prompt}
            answer, reason = client.ask([message], accept)
            if answer is None and over.is_set():
                raise CancelledError
            if answer is None:
                self.accounts[name].fail(reason)
                return float("nan")
            self._cache.put(self._key(name, prompt), [answer[0]])
            return answer[1]

        side_by_side(ask, prompts, found.__setitem__, workers=judge.workers, stop=client.stop)
        return found

    def _check_enough(self, name: str, scores: Sequence[float]) -> None:
        missing = int(np.isnan(scores).sum())
        if missing > self.settings[name].most_missing * len(scores):
            reasons: Counter[str] = self.accounts[name].reasons
            why = f" ({reasons.most_common(1)[0][0]})" if reasons else ""
            raise UserError(
                f"rl.judges.{name}: no score for {missing} of {len(scores)} explanations{why}; "
                "look at its server and prompt, then run the same command again"
            )

    def _key(self, name: str, prompt: str) -> str:
        judge = self.settings[name]
        asked: dict[str, Any] = {
            "temperature": judge.temperature,
            "max_tokens": judge.max_new_tokens,
            "range": json.dumps([judge.lowest, judge.highest]),
        }
        model = f"{judge.model}@{self._clients[name].url}"
        return key_of(model, [{"role": "user", "content": prompt}], asked)


def _all_of(asked: Mapping[str, Future[Floats]]) -> dict[str, Floats]:
    """What all judges say, or what the first one that fails raises."""
    done: set[Future[Floats]] = set()
    # Not for as long as it takes: a Ctrl-C is heard only between two waits.
    while len(done) < len(asked) and not any(future.exception() for future in done):
        done, _ = wait(asked.values(), timeout=_LOOK_UP, return_when=FIRST_EXCEPTION)
    for future in done:
        future.result()
    return {name: future.result() for name, future in asked.items()}


def score_of(answer: str, judge: Judge) -> float:
    """The score in an answer, moved to 0 … 1: the one number on its last line, as ``7``,
    ``Score: 7`` or ``7/10``.

    Raises:
        NotAnAnswer: no number there, several, or one out of range.
    """
    lines = [line for line in answer.splitlines() if line.strip()] or [""]
    highest = f"{judge.highest:g}"
    last = re.sub(rf"\s*(?:/|out of)\s*{re.escape(highest)}(?![\d.]*\d)", "", lines[-1])
    numbers = [float(found.replace("−", "-")) for found in _NUMBER.findall(last)]
    if len(numbers) != 1 or not judge.lowest <= numbers[0] <= judge.highest:
        raise NotAnAnswer(f"not one number from {judge.lowest:g} to {highest} on the last line")
    return (numbers[0] - judge.lowest) / (judge.highest - judge.lowest)
