"""Words that say the same, for those who exchange them by rule."""

import re

#: Words that say the same in explanations, whatever stands around them. Rules, not a thesaurus:
#: few words, each safe. How many words they change is measured and reported.
SYNONYMS = tuple(
    tuple(line.split())
    for line in """
    likely probably
    starts begins
    starting beginning
    shows displays
    mentions names
    describes depicts
    suggests implies
    indicates signals
    informal casual
    big large
    small little
    quick fast
    hard difficult
    main chief
    whole entire
    often frequently
    maybe perhaps
    ends finishes
    ending finishing
    expects anticipates
    expected anticipated
    needs requires
    required needed
    uses employs
    using employing
    keeps retains
    gives provides
    giving providing
    near close
    reply answer
    sad unhappy
    happy glad
    odd strange
    rapid swift
    buys purchases
    home house
    text passage
    topic subject
    list enumeration
    tone mood
    about concerning
    next following
    """.strip().splitlines()
)
GROUP_OF = {word: group for group in SYNONYMS for word in group}
PATTERN = re.compile(r"\b(?:" + "|".join(sorted(GROUP_OF)) + r")\b", re.IGNORECASE)


def as_written(word: str, like: str) -> str:
    """``word`` in capitals where ``like`` is."""
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word.capitalize() if like[:1].isupper() else word
