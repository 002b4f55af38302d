"""Checks that an answer is a rewriting: no refusal, no comment, nothing lost, nothing added."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from nla_audit.llm.interface import Request
from nla_audit.llm.talk import is_talk, is_wrapped
from nla_audit.text.words import FUNCTION_WORDS, content_stems, words
from nla_audit.wording import count

PLACEHOLDER = re.compile(r"⟦\d+⟧")
#: Tags, control tokens of chat templates, code fences, signs of lists, headings and emphasis, or a
#: piece of the JSON around the lines.
_MARKUP = re.compile(
    r"```|</?\|?[A-Za-z_][\w ]{0,30}\|?/?>|\[/?[A-Z_]{3,20}\]|<<|>>"
    r"|\{\s*\"lines\"|\"lines\"\s*:|^\d+[.)]\s|^(?:[*>#-]|#+)\s"
    r"|^\*\*.*\*\*$"
)
#: A line this many times as long as the one it rewrites, or a text with so small a share of as many
#: different words, is no rewriting; short lines vary more. Of 100 explanations paraphrased by a
#: language model, the shortest has 0.69 as many different words and the longest 1.94.
_LONGEST, _LONGEST_SLACK = 4.0, 60
_SHORTEST_SHARE_OF_WORDS = 0.2
#: A text of so many different content words shares one with any rewriting of it. Of pairs of lines
#: of those explanations 1 in 100 with fewer words shared none; the least that one of the whole
#: explanations shared was ten.
_SHARES_A_WORD = 20
#: A text that shares fewer of these (Jaccard), and has so small a part of the original's share of
#: English function words, is in another language. Paraphrases share few words as well, but none of
#: those 100 had less than 0.73 of the share; a terse summary has few of them, but shares more.
_SAME_LANGUAGE_SHARES, _SAME_LANGUAGE_FUNCTION_WORDS = 0.2, 0.3
#: Shorter texts may come back as they were: "End of text." has no other words.
_UNCHANGED_WORDS = 8


class NotAnAnswer(ValueError):
    """Why an answer is not accepted, in words."""


def check_lines(lines: Sequence[str], request: Request) -> tuple[str, ...]:
    """``lines``, if they are a rewriting of those of ``request``.

    Raises:
        NotAnAnswer: another number of lines, a refusal or comment, a placeholder lost, an empty
            line for one that was not, markup or control characters that the text has not, a length
            that no rewriting has, the text as it was, or another text or language altogether.
    """
    if len(lines) != len(request.lines):
        raise NotAnAnswer(f"{count(len(lines), 'line')} for {len(request.lines)}")
    for before, after in zip(request.lines, lines, strict=True):
        # First: the other checks take longer the longer a line is.
        _check_length(before, after)
        _check_talk(before, after, request)
        _check_characters(before, after)
        _check_line(before, after)
    _check_text(request, lines)
    return tuple(lines)


def _check_talk(before: str, after: str, request: Request) -> None:
    if is_talk(before, after, changes_language=request.changes_language):
        raise NotAnAnswer("a refusal or a comment")


def _check_characters(before: str, after: str) -> None:
    if len(after.splitlines()) > max(1, len(before.splitlines())):
        raise NotAnAnswer("a line break inside of a line")
    for sign in set(after) - set(before):
        # Cc: control characters; Cs: half of a surrogate pair, which no tokenizer reads.
        if unicodedata.category(sign) in ("Cc", "Cs"):
            raise NotAnAnswer("a control character or half of a character")
    if set(_MARKUP.findall(after)) - set(_MARKUP.findall(before)):
        raise NotAnAnswer("markup that the text has not")
    if is_wrapped(after) and not is_wrapped(before):
        raise NotAnAnswer("quotes around the whole line")


def _check_line(before: str, after: str) -> None:
    if words(before) and not words(after):
        raise NotAnAnswer("an empty line")
    if sorted(PLACEHOLDER.findall(before)) != sorted(PLACEHOLDER.findall(after)):
        raise NotAnAnswer("a placeholder lost or repeated")


def _check_length(before: str, after: str) -> None:
    if len(after) > _LONGEST * len(before) + _LONGEST_SLACK:
        raise NotAnAnswer(f"{count(len(after), 'character')} for {len(before)}")


def _check_text(request: Request, lines: Sequence[str]) -> None:
    """What shows only over all lines: single lines of a good rewriting may be very different."""
    before, after = "\n".join(request.lines), "\n".join(lines)
    words_before, words_after = words(before), words(after)
    # Distinct ones: an explanation that ran into a loop may be rewritten without it.
    distinct_before, distinct_after = len(set(words_before)), len(set(words_after))
    if distinct_after < _SHORTEST_SHARE_OF_WORDS * distinct_before:
        raise NotAnAnswer(f"{distinct_after} different words for {distinct_before}")
    if words_after == words_before and len(words_before) >= _UNCHANGED_WORDS:
        raise NotAnAnswer("the text as it was")
    if not request.changes_language:
        _check_content(before, after)


def _check_content(before: str, after: str) -> None:
    ours, theirs = set(content_stems(before)), set(content_stems(after))
    if len(ours) < _SHARES_A_WORD:
        return
    if not ours & theirs:
        raise NotAnAnswer("no word of the text in it")
    shared = len(ours & theirs) / len(ours | theirs)
    function_words = _SAME_LANGUAGE_FUNCTION_WORDS * _function_share(before)
    if shared < _SAME_LANGUAGE_SHARES and _function_share(after) < function_words:
        raise NotAnAnswer("another language")


def _function_share(text: str) -> float:
    """Share of the words of ``text`` that are English function words."""
    found = words(text)
    return sum(word in FUNCTION_WORDS for word in found) / len(found) if found else 0.0
