"""What a recipe will cost, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nla_audit import hub
from nla_audit.checkpoint.door import check_model_files
from nla_audit.checkpoint.fetch import parse_reference
from nla_audit.errors import UserError, first_line
from nla_audit.nla.architecture import model_class
from nla_audit.train.layout import Layout
from nla_audit.train.log_probs import TOKEN_BUDGETS
from nla_audit.train.prepare import target_reference
from nla_audit.train.recipe import Lora, Recipe, path_of
from nla_audit.train.runs import Run

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2}
#: AdamW keeps two float32 averages beside a float32 gradient.
_TRAINED_BYTES = 12
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
        logits_gb: logits of one micro-batch in float32, with their gradient: the largest
            intermediate of small models with large vocabularies.
        rl_tokens_at_most: tokens generated over all runs if every response hit the cap.
        completion_tokens_at_most: likewise for the held-out completions.
    """

    unknown: str | None
    parameters: int | None
    trained_parameters: int | None
    weights_gb: float | None
    training_gb: float | None
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
        config = _config(layout)
        model = _empty_model(config)
    except UserError as error:
        return Estimate(str(error), None, None, None, None, None, rl_tokens, completion_tokens)
    sizes = [_sizes(recipe, run, model, config) for run in runs]
    vocabulary = config.get_text_config(decoder=True).vocab_size
    budget = max(run.rl.micro_batch_tokens or TOKEN_BUDGETS["cuda"] for run in runs)
    largest = max(sizes, key=lambda size: size.weights + size.training)
    return Estimate(
        unknown=None,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained_parameters=largest.trained,
        weights_gb=largest.weights / 1e9,
        training_gb=largest.training / 1e9,
        logits_gb=2 * 4 * budget * vocabulary / 1e9,
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
    trained = parameters if rl.lora is None else _lora_parameters(model, rl.lora)
    per_parameter = _BYTES[recipe.target.dtype]
    av_bytes = _FOUR_BIT_BYTES if recipe.target.load_in_4bit else per_parameter
    share_of_ar = _share_of_blocks(recipe, config)
    ars = 2 if rl.train_ar else 1
    has_other_anchor = run.start is not None and run.anchor == "warm_start"
    copies = 2 if rl.lora is None or has_other_anchor else 1
    weights = parameters * (copies * av_bytes + ars * share_of_ar * per_parameter)
    ar_parameters = parameters if rl.ar_lora is None else _lora_parameters(model, rl.ar_lora)
    ar_trained = ar_parameters * share_of_ar if rl.train_ar else 0.0
    return _Sizes(trained, weights, _TRAINED_BYTES * (trained + ar_trained))


def empty_target(layout: Layout) -> Any:
    """The target without weights.

    Raises:
        UserError: its config is not to be had here and now, or no model can be built from it.
    """
    return _empty_model(_config(layout))


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


def _config(layout: Layout) -> Any:
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
    import torch

    try:
        with torch.device("meta"):
            return model_class(config).from_config(config)
    except Exception as error:  # a stranger's config makes it fail in any way
        raise UserError(f"no model can be built from its config: {first_line(error)}") from None


def _lora_parameters(model: Any, lora: Lora) -> int:
    from torch import nn

    return sum(
        lora.rank * (module.in_features + module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rsplit(".", 1)[-1] in lora.target_modules
    )


def _share_of_blocks(recipe: Recipe, config: Any) -> float:
    blocks = config.get_text_config(decoder=True).num_hidden_layers
    layer = recipe.target.layer_index
    return ((round(blocks * 2 / 3) if layer is None else layer) + 1) / blocks
