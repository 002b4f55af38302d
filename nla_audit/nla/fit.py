"""Do activations and models belong together?"""

from __future__ import annotations

from nla_audit.errors import UserError
from nla_audit.nla.activations import Activations
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.verbalizer import Verbalizer


def check_fit(
    activations: Activations,
    *,
    verbalizer: Verbalizer | None = None,
    reconstructor: Reconstructor | None = None,
    force: bool = False,
) -> None:
    """Check that activations and models are of the same width and layer.

    Raises:
        UserError: another width; or another layer, unless ``force``.
    """
    width = activations.vectors.shape[1]
    halves = {"AV": verbalizer, "AR": reconstructor}
    for role, half in halves.items():
        if half is not None and half.d_model != width:
            raise UserError(
                f"{activations.path}: activations are {width} wide, the {role} {half.name} needs "
                f"{half.d_model}: extract them from the model that the pair was trained on"
            )
    if force:
        return
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
