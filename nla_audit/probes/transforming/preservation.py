"""What a transform may promise to leave as it was, and how each promise is checked.

Every check compares two strings and needs no model. A promise that a text does not keep is
counted and reported, and its score is left out: a transform that changed more than it says would
be blamed on the wrong channel.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache, lru_cache

from nla_audit.text.claims import split_claims
from nla_audit.text.items import quoted_spans
from nla_audit.text.words import words

Check = Callable[[str, str], bool]

#: Characters that stand for nothing visible: format characters, as zero-width joiners.
_FORMAT = "Cf"


@cache
def _is_format(sign: str) -> bool:
    return unicodedata.category(sign) == _FORMAT


@cache
def _script(sign: str) -> str | None:
    """First word of a letter's Unicode name, ``None`` for what is no letter."""
    return unicodedata.name(sign, "?").split()[0] if sign.isalpha() else None


def visible(text: str) -> str:
    """``text`` without characters that have no width."""
    if text.isascii():
        return text
    return "".join(sign for sign in text if not _is_format(sign))


def plain(text: str) -> str:
    """``text`` as it reads: no zero-width characters, look-alikes folded."""
    from nla_audit.probes.transforms.lookalikes import fold_lookalikes  # cycle

    return fold_lookalikes(visible(text))


# The same explanation is compared with its text by every transform.
_CACHED = 1 << 12


@lru_cache(maxsize=_CACHED)
def _quotes(text: str) -> Counter[str]:
    return Counter(span.text for span in quoted_spans(text))


@lru_cache(maxsize=_CACHED)
def _spoken(text: str) -> tuple[str, ...]:
    return tuple(words(plain(text)))


def script_shares(text: str) -> Counter[str]:
    """How many letters each script has in ``text``, by the first word of their Unicode names."""
    shares: Counter[str] = Counter()
    for sign, count in Counter(text).items():
        script = _script(sign)
        if script is not None:
            shares[script] += count
    return shares


def _same_script(before: str, after: str) -> bool:
    if before.isascii() and after.isascii():
        return True
    ours, theirs = script_shares(plain(before)), script_shares(plain(after))
    return not ours or not theirs or ours.most_common(1)[0][0] == theirs.most_common(1)[0][0]


#: Name of a promise → whether ``(before, after)`` keeps it.
CHECKS: dict[str, Check] = {
    "text": lambda before, after: before == after,
    "quoted spans": lambda before, after: _quotes(before) == _quotes(after),
    "words in order": lambda before, after: _spoken(before) == _spoken(after),
    "words": lambda before, after: Counter(_spoken(before)) == Counter(_spoken(after)),
    "word count": lambda before, after: len(_spoken(before)) == len(_spoken(after)),
    "words are a subset": lambda before, after: (
        not Counter(_spoken(after)) - Counter(_spoken(before))
    ),
    "claim count": lambda before, after: len(split_claims(before)) == len(split_claims(after)),
    "line count": lambda before, after: before.count("\n") == after.count("\n"),
    "script": _same_script,
}


def broken_promises(before: str, after: str, promised: tuple[str, ...]) -> list[str]:
    """The names among ``promised`` that ``after`` does not keep."""
    return [name for name in promised if not CHECKS[name](before, after)]
