"""Write a pair in the layout of the release, which plain transformers loads as well.

``av/`` is a full checkpoint with tokenizer and ``nla_meta.yaml``; ``ar/`` is the truncated
checkpoint with ``value_head.safetensors`` beside it. Folders are written under a temporary name
and renamed, so that half a checkpoint never looks whole.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from nla_audit.checkpoint.formats import AR_LORA_FILE, AR_LORA_META, HEAD_FILE, ArLora
from nla_audit.checkpoint.read_sidecar import SCHEMA_VERSION, SIDECAR_NAME, parse_sidecar
from nla_audit.checkpoint.read_transform import CENTERING_STATS, WHITENING_STATS
from nla_audit.checkpoint.tokenizer_check import check_reloads, save_tokenizer
from nla_audit.errors import UserError
from nla_audit.files import whole_folder
from nla_audit.nla.injection import Injection
from nla_audit.nla.prompts import ar_prompt_ids, chat_ids, token_ids
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.sidecar import Sidecar
from nla_audit.nla.transform import ActivationTransform
from nla_audit.nla.verbalizer import Verbalizer

#: Signs that hardly any text holds. The first are those of published NLAs.
_RARE_SIGNS = "㈎㈜㈱◈❖※⌘¤§"


def new_sidecar(
    tokenizer: Any,
    *,
    role: Literal["av", "ar"],
    d_model: int,
    layer_index: int,
    injection_char: str,
    injection: Injection,
    av_template: str,
    ar_template: str,
    base_model: str,
    stage: str,
    mse_scale: float | None = None,
    ar_trained_in_rl: bool | None = None,
) -> Sidecar:
    """A model sidecar with its token ids pinned from ``tokenizer``.

    Args:
        injection_char: the marker; must be a single token.
        mse_scale: norm for the MSE; ``None`` here is the usual √d_model.

    Raises:
        UserError: the marker is not one token, or does not occur once inside the prompt.
    """
    marker = token_ids(tokenizer, injection_char, special_tokens=False)
    ids = chat_ids(tokenizer, av_template.format(injection_char=injection_char))
    if len(marker) != 1 or ids.count(marker[0]) != 1:
        raise UserError(
            f"marker {injection_char!r}: must be one token that occurs once in the AV prompt, "
            f"is {marker}, which occurs {[ids.count(token) for token in marker]} times"
            f"{_another_marker(tokenizer, ids)}"
        )
    place = ids.index(marker[0])
    return parse_sidecar(
        {
            "kind": "nla_model",
            "schema_version": SCHEMA_VERSION,
            "role": role,
            "stage": stage,
            "base_checkpoint": base_model,
            "d_model": d_model,
            "extraction_layer_index": layer_index,
            "ar_trained_in_rl": ar_trained_in_rl,
            "extraction": {
                "injection": str(injection),
                "injection_scale": injection.scale if injection.kind == "replace" else None,
                "mse_scale": "sqrt_d_model" if mse_scale is None else mse_scale,
            },
            "tokens": {
                "injection_char": injection_char,
                "injection_token_id": marker[0],
                "injection_left_neighbor_id": ids[place - 1],
                "injection_right_neighbor_id": ids[place + 1],
                "critic_suffix_ids": _suffix(tokenizer, ar_template),
            },
            "prompt_templates": {"av": av_template, "ar": ar_template},
        },
        Path(SIDECAR_NAME),
    )


def save_av(verbalizer: Verbalizer, folder: Path) -> None:
    """Write an AV as a full checkpoint; LoRA layers are merged into its weights.

    Raises:
        UserError: ``folder`` exists already or cannot be written, or the tokenizer would be loaded
            from it as another one.
    """
    fields = _model_fields(verbalizer.sidecar, "av", verbalizer.d_model)
    extraction = {**fields.get("extraction", {}), "injection": str(verbalizer.injection)}
    if verbalizer.injection.kind == "replace":
        extraction["injection_scale"] = verbalizer.injection.scale or "raw"
    with whole_folder(folder) as partial:
        save_model(verbalizer.model, partial)
        save_tokenizer(verbalizer.tokenizer, partial)
        check_reloads(verbalizer.tokenizer, partial, verbalizer.sidecar)
        _write_yaml(partial / SIDECAR_NAME, {**fields, "extraction": extraction})
        _save_transform(verbalizer.transform, partial)


def save_ar(reconstructor: Reconstructor, folder: Path) -> None:
    """Write an AR as a truncated checkpoint and its head; LoRA layers are merged.

    Raises:
        UserError: ``folder`` exists already or cannot be written, the tokenizer would be loaded
            from it as another one, or the AR keeps its final norm, which the release's layout has
            no way to say.
    """
    if reconstructor.keeps_final_norm:
        raise UserError(
            f"{reconstructor.name}: keeps its final norm, which the release's layout cannot say; "
            "publish the AR-LoRA as it is"
        )
    fields = _model_fields(reconstructor.sidecar, "ar", reconstructor.d_model)
    fields["extraction_layer_index"] = reconstructor.layer_index
    with whole_folder(folder) as partial, reconstructor.with_final_norm():
        save_model(reconstructor.model, partial)
        save_tokenizer(reconstructor.tokenizer, partial)
        check_reloads(reconstructor.tokenizer, partial, reconstructor.sidecar)
        head = reconstructor.head.detach().cpu().to(reconstructor.model.dtype).contiguous()
        save_file({"weight": head}, str(partial / HEAD_FILE))
        _write_yaml(partial / SIDECAR_NAME, fields)
        _save_transform(reconstructor.transform, partial)


def save_ar_lora(
    reconstructor: Reconstructor, folder: Path, lora: ArLora, adapter: str, *, base: str
) -> None:
    """Write the LoRA layers called ``adapter`` and the head as an AR-LoRA (docs/formats.md).

    Args:
        lora: what the layers are, for ``ar_meta.json``.
        base: folder or name of the AR they sit on; it stands in the sidecar, so that
            :func:`nla_audit.checkpoint.load.load` finds it.

    Raises:
        UserError: ``folder`` exists already or cannot be written.
    """
    fields = _model_fields(reconstructor.sidecar, "ar", reconstructor.d_model)
    fields.update(extraction_layer_index=reconstructor.layer_index, base_checkpoint=base)
    tensors = {
        # PEFT's own name for an adapter without one, which the published files have.
        name.replace(f".{adapter}.", ".default."): parameter
        for name, parameter in reconstructor.model.named_parameters()
        if f".{adapter}." in name
    }
    tensors["value_head.weight"] = reconstructor.head
    meta = {
        "ar_num_layers": lora.blocks,
        "lora_r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": list(lora.target_modules),
        "quant": lora.quantization,
        "final_norm_stripped": lora.final_norm_stripped,
    }
    with whole_folder(folder) as partial:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(plain, str(partial / AR_LORA_FILE))
        (partial / AR_LORA_META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        _write_yaml(partial / SIDECAR_NAME, fields)
        _save_transform(reconstructor.transform, partial)


def merged_state(model: nn.Module, *, with_lora: bool = True) -> dict[str, torch.Tensor]:
    """The model's weights with active LoRA layers added in, under their names without PEFT.

    Args:
        with_lora: add them in, and the modules that an adapter saved whole; otherwise they are left
            out.
    """
    state = dict(model.state_dict())
    layers: list[tuple[str, Any]] = list(model.named_modules())

    def taken(name: str) -> dict[str, torch.Tensor]:
        inside = [key for key in state if key.startswith(f"{name}.")]
        return {key.removeprefix(f"{name}."): state.pop(key) for key in inside}

    for name, module in layers:
        if is_saved_whole(module):
            tensors = taken(name)
            own = "original_module."
            if with_lora and module.active_adapters:
                # The module forwards to the first of several.
                own = f"modules_to_save.{module.active_adapters[0]}."
            for key, tensor in tensors.items():
                if key.startswith(own):
                    state[f"{name}.{key.removeprefix(own)}"] = tensor
        if not is_lora_layer(module):
            continue
        tensors = taken(name)
        for key, tensor in tensors.items():
            if not key.startswith("base_layer."):
                continue
            whole = tensor
            if key == "base_layer.weight" and with_lora:
                for adapter in module.active_adapters:
                    if adapter in module.lora_A:
                        whole = whole + module.get_delta_weight(adapter).to(whole)
            state[f"{name}.{key.removeprefix('base_layer.')}"] = whole
    return state


def is_saved_whole(module: Any) -> bool:
    """Whether ``module`` is PEFT's of a module that adapters hold whole, beside the base's own."""
    return hasattr(module, "original_module") and hasattr(module, "modules_to_save")


def is_lora_layer(module: Any) -> bool:
    """Whether ``module`` is a layer of PEFT's with LoRA in it.

    Told by what it has: to name PEFT's class its package would have to be imported, which takes
    seconds that a pair without adapters need not wait.
    """
    return all(hasattr(module, name) for name in ("base_layer", "lora_A", "get_delta_weight"))


def save_model(model: Any, folder: Path, *, with_lora: bool = True) -> None:
    """Write a model's config and weights alone; LoRA layers are merged, or left out."""
    state = merged_state(model, with_lora=with_lora)
    model.save_pretrained(folder, state_dict=state, safe_serialization=True)


