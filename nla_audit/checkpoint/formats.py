"""Recognise what a folder holds, in any of the published formats (docs/formats.md).

A *checkpoint* is one half of a pair in one folder: a full transformers checkpoint, a PEFT
adapter, or an AR-LoRA (``ar_lora_value_head.safetensors`` + ``ar_meta.json``). Nothing is loaded
here; reading the small JSON and YAML files is enough to know. :data:`FORMATS` declares each once:
recognising, finding and fetching follow from it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nla_audit.checkpoint.declared import ArLoraMeta, WeightsIndex
from nla_audit.checkpoint.door import (
    check_adapter_files,
    check_model_files,
    check_rank,
    read_declared,
)
from nla_audit.checkpoint.read_sidecar import SIDECAR_NAME, read_sidecar
from nla_audit.errors import UserError
from nla_audit.nla.sidecar import Sidecar
from nla_audit.strangers import read_json_object

HEAD_FILE = "value_head.safetensors"
AR_LORA_FILE = "ar_lora_value_head.safetensors"
AR_LORA_META = "ar_meta.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILE = "adapter_model.safetensors"
CONFIG = "config.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"

_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.bin")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")

#: How many folders above a checkpoint its sidecar or base may lie: ``<repository>/rl-lora/p0.0``.
LEVELS_UP = 2

Layout = Literal["full", "adapter", "ar_lora"]


@dataclass(frozen=True)
class ArLora:
    """``ar_meta.json``: how to rebuild an AR that was saved as LoRA tensors and a head.

    rsLoRA is always on. An absent ``final_norm_stripped`` means the norm was kept.
    """

    blocks: int
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    quantization: str
    final_norm_stripped: bool


@dataclass(frozen=True)
class Checkpoint:
    """One half of a pair, as it lies in a folder.

    Attributes:
        path: the folder.
        layout: how it is saved.
        role: ``"av"`` or ``"ar"``; ``None`` for a plain language model.
        sidecar: the nearest one, or ``None``.
        base_named: for an adapter, ``base_model_name_or_path`` as written, which is often a
            path on the machine it was trained on.
        ar_lora: for an AR-LoRA, its ``ar_meta.json``.
        has_tokenizer: whether the folder holds a tokenizer.
    """

    path: Path
    layout: Layout
    role: Literal["av", "ar"] | None
    sidecar: Sidecar | None
    base_named: str | None = None
    ar_lora: ArLora | None = None
    has_tokenizer: bool = False

    @property
    def format_name(self) -> str:
        """The format in words, for people."""
        kind = self.sidecar.kind.removeprefix("nla_") if self.sidecar else "no"
        return f"{self.layout_name}, {kind} sidecar"

    @property
    def layout_name(self) -> str:
        """How it is saved, in words, for people."""
        return next(form.name for form in FORMATS if form.layout == self.layout)

    @property
    def head_file(self) -> Path:
        """Where the head of an AR lies, alone or among its LoRA tensors."""
        return self.path / (HEAD_FILE if self.ar_lora is None else AR_LORA_FILE)


@dataclass(frozen=True)
class Format:
    """One way in which halves of pairs are saved.

    Attributes:
        layout: what code calls it.
        name: what people call it.
        marks: files of which any one tells that a folder holds this format.
        needs: files that must all be there.
        read: what a folder states, as fields of :class:`Checkpoint`; takes the sidecar too.
        neighbour_named: how the model that it sits on is called, where that lies beside it; takes
            the folder, whose ``marks`` are there.
    """

    layout: Layout
    name: str
    marks: tuple[str, ...]
    needs: tuple[str, ...]
    read: Callable[[Path, Sidecar | None], dict[str, Any]]
    neighbour_named: Callable[[Path], str | None] = lambda folder: None


def recognise(folder: Path, *, sidecar: Path | None = None) -> Checkpoint:
    """Say what ``folder`` holds.

    Args:
        sidecar: a sidecar elsewhere, instead of the nearest one.

    Raises:
        UserError: no checkpoint, half a checkpoint, pickles only, or a folder with a pair in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    found = read_sidecar(sidecar) if sidecar is not None else nearest_sidecar(folder)
    has_tokenizer = any((folder / name).is_file() for name in _TOKENIZER_FILES)
    form = format_in(folder)
    if form is None:
        raise UserError(_why_no_checkpoint(folder))
    _need(folder, *form.needs)
    return Checkpoint(
        path=folder,
        layout=form.layout,
        sidecar=found,
        has_tokenizer=has_tokenizer,
        **form.read(folder, found),
    )


def format_in(folder: Path) -> Format | None:
    """The format whose marks ``folder`` bears; ``None`` if it is no checkpoint, whole or not."""
    return next(
        (form for form in FORMATS if any((folder / mark).is_file() for mark in form.marks)), None
    )


