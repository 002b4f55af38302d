"""Text of strangers, made harmless for a terminal, a Markdown file and a script element."""

from __future__ import annotations

import json
import re
from typing import Any

# Whole escape sequences go, not only their first byte, so that "\x1b[31mred" leaves "red".
# Each body excludes the introducers, which keeps the scan linear on hostile input.
_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c\x9d]*(?:\x07|\x1b\\|\x9c)"  # OSC: titles, hyperlinks
    r"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x1b\x9c\x90\x98\x9e\x9f]*(?:\x1b\\|\x9c)"  # DCS …
    r"|\x1b[ -/]*[0-~]"  # everything else that starts with ESC
)
_SPACES = re.compile("[\t\v\f\r\u0085\u2028\u2029]")
# C0 (but for the line break), DEL, C1, bidirectional marks and overrides, invisible characters.
_INVISIBLE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff"
    "\U000e0000-\U000e007f]"
)


def safe_text(text: object, *, newlines: bool = False) -> str:
    """``text`` without escape sequences, control characters and bidirectional overrides.

    Line breaks become spaces unless ``newlines`` is true. Joiners that emoji and many scripts
    need (U+200C, U+200D) stay.
    """
    cleaned = _SEQUENCES.sub("", str(text).replace("\r\n", "\n"))
    cleaned = _INVISIBLE.sub("", _SPACES.sub(" ", cleaned))
    return cleaned if newlines else cleaned.replace("\n", " ")


_MARKDOWN = re.compile(
    r"(?P<interval>\[[−\d., ]+\](?![(\[:]))"  # "[0.1, 0.2]" is no link and reads better bare
    r"|(?P<mark>[\\`*\[\]|~]|(?<!\w)_|_(?!\w))"
    r"|(?P<indent>^\s*)(?P<bullet>[#+-]|\d+[.)])(?=\s)"
)


def markdown_text(text: object) -> str:
    """One line of Markdown that shows ``text`` literally: no HTML, no markup, no table breaks."""
    cleaned = safe_text(text)

    def escape(match: re.Match[str]) -> str:
        if match["interval"]:
            return match[0]
        if match["mark"]:
            return "\\" + match[0]
        return match["indent"] + match["bullet"][:-1] + "\\" + match["bullet"][-1]

    escaped = _MARKDOWN.sub(escape, cleaned)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_IN_SCRIPT = str.maketrans(
    {
        "<": "\\u003c",
        ">": "\\u003e",
        "&": "\\u0026",
        "\u2028": "\\u2028",
        "\u2029": "\\u2029",
    }
)


def script_json(data: Any) -> str:
    """JSON that can stand inside ``<script type="application/json">`` whatever it quotes.

    These characters occur only inside JSON strings, where the escapes mean the same, so
    neither ``</script>`` nor ``<!--`` can end or hide the element.
    """
    plain = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return plain.translate(_IN_SCRIPT)
