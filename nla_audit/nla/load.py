"""Load a pair from any published format: ``load(av=…, ar=…) → Pair``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from nla_audit.errors import UserError
from nla_audit.nla.architecture import hidden_size, keep_first_blocks, number_of_blocks
from nla_audit.nla.formats import (
    AR_LORA_FILE,
    HEAD_FILE,
    ArLora,
    Checkpoint,
    neighbour,
    recognise,
)
from nla_audit.nla.hub import local_folder
from nla_audit.nla.injection import Injection
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.sidecar import Sidecar
from nla_audit.nla.verbalizer import Verbalizer

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Pair:
    """The two halves; either may be missing where only one was asked for."""

    verbalizer: Verbalizer | None
    reconstructor: Reconstructor | None


@dataclass(frozen=True)
class Placement:
    """Where weights go and in which precision.

    Attributes:
        dtype: ``float32``, ``bfloat16``, ``float16``, or ``auto`` (as saved).
        device: e.g. ``cpu`` or ``cuda:0``; by default a GPU where there is one.
        device_map: passed to transformers instead of a device, to spread a large model.
        load_in_4bit: quantise the base with bitsandbytes (NF4), as nano's QLoRA runs did.
        trust_remote_code: run model code that comes with a checkpoint. Never by default.
    """

    dtype: str = "auto"
    device: str | None = None
    device_map: str | None = None
    load_in_4bit: bool = False
    trust_remote_code: bool = False

    def options(self) -> dict[str, Any]:
        """Keyword arguments for ``from_pretrained``.

        Raises:
            UserError: an unknown dtype, or 4-bit without bitsandbytes.
        """
        if self.dtype != "auto" and self.dtype not in _DTYPES:
            raise UserError(f"dtype {self.dtype!r}: expected auto, {', '.join(_DTYPES)}")
        options: dict[str, Any] = {
            "dtype": _DTYPES.get(self.dtype, "auto"),
            "use_safetensors": True,
            "trust_remote_code": self.trust_remote_code,
        }
        if self.device_map is not None:
            options["device_map"] = self.device_map
        if self.load_in_4bit:
            options["quantization_config"] = _four_bit()
        return options

    def place(self, model: Any) -> Any:
        """Move a loaded model to its device, ready for inference."""
        model.eval()
        if self.device_map is not None or self.load_in_4bit:
            return model
        default = "cuda" if torch.cuda.is_available() else "cpu"
        return model.to(self.device or default)


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

    Raises:
        UserError: whatever keeps a half from being loaded, in one line.
    """
    if av is None and ar is None:
        raise UserError("nothing to load: name an AV, an AR, or both")
    place = placement or Placement()
    sidecar_path = Path(sidecar) if sidecar is not None else None
    av_checkpoint = _recognised(av, sidecar_path, "av", force) if av is not None else None
    ar_checkpoint = _recognised(ar, sidecar_path, "ar", force) if ar is not None else None
    with _quiet_transformers():
        return Pair(
            verbalizer=(
                _load_av(av_checkpoint, adapter, base, injection, place) if av_checkpoint else None
            ),
            reconstructor=(
                _load_ar(ar_checkpoint, av_checkpoint, base, place, force)
                if ar_checkpoint
                else None
            ),
        )


def load_first_blocks(
    folder: Path, *, layer_index: int, placement: Placement | None = None
) -> tuple[Any, Any]:
    """A language model up to and including block ``layer_index``, and its tokenizer.

    Raises:
        UserError: it has no such block, or it cannot be loaded.
    """
    place = placement or Placement()
    config = _config(folder, place)
    available = number_of_blocks(config)
    if not 0 <= layer_index < available:
        raise UserError(f"{folder}: no layer {layer_index}: its layers are 0 to {available - 1}")
    keep_first_blocks(config, layer_index + 1)
    with _quiet_transformers():
        model = place.place(_causal_lm(folder, config, place))
        return model, _tokenizer(folder, place)


