"""Load a pair from any published format: ``load(av=…, ar=…) → Pair``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from nla_audit.checkpoint.adapters import add_adapters, add_ar_lora
from nla_audit.checkpoint.backbone import (
    Placement,
    quiet_transformers,
    read_causal_lm,
    read_config,
    read_first_blocks,
    read_tokenizer,
)
from nla_audit.checkpoint.check import (
    check_ar_layer,
    check_injection,
    check_role,
    check_tokens,
    check_weights,
    check_width,
)
from nla_audit.checkpoint.fetch import local_folder
from nla_audit.checkpoint.formats import Checkpoint, neighbour, recognise
from nla_audit.checkpoint.head import check_head, read_head, split_head
from nla_audit.checkpoint.health import head_health
from nla_audit.checkpoint.in_vllm import VllmHost, placement_beside_vllm
from nla_audit.checkpoint.precision import for_untrained
from nla_audit.checkpoint.read_transform import transform_of
from nla_audit.checkpoint.tensors import read_tensors
from nla_audit.errors import UserError
from nla_audit.nla.architecture import hidden_size, number_of_blocks
from nla_audit.nla.batching import Notice
from nla_audit.nla.injection import Injection, injection_of
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.refusal import Refuse, refuse_wrong, refusing
from nla_audit.nla.sidecar import Sidecar
from nla_audit.nla.verbalizer import Verbalizer


@dataclass(frozen=True)
class Pair:
    """The two halves; either may be missing where only one was asked for."""

    verbalizer: Verbalizer | None
    reconstructor: Reconstructor | None


def load(
    av: str | Path | None = None,
    ar: str | Path | None = None,
    *,
    adapter: str | Path | None = None,
    base: str | Path | None = None,
    sidecar: str | Path | None = None,
    injection: Injection | None = None,
    placement: Placement | None = None,
    force: bool = False,
    only: Literal["av", "ar"] | None = None,
    engine: VllmHost | None = None,
    compiled: bool = False,
    notice: Notice = warnings.warn,
) -> Pair:
    """Load an AV, an AR, or both.

    Args:
        av: full checkpoint or PEFT adapter: a folder or ``owner/name[@revision][/subfolder]``.
        ar: full checkpoint with ``value_head.safetensors``, or an AR-LoRA.
        adapter: a PEFT adapter on top of ``av`` (one of a sweep's λ's).
        base: the model that adapters sit on. Needed where neither a neighbouring folder nor the
            sidecar tells.
        sidecar: a sidecar file, where a checkpoint has none or the wrong one.
        injection: overrides what the sidecar says or implies.
        placement: dtype and device.
        force: go on where a check says that something cannot be right.
        only: load one of two that are named: where the other is decides what an AR sits on.
        engine: generates for the AV instead of our own loop.
        compiled: our own loop runs compiled (:mod:`nla_audit.nla.compiled`).
        notice: told what was forced, and other things worth knowing.

    Raises:
        UserError: whatever keeps a half from being loaded, or what
            :mod:`nla_audit.checkpoint.check` says cannot be right, in one line.
    """
    pair = load_with(
        av,
        ar,
        adapter=adapter,
        base=base,
        sidecar=sidecar,
        injection=injection,
        placement=placement or Placement(),
        refuse=refusing(force=force, notice=notice),
        only=only,
        engine=engine,
        notice=notice,
    )
    if compiled and pair.verbalizer is not None:
        pair.verbalizer.compile()
    return pair


def load_with(
    av: str | Path | None,
    ar: str | Path | None,
    *,
    adapter: str | Path | None = None,
    base: str | Path | None = None,
    sidecar: str | Path | None = None,
    injection: Injection | None = None,
    placement: Placement,
    refuse: Refuse,
    only: Literal["av", "ar"] | None = None,
    engine: VllmHost | None = None,
    notice: Notice,
) -> Pair:
    """:func:`load`, with what to do where something cannot be right left to the caller.

    Raises:
        UserError: as :func:`load`.
    """
    if av is None and ar is None:
        raise UserError("nothing to load: name an AV, an AR, or both")
    sidecar_path = Path(sidecar) if sidecar is not None else None
    av_checkpoint = _recognised(av, sidecar_path, "av", refuse) if av is not None else None
    ar_checkpoint = _recognised(ar, sidecar_path, "ar", refuse) if ar is not None else None
    with quiet_transformers():
        verbalizer = reconstructor = None
        if av_checkpoint and only != "ar":
            verbalizer = _load_av(
                av_checkpoint,
                adapter,
                base,
                injection,
                placement=placement if engine is None else placement_beside_vllm(placement),
                refuse=refuse,
                notice=notice,
            )
        if ar_checkpoint and only != "av":
            reconstructor = _load_ar(
                ar_checkpoint,
                av_checkpoint,
                base,
                placement=placement,
                refuse=refuse,
                notice=notice,
            )
        if engine is not None and av_checkpoint and verbalizer is not None:
            engine.take(
                verbalizer,
                whole_model_of(av_checkpoint, None, base),
                _adapters_of(av_checkpoint, adapter),
                trust_remote_code=placement.trust_remote_code,
            )
        return Pair(verbalizer, reconstructor)


def load_language_model(
    reference: str | Path, *, placement: Placement | None = None
) -> tuple[Any, Any]:
    """A whole causal language model and its tokenizer.

    Args:
        reference: a folder, or owner/name on the Hub.

    Raises:
        UserError: it is an AR, which ends at its layer, or it cannot be loaded.
    """
    place, folder = placement or Placement(), local_folder(reference)
    if recognise(folder).role == "ar":
        raise UserError(
            f"{reference}: this is an AR, which foresees no text: name a whole language model"
        )
    config = read_config(folder, place)
    place = for_untrained(place, config)
    with quiet_transformers():
        model = read_causal_lm(folder, config, place, role="av", refuse=refuse_wrong)
        return place.place(model), read_tokenizer(folder, place)


def load_first_blocks(
    folder: Path, *, layer_index: int, placement: Placement | None = None
) -> tuple[Any, Any]:
    """A language model up to and including block ``layer_index``, and its tokenizer.

    Raises:
        UserError: it has no such block, or it cannot be loaded.
    """
    place = placement or Placement()
    config = read_config(folder, place)
    place = for_untrained(place, config)
    available = number_of_blocks(config)
    if not 0 <= layer_index < available:
        raise UserError(f"{folder}: no layer {layer_index}: its layers are 0 to {available - 1}")
    with quiet_transformers():
        model = read_first_blocks(
            folder, config, layer_index + 1, place, role="ar", refuse=refuse_wrong
        )
        return place.place(model), read_tokenizer(folder, place)


def _recognised(
    reference: str | Path, sidecar: Path | None, role: str, refuse: Refuse
) -> Checkpoint:
    checkpoint = recognise(local_folder(reference), sidecar=sidecar)
    check_role(checkpoint, role, refuse)
    return checkpoint


def _load_av(
    checkpoint: Checkpoint,
    adapter: str | Path | None,
    base: str | Path | None,
    injection: Injection | None,
    *,
    placement: Placement,
    refuse: Refuse,
    notice: Notice,
) -> Verbalizer:
    adapters = _adapters_of(checkpoint, adapter)
    folder = whole_model_of(checkpoint, None, base)
    sidecar = _sidecar_of(checkpoint, folder)
    injection = injection if injection is not None else injection_of(sidecar)
    config = read_config(folder, placement)
    check_width(sidecar, config, checkpoint.path)
    transform = transform_of(sidecar, [checkpoint.path, folder])
    check_injection(injection, config, checkpoint.path)
    model = read_causal_lm(folder, config, placement, role="av", refuse=refuse)
    tokenizer_folder = _with_tokenizer([*reversed(adapters), checkpoint.path, folder])
    tokenizer = read_tokenizer(tokenizer_folder, placement)
    if adapters:
        model = add_adapters(model, adapters, refuse=refuse, notice=notice)
    check_weights(model.named_parameters(), checkpoint.path, refuse)
    name = Path(adapter).name if adapter is not None else checkpoint.path.name
    verbalizer = Verbalizer(
        placement.place(model),
        tokenizer,
        sidecar,
        injection=injection,
        name=name,
        files=[checkpoint.path, folder, *adapters, sidecar.path],
        transform=transform,
        refuse=refuse,
    )
    check_tokens(verbalizer.prompt.ids, model, tokenizer_folder, refuse)
    return verbalizer


def _load_ar(
    checkpoint: Checkpoint,
    av: Checkpoint | None,
    base: str | Path | None,
    *,
    placement: Placement,
    refuse: Refuse,
    notice: Notice,
) -> Reconstructor:
    if checkpoint.layout == "adapter":
        raise UserError(
            f"{checkpoint.path}: a PEFT adapter without a head is no AR; "
            "an AR-LoRA has ar_lora_value_head.safetensors and ar_meta.json"
        )
    lora = checkpoint.ar_lora
    if not checkpoint.head_file.is_file():
        raise UserError(
            f"{checkpoint.path}: no {checkpoint.head_file.name} here; without its head it is no AR"
        )
    folder = whole_model_of(checkpoint, av, base)
    sidecar = _sidecar_of(checkpoint, folder)
    config = read_config(folder, placement)
    check_width(sidecar, config, checkpoint.path)
    transform = transform_of(sidecar, [checkpoint.path, folder])
    blocks = number_of_blocks(config) if lora is None else lora.blocks
    check_ar_layer(sidecar, blocks, checkpoint.path, refuse)
    keeps_norm = lora is not None and not lora.final_norm_stripped
    loaded = read_first_blocks(
        folder,
        config,
        blocks,
        placement,
        role="av" if keeps_norm else "ar",  # an AR that keeps its norm needs it loaded
        refuse=refuse,
    )
    model = placement.place(loaded)
    head, tensors = head_of(checkpoint)
    if lora is not None:
        add_ar_lora(model, lora, tensors, checkpoint.head_file, refuse=refuse, notice=notice)
    check_head(head, hidden_size(config), checkpoint.path, refuse)
    check_weights(model.named_parameters(), checkpoint.path, refuse)
    if (oddity := head_health(head).oddity()) is not None:
        notice(f"{checkpoint.path}: {oddity}")
    return Reconstructor(
        model,
        head,
        read_tokenizer(checkpoint.path if checkpoint.has_tokenizer else folder, placement),
        sidecar,
        keep_final_norm=keeps_norm,
        name=checkpoint.path.name,
        files=[checkpoint.path, folder, sidecar.path],
        transform=transform,
        refuse=refuse,
    )


def head_of(checkpoint: Checkpoint) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The head of an AR, and the LoRA tensors in the same file.

    Raises:
        UserError: the file is damaged, or holds something else.
    """
    path = checkpoint.head_file
    if checkpoint.ar_lora is None:
        return read_head(path), {}
    return split_head(read_tensors(path), path)


