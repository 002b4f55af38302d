"""Chat templates and patterns of strangers: bounded time and memory, one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from nla_audit.errors import UserError
from nla_audit.nla.chat_template import TemplateFailed, rendered_chats
from nla_audit.nla.prompts import chat_ids
from tests.pairs import tiny

CHAT = [{"role": "user", "content": "hello"}]
ENDLESS = {
    "nested loops": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    ),
    "doubling": (
        "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}"
        "{% endfor %}{{ n.x }}"
    ),
    "doubling a list": (
        "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}"
        "{% endfor %}"
    ),
    "repeating": "{{ 'a' * 10**11 }}",
    "padding": "{{ '{:>99999999999}'.format('x') }}",
    "centring": "{{ 'x' | center(99999999999) }}",
    "much text": "{% for i in range(99999) %}{{ 'a' * 100 }}{% endfor %}",
}
FAILING = {
    "recursion": "{% macro f(x) %}{{ f(x) }}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "a range too long": "{% for i in range(10**9) %}x{% endfor %}",
    "syntax": "{% for %}",
    "refusal": "{{ raise_exception('only with tools') }}",
    "undefined": "{{ a.b.c }}",
    "escape": "{{ ''.__class__.__mro__ }}",
    "deep": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
}


@pytest.mark.parametrize("case", ENDLESS)
def test_a_template_without_end_is_ended(case: str) -> None:
    tokenizer = tiny.make_tokenizer(bos=True)
    tokenizer.chat_template = ENDLESS[case]
    with pytest.raises(UserError, match=r"^[^\n]*chat template[^\n]*(more than|characters)[^\n]*$"):
        chat_ids(tokenizer, "hello")


@pytest.mark.parametrize("case", FAILING)
def test_a_template_that_fails_says_so(case: str) -> None:
    tokenizer = tiny.make_tokenizer(bos=True)
    tokenizer.chat_template = FAILING[case]
    with pytest.raises(TemplateFailed, match=r"^[^\n]*the chat template fails \([^\n]*$"):
        rendered_chats(tokenizer, [CHAT])


def test_a_template_that_ends_is_rendered_as_transformers_does() -> None:
    tokenizer = tiny.make_tokenizer(bos=True)
    chats = [CHAT, [{"role": "system", "content": "ünïcode “x”"}, *CHAT]]
    for prompted in (True, False):
        assert rendered_chats(tokenizer, chats, add_generation_prompt=prompted) == [
            tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompted)
            for chat in chats
        ]


def test_no_template_is_said(tmp_path: Path) -> None:
    tokenizer = tiny.make_tokenizer(bos=False)
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        chat_ids(tokenizer, "hello")