def _recognised(reference: str | Path, sidecar: Path | None, role: str, force: bool) -> Checkpoint:
    checkpoint = recognise(local_folder(reference), sidecar=sidecar)
    if checkpoint.role is not None and checkpoint.role != role and not force:
        raise UserError(
            f"{reference}: this is an {checkpoint.role.upper()}, given as the {role.upper()}; "
            "swap the two"
        )
    return checkpoint


def _load_av(
    checkpoint: Checkpoint,
    adapter: str | Path | None,
    base: str | Path | None,
    injection: Injection | None,
    placement: Placement,
) -> Verbalizer:
    from peft import PeftModel  # noqa: PLC0415  (slow to import, and not every AV needs it)

    adapters = [checkpoint.path] if checkpoint.layout == "adapter" else []
    folder = checkpoint.path
    if checkpoint.layout == "adapter":
        folder = base_of(checkpoint, base)
    if adapter is not None:
        adapters.append(_adapter_folder(adapter))
    sidecar = _sidecar_of(checkpoint, folder)
    config = _config(folder, placement)
    _check_width(sidecar, config, checkpoint.path)
    model = _causal_lm(folder, config, placement)
    tokenizer = _tokenizer(checkpoint.path if checkpoint.has_tokenizer else folder, placement)
    if adapters:
        names = [f"adapter_{number}" for number in range(len(adapters))]
        wrapped = PeftModel.from_pretrained(model, str(adapters[0]), adapter_name=names[0])
        for name, path in zip(names[1:], adapters[1:], strict=True):
            wrapped.load_adapter(str(path), adapter_name=name)
        wrapped.base_model.set_adapter(names)  # type: ignore[operator]
        # The LoRA layers now sit inside the model itself; the wrapper adds nothing we need.
        model = wrapped.get_base_model()
    name = Path(adapter).name if adapter is not None else checkpoint.path.name
    return Verbalizer(
        placement.place(model),
        tokenizer,
        sidecar,
        injection=injection,
        name=name,
        files=[checkpoint.path, folder, *adapters, sidecar.path],
    )


def _load_ar(
    checkpoint: Checkpoint,
    av: Checkpoint | None,
    base: str | Path | None,
    placement: Placement,
    force: bool,
) -> Reconstructor:
    if checkpoint.layout == "adapter":
        raise UserError(
            f"{checkpoint.path}: a PEFT adapter without a head is no AR; "
            "an AR-LoRA has ar_lora_value_head.safetensors and ar_meta.json"
        )
    lora = checkpoint.ar_lora
    folder = checkpoint.path if lora is None else _base_of_ar(checkpoint, av, base)
    sidecar = _sidecar_of(checkpoint, folder)
    config = _config(folder, placement)
    _check_width(sidecar, config, checkpoint.path)
    if lora is not None:
        keep_first_blocks(config, lora.blocks)
    _check_layer(sidecar, config, checkpoint.path, force)
    model = placement.place(_causal_lm(folder, config, placement))
    if lora is None:
        head = _one_tensor(checkpoint.path / HEAD_FILE)
    else:
        head = _add_ar_lora(model, lora, checkpoint.path / AR_LORA_FILE)
    return Reconstructor(
        model,
        head,
        _tokenizer(checkpoint.path if checkpoint.has_tokenizer else folder, placement),
        sidecar,
        keep_final_norm=lora is not None and not lora.final_norm_stripped,
        name=checkpoint.path.name,
        files=[checkpoint.path, folder, sidecar.path],
    )


def base_of(checkpoint: Checkpoint, base: str | Path | None) -> Path:
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


def _base_of_ar(checkpoint: Checkpoint, av: Checkpoint | None, base: str | Path | None) -> Path:
    """The folder of the bare model an AR-LoRA sits on; ``ar_meta.json`` does not name it."""
    if base is not None:
        return local_folder(base)
    beside = neighbour(checkpoint.path, "base")
    if beside is not None:
        return beside
    if checkpoint.sidecar is not None and checkpoint.sidecar.base_model is not None:
        return local_folder(checkpoint.sidecar.base_model)
    if av is not None and av.layout == "adapter":
        candidate = base_of(av, None)
        # A base that has a sidecar of its own is a merged AV, not the bare model.
        if recognise(candidate).role is None:
            return candidate
    raise UserError(f"{checkpoint.path}: say with --base which model this AR-LoRA sits on")


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


