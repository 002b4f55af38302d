"""From what the user writes (``openai:MODEL@URL``, ``hf:MODEL``) to a language model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nla_audit.llm.address import address_of
from nla_audit.llm.interface import HOW_TO_CHANGE, Account, LanguageModel

if TYPE_CHECKING:
    from nla_audit.llm.client import EndpointSettings


def check_name(name: str) -> None:
    """Refuse a name that holds a key, before it is written down anywhere.

    Raises:
        UserError: it does.
    """
    kind, _, rest = name.partition(":")
    model, _, url = rest.partition("@")
    if kind == "openai" and model and url:
        address_of(url)


def language_model(
    name: str,
    *,
    cache: Path | None = None,
    price_per_million: tuple[float, float] | None = None,
    settings: EndpointSettings | None = None,
    how_to_change: tuple[str, str] = HOW_TO_CHANGE,
) -> LanguageModel | None:
    """The model called ``hf:MODEL_OR_FOLDER`` or ``openai:MODEL@URL``; ``None``: it is neither.

    Args:
        name: as above.
        cache: file of answers, made if need be.
        price_per_million: of input and of output tokens of an endpoint, to tell the cost.
        settings: how an endpoint is asked.
        how_to_change: as :class:`~nla_audit.llm.client.Client` takes it.

    Raises:
        UserError: it cannot be used.
    """
    from nla_audit.llm.cache import AnswerCache  # opens a database

    kind, _, rest = name.partition(":")
    if kind == "hf" and rest:
        from nla_audit.llm.local import LocalModel

        return LocalModel(rest, cache=AnswerCache(cache))
    model, _, url = rest.partition("@")
    if kind == "openai" and model and url:
        from nla_audit.llm.endpoint import Endpoint

        check_name(name)  # before there is a cache
        return Endpoint(
            model,
            url,
            cache=AnswerCache(cache),
            settings=settings,
            account=Account(price_per_million),
            how_to_change=how_to_change,
        )
    return None
