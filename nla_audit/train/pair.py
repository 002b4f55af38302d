"""The pair at each stage: made from the target, loaded again, and written with its history."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from nla_audit.checkpoint.backbone import Placement, read_config, read_tokenizer
from nla_audit.checkpoint.check import check_injection
from nla_audit.checkpoint.fetch import local_folder
from nla_audit.checkpoint.formats import ArLora
from nla_audit.checkpoint.load import load_first_blocks, load_language_model
from nla_audit.checkpoint.read_sidecar import parse_sidecar
from nla_audit.checkpoint.save import new_sidecar, save_ar, save_ar_lora, save_av
from nla_audit.checkpoint.tokenizer_check import check_survives_saving
from nla_audit.errors import UserError
from nla_audit.nla.architecture import hidden_size, number_of_blocks
from nla_audit.nla.chat_template import PLAIN_TEMPLATE
from nla_audit.nla.injection import parse_injection
from nla_audit.nla.prompts import av_prompt, check_ar_prompt
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.sidecar import Sidecar
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.train.adapters import RL_ADAPTER
from nla_audit.train.recipe import PairSettings
from nla_audit.train.recipe_data import Target
from nla_audit.train.recipe_optimizer import Lora
from nla_audit.train.separating import add_separator


def placement_of(target: Target, *, is_av_in_rl: bool = False) -> Placement:
    """Where and in which precision a recipe wants its models; only the AV in RL is quantised."""
    four_bit = target.load_in_4bit and is_av_in_rl
    return Placement(dtype=target.dtype, device=target.device, load_in_4bit=four_bit)


def load_config(reference: str | Path) -> Any:
    """The config of a model; no weight is read.

    Raises:
        UserError: not found, or transformers cannot read it.
    """
    return read_config(local_folder(reference), Placement())


def load_tokenizer(reference: str | Path) -> Any:
    """The tokenizer of a model.

    Raises:
        UserError: there is none.
    """
    return read_tokenizer(local_folder(reference), Placement())


def default_layer(blocks: int) -> int:
    """About two thirds of the depth, where published NLAs read (docs/object.md)."""
    return min(blocks - 1, round(blocks * 2 / 3))


def layer_of(target: Target, config: Any) -> int:
    """The extraction layer of a recipe for a model of this config.

    Raises:
        UserError: the model has no such block.
    """
    blocks = number_of_blocks(config)
    if target.layer_index is None:
        return default_layer(blocks)
    if target.layer_index >= blocks:
        raise UserError(
            f"target.layer_index {target.layer_index}: the model has blocks 0 to {blocks - 1}"
        )
    return target.layer_index


def check_prompts(reference: str | Path, target: Target, settings: PairSettings) -> None:
    """Whether prompts can be made with a model's tokenizer; no weight is read.

    Raises:
        UserError: the model has no such block to add a vector at, there is no chat template, the
            marker is not one token, or a prompt would be read otherwise than it is written.
    """
    tokenizer, config = load_tokenizer(reference), load_config(reference)
    injection, last = parse_injection(settings.injection), number_of_blocks(config) - 1
    if injection.block is not None and injection.block > last:
        raise UserError(f"pair.injection {settings.injection}: the model has blocks 0 to {last}")
    check_injection(injection, config, Path(reference))
    _give_template(tokenizer, settings)
    sidecar = _sidecar(
        "av",
        settings,
        tokenizer=tokenizer,
        config=config,
        layer_index=layer_of(target, config),
        base=str(reference),
    )
    av_prompt(tokenizer, sidecar)
    check_ar_prompt(tokenizer, sidecar)


def new_verbalizer(
    reference: str | Path,
    layer_index: int,
    target: Target,
    settings: PairSettings,
    *,
    separator: str | None = None,
    seed: int = 0,
) -> Verbalizer:
    """An AV that is still the target itself.

    Args:
        separator: a token that it gets in addition, with weights drawn from ``seed``.

    Raises:
        UserError: it cannot be loaded, or its tokenizer could not be saved as what it is.
    """
    model, tokenizer = load_language_model(reference, placement=placement_of(target))
    _give_template(tokenizer, settings)
    if separator is not None:
        add_separator(model, tokenizer, separator, seed=seed)
    sidecar = _sidecar(
        "av",
        settings,
        tokenizer=tokenizer,
        config=model.config,
        layer_index=layer_index,
        base=str(reference),
    )
    check_survives_saving(tokenizer, model.config, sidecar)
    return Verbalizer(model, tokenizer, sidecar, name="warm-start")


def new_reconstructor(
    reference: str | Path, layer_index: int, target: Target, settings: PairSettings
) -> Reconstructor:
    """An AR that is the target's first blocks with an identity head.

    Raises:
        UserError: as :func:`new_verbalizer`.
    """
    model, tokenizer = load_first_blocks(
        local_folder(reference), layer_index=layer_index, placement=placement_of(target)
    )
    _give_template(tokenizer, settings)
    sidecar = _sidecar(
        "ar",
        settings,
        tokenizer=tokenizer,
        config=model.config,
        layer_index=layer_index,
        base=str(reference),
    )
    check_survives_saving(tokenizer, model.config, sidecar)
    head = torch.eye(hidden_size(model.config))
    return Reconstructor(model, head, tokenizer, sidecar, name="warm-start")


def _give_template(tokenizer: Any, settings: PairSettings) -> None:
    """Put the recipe's chat template, if there is one, into a tokenizer."""
    if settings.chat_template is not None:
        is_plain = settings.chat_template == "plain"
        tokenizer.chat_template = PLAIN_TEMPLATE if is_plain else settings.chat_template


