"""How a planted model puts the facts of an activation into words, leaves them out or errs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nla_audit.errors import UserError
from nla_audit.world.sweep.activation import (
    NAMING_KINDS,
    SLOTS,
    SPARE_FACTS,
    UNIFORMS_PER_WORDING,
    Activation,
    Fact,
    pick,
    word_claim,
)
from nla_audit.world.sweep.wordings import FILLERS, KINDS

#: Lengths of a copied tail, in source words.
TAIL_WORDS = (4, 8)

# Up to seven letters, one digit, or one other sign.
_TOKEN = re.compile(r"[^\W\d_]{1,7}|\d|[^\w\s]|_")
_FILLER_SLOT = -1
_PER_TEXT = 10
_PER_SLOT = 6 + UNIFORMS_PER_WORDING
#: Uniform numbers that one explanation consumes.
UNIFORMS_PER_EXPLANATION = _PER_TEXT + len(SLOTS) * _PER_SLOT


@dataclass(frozen=True)
class PlantedModel:
    """What one model of a planted sweep does to the claims of the reference.

    Attributes:
        name: value of the ``model`` column.
        length_penalty: λ, or ``None`` for a model without RL.
        omit: probability of leaving out a claim, overall or by kind (a kind not named: 0).
        reword: probability that a claim which is stated is stated tersely, in a short wording.
        add: expected number of true claims per explanation from the activation's spare facts
            (at most ``SPARE_FACTS``), which the reference is not meant to state.
        tail_copy: probability that the explanation ends in a copy of the last 4–8 source words.
        spurious: probability that a stated claim which names an entity, a number or quoted words
            names something that is not in the source. The final token's claim is always right.
        filler: probability of a filler phrase, the same ones for all activations.
        fail: probability that no explanation can be extracted.
        empty: probability that the explanation is empty.
    """

    name: str
    length_penalty: float | None = None
    omit: Mapping[str, float] | float = 0.0
    reword: float = 0.0
    add: float = 0.0
    tail_copy: float = 0.0
    spurious: float = 0.0
    filler: float = 0.0
    fail: float = 0.0
    empty: float = 0.0

    def __post_init__(self) -> None:
        rates = {
            "reword": self.reword,
            "tail_copy": self.tail_copy,
            "spurious": self.spurious,
            "filler": self.filler,
            "fail": self.fail,
            "empty": self.empty,
        }
        if not 0.0 <= self.add <= SPARE_FACTS:
            raise UserError(
                f"planted model {self.name!r}: add is {self.add:g}; "
                f"an activation has {SPARE_FACTS} spare facts, so give a value from 0 to as many"
            )
        if isinstance(self.omit, Mapping):
            unknown = sorted(set(self.omit) - set(KINDS))
            if unknown:
                raise UserError(
                    f"planted model {self.name!r}: omit names the unknown kind {unknown[0]!r}; "
                    f"use some of {', '.join(KINDS)}"
                )
            rates |= {f"omit[{kind}]": rate for kind, rate in self.omit.items()}
        else:
            rates["omit"] = self.omit
        for rate_name, rate in rates.items():
            if not 0.0 <= rate <= 1.0:
                raise UserError(
                    f"planted model {self.name!r}: {rate_name} is {rate:g}; "
                    "give a value from 0 to 1"
                )

    def omission(self, kind: str) -> float:
        """Probability of leaving out a claim of ``kind``."""
        return self.omit.get(kind, 0.0) if isinstance(self.omit, Mapping) else self.omit


def count_tokens(text: str) -> int:
    """Word pieces of a text: up to 7 letters, one digit or one other sign each; spaces are free.

    A rule of ours, close to the lengths that word-piece tokenizers give for English. It is
    additive over pieces that meet at spaces or punctuation, so that the tokens of an explanation
    can be told apart by claim.
    """
    return len(_TOKEN.findall(text))


@dataclass(slots=True)
class Statement:
    """A fact as one explanation states it: ``explanation[start:start + len(text)] == text``."""

    slot: int
    kind: str
    text: str
    #: What the claim names here, right or wrong; empty when its kind names nothing.
    item: str
    terse: bool
    spurious: bool
    tokens: int
    start: int = -1


@dataclass(slots=True)
class PlantedExplanation:
    """One explanation with the truth about it. ``text`` is ``None`` when it failed."""

    text: str | None
    #: By slot, in the order of the text.
    statements: dict[int, Statement] = field(default_factory=dict)
    filler_tokens: int = 0
    #: Punctuation between and after the claims.
    separator_tokens: int = 0
    #: The copied source words, without the quotation marks they may stand in.
    tail_copy: str | None = None
    tail_tokens: int = 0
    tail_quoted: bool = False


def planted_explanation(
    model: PlantedModel,
    activation: Activation,
    uniforms: Sequence[float],
    *,
    omission: float | None,
    paragraph_break: str,
) -> PlantedExplanation:
    """One explanation of the activation.

    Args:
        model: whose rates apply.
        activation: what there is to say.
        uniforms: ``[UNIFORMS_PER_EXPLANATION]`` numbers in [0, 1), which decide everything.
        omission: chance to leave out a planned fact, in place of the model's own ``omit``.
        paragraph_break: what separates paragraphs.
    """
    u_fail, u_empty, u_filler, u_tail = uniforms[:4]
    if u_fail < model.fail:
        return PlantedExplanation(None)
    if u_empty < model.empty:
        return PlantedExplanation("")

    # Place in the text, uniform number for what goes before it, and what is said.
    pieces: list[tuple[float, float, Statement]] = []
    for fact in activation.facts:
        at = _PER_TEXT + fact.slot * _PER_SLOT
        own = uniforms[at : at + _PER_SLOT]
        statement = _state(model, fact, own, omission)
        if statement is not None:
            # Neighbours in the usual order change places now and then.
            pieces.append((fact.slot + 1.5 * own[4], own[5], statement))
    if u_filler < model.filler:
        pieces.append(_filler(uniforms[4:7]))
    pieces.sort(key=lambda piece: piece[0])

    draft = _Draft(paragraph_break)
    for _, uniform, statement in pieces:
        draft.say(statement, uniform)
    if u_tail < model.tail_copy:
        draft.copy_tail(activation.source_text, uniforms[7:10])
    return draft.finish()


class _Draft:
    """An explanation as it grows, with its token account."""

    def __init__(self, paragraph_break: str) -> None:
        self._paragraph_break = paragraph_break
        self._text = ""
        self._last_terse = False
        self._account = PlantedExplanation("")

    def say(self, statement: Statement, uniform: float) -> None:
        """Append a statement; ``uniform`` chooses what separates it from the last one."""
        separator = self._separate(statement.terse, uniform)
        if not statement.terse and separator[:1] in ("", "."):
            statement.text = statement.text[0].upper() + statement.text[1:]
        if statement.slot == _FILLER_SLOT:
            self._account.filler_tokens += statement.tokens
        else:
            statement.start = len(self._text)
            self._account.statements[statement.slot] = statement
        self._text += statement.text
        self._last_terse = statement.terse

    def copy_tail(self, source_text: str, uniforms: Sequence[float]) -> None:
        """End in the last words of the source; ``uniforms``: separator, length, quoted or not."""
        self._separate(self._last_terse, uniforms[0])
        low, high = TAIL_WORDS
        words = low + int(uniforms[1] * (high - low + 1))
        tail = " ".join(source_text.split(" ")[-words:])
        quoted = uniforms[2] < 0.5
        copied = f'"{tail}"' if quoted else tail
        self._account.tail_copy, self._account.tail_quoted = tail, quoted
        self._account.tail_tokens = count_tokens(copied)
        self._text += copied

    def finish(self) -> PlantedExplanation:
        """The explanation; a last sentence at length gets its full stop."""
        if self._text and not self._last_terse and self._account.tail_copy is None:
            self._text += "."
            self._account.separator_tokens += 1
        self._account.text = self._text
        return self._account

    def _separate(self, terse: bool, uniform: float) -> str:
        if not self._text:
            return ""
        separator = _separator(self._last_terse and terse, uniform, self._paragraph_break)
        self._text += separator
        self._account.separator_tokens += count_tokens(separator)
        return separator


def _state(
    model: PlantedModel, fact: Fact, uniforms: Sequence[float], omission: float | None
) -> Statement | None:
    """The fact in this model's words, or ``None`` when it is left out."""
    if fact.planned:
        if uniforms[0] < (model.omission(fact.kind) if omission is None else omission):
            return None
    elif uniforms[0] >= model.add / SPARE_FACTS:
        return None
    terse = uniforms[1] < model.reword
    spurious = fact.kind in NAMING_KINDS and uniforms[2] < model.spurious
    item = pick(fact.wrong_items, uniforms[3]) if spurious else fact.item
    text = word_claim(fact, terse=terse, item=item, uniforms=uniforms[6:])
    return Statement(fact.slot, fact.kind, text, item, terse, spurious, count_tokens(text))


def _filler(uniforms: Sequence[float]) -> tuple[float, float, Statement]:
    """A filler phrase somewhere between the claims; ``uniforms``: place, separator, phrase."""
    text = pick(FILLERS, uniforms[2])
    statement = Statement(_FILLER_SLOT, "", text, "", False, False, count_tokens(text))
    return uniforms[0] * (len(SLOTS) + 1.5), uniforms[1], statement


def _separator(between_terse: bool, uniform: float, paragraph_break: str) -> str:
    """What stands between two claims; short explanations lose their punctuation first."""
    if not between_terse:
        return f".{paragraph_break}" if uniform < 0.5 else ". "
    if uniform < 0.45:
        return ", "
    if uniform < 0.6:
        return "; "
    return " " if uniform < 0.8 else paragraph_break
