"""The concept that ``sensitivity`` plants: its name, its words, its direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nla_audit.commands.model_options import placement
from nla_audit.commands.progress import Teller
from nla_audit.errors import UserError

if TYPE_CHECKING:
    from nla_audit.concepts.contrast_sets import ContrastSet
    from nla_audit.probes.sensitivity.directions import Direction
    from nla_audit.probes.sensitivity.mentions import Sought
    from nla_audit.probes.sensitivity.sweep import DirectionOf
    from nla_audit.runs.activations import Activations


def check_named(arguments: dict[str, Any]) -> None:
    """Refuse none, and two, of the ways to say what names the concept.

    Raises:
        UserError: it is so.
    """
    if (arguments["concept"] is None) == (arguments["words"] is None):
        raise UserError("say what names the concept: --concept NAME, or --words 'NAME=A|B'")


def sought_of(arguments: dict[str, Any]) -> tuple[Sought, ContrastSet | None]:
    """What is looked for, and the contrast set that it is from, if it is.

    Raises:
        UserError: it is not said, or there is no such set.
    """
    check_named(arguments)
    from nla_audit.concepts.contrast_sets import load_contrast_set
    from nla_audit.probes.sensitivity.mentions import sought
    from nla_audit.text.concepts import parse_concept

    if arguments["concept"] is None:
        parsed = parse_concept(arguments["words"], "--words")
        return sought(parsed.name, "", [" ".join(one) for one in parsed.phrases]), None
    texts = load_contrast_set(arguments["concept"])
    return sought(texts.name, texts.what, texts.words), texts


def concepts_of(
    arguments: dict[str, Any], activations: Activations, tell: Teller
) -> tuple[Sought, DirectionOf, DirectionOf | None]:
    """What is looked for, and the directions that are planted: of the concept, and of another.

    Raises:
        UserError: there is no such set, model or file, or what it holds is no direction.
    """
    from nla_audit.concepts.contrast_sets import load_contrast_set

    concept, texts = sought_of(arguments)
    if arguments["direction"] is not None:
        return concept, _from_file(arguments["direction"], concept.name, activations), None
    assert texts is not None  # the target reads them
    sets = [texts] if arguments["other"] is None else [texts, load_contrast_set(arguments["other"])]
    directions = _from_texts(sets, arguments, activations, tell)
    return concept, directions[0], directions[1] if len(directions) > 1 else None


def _from_file(reference: str, name: str, activations: Activations) -> DirectionOf:
    from nla_audit.nla.transform import ActivationTransform
    from nla_audit.probes.sensitivity.directions import from_file, in_the_pairs_space

    found = from_file(reference, activations.vectors.shape[1], name=name)

    def direction(transform: ActivationTransform | None) -> Direction:
        return found.turned(in_the_pairs_space(found.vector, transform))

    return direction


def _from_texts(
    sets: Sequence[Any], arguments: dict[str, Any], activations: Activations, tell: Teller
) -> list[DirectionOf]:
    """The difference of means of each of some contrast sets, read by one target."""
    from nla_audit.nla.transform import ActivationTransform
    from nla_audit.probes.sensitivity.directions import from_pairs
    from nla_audit.probes.sensitivity.pairs import last_activations
    from nla_audit.runs.target import load_target

    layer = activations.layer if arguments["layer"] is None else arguments["layer"]
    if layer is None:
        raise UserError(f"{activations.path} does not say its layer: say it with --layer K")
    target = load_target(
        arguments["target"],
        layer_index=layer,
        placement=placement(arguments),
        force=arguments["force"],
    )
    width = activations.vectors.shape[1]
    if target.d_model != width:
        raise UserError(
            f"{arguments['target']}: its activations are {target.d_model} wide, those of "
            f"{activations.path} {width}: name the model that they were extracted from"
        )
    found: list[DirectionOf] = []
    for texts in sets:
        sides = [
            last_activations(
                target,
                side,
                token_budget=arguments["token_budget"],
                progress=tell,
                notice=tell.say,
            )
            for side in (texts.with_concept, texts.without_concept)
        ]

        def direction(
            transform: ActivationTransform | None, sides: Any = sides, name: str = texts.name
        ) -> Direction:
            seen = sides if transform is None else [transform.apply(side) for side in sides]
            return from_pairs(name, *seen)

        found.append(direction)
    return found
