"""From what the user writes (``openai:MODEL@URL``) to what writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nla_audit.errors import UserError
from nla_audit.llm.address import without_secrets
from nla_audit.llm.interface import Paraphraser

if TYPE_CHECKING:
    from nla_audit.llm.client import EndpointSettings


def writer_of(
    name: str,
    *,
    cache: Path | None = None,
    price_per_million: tuple[float, float] | None = None,
    settings: EndpointSettings | None = None,
) -> Paraphraser:
    """The writer called ``rules``, ``hf:MODEL_OR_FOLDER``, ``openai:MODEL@URL`` or ``file:TABLE``.

    ``world`` as well, for texts in the synthetic language of the demo.

    Args:
        name: as above.
        cache: file of answers, made if need be.
        price_per_million: of input and of output tokens of an endpoint, to tell the cost.
        settings: how an endpoint is asked.

    Raises:
        UserError: no such writer, or it cannot be used.
    """
    kind, _, rest = name.partition(":")
    if name == "rules":
        from nla_audit.llm.rules import Rules

        return Rules()
    if name == "world":
        from nla_audit.world.toy.rewording import WorldWriter

        return WorldWriter()
    if kind == "file" and rest:
        from nla_audit.llm.table import AnswerTable

        return AnswerTable(Path(rest))
    if kind in ("hf", "openai"):
        from nla_audit.llm.names import language_model  # rules need no HTTP

        model = language_model(
            name, cache=cache, price_per_million=price_per_million, settings=settings
        )
        if model is not None:
            return model
    raise UserError(
        f"no paraphraser {without_secrets(name)!r}: write rules, "
        "hf:MODEL_OR_FOLDER, openai:MODEL@URL or file:TABLE"
    )
