"""What kind of token an activation belongs to, by the text that ends there."""

from __future__ import annotations

import re
from typing import Literal, get_args

TokenKind = Literal["template", "blank", "content"]
TOKEN_KINDS: tuple[TokenKind, ...] = get_args(TokenKind)

#: Marks of chat templates: ``<start_of_turn>``, ``<|im_end|>``, ``[/INST]``.
_MARK = re.compile(r"(?:<\|?/?[A-Za-z_][\w/.-]{0,40}\|?>|\[/?[A-Z_]{2,16}\])\s*\Z")
#: The role that a template names on a line of its own; the marks around it are special tokens,
#: which sources are written without.
_ROLE = re.compile(r"(?:\A|\n)(?:system|user|assistant|model|developer|tool)\s*\Z")


def token_kind(source_text: str) -> TokenKind:
    """``template`` for the marks and role names of a chat, ``blank`` for white space.

    Args:
        source_text: the input up to and including the token.
    """
    if _MARK.search(source_text) or _ROLE.search(source_text):
        return "template"
    return "blank" if source_text != source_text.rstrip() else "content"
