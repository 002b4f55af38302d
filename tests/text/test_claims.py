"""Claims: where an explanation may be split, and where it must not be."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nla_audit.text.claims import Claim, split_claims
from nla_audit.text.kinds import KIND_NAMES
from nla_audit.text.words import content_stems, word_spans

#: From the first letter or digit of a mark on, with what closes it.
LIST_MARK = re.compile(
    r"(?:[a-zA-Z]|[ivxIVX]{1,4}|[一二三四五六七八九十]{1,2}|\d{1,2})(?:[.):、）．\]]| [-–—])|[①-⑳]"
)


def texts(explanation: str) -> list[str]:
    return [claim.text for claim in split_claims(explanation)]


def assert_consistent(explanation: str, claims: list[Claim]) -> None:
    """Spans are cut from the text, in order, apart from each other, and hold every word.

    What marks an item of a list is held by none.
    """
    for claim in claims:
        assert explanation[claim.start : claim.end] == claim.text
        assert claim.text == claim.text.strip() != ""
        assert claim.kind in KIND_NAMES
        assert claim.stems
    for before, after in pairwise(claims):
        assert before.end <= after.start
        assert before.sentence <= after.sentence
    if any(map(str.isalnum, explanation)):
        assert claims
    for start, end in word_spans(explanation):
        held = any(claim.start <= start and end <= claim.end for claim in claims)
        assert held or any(
            LIST_MARK.fullmatch(explanation[start:place].strip())
            for place in (end, end + 1, end + 2)
        )


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_text_has_consistent_claims(explanation: str) -> None:
    assert_consistent(explanation, split_claims(explanation))


_PIECES = st.sampled_from(
    """final token news article about "the " ' ’ “ ” « » 「 」 ` ( ) [ ] , ; : . ! ? … — - e.g. i.e.
    1. 2) (b) ii. a. * # Dr. U.S.
    such as likely or and 3,500 Oslo 这 是 。 ， 、 ： • _ ~ don't iPhone""".split()
)
_SPACES = st.sampled_from([" ", "", "  ", "\n", "\n\n", "\t", " \u2028", "\u3000"])


