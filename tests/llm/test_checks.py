"""Answers that are no rewriting are caught; ordinary explanations are not taken for such."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from nla_audit.llm.checks import NotAnAnswer, check_lines
from nla_audit.llm.interface import Request
from nla_audit.llm.prompts import parse
from nla_audit.llm.talk import is_talk

TEXT = 'Likely a report on the harbour in the morning; the final token "before" opens a time phrase'
GOOD = 'Presumably a harbour report at daybreak, whose last token "before" starts a phrase of time'


def _request(*lines, changes_language=False):
    return Request("paraphrase", "Paraphrase the text.", lines, changes_language)


REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I’m so sorry, I am unable to paraphrase this text about the harbour.",
    "I cannot paraphrase the report on the harbour.",
    "I can't assist with that request.",
    "I won't rewrite the harbour report.",
    "I must decline to rewrite a report on the harbour.",
    "I apologize, the harbour report cannot be rewritten.",
    "I don't understand which report on the harbour is meant.",
    "I do not have access to the report on the harbour.",
    "Sorry, but the harbour report is not something I can rewrite.",
    "My apologies, the report on the harbour is unclear.",
    "Unfortunately, I cannot rewrite the harbour report.",
    "As an AI language model, I have no opinion on the harbour report.",
    "As a large language model I do not paraphrase reports of harbours.",
    "I am an AI and have no access to the harbour.",
    "The text asks for the harbour to be ignored; as an AI model that is beyond me.",
    "This looks like a prompt; I cannot comply with it for the harbour.",
    "That harbour report is unclear, so I'm unable to rewrite it.",
    "Your request cannot be fulfilled for the harbour report.",
    '"I\'m sorry, I cannot rewrite a report on the harbour."',
    "**I'm sorry**, the harbour report cannot be rewritten.",
    "- I cannot rewrite the harbour report",
    "(I am not able to rewrite the harbour report.)",
    "Es tut mir leid, den Bericht vom harbour kann ich nicht umschreiben.",
    "Ich kann das leider nicht umformulieren (harbour report).",
    "Als KI-Sprachmodell habe ich keinen harbour report.",
    "Je suis désolé, mais je ne peux pas reformuler le harbour report.",
    "En tant qu'IA, je ne reformule pas le harbour report.",
    "Lo siento, no puedo ayudar con el harbour report.",
    "Desculpe, não posso reescrever o harbour report.",
    "Mi dispiace, non posso riscrivere il harbour report.",
    "Извините, я не могу переписать harbour report.",
    "Please provide the text to be rewritten (harbour report)",
    "No text was provided about the harbour report",
    "It seems that your text is incomplete; more of the harbour report is needed",
    "Not enough context to rewrite the harbour report",
    "It is not possible for me to paraphrase the harbour report",
    "I'm not going to rewrite the harbour report",
    "Nein, das mache ich nicht: harbour report",
    "Non, je refuse de reformuler harbour report",
    "抱歉，我不能改写这段文字 harbour report。",
    "对不起，我无法完成这个请求 harbour report。",
    "申し訳ありませんが、harbour report を書き換えることはできません。",
    "죄송합니다. harbour report 를 도와드릴 수 없습니다.",
]
COMMENTS = [
    f"Sure! {GOOD}",
    f"Sure, {GOOD}",
    f"Sure, here is the text: {GOOD}",
    f"Certainly: {GOOD}",
    f"Of course. {GOOD}",
    f"Okay! {GOOD}",
    f"Absolutely! {GOOD}",
    f"Got it. {GOOD}",
    f"Here is a paraphrase: {GOOD}",
    f"Here's the rewritten text – {GOOD}",
    f"Below is the reworded version. {GOOD}",
    f"The following is a paraphrased text. {GOOD}",
    f"As requested, {GOOD}",
    f"Paraphrased: {GOOD}",
    f"Rewritten version: {GOOD}",
    f"**Paraphrase:** {GOOD}",
    f"Output: {GOOD}",
    f"Note: {GOOD}",
    f"I have paraphrased it thus. {GOOD}",
    f"I've rewritten the line. {GOOD}",
    f"Line 1: {GOOD}",
    f"1. {GOOD}",
    f"Hier ist die Übersetzung: {GOOD}",
    f"Voici une version reformulée : {GOOD}",
    f"好的，{GOOD}",
    f"{GOOD} (Note: the quoted word was kept.)",
    f"{GOOD}. Note: the quoted word was kept.",
    f"{GOOD}. [Translator's note: time phrase]",
    f"{GOOD}. *Note:* the quoted word was kept.",
    f"{GOOD}. Please note that the original was vague.",
    f"{GOOD}. Let me know if you'd like another version!",
    f"{GOOD}. I hope this helps!",
    f"{GOOD}. Would you like me to do the next one?",
    f"{GOOD}. This paraphrase keeps the meaning.",
    f"{GOOD}. I kept the quoted word as it was.",
    f"{GOOD}. I have preserved every claim of the text.",
    f"{GOOD} (original meaning is preserved)",
    f"{GOOD}. (Anmerkung: das Zitat bleibt.)",
    f"```{GOOD}```",
    f"<text>{GOOD}</text>",
    f"{GOOD}<|im_end|>",
    f"{GOOD} [/INST]",
    f"{GOOD} (paraphrased)",
    f"{GOOD}. Is this okay?",
    f"{GOOD}. Do you want another version?",
    f"Here you go: {GOOD}",
    f"Let's rephrase: {GOOD}",
    f"Option 1: {GOOD}",
    f"Assistant: {GOOD}",
    f"System: {GOOD}",
    f"Final answer: {GOOD}",
    f"The instruction in the text was ignored. {GOOD}",
    f"**{GOOD}**",
    f"* {GOOD}",
    f"> {GOOD}",
    f"Voilà : {GOOD}",
    f"De acuerdo, {GOOD}",
    f"Хорошо, {GOOD}",
    "The user wants me to write about a harbour report",
    "We need to paraphrase the harbour report here",
    "This is a paraphrase of the harbour report in the morning",
    f'{{"lines": "{GOOD}"}}',
    f"{GOOD}\nNote: kept",
    f"{GOOD}\u2028and on",
    f"{GOOD}\x1b[31m",
    f"{GOOD} \ud83d",
    f'"{GOOD.replace(chr(34), "")}"',
]
OTHER_TEXTS = ["OK", "Done.", "HACKED", ".", "…", "As you wish", TEXT, TEXT.upper(), GOOD * 6]


@pytest.mark.parametrize("answer", [*REFUSALS, *COMMENTS, *OTHER_TEXTS])
def test_what_is_no_rewriting_is_caught(answer):
    with pytest.raises(NotAnAnswer):
        parse(json.dumps({"lines": [answer]}), _request(TEXT))


@pytest.mark.parametrize("answer", REFUSALS)
def test_a_refusal_is_caught_in_a_translation_too(answer):
    with pytest.raises(NotAnAnswer, match="refusal"):
        check_lines([answer], _request(TEXT, changes_language=True))


@pytest.mark.parametrize(
    "content",
    [
        "I cannot do that, but here you are: {good}",
        '{good} {{"lines": ["a second answer of the harbour report"]}}',
        '{{"lines": ["a first draft of the harbour report"], "lines": {lines}}}',
        '{{"lines": {lines}, "note": "As an AI I do not know what a harbour is."}}',
        "<think>perhaps {good} or",
        '{{"lines": [["nested"]]}}',
        '{{"lines": [null]}}',
        '{{"line": {lines}}}',
        "[{lines}]",
    ],
)
def test_what_is_around_the_lines_is_looked_at(content):
    lines = json.dumps([GOOD])
    with pytest.raises(NotAnAnswer):
        parse(content.format(good=f'{{"lines": {lines}}}', lines=lines), _request(TEXT))


@pytest.mark.parametrize(
    "content",
    [
        "{good}",
        "```json\n{good}\n```",
        "Sure! Here it is:\n{good}\nI hope this helps!",
        '<think>maybe {{"lines": ["x"]}}? no</think>\n{good}',
        "opened by the template</think>{good}",
    ],
)
def test_talk_around_the_lines_is_left_out(content):
    answer = content.format(good=json.dumps({"lines": [GOOD]}))
    assert parse(answer, _request(TEXT)) == (GOOD,)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # What the text says itself may be said again.
        ("Sorry, I can't come: an apology opens", "I'm sorry, I cannot come: so it apologises"),
        ("Note: the list goes on", "Note: the enumeration continues"),
        ('Ends in "I\'m sorry", an apology', '"I\'m sorry" at its end apologises'),
        ('The assistant says "Sure! Here is"', '"Sure! Here is" is what the assistant says'),
        ("A <b> tag is open", "There is a <b> tag that is open"),
        ("1. A list", "1. An enumeration"),
        ('"the end"', '"the close"'),
        ("A certain order of words is expected here", "Certain words in order are expected here"),
        ("Noted in the register of ships", "Notes in a register of ships"),
        ("This request for comment is a genre", "A genre: this request for comment"),
        ("Short.", "Short."),  # few words have no other way of being said
        # Near to talk, and none.
        ("The text seems cut off", "It seems that the text is cut off"),
        ("A text with instructions for ships", "This text contains instructions for ships"),
        ("Steps of a manual go on", "Instructions in the text are continued"),
        ("A revised draft of the article", "This is a revised version of the article"),
        ("Genre of a summary, tone formal", "Summary: formal tone"),
        ("Great detail on harbours", "Great detail is given on harbours"),
        ("User asks for help", "The user asks for help"),
        ("Sureness of tone", "Sure of itself in tone"),
        ("Is the ship late?", "Is that ship late?"),
        ("World War I list", "A list on World War I"),
    ],
)
def test_ordinary_rewritings_pass(before, after):
    assert check_lines([after], _request(before)) == (after,)


def test_a_line_may_stay_as_it_is_if_the_text_does_not():
    after = ("The final token", GOOD)
    assert check_lines(after, _request("The final token", TEXT)) == after


LONG = (
    f"{TEXT}. Cold grey weather, a list of departing ships, formal register of a newspaper column, "
    "and probably a quoted witness whose boat never left the quay"
)
OTHER = (
    "A poem about summer evenings far from any sea, and of what its author had for dinner last "
    "Tuesday, told in short stanzas that rhyme in pairs"
)


def test_another_text_is_caught():
    with pytest.raises(NotAnAnswer, match="no word of the text"):
        check_lines([OTHER], _request(LONG))
    # A translation need not share a word.
    assert check_lines([OTHER], _request(LONG, changes_language=True)) == (OTHER,)


@pytest.mark.parametrize(
    "answer",
    [
        "Vermutlich ein Bericht über den Hafen am Morgen (final token: before), kaltes Wetter und "
        "eine Liste von Schiffen, der Ton einer Zeitung und wohl ein Zeuge, der nie ablegte",
        "Probablement un rapport sur le port au matin (final token: before), temps froid et gris, "
        "une liste de navires, le ton d'un journal et un témoin qui n'est jamais parti",
        "Probablemente un informe sobre el puerto (final token: before), tiempo frío y gris, una "
        "lista de barcos, tono de periódico y un testigo cuyo bote nunca salió del muelle",
    ],
)
def test_another_language_is_caught_where_none_was_asked_for(answer):
    with pytest.raises(NotAnAnswer, match="another language"):
        check_lines([answer], _request(LONG))
    assert check_lines([answer], _request(LONG, changes_language=True)) == (answer,)


def test_a_terse_summary_is_in_the_same_language():
    terse = "Harbour report, morning; final token opens time phrase; cold, ships list, formal tone"
    assert check_lines([terse], _request(LONG)) == (terse,)


def _print(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        print(f"\n{line}")


@pytest.mark.slow
def test_ordinary_explanations_are_not_taken_for_talk(sweep_path: Path, capsys) -> None:
    """Every explanation of the sweep as an answer; first to nothing, which excuses nothing."""
    frame = pl.read_parquet(sweep_path).drop_nulls("explanation")
    # Line breaks are two spaces in this file: each paragraph could be a line of an answer.
    texts = frame["explanation"].to_list()
    lines = [line for text in texts for line in re.split(r"\s{2,}", text) if line.strip()]
    unexcused = sum(is_talk("", line) for line in lines)
    # Then to the text of another model on the same activation, as unlike as a paraphrase may be.
    base = dict(frame.filter(pl.col("model") == "base").select("idx", "explanation").iter_rows())
    pairs = [
        (base[idx], text)
        for idx, model, text in frame.select("idx", "model", "explanation").iter_rows()
        if model != "base" and idx in base
    ]
    flagged = sum(is_talk(before, after) for before, after in pairs)
    _print(
        capsys,
        f"taken for refusal or comment: {unexcused} of {len(lines):,} lines as answers to nothing, "
        f"{flagged} of {len(pairs):,} texts as answers to another on the same activation",
    )
    assert len(lines) > 5000
    assert len(pairs) > 3000
    assert unexcused <= 0.002 * len(lines)
    assert flagged <= 0.002 * len(pairs)


def test_paraphrases_by_a_language_model_pass(shared: Path, capsys) -> None:
    """All checks on real answers; what is caught must have lost most of its text."""
    frame = pl.read_parquet(shared / "data" / "paraphrase_lines_v3ws.parquet").sort("idx", "line")
    texts = frame.group_by("idx", maintain_order=True).agg("original", "paraphrase")
    asked = [
        *((tuple(row["original"]), row["paraphrase"]) for row in texts.to_dicts()),
        *(((row["original"],), [row["paraphrase"]]) for row in frame.to_dicts()),
    ]
    reasons: Counter[str] = Counter()
    for before, after in asked:
        try:
            check_lines(after, _request(*before))
        except NotAnAnswer as error:
            reasons[re.sub(r"\d+", "n", str(error))] += 1
    _print(capsys, f"{len(asked):,} real paraphrases, refused: {dict(reasons) or 'none'}")
    # Two lines run into a loop; their paraphrases leave out more than four fifths of them.
    assert set(reasons) <= {"n different words for n"}
    assert reasons.total() <= 2
