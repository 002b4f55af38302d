"""Checks that an answer is a rewriting: no refusal, no comment, nothing lost, nothing added.

Whatever an answer is refused for has to be new in it: a text that itself says "I am sorry" may be
rewritten into one that does. The patterns were tried on two thousand ordinary explanations and on
a thousand paraphrases by a language model, none of which may look like a refusal
(``tests/llm/test_false_refusals.py``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from nla_audit.llm.interface import Request
from nla_audit.text.words import FUNCTION_WORDS, content_stems, words

PLACEHOLDER = re.compile(r"⟦\d+⟧")

#: White space, list signs, emphasis and brackets; not quotes, which open a quoted text.
_LEAD = r"^[\s\-–—*_#>•(\[]*"
_PARAPHRASED = r"(?:paraphras|rewrit|rewrote|rephras|reword|translat)"

_FIRST_PERSON_REFUSAL = (
    r"\bI(?:['’]m| am)? (?:can(?:not|['’]t)|can not|unable to|not able to|won['’]?t|will not"
    r"|must decline to|refuse to|do not feel comfortable|don['’]t feel comfortable) ?"
    r"(?:help|assist|comply|fulfil|provide|paraphras|rewrite|rephras|translat|process|do th|"
    r"complete|continue|follow|engage|answer|respond|\w+ing\b)"
)
#: What a language model says of itself or of the request, anywhere in a line.
_ANYWHERE = re.compile(
    rf"{_FIRST_PERSON_REFUSAL}"
    r"|\bas an? (?:ai\b|artificial intelligence|(?:large )?language model|virtual assistant)"
    r"|\bI(?:['’]m| am) (?:just |only )?(?:an? )?(?:ai\b|artificial intelligence|language model)"
    r"|\b(?:this|that|your) request (?:cannot|can['’]t|violates|goes against|asks me)"
    r"|\b(?:usage|content|safety) (?:polic(?:y|ies)|guidelines) (?:prohibit|forbid|prevent)",
    re.IGNORECASE,
)
#: How a refusal begins, in the languages that models refuse in.
_REFUSAL = re.compile(
    rf"{_LEAD}(?:"
    # English
    r"I(?:['’]m| am) (?:very |so |really |truly )?(?:sorry|unable|not able|afraid (?:I|that))"
    r"|I (?:cannot|can['’]?t|can not|won['’]?t|will not|must decline|apologi[sz]e|refuse)\b"
    r"|I(?: do not|['’]d rather not| don['’]?t) (?:understand|have|feel|see|know|want|think)\b"
    r"|(?:so |very )?sorry\s*[,.!:;]|sorry (?:but|about|for|i)\b|(?:my )?apologies\s*[,.!:;]"
    r"|(?:unfortunately|regrettably)\s*,? I\b"
    # German, Dutch
    r"|(?:es )?tut mir (?:sehr )?leid\b|(?:leider )?kann ich (?:das|dies|ihnen|dir|diese\w*) "
    r"|ich kann (?:das|dies|ihnen|dir|leider|diese\w*|hier)\b|entschuldig(?:ung|en sie)\b"
    r"|als (?:ki\b|künstliche intelligenz|(?:großes )?sprachmodell)|het spijt me\b"
    # French, Italian, Spanish, Portuguese
    r"|(?:je suis )?(?:vraiment )?désolée?\b|je ne (?:peux|puis)\b|en tant qu['’]|mi dispiace\b"
    r"|non posso\b|lo siento\b|lamento\b|no puedo\b|desculpe\b|não posso\b|sinto muito\b"
    r"|como (?:un |uma? )?(?:modelo|ia\b|asistente|assistente|inteligencia|inteligência)"
    # Polish, Russian
    r"|przepraszam\b|przykro mi\b|nie mogę\b|извините\b|простите\b|к сожалению\b|я не могу\b"
    # Chinese, Japanese, Korean
    r"|(?:很|非常)?(?:抱歉|对不起|對不起|不好意思)|我(?:不能|无法|無法|没法)|作为(?:一个|一名)?"
    r"(?:人工智能|ai|语言模型)|申し訳|すみません|恐れ入ります|죄송|미안)",
    re.IGNORECASE,
)
#: How a comment on the task begins.
_COMMENT_BEFORE = re.compile(
    rf"{_LEAD}(?:"
    r"(?:sure|certainly|of course|okay|ok|alright|absolutely|understood|got it|gladly|no problem"
    r"|great)(?:\s*[!.:—–]|\s*,(?! but)| (?:here|thing|i)\b)"
    r"|(?:here(?:['’]s| is| are)|below (?:is|are)|the following (?:is|are)|this is)\b.{0,60}"
    rf"(?:{_PARAPHRASED}|\bversion\b|\brequested\b)"
    r"|as (?:you )?requested\b|per your request\b|as you wish\b|as instructed\b"
    r"|(?:i(?:['’]d be|['’]m| would be| am) )?happy to help\b|let me (?:know|help|try)\b"
    rf"|i(?:['’]ve| have)? ?(?:just )?{_PARAPHRASED}"
    rf"|(?:the )?(?:{_PARAPHRASED}\w*|output|response|my answer|note|n\.b\.|disclaimer)"
    r"(?: (?:version|text|line|sentence))?(?: \d+)?\s*\**\s*:"
    r"|(?:line|zeile) \d+\s*[:.)]"
    r"|hier (?:ist|sind|kommt)\b.{0,60}(?:übersetz|version|fassung|umformul)|übersetzung\s*:"
    r"|(?:gerne|natürlich|selbstverständlich)\s*[!.:]|anmerkung\s*:|hinweis\s*:"
    r"|voici (?:la|une|le|votre) (?:version|traduction|paraphrase|texte)|bien sûr\s*[,!.:]"
    r"|aquí (?:está|tienes?)\b|aqui está\b|ecco (?:la|il|una) |claro\s*[,!.:]|certo\s*[,!.:]"
    r"|вот (?:перевод|перефраз)|конечно\s*[,!.:]|好的\s*[，,!！。:：]|当然\s*[，,!！。]|以下是)",
    re.IGNORECASE | re.DOTALL,
)
#: A note to the reader, after the text or within it.
_COMMENT_AFTER = re.compile(
    r"(?:(?:^|[.!?…)\]\"”]\s*|\s[(\[*_—–-]+\s*)"
    r"(?:(?:please )?note|n\.b\.|p\.s\.|disclaimer|translator['’]s note|anmerkung|hinweis"
    r"|nota|remarque|примечание|注)\s*\**\s*[:：])"
    r"|(?:please )?note that (?:i|the (?:original|placeholders?|paraphras\w+|translation))\b"
    r"|\blet me know (?:if|whether|how|what)\b|\bhope (?:this|that|it) helps\b"
    r"|\bwould you like me to\b|[.!?]\s+feel free to\b|\banything else (?:i can|you)\b"
    rf"|\b(?:this|the above|my) (?:{_PARAPHRASED}\w*|version|rewording) (?:keeps|preserves|retains"
    r"|maintains|conveys|changes|captures|avoids|uses|aims|tries|should)"
    rf"|\bi(?:['’]ve| have)? (?:{_PARAPHRASED}\w*|kept|preserved|retained|maintained|left) "
    r"(?:the|all|each|every|it|your|this)\b"
    r"|\b(?:no changes (?:were|are) (?:made|needed)|(?:original )?meaning (?:is|was|has been) "
    r"(?:preserved|kept|retained))",
    re.IGNORECASE,
)
#: Tags, control tokens of chat templates, code fences, or a piece of the JSON around the lines.
_MARKUP = re.compile(
    r"```|</?\|?[A-Za-z_][\w ]{0,30}\|?/?>|\[/?[A-Z_]{3,20}\]|<<|>>"
    r"|\{\s*\"lines\"|\"lines\"\s*:|^\d+[.)]\s"
)
_QUOTES = '"“”„«»'
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
        raise NotAnAnswer(f"{len(lines)} lines for {len(request.lines)}")
    for before, after in zip(request.lines, lines, strict=True):
        _check_talk(before, after)
        _check_characters(before, after)
        _check_line(before, after)
    _check_text(request, lines)
    return tuple(lines)


def is_refusal(text: str) -> bool:
    """Whether ``text`` declines to do what was asked."""
    return bool(_REFUSAL.match(text) or _ANYWHERE.search(text))


def is_talk(before: str, after: str) -> bool:
    """Whether ``after`` refuses or comments, and ``before`` does not."""
    opened = _unquoted(after)
    for pattern in (_REFUSAL, _COMMENT_BEFORE):
        if pattern.match(opened) and not pattern.match(_unquoted(before)):
            return True
    return any(
        pattern.search(after) and not pattern.search(before)
        for pattern in (_ANYWHERE, _COMMENT_AFTER)
    )


def _check_talk(before: str, after: str) -> None:
    if is_talk(before, after):
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
    if _is_wrapped(after) and not _is_wrapped(before):
        raise NotAnAnswer("quotes around the whole line")


def _check_line(before: str, after: str) -> None:
    if words(before) and not words(after):
        raise NotAnAnswer("an empty line")
    if sorted(PLACEHOLDER.findall(before)) != sorted(PLACEHOLDER.findall(after)):
        raise NotAnAnswer("a placeholder lost or repeated")
    if len(after) > _LONGEST * len(before) + _LONGEST_SLACK:
        raise NotAnAnswer(f"{len(after)} characters for {len(before)}")


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


def _is_wrapped(line: str) -> bool:
    """Whether a line of some length is one quotation from end to end."""
    line = line.strip()
    return (
        len(words(line)) >= 5
        and line[0] in _QUOTES
        and line[-1] in _QUOTES
        and not any(sign in line[1:-1] for sign in _QUOTES)
    )


def _unquoted(line: str) -> str:
    return line.strip()[1:-1] if _is_wrapped(line) else line
