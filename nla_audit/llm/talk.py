"""Refusals, and comments on the task, told from texts.

Whatever an answer is refused for has to be new in it: a text that itself says "I am sorry" may be
rewritten into one that does. The patterns were tried on the explanations of a published sweep and
on a thousand paraphrases by a language model; hardly any of them looks like talk
(``tests/llm/test_checks.py`` says how many).
"""

from __future__ import annotations

import re

from nla_audit.text.words import words

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
    r"|\bas a (?:helpful|harmless) assistant\b|\bthe user (?:wants|asks|asked) me\b"
    r"|\b(?:instructions?|prompt) (?:in|of|within|inside) (?:the|this) text (?:was|were|is|are"
    r"|has been|have been) (?:ignored|disregarded|not followed)\b"
    r"|\b(?:is (?:this|that) (?:ok|okay|fine)|(?:do|would) you (?:want|like))\b[^?]*\?\s*$"
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
    # In any of them
    r"|nein\s*[,!.]|non, je\b|no text (?:was |is )?(?:provided|given)\b|please provide\b"
    r"|(?:it (?:seems|looks like|appears) (?:that )?)(?:your (?:text|input|message)|you)\b"
    r"|not enough (?:context|information|text) to\b"
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
    r"|(?:here(?:['’]s| is| are)|below (?:is|are)|the following (?:is|are))\b.{0,60}"
    rf"(?:{_PARAPHRASED}|\bversion\b|\brequested\b)"
    r"|(?:yes,? )?here (?:you (?:go|are)|it is|is the)\b|same as above\b"
    r"|thank you for (?:the|your|sharing)\b"
    r"|de acuerdo\s*[,.:!]|voilà\s*[,.:!]|d['’]accord\s*[,.:!]|хорошо\s*[,.:!]|了解|네\s*[,.!]"
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
#: What ordinary lines hardly ever hold outside of quotes: of 9,652 lines 4 had a word about the
#: task, 10 the first person, and none a label before everything.
_ABOUT_THE_TASK = re.compile(r"\b(?:paraphras|rephras|reword|rewrit|rewrot)\w*", re.IGNORECASE)
_FIRST_PERSON = re.compile(r"\bI(?:['’](?:m|ve|d|ll)\b| [a-z])")
_LABEL = re.compile(
    rf"{_LEAD}(?:system|assistant|user|(?:final )?answer|lines?|option \d+|error|output)\s*\**\s*:",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"[\"“][^\"“”]*[\"”]|(?<!\w)['‘][^'’]{1,80}['’](?!\w)")
_QUOTES = '"“”„«»'


def is_refusal(text: str) -> bool:
    """Whether ``text`` declines to do what was asked."""
    return bool(_REFUSAL.search(text) or _ANYWHERE.search(text))


def is_talk(before: str, after: str, *, changes_language: bool = False) -> bool:
    """Whether ``after`` refuses or comments, and ``before`` does not.

    Args:
        before: the line that was asked about.
        after: the answer.
        changes_language: whether it is in another language, which has other words for "I".
    """
    said = (_REFUSAL, _COMMENT_BEFORE, _LABEL, _ANYWHERE, _COMMENT_AFTER)
    if any(_is_new(pattern, _unquoted(before), _unquoted(after)) for pattern in said):
        return True
    rare = [_ABOUT_THE_TASK] if changes_language else [_ABOUT_THE_TASK, _FIRST_PERSON]
    return any(_is_new(pattern, before, _QUOTED.sub(" ", after)) for pattern in rare)


def _is_new(pattern: re.Pattern[str], before: str, after: str) -> bool:
    return bool(pattern.search(after)) and not pattern.search(before)


def is_wrapped(line: str) -> bool:
    """Whether a line of some length is one quotation from end to end."""
    line = line.strip()
    return (
        len(words(line)) >= 5
        and line[0] in _QUOTES
        and line[-1] in _QUOTES
        and not any(sign in line[1:-1] for sign in _QUOTES)
    )


def _unquoted(line: str) -> str:
    return line.strip()[1:-1] if is_wrapped(line) else line