def whole_model_of(checkpoint: Checkpoint, av: Checkpoint | None, base: str | Path | None) -> Path:
    """The folder of the whole model: the checkpoint itself, or what it sits on.

    Raises:
        UserError: what it sits on is not known, or not here.
    """
    if checkpoint.layout == "full":
        return checkpoint.path
    if checkpoint.layout == "adapter":
        return _base_of_adapter(checkpoint, base)
    return _base_of_ar_lora(checkpoint, av, base)


def _base_of_adapter(checkpoint: Checkpoint, base: str | Path | None) -> Path:
    """The folder of the model an AV adapter sits on.

    In order: what the caller names; the path in the adapter, if it exists here; a neighbouring
    folder of that name (the path is usually one on the machine of training); the sidecar's base,
    if it has that name too (an adapter on a merged AV must not land on the bare base); the
    adapter's own entry, if it is a name on the Hub.

    Raises:
        UserError: none of these.
    """
    if base is not None:
        return local_folder(base)
    named = checkpoint.base_named
    stated = checkpoint.sidecar.base_model if checkpoint.sidecar else None
    if named is not None:
        if Path(named).is_dir():
            return Path(named)
        beside = neighbour(checkpoint.path, Path(named).name)
        if beside is not None:
            return beside
        if stated is not None and Path(stated).name.lower() == Path(named).name.lower():
            return local_folder(stated)
        if not Path(named).is_absolute() and named.count("/") == 1:
            return local_folder(named)
    raise UserError(
        f"{checkpoint.path}: the adapter sits on {named or 'an unnamed model'}, which is not here; "
        "say with --base where that model is"
    )