def _sidecar(
    role: Literal["av", "ar"],
    settings: PairSettings,
    *,
    tokenizer: Any,
    config: Any,
    layer_index: int,
    base: str,
) -> Sidecar:
    return new_sidecar(
        tokenizer,
        role=role,
        d_model=hidden_size(config),
        layer_index=layer_index,
        injection_char=settings.marker,
        injection=parse_injection(settings.injection),
        av_template=settings.av_template,
        ar_template=settings.ar_template,
        base_model=base,
        stage="warm_start",
    )


def save_trained_av(verbalizer: Verbalizer, folder: Path, history: dict[str, Any]) -> None:
    """Write the AV in the release's layout with ``history`` (stage, λ, …) in its sidecar."""
    verbalizer = _with_sidecar(verbalizer, history)
    save_av(verbalizer, folder)


def save_trained_ar(reconstructor: Reconstructor, folder: Path, history: dict[str, Any]) -> None:
    """Write the AR in the release's layout with ``history`` in its sidecar; adapters are merged."""
    with _told(reconstructor, history):
        save_ar(reconstructor, folder)


def save_trained_ar_adapter(
    reconstructor: Reconstructor,
    folder: Path,
    history: dict[str, Any],
    settings: Lora,
    *,
    base: str,
) -> None:
    """Write the AR's adapter and head as an AR-LoRA on ``base``, with ``history``."""
    lora = ArLora(
        blocks=reconstructor.layer_index + 1,
        rank=settings.rank,
        alpha=settings.alpha,
        target_modules=settings.target_modules,
        quantization="none",
        final_norm_stripped=not reconstructor.keeps_final_norm,
    )
    with _told(reconstructor, history):
        save_ar_lora(reconstructor, folder, lora, RL_ADAPTER, base=base)


@contextmanager
def _told(reconstructor: Reconstructor, history: dict[str, Any]) -> Iterator[None]:
    """``history`` in the sidecar for a while."""
    before = reconstructor.sidecar
    reconstructor.sidecar = with_history(before, history)
    try:
        yield
    finally:
        reconstructor.sidecar = before


def with_history(sidecar: Sidecar, history: dict[str, Any]) -> Sidecar:
    """The sidecar with more said in it."""
    return replace(parse_sidecar({**sidecar.raw, **history}, sidecar.path), role=sidecar.role)


def _with_sidecar(verbalizer: Verbalizer, history: dict[str, Any]) -> Verbalizer:
    return Verbalizer(
        verbalizer.model,
        verbalizer.tokenizer,
        with_history(verbalizer.sidecar, history),
        injection=verbalizer.injection,
        name=verbalizer.name,
        transform=verbalizer.transform,
    )