def _model_fields(sidecar: Sidecar, role: str, d_model: int) -> dict[str, Any]:
    """The sidecar's own fields as a model sidecar of this role."""
    fields = dict(sidecar.raw)
    fields.update(kind="nla_model", schema_version=SCHEMA_VERSION, role=role, d_model=d_model)
    if sidecar.layer_index is not None:
        fields["extraction_layer_index"] = sidecar.layer_index
    fields["prompt_templates"] = {"av": sidecar.av_template, "ar": sidecar.ar_template}
    return fields


def _another_marker(tokenizer: Any, prompt: list[int]) -> str:
    """Advice: a sign that the tokenizer knows as one token and that is not in the prompt."""
    for sign in _RARE_SIGNS:
        token = token_ids(tokenizer, sign, special_tokens=False)
        if len(token) == 1 and token[0] not in prompt:
            return f"; {sign!r} would do"
    return ""


def _suffix(tokenizer: Any, ar_template: str) -> list[int]:
    """The tokens that end every AR prompt: what two prompts with different texts share."""
    first, second = ar_prompt_ids(tokenizer, ar_template, ["one text", "another, of 7 words"])
    shared = 0
    while first[-1 - shared] == second[-1 - shared]:
        shared += 1
    return first[len(first) - shared :]


def _save_transform(transform: ActivationTransform | None, folder: Path) -> None:
    """Write the parameters, if there are any, where they are looked for."""
    if transform is None:
        return
    if transform.matrix is None:
        np.savez(folder / f"{CENTERING_STATS}.npz", mean=transform.mean)
    else:
        np.savez(folder / f"{WHITENING_STATS}.npz", mean=transform.mean, w=transform.matrix)


def _write_yaml(path: Path, fields: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(fields, allow_unicode=True, sort_keys=False), encoding="utf-8")
