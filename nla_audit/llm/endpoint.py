"""Texts rewritten, and questions answered, by any OpenAI-compatible endpoint: ``openai:MODEL@URL``.

What was accepted is in the cache before anything else happens.
"""

from __future__ import annotations

from collections.abc import Sequence

from nla_audit.llm.cache import AnswerCache, key_of
from nla_audit.llm.client import Client, EndpointSettings, side_by_side
from nla_audit.llm.interface import (
    HOW_TO_CHANGE,
    Account,
    Answer,
    Closing,
    Progress,
    Question,
    Request,
    silent,
)
from nla_audit.llm.prompts import Rewriting


class Endpoint(Closing):
    """A :class:`~nla_audit.llm.interface.LanguageModel` behind HTTP.

    Args:
        model: name of the model there.
        url: base address, with or without ``/chat/completions``.
        cache: of answers.
        settings: how to ask.
        account: where costs are counted.
        how_to_change: as :class:`~nla_audit.llm.client.Client` takes it.

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
        how_to_change: tuple[str, str] = HOW_TO_CHANGE,
    ) -> None:
        self.name = f"openai:{model}"
        self.account = account or Account()
        self._model = model
        self._settings = settings or EndpointSettings()
        self._cache = cache or AnswerCache(None)
        self._client = Client(model, url, self._settings, self.account, how_to_change)

    def close(self) -> None:
        """Close connections and cache."""
        self._client.close()
        self._cache.close()

    def write(self, requests: Sequence[Request], *, progress: Progress = silent) -> list[Answer]:
        """``[n]`` answers, as :meth:`ask` gives them."""
        return self.ask([Rewriting(one) for one in requests], stage="writing", progress=progress)

    def ask(
        self, questions: Sequence[Question], *, stage: str, progress: Progress = silent
    ) -> list[Answer]:
        """``[n]`` answers; equal questions are asked once.

        Raises:
            UserError: nobody answers at the address, or the endpoint refuses for a reason that no
                second try mends (no such model, no valid key).
        """
        keys = [self._key(question) for question in questions]
        answers, open_questions = self._cache.known(keys, questions)
        self.account.add(cached=len(answers))
        total = len(answers) + len(open_questions)
        progress(stage, len(answers), total)

        def each(key: str, answer: Answer) -> None:
            answers[key] = answer
            progress(stage, len(answers), total)

        side_by_side(
            lambda key: self._ask(key, open_questions[key]),
            open_questions,
            each,
            workers=self._settings.concurrency,
            stop=self._client.stop,
        )
        return [answers[key] for key in keys]

    def _key(self, question: Question) -> str:
        settings = self._settings
        return key_of(
            f"{self._model}@{self._client.url}",
            question.messages(),
            {"temperature": settings.temperature, "max_tokens": settings.max_tokens},
        )

    def _ask(self, key: str, question: Question) -> Answer:
        lines, reason = self._client.ask(question.messages(), question.read)
        if lines is None:
            self.account.fail(reason)
            return Answer(None, reason)
        self._cache.put(key, lines)
        return Answer(lines)
