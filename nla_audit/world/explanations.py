"""Gold explanations of the synthetic language: true, wordy, and full of filler.

Each explanation names most of the document's facts and its last words, each in one of several
wordings between one word and a dozen, with sentences between them that say nothing. So there is
something to omit, something to reword and something to cut, and the warm start sees short and
long ways alike; a length penalty has all of them to choose from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Fact → wordings, long to short; ``{}`` is the value.
WORDINGS: dict[str, tuple[str, ...]] = {
    "topic": (
        "the whole passage seems to be set at the {}",
        "the scene takes place at the {}",
        "about the {}",
        "{} scene",
    ),
    "tone": (
        "throughout the text the tone of it stays {}",
        "the tone is rather {}",
        "{} tone",
    ),
    "speaker": (
        "the voice sounds very much like that of a {}",
        "the speaker is probably a {}",
        "spoken by a {}",
        "{} speaking",
    ),
    "time": (
        "all of this happens at some point during {}",
        "the time is around {}",
        "at {}",
    ),
    "purpose": (
        "what the speaker does with these words is that he {}",
        "the speaker mostly {}",
        "he {}",
    ),
    "ending": (
        'the very last words before this point are " {} "',
        'it ends with the words " {} "',
        'ends " {} "',
    ),
}

FILLERS: tuple[str, ...] = (
    "the words follow each other in a plain way",
    "more words of this kind can be expected",
    "not much else can be said about it",
    "this is a text of the usual form",
    "nothing in the order of words stands out",
)

#: Share of explanations that leave a given fact out, and chance of filler behind a sentence.
_LEFT_OUT, _FILLER = 0.1, 0.25
#: How many of a document's last words an explanation quotes.
ENDING_WORDS = 2


def write_explanation(
    rng: np.random.Generator, facts: dict[str, str], last_words: Sequence[str]
) -> str:
    """An explanation of a position in a document.

    Args:
        facts: fact → value.
        last_words: words up to the position, the last one last.
    """
    said = {**facts, "ending": " ".join(last_words[-ENDING_WORDS:])}
    sentences = []
    for fact, value in said.items():
        if fact != "ending" and rng.random() < _LEFT_OUT:
            continue
        wording = WORDINGS[fact][rng.integers(len(WORDINGS[fact]))]
        sentences.append(wording.format(value))
        if rng.random() < _FILLER:
            sentences.append(FILLERS[rng.integers(len(FILLERS))])
    return " . ".join(sentences) + " ."
