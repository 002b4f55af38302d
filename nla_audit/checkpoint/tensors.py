"""Tensors in files, and which weight of a model each of them belongs to.

Trainers wrap models (torch.compile, FSDP, DDP …), and each wrapper leaves a word in the names of
the tensors that are saved. transformers and peft match names literally and drop what fits nowhere:
an adapter of which nothing fits loads as if it were there (peft only warns). So names are matched
here, in one place, and what is left over on either side is counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from nla_audit.errors import UserError, first_line
from nla_audit.wording import count, verb

#: Words that wrappers of PyTorch, DeepSpeed and Lightning put into names, anywhere.
WRAPPERS = frozenset(
    {
        "_orig_mod",
        "module",
        "_module",
        "_fsdp_wrapped_module",
        "_fpw_module",
        "_checkpoint_wrapped_module",
        "_forward_module",
    }
)
#: Words at the beginning of names that only say how deep the decoder sits.
_HULLS = frozenset({"base_model", "backbone", "model", "language_model", "text_model"})
#: Parts of a model that the next token of a text never reaches: eyes, ears, further heads.
_BESIDE_THE_TEXT = frozenset(
    {
        "mtp",
        "vision_tower",
        "vision_model",
        "visual",
        "audio_tower",
        "multi_modal_projector",
        "embed_vision",
        "embed_audio",
    }
)
_KIND_WORD = re.compile(r"weight|bias|lora_\w+")
#: Tables that old versions saved and new ones compute.
_COMPUTED = ("inv_freq", "masked_bias", "position_ids")
_LORA_WORD = re.compile(r"lora_\w+")
#: More would only make a hint slow.
_LOOKED_AT = 64

Shapes = Mapping[str, tuple[int, ...]]


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file.

    Raises:
        UserError: missing or damaged.
    """
    try:
        return load_file(str(path))
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: cannot read ({first_line(error)}); fetch it again") from None


def types_in(paths: Iterable[Path]) -> dict[str, str]:
    """Name → type (``F32``, ``I64`` …) of all tensors in safetensors files; only headers are read.

    Raises:
        UserError: one of them is damaged.
    """
    types: dict[str, str] = {}
    for path in paths:
        try:
            with safe_open(str(path), framework="pt") as file:
                types |= {name: file.get_slice(name).get_dtype() for name in sorted(file.keys())}
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: cannot read ({first_line(error)}); fetch it again") from None
    return types


def is_beside_the_text(name: str) -> bool:
    """Whether a tensor belongs to a part that no next token of a text needs."""
    words = name.split(".")
    return words[-1] in _COMPUTED or not _BESIDE_THE_TEXT.isdisjoint(words)


def plain_name(name: str) -> str:
    """A name without what wrappers, hulls and adapter names put into it.

    ``base_model.model._orig_mod.model.layers.0.q_proj.lora_A.default.weight`` and
    ``model.language_model.layers.0.q_proj.lora_A.weight`` both become
    ``layers.0.q_proj.lora_A.weight``.
    """
    words = [word for word in name.split(".") if word not in WRAPPERS]
    while len(words) > 1 and words[0] in _HULLS:
        del words[0]
    plain: list[str] = []
    for place, word in enumerate(words):
        is_last = place == len(words) - 1
        before = words[place - 1] if place else ""
        if word == "modules_to_save":
            continue
        if before == "modules_to_save" and not is_last:
            continue  # the adapter's name
        if _LORA_WORD.fullmatch(before) and word not in ("weight", "bias"):
            continue  # the adapter's name
        plain.append(word)
    return ".".join(plain)


