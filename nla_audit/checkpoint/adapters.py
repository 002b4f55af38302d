"""LoRA layers of a published checkpoint, put into the model they belong to, tensor for tensor.

peft drops tensors that fit nowhere and leaves layers without tensors at their start, where they do
nothing; both are refused here. The models may be on torch's ``meta`` device: then names and shapes
are matched, and nothing is loaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nla_audit.checkpoint.declared import Adapter as AdapterConfig
from nla_audit.checkpoint.door import check_patterns, read_declared
from nla_audit.checkpoint.formats import ADAPTER_CONFIG, ADAPTER_FILE, ArLora
from nla_audit.checkpoint.tensors import (
    Match,
    Shapes,
    is_beside_the_text,
    match,
    plain_name,
    read_tensors,
)
from nla_audit.errors import UserError, first_line
from nla_audit.nla.architecture import decoder_of
from nla_audit.nla.batching import Notice
from nla_audit.nla.refusal import Refuse


def add_adapters(model: Any, folders: Sequence[Path], *, refuse: Refuse, notice: Notice) -> Any:
    """``model`` with the layers of all PEFT adapters in ``folders`` injected and active.

    Args:
        refuse: told of tensors that fit nowhere, and of layers that have none.
        notice: told which names were read differently.

    Raises:
        UserError: an adapter is of a kind that cannot be read, or made for another base.
    """
    from peft import PeftModel  # slow to import, and not every AV needs it

    names = [f"adapter_{number}" for number in range(len(folders))]
    modules = [module for module, _ in model.named_modules()]
    for folder in folders:
        config_file = folder / ADAPTER_CONFIG
        check_patterns(read_declared(config_file, AdapterConfig), modules, config_file)
    given = [
        _without_copies(_floating(read_tensors(folder / ADAPTER_FILE), folder))
        for folder in folders
    ]
    _make_room_for_added_tokens(model, given)
    wrapped: Any = None
    for name, folder, tensors in zip(names, folders, given, strict=True):
        try:
            config = _config(folder)
            if wrapped is None:
                with warnings.catch_warnings():
                    # peft asks transformers by a name that is deprecated.
                    warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
                    wrapped = PeftModel(model, config, adapter_name=name)
            else:
                wrapped.add_adapter(name, config)
        except UserError:
            raise
        except Exception as error:  # a stranger's adapter_config.json makes it fail in any way
            raise _does_not_fit(folder, first_line(error)) from None
        _fill(wrapped, name, tensors, folder, refuse=refuse, notice=notice)
    wrapped.base_model.set_adapter(names)
    # The LoRA layers now sit inside the model itself; the wrapper adds nothing we need.
    return wrapped.get_base_model()


def add_ar_lora(
    model: Any,
    lora: ArLora,
    tensors: dict[str, torch.Tensor],
    path: Path,
    *,
    refuse: Refuse,
    notice: Notice,
) -> None:
    """Inject the LoRA layers of an AR-LoRA and load their tensors by full module name.

    Raises:
        UserError: ``ar_meta.json`` or a tensor does not fit the base.
    """
    from peft import LoraConfig, inject_adapter_in_model

    # nanoNLA trains the blocks as `backbone` of a module that has the head beside it.
    tensors = {name.removeprefix("backbone."): one for name, one in tensors.items()}
    _floating(tensors, path)
    try:
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft says int, and takes it
            use_rslora=True,
            target_modules=list(lora.target_modules),
            task_type="CAUSAL_LM",
        )
        inject_adapter_in_model(config, model)
    except Exception as error:  # a stranger's ar_meta.json makes it fail in any way
        raise _does_not_fit(path, first_line(error)) from None
    parameters = {
        name: parameter for name, parameter in model.named_parameters() if ".lora_" in name
    }
    found = _within_the_text(model, match(_shapes(tensors), _shapes(parameters)))
    _check(found, path, refuse=refuse, notice=notice)
    with torch.no_grad():
        for name, place in found.places.items():
            if not parameters[place].is_meta:
                parameters[place].copy_(tensors[name])
    model.eval()


def _without_copies(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``tensors`` without what peft saves twice or thrice of a resized module that is saved whole.

    Beside ``X.weight`` it writes ``X.modules_to_save.weight``, which is the same, and
    ``X.original_module.weight``, which is the module as it was before training.
    """

    def is_copy(name: str) -> bool:
        before, word, rest = name.partition(".modules_to_save.")
        twin = tensors.get(f"{before}.{rest}") if word else None
        if twin is not None:
            return torch.equal(twin, tensors[name])
        before, word, rest = name.partition(".original_module.")
        return bool(word) and f"{before}.{rest}" in tensors

    return {name: one for name, one in tensors.items() if not is_copy(name)}


def _make_room_for_added_tokens(model: Any, given: Sequence[dict[str, torch.Tensor]]) -> None:
    """Give the base as many rows as the largest matrix that came along: tokens were added.

    The rows are filled from the adapter afterwards; where several adapters differ, the last one's
    remain, as with everything that is saved whole.
    """
    parts = (model.get_input_embeddings(), model.get_output_embeddings())
    weights = [part.weight for part in parts if part is not None]
    tables = {
        plain_name(name)
        for name, parameter in model.named_parameters()
        if any(parameter is weight for weight in weights)
    }
    rows, width = weights[0].shape
    most = max(
        (
            tensor.shape[0]
            for tensors in given
            for name, tensor in tensors.items()
            if tensor.ndim == 2 and tensor.shape[1] == width and plain_name(name) in tables
        ),
        default=rows,
    )
    if most > rows:
        model.resize_token_embeddings(most, mean_resizing=False)