def _base_of_ar_lora(
    checkpoint: Checkpoint, av: Checkpoint | None, base: str | Path | None
) -> Path:
    """The folder of the bare model an AR-LoRA sits on; ``ar_meta.json`` does not name it."""
    if base is not None:
        return local_folder(base)
    beside = neighbour(checkpoint.path, "base")
    if beside is not None:
        return beside
    if checkpoint.sidecar is not None and checkpoint.sidecar.base_model is not None:
        return local_folder(checkpoint.sidecar.base_model)
    if av is not None and av.layout == "adapter":
        candidate = _base_of_adapter(av, None)
        # A base that has a sidecar of its own is a merged AV, not the bare model.
        if recognise(candidate).role is None:
            return candidate
    raise UserError(f"{checkpoint.path}: say with --base which model this AR-LoRA sits on")


def _with_tokenizer(folders: Sequence[Path]) -> Path:
    """The first folder that brings a tokenizer; the last, if none does."""
    return next((one for one in folders if recognise(one).has_tokenizer), folders[-1])


def _adapters_of(checkpoint: Checkpoint, adapter: str | Path | None) -> list[Path]:
    """The PEFT adapters that an AV consists of besides a whole model, the lowest first."""
    own = [checkpoint.path] if checkpoint.layout == "adapter" else []
    return own if adapter is None else [*own, _adapter_folder(adapter)]


def _adapter_folder(adapter: str | Path) -> Path:
    folder = local_folder(adapter)
    if recognise(folder).layout != "adapter":
        raise UserError(f"{folder}: not a PEFT adapter (no adapter_config.json)")
    return folder


def _sidecar_of(checkpoint: Checkpoint, base: Path) -> Sidecar:
    found = checkpoint.sidecar or recognise(base).sidecar
    if found is None:
        raise UserError(
            f"{checkpoint.path}: no nla_meta.yaml here, above, or with its base; "
            "name one with --sidecar"
        )
    return found