def _check_width(sidecar: Sidecar, config: Any, path: Path) -> None:
    if sidecar.d_model != hidden_size(config):
        raise UserError(
            f"{path}: the sidecar ({sidecar.path}) says d_model {sidecar.d_model}, "
            f"the model has {hidden_size(config)}; they do not belong together"
        )


def _check_layer(sidecar: Sidecar, config: Any, path: Path, force: bool) -> None:
    layer = sidecar.layer_index
    if layer is not None and number_of_blocks(config) != layer + 1 and not force:
        raise UserError(
            f"{path}: an AR for layer {layer} has {layer + 1} blocks, this one has "
            f"{number_of_blocks(config)}; it was made for another layer (--force to use it)"
        )


def _config(folder: Path, placement: Placement) -> Any:
    from transformers import AutoConfig  # noqa: PLC0415

    try:
        return AutoConfig.from_pretrained(
            str(folder), trust_remote_code=placement.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: transformers cannot read config.json: {_line(error)}") from None


def _causal_lm(folder: Path, config: Any, placement: Placement) -> Any:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    try:
        return AutoModelForCausalLM.from_pretrained(
            str(folder), config=config, **placement.options()
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder}: transformers cannot load it: {_line(error)}") from None


def _tokenizer(folder: Path, placement: Placement) -> Any:
    from transformers import AutoTokenizer  # noqa: PLC0415

    try:
        return AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=placement.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no usable tokenizer: {_line(error)}") from None


def _one_tensor(path: Path) -> torch.Tensor:
    tensors = read_tensors(path)
    if "weight" not in tensors:
        raise UserError(f"{path}: no tensor called weight, found {sorted(tensors)[:5]}")
    return tensors["weight"]


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file.

    Raises:
        UserError: missing or damaged.
    """
    try:
        return load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot read ({_line(error)})") from None


def _add_ar_lora(model: Any, lora: ArLora, path: Path) -> torch.Tensor:
    """Inject the LoRA layers, load their tensors by full module name; returns the head."""
    from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        use_rslora=True,
        target_modules=list(lora.target_modules),
        task_type="CAUSAL_LM",
    )
    inject_adapter_in_model(config, model)
    tensors = read_tensors(path)
    head = tensors.pop("value_head.weight", None)
    if head is None:
        raise UserError(f"{path}: no value_head.weight in it")
    parameters = dict(model.named_parameters())
    given = {name.removeprefix("backbone."): tensor for name, tensor in tensors.items()}
    unknown = sorted(given.keys() - parameters.keys())
    missing = sorted(
        name
        for name in parameters.keys() - given.keys()
        if ".lora_A." in name or ".lora_B." in name
    )
    if unknown or missing:
        problem = f"unknown {unknown[0]}" if unknown else f"missing {missing[0]}"
        raise UserError(
            f"{path}: {len(unknown)} tensors fit nowhere and {len(missing)} are missing "
            f"({problem}); it was made for another base or another ar_meta.json"
        )
    with torch.no_grad():
        for name, tensor in given.items():
            if parameters[name].shape != tensor.shape:
                raise UserError(
                    f"{path}: {name} has shape {list(tensor.shape)}, "
                    f"the base needs {list(parameters[name].shape)}"
                )
            parameters[name].copy_(tensor)
    model.eval()
    return head


def _four_bit() -> Any:
    from importlib.util import find_spec  # noqa: PLC0415

    if find_spec("bitsandbytes") is None:
        raise UserError("4-bit loading needs bitsandbytes: pip install bitsandbytes")
    from transformers import BitsAndBytesConfig  # noqa: PLC0415

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _line(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).strip().split("\n", 1)[0]


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep transformers from listing the weights of blocks that we leave out on purpose.

    Its progress bars, two for each pair, would break into those of the commands.
    """
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415

    logger = logging.getLogger("transformers")
    level, had_bars = logger.level, transformers_logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if had_bars:
            transformers_logging.enable_progress_bar()
