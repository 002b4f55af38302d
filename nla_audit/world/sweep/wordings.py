"""How a planted claim is worded: templates at length and terse ones, for each kind of fact.

Fields: ``{value}`` a form of the fact's value (long in long templates, short in short ones),
``{topic}`` a form of the topic, ``{noun}`` a thing of the topic, ``{item}`` what the claim names
(an entity, a number with its unit, or the words of a quotation), ``{guess}`` predicted words.
Every wording of a kind that names an item names it, so that whether a stated claim is right can
always be read off the text. No template holds the end punctuation or a paragraph break.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wordings:
    """The ways to state a fact of one kind."""

    long: tuple[str, ...]
    short: tuple[str, ...]


#: The kinds of planted facts, in the order in which explanations state them.
KINDS: tuple[str, ...] = (
    "genre",
    "style",
    "entity",
    "number",
    "repetition",
    "momentum",
    "structure",
    "expectation",
    "final_token",
)

WORDINGS: dict[str, Wordings] = {
    "genre": Wordings(
        long=(
            "{value} that deals with {topic} from the outset",
            "The domain is {topic} and the document appears to be: {value}",
            "{value}, a genre here devoted to {topic}",
            "Genre and domain are plain: {value} concerned with {topic}",
            "The whole text belongs to the genre of {value} about {topic}",
        ),
        short=(
            "{value} about {topic}",
            "{value} on {topic}",
            "{value}: {topic}",
            "{topic} {value}",
            "{topic} ({value})",
        ),
    ),
    "style": Wordings(
        long=(
            "The author keeps to {value} in every line of the passage",
            "Written throughout in {value} and never departing from it",
            "Its register is best described as {value}",
            "Everything so far has been put in {value}, a manner that will persist",
            "The style holds steady with {value} from start to end",
        ),
        short=("{value}", "{value} persists", "{value} kept up", "in {value}", "reads as {value}"),
    ),
    "entity": Wordings(
        long=(
            "The name {item} has been brought in and carries weight in the passage",
            "By name {item} is mentioned and stays at the centre of attention",
            "Much of what is told concerns {item} in particular",
            "Attention rests on {item} as one of those involved",
            "The passage dwells on {item} and on what happened there",
        ),
        short=("{item} named", "{item} involved", "mentions {item}", "about {item}", "{item}"),
    ),
    "number": Wordings(
        long=(
            "A concrete quantity of {item} is stated in the passage",
            "The figure of {item} has been given as a fact",
            "Exactly {item} are mentioned as the amount in question",
            "The amount involved is put at {item} without any rounding",
        ),
        short=("{item}", "{item} stated", "figure {item}", "count of {item}", "{item} in all"),
    ),
    "repetition": Wordings(
        long=(
            'The phrase "{item}" recurs more than once as a kind of refrain',
            'Wording is repeated deliberately with "{item}" coming back twice',
            'There is a recurring formula in "{item}" that the writer repeats',
            'The words "{item}" are reiterated and bind the passage together',
        ),
        short=(
            '"{item}" recurs',
            '"{item}" repeated',
            'refrain "{item}"',
            '"{item}" twice',
            'echoes "{item}"',
        ),
    ),
    "momentum": Wordings(
        long=(
            "The narrative momentum comes from {value} around the {noun}",
            "The argument is building on {value} where the {noun} is concerned",
            "Momentum gathers through {value} with the {noun} in view",
            "What unfolds around the {noun} is the progress of {value}",
        ),
        short=(
            "{value} momentum",
            "{value} building",
            "{value} around {noun}",
            "{noun}: {value}",
            "heading for {value}",
        ),
    ),
    "structure": Wordings(
        long=(
            'The syntax of "{item}" has the shape of {value}',
            'Grammatically the words "{item}" form {value} and bind what comes after',
            'With "{item}" the sentence presents {value} as a constraint',
            'The construction "{item}" is {value} that limits the grammar',
        ),
        short=(
            '"{item}" {value}',
            '{value} "{item}"',
            '{value} in "{item}"',
            '"{item}": {value}',
            '{value} after "{item}"',
        ),
    ),
    "expectation": Wordings(
        long=(
            'What is most likely to arrive next is {value} (e.g., "{guess}")',
            "The reader now expects {value} with regard to the {noun}",
            'Content about {value} is anticipated, likely something such as "{guess}"',
            "An upcoming part will probably supply {value} in relation to the {noun}",
            'The continuation should bring {value}, for instance "{guess}" as a likely completion',
        ),
        short=(
            "{value} expected",
            "expects {value}",
            "{value} next",
            "{value} awaited",
            'then {value} e.g. "{guess}"',
        ),
    ),
    "final_token": Wordings(
        long=(
            'Final token "{item}" is {value} and governs whatever comes after it',
            'The final token "{item}" serves as {value} at the very edge of the text',
            'The last word "{item}" acts as {value} in an unfinished sentence',
            'The text breaks off at "{item}" which is {value} here',
        ),
        short=(
            '"{item}" {value}',
            'final "{item}"',
            'ends in "{item}" as {value}',
            '"{item}" as {value}',
            '{value} "{item}" last',
        ),
    ),
}

#: Phrases that carry nothing about an activation and that any explanation may hold.
FILLERS: tuple[str, ...] = (
    "The passage reads coherently throughout",
    "All of this remains consistent with the context so far",
    "The surrounding context supports this reading",
    "Taken together these cues point the same way",
    "Nothing here departs from what came earlier",
    "The overall picture is clear from the context given",
)

#: Source sentences about the topic; each holds what its name says.
ENTITY_SENTENCES: tuple[str, ...] = (
    "For years {item} had kept an eye on the {noun}.",
    "Then {item} took charge of the {noun} without much fuss.",
    "Papers kept at the {noun} mention {item} more than anyone else.",
    "It fell to {item} to speak up for the {noun}.",
    "The {noun} meant a great deal to {item} in those days.",
)
PLACE_SENTENCES: tuple[str, ...] = (
    "The road to {item} passes right by the {noun}.",
    "Down in {item} the {noun} was known to all.",
    "Nothing like the {noun} had been seen in {item} before.",
    "They brought the {noun} over from {item} by night.",
)
NUMBER_SENTENCES: tuple[str, ...] = (
    "Records show {item} in the first season alone.",
    "By the end there were {item} to deal with.",
    "The total came to {item} according to the ledger.",
    "Some {item} had been promised beforehand.",
)
REPEATED_PHRASES: tuple[str, ...] = (
    "one step at a time",
    "as far as anyone knew",
    "against all good advice",
    "for better or worse",
    "come rain or shine",
    "by hand and by eye",
    "with nothing to spare",
    "in plain view of all",
    "at their own expense",
    "without a second thought",
    "for what it was worth",
    "in the usual way",
)
REPETITION_SENTENCES: tuple[str, ...] = (
    "The {noun} was looked after {item}, and {item} it stayed.",
    "They tended the {noun} {item}, then left it {item}.",
    "It began {item} at the {noun} and it ended {item}.",
)