@given(st.lists(st.tuples(_PIECES, _SPACES), max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_mixture_of_marks_and_words_has_consistent_claims(
    pieces: list[tuple[str, str]],
) -> None:
    explanation = "".join(piece + space for piece, space in pieces)
    assert_consistent(explanation, split_claims(explanation))


@pytest.mark.parametrize(
    "explanation", ["", "  ", "\n\n", "…", "—, (); «»", "_ _", "・", "\u3040", "\ud7a4"]
)
def test_a_text_without_words_has_no_claims(explanation: str) -> None:
    assert split_claims(explanation) == []


@pytest.mark.parametrize(
    "marks",
    [
        ("1. ", "2. ", "3. "),
        ("1) ", "2) ", "3) "),
        ("(1) ", "(2) ", "(3) "),
        ("a. ", "b. ", "c. "),
        ("a) ", "b) ", "c) "),
        ("(a) ", "(b) ", "(c) "),
        ("i. ", "ii. ", "iii. "),
        ("[1] ", "[2] ", "[3] "),
        ("1 - ", "2 - ", "3 - "),
        ("1: ", "2: ", "3: "),
        ("1.1. ", "1.2. ", "1.3. "),
        ("**1.** ", "**2.** ", "**3.** "),
        ("- ", "- ", "- "),
        ("* 1. ", "* 2. ", "* 3. "),
        ("# 1. ", "## 2. ", "### 3. "),
        ("①", "②", "③"),
        ("1、", "2、", "3、"),
        ("（一）", "（二）", "（三）"),
        ("1.  ", "2.  ", "3.  "),
        ("1.\n", "2.\n", "3.\n"),
        ("IV.  ", "V.  ", "VI.  "),
    ],
)
@pytest.mark.parametrize("separator", ["\n", "\n\n", "  "])
def test_what_marks_the_items_of_a_list_is_no_claim(marks: tuple[str, ...], separator: str) -> None:
    said = ["An article on the town of Vellmar.", "Its tone is dry.", 'It ends with "census, the".']
    marked = separator.join(mark + text for mark, text in zip(marks, said, strict=True))
    found, plain = split_claims(marked), split_claims(separator.join(said))
    assert [claim.text for claim in found] == said
    assert [(claim.kind, claim.sentence) for claim in found] == [
        (claim.kind, claim.sentence) for claim in plain
    ]


@pytest.mark.parametrize("mark", ["{}. ", "{}) ", "({}) "])
def test_items_of_a_list_that_stands_on_one_line(mark: str) -> None:
    said = ["An article on the town of Vellmar.", "Its tone is dry.", "It ends with a comma."]
    marked = [mark.format(place) + text for place, text in enumerate(said, start=1)]
    assert texts(" ".join(marked)) == said


@pytest.mark.parametrize(
    "explanation",
    [
        "1.5 million people live there.",
        "2 - 1 was the score.",
        "12:30 is when it begins.",
        "1984.",
        "5.",
        "b)",
        "It has three parts: 2.",
        "J. K. Rowling is the author.",
        "E. coli is what it is about.",
        "(5) is the final token.",
        "(I) think so.",
        "10 - Downing Street is the address.",
    ],
)
def test_numbers_that_mark_no_item(explanation: str) -> None:
    assert texts(explanation) == [explanation]


def test_items_of_a_chinese_list() -> None:
    assert texts("1.这是一篇文章。2.语气平淡。") == ["这是一篇文章。", "语气平淡。"]


def test_a_quoted_number_marks_no_item() -> None:
    text = 'It ends with "1. Salt\n2. Pepper", and "3. " is next.'
    assert "".join(texts(text)).count("2.") == 1


def test_days_and_centuries_end_no_german_sentence() -> None:
    text = "Der Brief ist vom 3. Mai, und er ist aus dem 19. Jahrhundert. Er endet mit einem Komma."
    assert [claim.sentence for claim in split_claims(text)][-1] == 1


@pytest.mark.parametrize("separator", ["\n", "\n\n", "  ", "  \n ", " • ", " ▪ "])
def test_paragraphs_are_claims_however_short(separator: str) -> None:
    assert texts(f"rivers{separator}formal tone") == ["rivers", "formal tone"]


def test_sentences_and_clauses_split() -> None:
    claims = split_claims(
        "The article follows rural railway closures. A formal journalistic register prevails, "
        "the final clause demands another noun phrase."
    )
    assert [claim.text for claim in claims] == [
        "The article follows rural railway closures.",
        "A formal journalistic register prevails,",
        "the final clause demands another noun phrase.",
    ]
    assert [claim.sentence for claim in claims] == [0, 1, 1]


def test_clauses_of_one_sentence_share_its_number() -> None:
    claims = split_claims(
        "Regional newspaper covering harbour politics, formal register throughout the passage, "
        "momentum builds towards council verdict. Another sentence names three rivers."
    )
    assert [claim.sentence for claim in claims] == [0, 0, 0, 1]


@pytest.mark.parametrize("dash", [" — ", " – ", "—", " - "])
def test_dashes_split_but_hyphens_and_ranges_do_not(dash: str) -> None:
    left, right = "regional newspaper covering harbours", "third-person account of 1990-1995 events"
    assert texts(left + dash + right) == [left, right]


@pytest.mark.parametrize(
    "explanation",
    [
        'The refrain "we go, we go. Then we stop; now" recurs throughout this passage',
        "The refrain “we go, we go. Then we stop; now” recurs throughout this passage",
        "The refrain «we go, we go. Then we stop; now» recurs throughout this passage",
        "The refrain 「we go, we go. Then we stop; now」 recurs throughout this passage",
        "The refrain `we go, we go. Then we stop; now` recurs throughout this passage",
        "The refrain 'we don't go, we go. Then we stop; now' recurs throughout this passage",
        "Broadleaf trees (oak groves, elm avenues. ash woods; pine belts) fill this passage",
        "Broadleaf trees [oak groves, elm avenues. ash woods; pine belts] fill this passage",
        'The refrain "we go — we go  then we stop" recurs throughout this passage',
    ],
)
def test_quotes_and_parentheses_never_split(explanation: str) -> None:
    assert texts(explanation) == [explanation]


def test_quotes_and_parentheses_are_marked_on_their_claim() -> None:
    first, second = split_claims(
        'Repeats "alpha, beta" and "gamma" many times. Broadleaf trees (oak, elm) fill passages.'
    )
    assert (first.quotes, first.has_parenthesis) == (2, False)
    assert (second.quotes, second.has_parenthesis) == (0, True)


@pytest.mark.parametrize(
    "sentence",
    [
        "Written by Dr. Anna Smith about alpine glaciers.",
        "Testimony before the U.S. Senate concerning alpine glaciers.",
        "Poem by T. Eliot describing alpine glaciers.",
        "Named entities, etc. Glaciers appear in closing lines.",
        "Glaciers near St. Moritz melt in early summer.",
    ],
)
def test_abbreviations_do_not_end_a_sentence(sentence: str) -> None:
    claims = split_claims(f"{sentence} Another sentence names three rivers.")
    assert {claim.sentence for claim in claims} == {0, 1}
    assert claims[-1].text == "Another sentence names three rivers."


@pytest.mark.parametrize(
    "example",
    [
        "such as nitrogen fixation in legumes",
        "for instance nitrogen fixation in legumes",
        "for example nitrogen fixation in legumes",
        "including nitrogen fixation in legumes",
        "or nitrogen fixation in legumes",
        "likely something like nitrogen fixation in legumes",
        "e.g. nitrogen fixation in legumes",
        "i.e. nitrogen fixation in legumes",
    ],
)
def test_examples_join_what_they_exemplify(example: str) -> None:
    explanation = f"Academic paper about soil chemistry, {example}"
    assert texts(explanation) == [explanation]


def test_list_items_and_short_clauses_join() -> None:
    explanation = "Enumerates broadleaf trees native to Wales, oak, elm, ash, tall pine"
    assert texts(explanation) == [explanation]


def test_a_short_lead_in_joins_what_its_colon_introduces() -> None:
    explanation = "Genre and document domain: travel blog describing mountain huts"
    assert texts(explanation) == [explanation]


def test_a_long_lead_in_is_a_claim_of_its_own() -> None:
    first = "Conversational travel blog with humorous asides about weather:"
    second = "mountain huts above Zermatt dominate"
    assert texts(f"{first} {second}") == [first, second]


def test_chinese_and_japanese_split_without_spaces() -> None:
    claims = split_claims("这是一篇关于火车的新闻文章。最后的词是逗号，期待一个名词。")
    assert [claim.text for claim in claims] == [
        "这是一篇关于火车的新闻文章。",
        "最后的词是逗号，",
        "期待一个名词。",
    ]
    assert [claim.sentence for claim in claims] == [0, 1, 1]
    assert claims[2].stems == ("期", "待", "一", "个", "名", "词")


def test_stems_are_of_content_words_and_quoted_function_words() -> None:
    (claim,) = split_claims('The final token "the" opens noun phrases')
    assert claim.stems == tuple(content_stems(claim.text, [(17, 20)]))
    assert '"the' in claim.stems
    assert "the" not in claim.stems


def test_a_claim_of_function_words_alone_still_has_words() -> None:
    (claim,) = split_claims("as it is")
    assert claim.stems == ("as", "it", "is")


def test_long_texts_of_unclosed_marks() -> None:
    explanation = "Travel blog about mountain huts, (" * 3_000
    claims = split_claims(explanation)
    assert claims[-1].end > 90_000
    # One quotation mark that never closes must not be looked for again from every place.
    assert split_claims('"' + "a" * 200_000)[0].end == 200_001


@pytest.mark.parametrize(
    ("claim", "kind"),
    [
        ('Final token "the" opens a noun phrase', "final_token"),
        ("The text ends mid-word after a comma", "final_token"),
        ("The refrain is repeated three times", "repetition"),
        ("News article about harbours", "genre"),
        ("A formal register prevails", "style"),
        ("The tension escalates quickly", "momentum"),
        ("A relative clause stays open", "structure"),
        ("A place name is expected", "expectation"),
        ("Exactly 40 ships sank", "number"),
        ("Ships left Oslo yesterday", "entity"),
        ('"come rain or shine"', "quote"),
        ("ships sank yesterday", "content"),
        ('"news article" stands here', "quote"),  # what is merely quoted is no cue
    ],
)
def test_kinds(claim: str, kind: str) -> None:
    assert [found.kind for found in split_claims(claim)] == [kind]


@pytest.mark.parametrize(
    "piece", ['"a" or ', "e.g. ", " ‘a’b", " 'a", "- !\n", "1. ", "(a) b\n", "**", "\n"]
)
def test_a_long_text_of_marks_ends_soon(piece: str) -> None:
    """In time that grows as the text does: its square would be some seconds here."""
    start = time.process_time()
    split_claims(piece * 8000)
    assert time.process_time() - start < 1.5


@pytest.mark.parametrize("blank", ["\u00a0", "\u202f"])
def test_blanks_that_do_not_break_a_line_leave_claims_as_they_are(blank: str) -> None:
    text = (
        "The text is about cold ports, for example Oslo, something such as fjords. It ends here now"
    )
    other = split_claims(text.replace(" ", blank))
    assert [claim.text.replace(blank, " ") for claim in other] == texts(text)
    assert [claim.kind for claim in other] == [claim.kind for claim in split_claims(text)]


def test_nouns_of_a_german_text_are_no_names_in_claims_of_few_words() -> None:
    text = "Der Brief ist eine Absage und nennt die Gründe der Bank. Länge, Tonfall, Anrede: knapp"
    assert all(claim.kind != "entity" and not claim.subjects for claim in split_claims(text))
