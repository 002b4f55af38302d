"""The address of an endpoint, and the key that goes with it, which is never shown."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from nla_audit.errors import UserError

#: Variables that may hold the key, the first that is set. It is sent, and never shown.
KEY_VARIABLES = ("NLA_AUDIT_API_KEY", "OPENAI_API_KEY")
_PATH = "/chat/completions"


def address_of(url: str) -> str:
    """Where to post, from a base address with or without ``/chat/completions``.

    Raises:
        UserError: it is none, or holds what could be a key: what is typed is written into the
            record of a run. The error does not repeat such a part.
    """
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_address = is_address and parts.port != 0 and url.isprintable() and " " not in url
    except ValueError:  # a port that is no number, half an IPv6 address
        is_address = False
    hint = f"put a key into {KEY_VARIABLES[0]}, not into the address"
    if "@" in url:
        raise UserError(f"{without_secrets(url)}: a name or key before the host: {hint}")
    if "?" in url or "#" in url:
        raise UserError(f"{without_secrets(url)}: takes no query and no fragment: {hint}")
    if not is_address:
        raise UserError(f"{url}: no http address: write openai:MODEL@http://host:port/v1")
    base = url.rstrip("/")
    return base if base.endswith(_PATH) else f"{base}{_PATH}"


def without_secrets(url: str) -> str:
    """``url`` without what stands before its host, and without query and fragment."""
    shown = re.split(r"[?#]", url, maxsplit=1)[0]
    if "@" in url[len(shown) :]:
        # A key that holds such a sign, or a query that holds the other: nobody can tell.
        return re.sub(r"^([a-z]+://)?.*", r"\1…", shown, flags=re.DOTALL)
    return re.sub(r"(^|//).*@", r"\1", shown)


def key() -> str | None:
    """The key, if one is set.

    Raises:
        UserError: it cannot stand in a header. Checked here because the HTTP library would show
            the key in its own error.
    """
    for name in KEY_VARIABLES:
        value = os.environ.get(name, "").strip()
        if not value:
            continue
        if not (value.isascii() and value.isprintable()):
            raise UserError(f"{name}: holds characters that no key has: set it again")
        return value
    return None
