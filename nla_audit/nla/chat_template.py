"""Chat templates, which are programs of strangers, rendered with little time and memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from nla_audit.errors import UserError
from nla_audit.limits import OverLimit, WorkFailed, within_limits

#: Characters that a template may add to a conversation; the longest system prompts that templates
#: write by themselves have some ten thousand.
_MOST_ADDED = 500_000
#: For models that were never taught to chat: the end of an answer is the only special token.
PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{{ message['role'] }}:\n{{ message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\n\n' }}"
    "{% endfor %}{% if add_generation_prompt %}assistant:\n{% endif %}"
)


class TemplateFailed(UserError):
    """The template itself raised: it refuses the conversation, or is damaged."""


def rendered_chats(
    tokenizer: Any,
    conversations: Sequence[list[dict[str, str]]],
    *,
    add_generation_prompt: bool = True,
) -> list[str]:
    """Each conversation as the chat template of ``tokenizer`` writes it.

    Raises:
        TemplateFailed: the template raised.
        UserError: there is no template, or rendering takes too much time or memory, or writes
            text without end.
    """
    where = getattr(tokenizer, "name_or_path", "tokenizer")
    if getattr(tokenizer, "chat_template", "") is None:
        raise UserError(
            f"{where}: the tokenizer has no chat template, which prompts are made with; use the "
            "tokenizer that the checkpoint was made with, or, to train a base model that never "
            "had one, say pair.chat_template: plain in the recipe"
        )
    most = _MOST_ADDED + sum(len(each["content"]) for chat in conversations for each in chat)

    def render() -> list[str]:
        texts = [
            str(
                tokenizer.apply_chat_template(
                    chat, tokenize=False, add_generation_prompt=add_generation_prompt
                )
            )
            for chat in conversations
        ]
        written = sum(map(len, texts))
        if written > most:
            raise ValueError(f"it writes {written:,} characters")
        return texts

    advice = "use the tokenizer that the checkpoint was made with"
    try:
        return within_limits(
            render, depends_on=_decides(tokenizer, conversations, add_generation_prompt)
        )
    except OverLimit as error:
        raise UserError(f"{where}: rendering the chat template {error}; {advice}") from None
    except WorkFailed as error:
        raise TemplateFailed(f"{where}: the chat template fails ({error}); {advice}") from None


def _decides(
    tokenizer: Any, conversations: Sequence[list[dict[str, str]]], add_generation_prompt: bool
) -> tuple[str, ...] | None:
    """What a rendering is made of: the template, the tokens that it may name, and what is said.

    ``None`` where that is not known: a template's own clock, a tokenizer with code of its own.
    """
    template = getattr(tokenizer, "chat_template", None)
    if not isinstance(template, str) or "strftime" in template:
        return None
    if not type(tokenizer).__module__.startswith("transformers."):
        return None
    return (
        "chat",
        type(tokenizer).__qualname__,
        template,
        repr(tokenizer.special_tokens_map),
        json.dumps(conversations),
        str(add_generation_prompt),
    )