def _config(folder: Path) -> Any:
    """The adapter's config.

    Raises:
        UserError: an adapter that is more than layers inside the model.
    """
    from peft import PeftConfig

    config: Any = PeftConfig.from_pretrained(str(folder))
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise UserError(
            f"{folder}: a {config.peft_type.value} adapter puts tokens of its own before the "
            "prompt, which would not be the AV's any more; only LoRA and its kin can be read"
        )
    config.inference_mode = True
    return config


def _fill(
    wrapped: Any,
    name: str,
    tensors: dict[str, torch.Tensor],
    folder: Path,
    *,
    refuse: Refuse,
    notice: Notice,
) -> None:
    """Load ``tensors`` into the layers of the adapter ``name``."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    wanted = get_peft_model_state_dict(wrapped, adapter_name=name, save_embedding_layers=False)
    found = match(_shapes(tensors), _shapes(wanted), also=_embeddings(wrapped))
    found = _within_the_text(wrapped.get_base_model(), found)
    left_out = tensors.keys() - found.places.keys() - set(found.unmatched)
    state = {
        found.places.get(given, given): tensor
        for given, tensor in tensors.items()
        if given not in left_out
    }
    if not found.is_whole and _places_all(wrapped, name, state):
        return
    _check(found, folder, refuse=refuse, notice=notice)
    if found.is_whole and all(map(is_beside_the_text, found.places.values())):
        refuse(f"{folder}: the adapter changes nothing that a text reaches; take the AV's own")
    _say_if_it_does_nothing(tensors, folder, notice)
    # A module that is saved whole and is not there keeps what the base has.
    absent = {place: wanted[place] for place in found.missing}
    placed = {place: tensors[given] for given, place in found.places.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the meta device it warns that it does nothing
            set_peft_model_state_dict(wrapped, absent | placed, adapter_name=name)
    except Exception as error:  # peft's own conversions, and what is wrong after them
        raise _does_not_fit(folder, first_line(error)) from None


def _places_all(wrapped: Any, name: str, state: dict[str, torch.Tensor]) -> bool:
    """Whether peft knows a place for all of ``state``, which it then has loaded.

    It converts names that transformers has given up, such as those of single experts.
    """
    from peft import set_peft_model_state_dict

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result: Any = set_peft_model_state_dict(wrapped, state, adapter_name=name)
    except Exception:  # it has none; the caller says what is wrong
        return False
    return not result.unexpected_keys and not any(
        f".{name}" in missing for missing in result.missing_keys
    )


def _say_if_it_does_nothing(tensors: dict[str, torch.Tensor], folder: Path, notice: Notice) -> None:
    products = [tensor for name, tensor in tensors.items() if "lora_B" in name]
    only_lora = all("lora_" in name for name in tensors)
    if products and only_lora and not any(tensor.any() for tensor in products):
        notice(f"{folder}: the adapter was never trained (all lora_B are zero): it changes nothing")


def _embeddings(wrapped: Any) -> Shapes:
    """The base's embedding and output matrices, which peft saves along where tokens were added."""
    base = wrapped.get_base_model()
    ours = [base.get_input_embeddings(), base.get_output_embeddings()]
    parts = {id(getattr(part, "base_layer", part)) for part in ours if part is not None}
    return {
        f"{name}.weight": tuple(module.weight.shape)
        for name, module in wrapped.named_modules()
        if id(module) in parts and getattr(module, "weight", None) is not None
    }


def _within_the_text(model: Any, found: Match) -> Match:
    """Leave out what belongs to the eyes and ears of a multimodal model, which no text reaches.

    Adapters of text-only models lack it where the base has it, and the other way round.
    """
    inside = {id(module): name for name, module in model.named_modules()}
    decoder = f"{inside[id(decoder_of(model))]}."
    return Match(
        places=found.places,
        unmatched=[name for name in found.unmatched if not is_beside_the_text(name)],
        missing=[name for name in found.missing if decoder in name or not is_beside_the_text(name)],
        misshapen=found.misshapen,
        given=found.given,
    )


def _check(found: Match, path: Path, *, refuse: Refuse, notice: Notice) -> None:
    problem = found.problem()
    if problem is None:
        if (renamed := found.renamed()) is not None:
            notice(f"{path}: the names of its tensors are read differently: {renamed}")
    elif found.misshapen:
        raise _does_not_fit(path, problem)
    elif found.unmatched:
        refuse(_words(path, problem))
    else:
        refuse(f"{path}: the adapter is not whole: {problem}; fetch or save it again")


def _does_not_fit(path: Path, reason: str) -> UserError:
    return UserError(_words(path, reason))


def _words(path: Path, reason: str) -> str:
    return (
        f"{path}: the adapter does not fit its base: {reason}; name the model it was trained on "
        "with --base"
    )


def _shapes(tensors: dict[str, Any]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _floating(tensors: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """``tensors``, all of them floating-point numbers.

    Raises:
        UserError: one is not; copying it would round it, or drop its imaginary part.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(
                f"{path}: {name} holds {kind}, not floating-point numbers; save it again"
            )
    return tensors
