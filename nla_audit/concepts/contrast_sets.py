"""Read a contrast set: pairs of texts of which one shows a concept and the other does not.

The difference of what a model makes of the two sides is a direction for the concept. Each file
beside this module is a set that ships; a user's own file has the same keys, which are the fields
of :class:`ContrastSet`.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from nla_audit.errors import UserError
from nla_audit.strangers import first_problem, read_yaml
from nla_audit.text.concepts import Concept, all_stems
from nla_audit.wording import count

#: With fewer the direction is that of these texts, not of the concept, and no interval is given
#: anywhere in the package.
FEWEST_PAIRS = 10
#: Characters of a text. Long ones hold much besides the concept, and do not fit into a model.
LONGEST_TEXT = 20_000
_HERE = Path(__file__).parent
_ADVICE = "mend the contrast set, or name another"


class ContrastSet(BaseModel):
    """Pairs of texts, matched in topic, register and length, that differ in one concept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="The concept, as reports name it.")
    what: str = Field(min_length=1, description="What the concept is, in one sentence.")
    made: str = Field(min_length=1, description="How the texts were made.")
    confounds: str = Field(min_length=1, description="What else differs between the two sides.")
    words: tuple[str, ...] = Field(
        min_length=1,
        description="Words and phrases that name the concept where they stand in an explanation, "
        "up to inflection and case.",
    )
    pairs: tuple[tuple[str, str], ...] = Field(
        description="A text with the concept and its match without it, each time."
    )

    @field_validator("words")
    @classmethod
    def _hold_words(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        for phrase in words:
            if not all_stems(phrase):
                raise ValueError(f'"{phrase}" holds no word')
        return words

    @field_validator("pairs")
    @classmethod
    def _are_contrasts(cls, pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        if len(pairs) < FEWEST_PAIRS:
            raise ValueError(f"{count(len(pairs), 'pair')}; at least {FEWEST_PAIRS} are needed")
        place_of: dict[str, int] = {}
        for number, pair in enumerate(pairs, start=1):
            for side in pair:
                text = " ".join(side.split())
                if not text:
                    raise ValueError(f"pair {number} has an empty text")
                if len(side) > LONGEST_TEXT:
                    raise ValueError(
                        f"pair {number} has a text of {len(side):,} characters; at most "
                        f"{LONGEST_TEXT:,} are allowed"
                    )
                if place_of.get(text) == number:
                    raise ValueError(f"pair {number} has the same text on both sides")
                if text in place_of:
                    raise ValueError(f"a text of pair {number} is in pair {place_of[text]} too")
                place_of[text] = number
        return pairs

    @property
    def with_concept(self) -> list[str]:
        """The texts that show the concept, one for each pair."""
        return [text for text, _ in self.pairs]

    @property
    def without_concept(self) -> list[str]:
        """Their matches."""
        return [text for _, text in self.pairs]

    def concept(self) -> Concept:
        """What finds the concept named in an explanation, by :attr:`words`."""
        return Concept(self.name, tuple(tuple(all_stems(phrase)) for phrase in self.words))


def contrast_set_names() -> list[str]:
    """Names of the sets that ship, as :func:`load_contrast_set` takes them, in order."""
    return sorted(path.stem for path in _HERE.glob("*.yaml"))


def load_contrast_set(name_or_path: str | Path) -> ContrastSet:
    """A set that ships, by its name, or the one in a YAML file.

    Raises:
        UserError: no such set or file, no YAML, a missing or unknown key, fewer than
            :data:`FEWEST_PAIRS` pairs, an empty or repeated text or one beyond
            :data:`LONGEST_TEXT`.
    """
    names = contrast_set_names()
    path = Path(name_or_path)
    if str(name_or_path) in names:
        path = _HERE / f"{name_or_path}.yaml"
    elif not path.exists():
        raise UserError(f"{name_or_path}: no contrast set and no file; {_hint(path.name, names)}")
    raw = read_yaml(path, advice=_ADVICE)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected the keys of a contrast set; {_ADVICE}")
    try:
        return ContrastSet.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{path}: {_told(error)}; {_ADVICE}") from None


def _told(error: ValidationError) -> str:
    """The first problem; the pairs, which may be long, are not repeated."""
    problem = error.errors(include_url=False)[0]
    if problem["type"] == "value_error":
        place = ".".join(map(str, problem["loc"]))
        return f"{place}: {problem['msg'].removeprefix('Value error, ')}"
    return first_problem(error)


def _hint(wrong: str, names: Sequence[str]) -> str:
    near = get_close_matches(wrong, names, n=1)
    return f"did you mean {near[0]}?" if near else f"these ship: {', '.join(names)}"