@dataclass(frozen=True)
class Match:
    """How the tensors of a file and the weights of a model belong together.

    Attributes:
        places: name in the file → name of the weight.
        unmatched: tensors that fit nowhere.
        missing: weights that no tensor is for.
        misshapen: tensors of another shape than their weight, as (name, shape, needed shape).
        given: how many tensors there are.
    """

    places: dict[str, str]
    unmatched: list[str]
    missing: list[str]
    misshapen: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    given: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether every tensor and every weight has found its partner."""
        return not (self.unmatched or self.missing or self.misshapen)

    def renamed(self) -> str | None:
        """What had to be read differently, e.g. ``'_orig_mod.' as ''``; ``None`` if nothing."""
        changes = Counter(
            _difference(name, place) for name, place in self.places.items() if name != place
        )
        if not changes:
            return None
        (old, new), _ = changes.most_common(1)[0]
        return f"{old!r} as {new!r}"

    def problem(self) -> str | None:
        """What is wrong, with the likeliest renaming; ``None`` if nothing is."""
        given = count(self.given, "tensor")
        if self.unmatched or self.missing:
            astray, lost = len(self.unmatched), len(self.missing)
            first = (self.unmatched or self.missing)[0]
            words = (
                f"{astray} of its {given} {verb(astray, 'fits', 'fit')} nowhere and {lost} "
                f"{verb(lost, 'is', 'are')} missing (first {first})"
            )
            renaming = likeliest_renaming(self.unmatched, self.missing)
            return words if renaming is None else f"{words}; {renaming}"
        if self.misshapen:
            name, shape, needed = self.misshapen[0]
            wrong = len(self.misshapen)
            return (
                f"{wrong} of its {given} {verb(wrong, 'has', 'have')} another shape (first "
                f"{name}: {list(shape)}, needed {list(needed)})"
            )
        return None


def match(given: Shapes, wanted: Shapes, *, also: Shapes | None = None) -> Match:
    """Find the weight of each tensor: by its name, else by its plain name.

    Args:
        given: the tensors of a file.
        wanted: the weights that must come from it.
        also: weights that may come from it.
    """
    possible = {**(also or {}), **wanted}
    places = {name: name for name in given if name in possible}
    taken = set(places.values())
    by_plain: dict[str, list[str]] = {}
    for name in possible:
        if name not in taken:
            by_plain.setdefault(plain_name(name), []).append(name)
    for name in sorted(given.keys() - places.keys()):
        candidates = by_plain.get(plain_name(name), [])
        if len(candidates) == 1 and candidates[0] not in taken:
            places[name] = candidates[0]
            taken.add(candidates[0])
    return Match(
        places=places,
        unmatched=sorted(given.keys() - places.keys()),
        missing=sorted(wanted.keys() - taken),
        misshapen=[
            (name, tuple(given[name]), tuple(possible[place]))
            for name, place in sorted(places.items())
            if tuple(given[name]) != tuple(possible[place])
        ],
        given=len(given),
    )


def likeliest_renaming(unmatched: Iterable[str], missing: Iterable[str]) -> str | None:
    """The change of prefix that would place the most tensors, in words; ``None`` if none would.

    Two names can only be the same weight if they end alike and bear the same numbers; numbers in
    a prefix are written ``N``.
    """
    wanted = [(name, _numbers(name)) for name in missing]
    votes: Counter[tuple[str, str]] = Counter()
    looked_at = list(unmatched)[:_LOOKED_AT]
    for name in looked_at:
        numbers = _numbers(name)
        alike = [
            (_words_alike(name, other), other)
            for other, theirs in wanted
            # A prefix may bring numbers of its own: "replica.3.model.layers.0".
            if theirs == numbers[len(numbers) - len(theirs) :]
        ]
        longest = max(alike, default=(0, ""))
        shared = longest[1].split(".")[-longest[0] :] if longest[0] else []
        # "lora_A.weight" says what kind of tensor it is, not which.
        says_which = any(not _KIND_WORD.fullmatch(word) for word in shared)
        if says_which and sum(number == longest[0] for number, _ in alike) == 1:
            votes[_difference(name, longest[1])] += 1
    if not votes:
        return None
    (old, new), number = votes.most_common(1)[0]
    return f"renaming {old!r} to {new!r} would place {number} of {len(looked_at)}"


def _numbers(name: str) -> list[str]:
    return [word for word in name.split(".") if word.isdigit()]


def _words_alike(one: str, other: str) -> int:
    """How many words two names have in common at their ends."""
    alike = 0
    for left, right in zip(reversed(one.split(".")), reversed(other.split(".")), strict=False):
        if left != right:
            break
        alike += 1
    return alike


def _difference(old: str, new: str) -> tuple[str, str]:
    """The parts in which two names differ, numbers written ``N``."""
    left = ["N" if word.isdigit() else word for word in old.split(".")]
    right = ["N" if word.isdigit() else word for word in new.split(".")]
    while left and right and left[-1] == right[-1]:
        del left[-1], right[-1]
    while left and right and left[0] == right[0]:
        del left[0], right[0]
    return "".join(f"{word}." for word in left), "".join(f"{word}." for word in right)
