"""What a recipe will cost, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nla_audit import hub
from nla_audit.checkpoint.door import check_model_files
from nla_audit.checkpoint.fetch import parse_reference
from nla_audit.checkpoint.precision import for_untrained
from nla_audit.errors import UserError, first_line
from nla_audit.nla.architecture import blocks_of, decoder_of, model_class, text_config
from nla_audit.nla.chosen_tokens import default_chunk
from nla_audit.nla.output_head import LARGE_VOCABULARY
from nla_audit.train.kept_memory import kept_bytes_per_token
from nla_audit.train.layout import Layout
from nla_audit.train.log_probs import default_token_budget
from nla_audit.train.pair import default_layer, placement_of
from nla_audit.train.prepare import target_reference
from nla_audit.train.recipe import Recipe, path_of
from nla_audit.train.recipe_optimizer import Lora
from nla_audit.train.runs import Run

#: AdamW keeps two float32 averages beside a float32 gradient.
_TRAINED_BYTES = 12
#: A running average of trained weights.
_AVERAGE_BYTES = 4
_FOUR_BIT_BYTES = 0.55
#: For the one question that is asked of the Hub.
_PATIENCE_SECONDS = 10


@dataclass(frozen=True)
class Estimate:
    """Of the RL stage, the one that costs; sizes are those of its largest run.

    Attributes:
        unknown: why the target's config cannot be read here; ``None`` where it was read.
        parameters: of the target; ``None`` where its config cannot be read.
        trained_parameters: of the AV.
        weights_gb: AV, its frozen copy (without LoRA), AR and ruler.
        training_gb: gradients and optimiser averages.
        kept_gb: what the AV's forward pass on one micro-batch keeps for the backward pass; ``None``
            for a model that cannot be run without its weights.
        logits_gb: logits that exist at once, with their gradient, in float32.
        rl_tokens_at_most: tokens generated over all runs if every response hit the cap.
        completion_tokens_at_most: likewise for the held-out completions.
    """

    unknown: str | None
    parameters: int | None
    trained_parameters: int | None
    weights_gb: float | None
    training_gb: float | None
    kept_gb: float | None
    logits_gb: float | None
    rl_tokens_at_most: int
    completion_tokens_at_most: int


def estimate(layout: Layout) -> Estimate:
    """Sizes from the target's config, without loading a weight."""
    recipe, runs = layout.recipe, layout.runs
    rl_tokens = sum(
        run.rl.steps * run.rl.prompts * run.rl.samples * run.rl.max_new_tokens for run in runs
    )
    caps = [recipe.rl.max_new_tokens, *(run.rl.max_new_tokens for run in runs)]
    completion_tokens = recipe.evaluation.activations * recipe.evaluation.samples * sum(caps)
    try:
        config = target_config(layout)
        model = _empty_model(config)
    except UserError as error:
        return Estimate(
            str(error), None, None, None, None, None, None, rl_tokens, completion_tokens
        )
    sizes = [_sizes(recipe, run, model, config) for run in runs]
    device = placement_of(recipe.target).chosen_device().partition(":")[0]
    # Most runs of a sweep make the same passes.
    unlike = {
        (repr(run.rl.lora), run.rl.gradient_checkpointing, run.rl.micro_batch_tokens): run
        for run in runs
    }
    kept = [_kept(run, config, frozen_dtype(recipe, config), device) for run in unlike.values()]
    logits = max(_logits_at_once(run, config, device) for run in runs)
    largest = max(sizes, key=lambda size: size.weights + size.training)
    return Estimate(
        unknown=None,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained_parameters=largest.trained,
        weights_gb=largest.weights / 1e9,
        training_gb=largest.training / 1e9,
        kept_gb=None if None in kept else max(one for one in kept if one is not None) / 1e9,
        logits_gb=2 * 4 * logits / 1e9,
        rl_tokens_at_most=rl_tokens,
        completion_tokens_at_most=completion_tokens,
    )


@dataclass(frozen=True)
class _Sizes:
    """Of one run: parameters of the AV that it trains, and bytes."""

    trained: int
    weights: float
    training: float


def _sizes(recipe: Recipe, run: Run, model: Any, config: Any) -> _Sizes:
    rl = run.rl
    parameters = sum(parameter.numel() for parameter in model.parameters())
    in_ar = parameters - _parameters_beyond_layer(recipe, model)
    trained = parameters if rl.lora is None else _lora_parameters(model, rl.lora)
    per_parameter = frozen_dtype(recipe, config).itemsize
    av_bytes = _FOUR_BIT_BYTES if recipe.target.load_in_4bit else per_parameter
    has_other_anchor = run.start is not None and run.anchor == "warm_start"
    copies = 2 if rl.lora is None or has_other_anchor else 1
    # What is trained as a whole is float32, and so is what it is anchored to.
    weights = parameters * copies * (4 if rl.lora is None else av_bytes)
    weights += in_ar * per_parameter  # the ruler
    ar_trained = 0.0
    if rl.train_ar:
        weights += in_ar * (4 if rl.ar_lora is None else per_parameter)
        share = in_ar / parameters
        ar_trained = in_ar if rl.ar_lora is None else _lora_parameters(model, rl.ar_lora) * share
    training = _TRAINED_BYTES * (trained + ar_trained)
    if rl.ar_ema is not None:
        training += _AVERAGE_BYTES * ar_trained
    return _Sizes(trained, weights, training)


