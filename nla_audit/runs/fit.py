"""Do activations and models belong together?"""

from __future__ import annotations

from dataclasses import replace

from nla_audit.checkpoint.read_transform import RAW, Norm
from nla_audit.errors import UserError
from nla_audit.nla.fve import unusable
from nla_audit.nla.transform import ActivationTransform
from nla_audit.runs.activations import Activations
from nla_audit.runs.remote import AnyReconstructor, AnyVerbalizer


def fitted(
    activations: Activations,
    *,
    verbalizer: AnyVerbalizer | None = None,
    reconstructor: AnyReconstructor | None = None,
    force: bool = False,
) -> Activations:
    """The activations as the models were trained to see them, if they belong together.

    A table of raw vectors goes through the transform of the pair (centring, whitening), one that
    went through it already is taken as it is.

    Raises:
        UserError: another width or transform; or another layer, unless ``force``.
    """
    _check_width(activations, verbalizer, reconstructor)
    if not force:
        _check_layer(activations, verbalizer, reconstructor)
    transforms = [half.transform for half in (verbalizer, reconstructor) if half is not None]
    if any(transform != transforms[0] for transform in transforms):
        av, ar = (f"{_name(transform)} activations" for transform in transforms)
        raise UserError(f"the AV reads {av}, the AR predicts {ar}: take the halves of one pair")
    return _transformed(activations, transforms[0])


def _transformed(activations: Activations, transform: ActivationTransform | None) -> Activations:
    norm = activations.norm
    if norm.name != RAW:
        is_same = transform is not None and (
            norm.name == transform.name if norm.sha256 is None else norm.sha256 == transform.sha256
        )
        if not is_same:
            raise UserError(
                f"{activations.path}: its sidecar says {_named(norm.name, norm.sha256)}, the pair "
                f"reads {_name(transform)} activations: give raw ones"
            )
        return activations
    if transform is None:
        return activations
    vectors = transform.apply(activations.vectors)
    of_raw = activations.problems
    reasons = [of_raw.get(row, reason) for row, reason in enumerate(unusable(vectors))]
    return replace(
        activations,
        vectors=vectors,
        problems={row: reason for row, reason in enumerate(reasons) if reason is not None},
        norm=Norm(transform.name, transform.sha256),
    )


def _name(transform: ActivationTransform | None) -> str:
    return "raw" if transform is None else _named(transform.name, transform.sha256)


def _named(name: str, sha256: str | None) -> str:
    return name if sha256 is None else f"{name} ({sha256[:12]}…)"


def _check_width(
    activations: Activations,
    verbalizer: AnyVerbalizer | None,
    reconstructor: AnyReconstructor | None,
) -> None:
    width = activations.vectors.shape[1]
    halves = {"AV": verbalizer, "AR": reconstructor}
    for role, half in halves.items():
        if half is not None and half.d_model != width:
            raise UserError(
                f"{activations.path}: activations are {width} wide, the {role} {half.name} needs "
                f"{half.d_model}: extract them from the model that the pair was trained on"
            )


def _check_layer(
    activations: Activations,
    verbalizer: AnyVerbalizer | None,
    reconstructor: AnyReconstructor | None,
) -> None:
    layer = reconstructor.layer_index if reconstructor is not None else None
    stated = verbalizer.sidecar.layer_index if verbalizer is not None else None
    if layer is not None and stated is not None and layer != stated:
        raise UserError(
            f"the AV was trained on layer {stated}, the AR predicts layer {layer}: take the halves "
            "of one pair (--force to go on)"
        )
    layer = stated if layer is None else layer
    if None not in (layer, activations.layer) and layer != activations.layer:
        raise UserError(
            f"{activations.path}: activations of layer {activations.layer}, the pair is for layer "
            f"{layer}: extract that layer (--force to go on)"
        )