def check_weight_files(folder: Path) -> None:
    """Check that a full checkpoint's safetensors are all there.

    Raises:
        UserError: pickles only, no weights, or shards missing.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return
    if (folder / WEIGHTS_INDEX).is_file():
        index = read_declared(folder / WEIGHTS_INDEX, WeightsIndex, megabytes=32)
        shards = sorted(set(index.files()))
        missing = [name for name in shards if not (folder / name).is_file()]
        if missing or not shards:
            raise UserError(
                f"{folder}: {len(missing)} of {len(shards)} weight files are missing "
                f"({', '.join(missing[:3])}); fetch the checkpoint again"
            )
        return
    refuse_pickles(folder, _names(folder))
    raise UserError(f"{folder}: {CONFIG} but no {WEIGHTS_FILE}; fetch the checkpoint again")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a full checkpoint that hold the model itself."""
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    return [path for path in sorted(folder.glob("*.safetensors")) if path.name != HEAD_FILE]


def nearest_sidecar(folder: Path) -> Sidecar | None:
    """The sidecar in ``folder`` or in the folders right above it; ``None`` if there is none."""
    resolved = folder.resolve()
    for place in (resolved, *list(resolved.parents)[:LEVELS_UP]):
        if (place / SIDECAR_NAME).is_file():
            return read_sidecar(place / SIDECAR_NAME)
    return None


def neighbour(folder: Path, name: str) -> Path | None:
    """A model folder called ``name`` beside ``folder`` or beside the folders above it."""
    for above in list(folder.resolve().parents)[: LEVELS_UP + 1]:
        candidate = above / name
        if candidate != folder.resolve() and (
            (candidate / CONFIG).is_file() or (candidate / ADAPTER_CONFIG).is_file()
        ):
            return candidate
    return None


def _read_ar_lora(folder: Path, sidecar: Sidecar | None) -> dict[str, Any]:
    meta = read_declared(folder / AR_LORA_META, ArLoraMeta)
    check_rank(meta.lora_r, folder / AR_LORA_META, folder / AR_LORA_FILE)
    ar_lora = ArLora(
        blocks=meta.ar_num_layers,
        rank=meta.lora_r,
        alpha=meta.lora_alpha,
        target_modules=tuple(meta.target_modules),
        quantization=meta.quant or "none",
        final_norm_stripped=meta.final_norm_stripped,
    )
    return {"role": "ar", "ar_lora": ar_lora}


def _read_adapter(folder: Path, sidecar: Sidecar | None) -> dict[str, Any]:
    stated = check_adapter_files(folder, ADAPTER_CONFIG, ADAPTER_FILE)
    return {"role": "av", "base_named": stated.base_model_name_or_path or None}


def _read_full(folder: Path, sidecar: Sidecar | None) -> dict[str, Any]:
    check_weight_files(folder)
    check_model_files(folder)
    return {"role": _role_of_full(folder, sidecar)}


def _base_of_adapter(folder: Path) -> str | None:
    return (
        str(read_json_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path") or "") or None
    )


def _role_of_full(folder: Path, sidecar: Sidecar | None) -> Literal["av", "ar"] | None:
    # The head decides: dataset sidecars state no role, and one may lie above both halves.
    if (folder / HEAD_FILE).is_file():
        return "ar"
    if sidecar is None or sidecar.path.parent.resolve() != folder.resolve():
        return None
    return sidecar.role or "av"


def _need(folder: Path, *names: str) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        refuse_pickles(folder, _names(folder))
        raise UserError(f"{folder}: {missing[0]} is missing; fetch the checkpoint again")


def refuse_pickles(where: str | Path, names: Collection[str]) -> None:
    """Refuse a checkpoint without safetensors, if what it has instead are pickles.

    Args:
        where: the checkpoint, for the message.
        names: the files in its folder.

    Raises:
        UserError: one of them holds pickled weights.
    """
    pickles = [name for name in _PICKLES if name in names]
    if pickles:
        raise UserError(
            f"{where}: weights only as {pickles[0]}, a pickle that can run code when opened; "
            "convert it to safetensors with a tool you trust"
        )


def _names(folder: Path) -> set[str]:
    return {child.name for child in folder.iterdir()}


def _why_no_checkpoint(folder: Path) -> str:
    refuse_pickles(folder, _names(folder))
    inside = sorted(child.name for child in folder.iterdir() if format_in(child) is not None)
    if inside:
        return f"{folder}: no checkpoint itself, but holds {', '.join(inside)}; name one of them"
    return f"{folder}: no checkpoint here (no {CONFIG}, {ADAPTER_CONFIG} or {AR_LORA_META})"


#: Every published format; where a folder bears the marks of several, the first one counts.
FORMATS = (
    Format(
        layout="ar_lora",
        name="AR-LoRA with head",
        marks=(AR_LORA_META, AR_LORA_FILE),
        needs=(AR_LORA_META, AR_LORA_FILE),
        read=_read_ar_lora,
        neighbour_named=lambda folder: "base",  # its ar_meta.json names none
    ),
    Format(
        layout="adapter",
        name="PEFT adapter",
        marks=(ADAPTER_CONFIG,),
        needs=(ADAPTER_CONFIG, ADAPTER_FILE),
        read=_read_adapter,
        neighbour_named=_base_of_adapter,
    ),
    Format(
        layout="full",
        name="full checkpoint",
        marks=(CONFIG,),
        needs=(CONFIG,),
        read=_read_full,
    ),
)

#: Files of which every checkpoint has one.
MARKS = tuple(mark for form in FORMATS for mark in form.marks)
