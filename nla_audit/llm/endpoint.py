"""Texts rewritten by any OpenAI-compatible endpoint: ``openai:MODEL@URL``.

What was accepted is in the cache before anything else happens.
"""

from __future__ import annotations

from collections.abc import Sequence

from nla_audit.llm.cache import AnswerCache, key_of
from nla_audit.llm.client import Client, EndpointSettings, side_by_side
from nla_audit.llm.interface import Account, Answer, Closing, Progress, Request, silent
from nla_audit.llm.prompts import messages, parse


class Endpoint(Closing):
    """A :class:`~nla_audit.llm.interface.Paraphraser` behind HTTP.

    Args:
        model: name of the model there.
        url: base address, with or without ``/chat/completions``.
        cache: of answers.
        settings: how to ask.
        account: where costs are counted.

    Raises:
        UserError: the address is none, or holds a key.
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
        self.name = f"openai:{model}"
        self.account = account or Account()
        self._model = model
        self._settings = settings or EndpointSettings()
        self._cache = cache or AnswerCache(None)
        self._client = Client(model, url, self._settings, self.account)

    def close(self) -> None:
        """Close connections and cache."""
        self._client.close()
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
            kept = self._cache.checked(key, request)
            if kept is None:
                open_requests[key] = request
            else:
                answers[key] = Answer(kept)
                self.account.add(cached=1)
        total = len(answers) + len(open_requests)
        progress("writing", len(answers), total)

        def each(key: str, answer: Answer) -> None:
            answers[key] = answer
            progress("writing", len(answers), total)

        side_by_side(
            lambda key: self._ask(key, open_requests[key]),
            open_requests,
            each,
            workers=self._settings.concurrency,
            stop=self._client.stop,
        )
        return [answers[key] for key in keys]

    def _key(self, request: Request) -> str:
        settings = self._settings
        return key_of(
            f"{self._model}@{self._client.url}",
            messages(request),
            {"temperature": settings.temperature, "max_tokens": settings.max_tokens},
        )

    def _ask(self, key: str, request: Request) -> Answer:
        lines, reason = self._client.ask(messages(request), lambda text: parse(text, request))
        if lines is None:
            self.account.fail(reason)
            return Answer(None, reason)
        self._cache.put(key, lines)
        return Answer(lines)
