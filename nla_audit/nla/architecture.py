"""Find the few parts of a transformers model that an NLA needs, in any decoder.

Text-only models, multimodal wrappers (whose text decoder and config are nested) and the older
naming schemes differ only in attribute names; they are all listed here and nowhere else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nla_audit.errors import UserError

_BLOCK_LISTS = ("layers", "h", "blocks")
_FINAL_NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f", "norm_f", "embedding_norm")
#: Weights that hold all blocks side by side: along which dimension, and what holds its size.
_PACKED = {
    "embed_tokens_per_layer": (1, "embedding_dim"),
    "per_layer_model_projection": (0, "out_features"),
}
_INNER_MODELS = (
    "model",
    "language_model",
    "text_model",
    "transformer",
    "gpt_neox",
    "decoder",
    "backbone",
)


def model_class(config: Any) -> Any:
    """Which of transformers' auto classes makes the model: causal ones, or wrappers that see too.

    Some wrappers (Gemma-3) count as both, others (Qwen2.5-VL) only as the latter.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto import modeling_auto

    causal = type(config) in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING
    sees = type(config) in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return AutoModelForImageTextToText if sees and not causal else AutoModelForCausalLM


def text_config(config: Any) -> Any:
    """The config of the text decoder: ``config`` itself, or the nested one of a wrapper."""
    return config.get_text_config(decoder=True)


def hidden_size(config: Any) -> int:
    """Width of the residual stream."""
    return int(text_config(config).hidden_size)


def number_of_blocks(config: Any) -> int:
    """How many decoder blocks the config describes."""
    return int(text_config(config).num_hidden_layers)


def longest_input(config: Any) -> int:
    """The most tokens that a model of this config reads at once."""
    return int(getattr(text_config(config), "max_position_embeddings", 2**31))


def keep_first_blocks(config: Any, blocks: int) -> None:
    """Shorten ``config`` in place, so that only the first ``blocks`` blocks are built and read.

    Every per-block list of the config is shortened with it (transformers refuses a config whose
    ``layer_types`` has another length than its number of blocks).

    Raises:
        UserError: the model has fewer blocks than that.
    """
    inner = text_config(config)
    available = number_of_blocks(config)
    if blocks > available:
        raise UserError(
            f"the AR needs {blocks} blocks but its base model has only {available}; "
            "name the base model it was trained on"
        )
    for name, value in list(vars(inner).items()):
        if isinstance(value, list) and len(value) == available:
            setattr(inner, name, value[:blocks])
    # The last blocks may read keys and values of earlier ones: how many of those are left?
    if shared := getattr(inner, "num_kv_shared_layers", 0):
        inner.num_kv_shared_layers = max(0, blocks - (available - shared))
    inner.num_hidden_layers = blocks


def packs_blocks(config: Any) -> bool:
    """Whether one matrix holds something of all blocks, as the per-layer embeddings of Gemma do."""
    return bool(getattr(text_config(config), "hidden_size_per_layer_input", 0))


def cut_to_first_blocks(model: Any, blocks: int) -> None:
    """Make of a loaded model what :func:`keep_first_blocks` makes of a config, in place.

    For models whose per-layer embeddings hold all blocks side by side (:func:`packs_blocks`): the
    columns of the blocks that stay are the first ones. The result can be saved and loaded.

    Raises:
        UserError: the model has fewer blocks, or its packed weights are quantised or not known.
    """
    decoder, available = decoder_of(model), number_of_blocks(model.config)
    configs = {id(config): config for config in (decoder.config, text_config(model.config))}
    for config in configs.values():
        keep_first_blocks(config, blocks)
    del blocks_of(decoder)[blocks:]
    for name, (dimension, size_name) in _PACKED.items():
        module: Any = getattr(decoder, name, None)
        weight = getattr(module, "weight", None)
        if weight is None or not weight.is_floating_point():
            raise UserError(
                f"{model.config.model_type}: its per-layer embeddings are one matrix for all "
                f"{available} blocks, and cannot be cut to {blocks} where they are quantised or "
                "of another layout; take another model"
            )
        kept = weight.shape[dimension] // available * blocks
        cut = weight.detach().narrow(dimension, 0, kept).clone()
        module.weight = nn.Parameter(cut, requires_grad=weight.requires_grad)
        setattr(module, size_name, kept)


def decoder_of(model: nn.Module) -> nn.Module:
    """The text decoder inside ``model``: the module that holds the blocks and the final norm."""
    module = model
    for _ in range(6):
        if any(isinstance(getattr(module, name, None), nn.ModuleList) for name in _BLOCK_LISTS):
            return module
        # A wrapper's `model` holds vision tower and language model; only the latter has blocks.
        inner = [getattr(module, name, None) for name in ("language_model", *_INNER_MODELS)]
        following = next((child for child in inner if isinstance(child, nn.Module)), None)
        if following is None:
            break
        module = following
    raise UserError(
        f"no decoder blocks found in {type(model).__name__}; only decoder language models work"
    )


def blocks_of(decoder: nn.Module) -> nn.ModuleList:
    """The decoder's list of blocks."""
    for name in _BLOCK_LISTS:
        blocks = getattr(decoder, name, None)
        if isinstance(blocks, nn.ModuleList):
            return blocks
    raise UserError(f"no decoder blocks found in {type(decoder).__name__}")


def residual_of(output: Any, block: nn.Module) -> torch.Tensor:
    """The residual stream ``[rows, tokens, width]`` in what a block returned, as a view.

    Gemma-3n's blocks hand on several streams for each token (AltUp, arXiv:2301.13310). The active
    one is theirs: attention and MLP read it and write it, and the others are predicted from it.

    Raises:
        UserError: the block keeps several streams, and nothing says which of them is the one.
    """
    hidden = output[0] if isinstance(output, tuple) else output
    if hidden.ndim == 3:
        return hidden
    active = getattr(getattr(block, "config", None), "altup_active_idx", None)
    if hidden.ndim != 4 or active is None:
        raise UserError(
            f"{type(block).__name__}: its blocks hand on {len(hidden)} streams for each token, not "
            "one residual stream, so that there is no one activation; take another model"
        )
    return hidden[active]


def final_norm_name(decoder: nn.Module) -> str:
    """Attribute name of the norm behind the last block."""
    for name in _FINAL_NORMS:
        if isinstance(getattr(decoder, name, None), nn.Module):
            return name
    raise UserError(f"no final norm found in {type(decoder).__name__}")
