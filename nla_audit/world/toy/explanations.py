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
    "topic": ("the scene is set at the {}", "set at the {}", "{} scene"),
    "tone": ("the tone of it is {}", "the tone is {}", "{} tone"),
    "speaker": ("all of it is told by a {}", "told by a {}", "{} speaking"),
    "time": ("it all happens around {}", "happens around {}", "at {}"),
    "purpose": ("in the end the speaker {}", "the speaker {}", "he {}"),
    "ending": ('it ends with the words " {} "', 'it ends with " {} "', 'ends " {} "'),
}

FILLERS: tuple[str, ...] = (
    "the words are rather plain",
    "more of this can follow",
    "not much else is said",
    "the form of it is usual",
)

#: Share of explanations that leave a given fact out, and chance of filler behind a sentence.
_LEFT_OUT, _FILLER = 0.1, 0.5
#: How many of a document's last words an explanation quotes.
ENDING_WORDS = 2


def write_explanation(
    rng: np.random.Generator, facts: dict[str, str], last_words: Sequence[str]
) -> str:
    """An explanation of a position in a document.

    Args:
        facts: fact → value.
        last_words: words up to the position, the last one last; none are quoted if there are
            none.
    """
    said = dict(facts)
    if last_words:
        said["ending"] = " ".join(last_words[-ENDING_WORDS:])
    sentences = []
    for fact, value in said.items():
        if fact != "ending" and rng.random() < _LEFT_OUT:
            continue
        wording = WORDINGS[fact][rng.integers(len(WORDINGS[fact]))]
        sentences.append(wording.format(value))
        if rng.random() < _FILLER:
            sentences.append(FILLERS[rng.integers(len(FILLERS))])
    return " . ".join(sentences) + " ."