def frozen_dtype(recipe: Recipe, config: Any) -> torch.dtype:
    """The precision of frozen weights."""
    dtype = for_untrained(placement_of(recipe.target), config).dtype
    saved = getattr(config, "dtype", None)
    return (saved or torch.float32) if dtype == "auto" else getattr(torch, dtype)


def _budget(run: Run, device: str) -> int:
    """Tokens of a micro-batch."""
    return run.rl.micro_batch_tokens or default_token_budget(device)


def _kept(run: Run, config: Any, dtype: torch.dtype, device: str) -> float | None:
    """Bytes; ``None`` where the model's code looks at data on its way."""
    rl = run.rl
    model = _empty_model(config).to(torch.float32 if rl.lora is None else dtype)
    try:
        for_token = kept_bytes_per_token(
            model, rl.lora, gradient_checkpointing=rl.gradient_checkpointing
        )
    except Exception:  # anyone's code
        return None
    return for_token * _budget(run, device)


def _logits_at_once(run: Run, config: Any, device: str) -> int:
    vocabulary = text_config(config).vocab_size
    tokens = _budget(run, device)
    if vocabulary >= LARGE_VOCABULARY:
        tokens = min(tokens, default_chunk(device, vocabulary))
    return tokens * vocabulary


def empty_target(layout: Layout) -> Any:
    """The target without weights.

    Raises:
        UserError: its config is not to be had here and now, or no model can be built from it.
    """
    return _empty_model(target_config(layout))


def missing_inputs(layout: Layout) -> list[str]:
    """What the recipe names as a file or folder and is not there (names on the Hub are not asked).

    Each with the key of the recipe that names it.
    """
    data, pair = layout.recipe.data, layout.recipe.pair
    files = {"data.table": data.table, "data.texts": data.texts}
    folders = {"target.model": layout.recipe.target.model, "pair.av": pair.av, "pair.ar": pair.ar}
    missing = []
    for key, reference in (files | folders).items():
        if reference is None or path_of(reference, layout.folder).exists():
            continue
        if key in files or parse_reference(reference) is None:
            missing.append(f"{key}: {path_of(reference, layout.folder)}")
    return missing


def target_config(layout: Layout) -> Any:
    """Of the target; of a model on the Hub only ``config.json`` is fetched.

    Raises:
        UserError: it is not to be had here and now.
    """
    from transformers import AutoConfig, LlamaConfig

    world = layout.recipe.target.world
    if world is not None:
        return LlamaConfig(
            vocab_size=300,
            hidden_size=world.d_model,
            intermediate_size=2 * world.d_model,
            num_hidden_layers=world.blocks,
            num_attention_heads=4,
            num_key_value_heads=4,
        )
    reference = target_reference(layout)
    folder = Path(reference) if Path(reference).is_dir() else _config_from_hub(str(reference))
    check_model_files(folder)
    try:
        return AutoConfig.from_pretrained(str(folder))
    except Exception as error:  # a stranger's file makes it fail in any way
        raise UserError(f"{reference}: {first_line(error)}") from None


def _config_from_hub(name: str) -> Path:
    """The folder in the local cache with ``config.json`` of a model on the Hub."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    found = parse_reference(name)
    if found is None:
        raise UserError(f"{name} is not here")
    file = {
        "repo_id": found.repository,
        "filename": "config.json",
        "subfolder": found.subfolder,
        "revision": found.revision,
    }
    try:
        return Path(hub.api().hf_hub_download(**file, local_files_only=True)).parent
    except LocalEntryNotFoundError:
        pass
    try:
        with hub.explained(name, "model"):
            # Asked first, because this does not try again for half a minute without a connection.
            hub.api().model_info(found.repository, timeout=_PATIENCE_SECONDS)
            return Path(hub.api().hf_hub_download(**file)).parent
    except UserError:
        raise
    except Exception as error:  # whatever else keeps us from the Hub; the rest of the plan stands
        raise UserError(f"{name}: {first_line(error)}") from None


def _empty_model(config: Any) -> Any:
    try:
        with torch.device("meta"):
            return model_class(config).from_config(config)
    except Exception as error:  # a stranger's config makes it fail in any way
        raise UserError(f"no model can be built from its config: {first_line(error)}") from None


def _lora_parameters(model: Any, lora: Lora) -> int:
    return sum(
        lora.rank * (module.in_features + module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rsplit(".", 1)[-1] in lora.target_modules
    )


def _parameters_beyond_layer(recipe: Recipe, model: Any) -> int:
    """Of the blocks that an AR leaves out; it keeps all that belongs to no block."""
    blocks = blocks_of(decoder_of(model))
    layer = recipe.target.layer_index
    last = default_layer(len(blocks)) if layer is None else layer
    return sum(weight.numel() for block in blocks[last + 1 :] for weight in block.parameters())
