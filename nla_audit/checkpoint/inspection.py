"""``nla-audit inspect``: say what a checkpoint is, and what is wrong with it, without loading it.

Reads the small files and scans the weights one tensor at a time, so that a checkpoint of any
size can be looked at on any machine. Then it is loaded on torch's ``meta`` device, where weights
have a name and a shape but take no room: whatever loading refuses is found by loading.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from nla_audit.checkpoint.backbone import (
    Placement,
    quiet_transformers,
    read_causal_lm,
    read_config,
    read_tokenizer,
)
from nla_audit.checkpoint.check import check_ar_layer, check_blocks, check_injection, check_width
from nla_audit.checkpoint.declared_size import check_size
from nla_audit.checkpoint.fetch import local_folder
from nla_audit.checkpoint.find_pair import checkpoint_folders, is_checkpoint
from nla_audit.checkpoint.formats import (
    ADAPTER_CONFIG,
    HEAD_FILE,
    Checkpoint,
    recognise,
    weight_files,
)
from nla_audit.checkpoint.head import check_head
from nla_audit.checkpoint.health import WeightHealth, head_health, scan
from nla_audit.checkpoint.load import head_of, load_with, whole_model_of
from nla_audit.checkpoint.read_transform import transform_of
from nla_audit.checkpoint.tensors import types_in
from nla_audit.errors import UserError, first_line
from nla_audit.nla.architecture import hidden_size, number_of_blocks
from nla_audit.nla.injection import Injection, injection_of
from nla_audit.nla.prompts import av_prompt, check_ar_prompt
from nla_audit.nla.sidecar import Sidecar
from nla_audit.strangers import read_json_object
from nla_audit.wording import count

_NOT_STATED = "not stated"
_ROLES = {"av": "AV (verbalizer)", "ar": "AR (reconstructor)", None: "plain language model"}


@dataclass
class Inspection:
    """What is known of one checkpoint.

    Attributes:
        path: the folder.
        facts: label → value, in the order to be shown.
        problems: what cannot be right; loading refuses it.
        oddities: what may be meant but is worth knowing.
    """

    path: Path
    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    oddities: list[str] = field(default_factory=list)


def inspect(
    reference: str | Path,
    *,
    base: str | Path | None = None,
    sidecar: str | Path | None = None,
    placement: Placement | None = None,
) -> list[Inspection]:
    """Inspect a checkpoint, or every checkpoint in a folder of them.

    Args:
        reference: a folder or ``owner/name[@revision][/subfolder]``.
        base: the model that adapters sit on, where it is not found.
        sidecar: a sidecar elsewhere.
        placement: only its ``trust_remote_code`` matters.

    Raises:
        UserError: no such folder, or no checkpoint in it.
    """
    folder = local_folder(reference)
    path = Path(sidecar) if sidecar is not None else None
    place = placement or Placement()
    if is_checkpoint(folder):
        return [_Inspector(recognise(folder, sidecar=path), base, place).run()]
    folders = checkpoint_folders(folder)
    if len(folders) < 2:
        checkpoint = recognise(folders[0] if folders else folder)  # which says what is missing
        return [_Inspector(checkpoint, base, place).run()]
    return [_one_of_several(each, base, place) for each in folders]


def _one_of_several(folder: Path, base: str | Path | None, placement: Placement) -> Inspection:
    """One that cannot be read at all does not keep the others from being inspected."""
    try:
        return _Inspector(recognise(folder), base, placement).run()
    except UserError as error:
        return Inspection(folder, problems=[str(error)])


class _Inspector:
    """Collects the facts and problems of one checkpoint."""

    def __init__(
        self, checkpoint: Checkpoint, base: str | Path | None, placement: Placement
    ) -> None:
        self.checkpoint = checkpoint
        self.placement = placement
        self.found = Inspection(checkpoint.path)
        self.backbone = self._backbone(base)
        self.sidecar = checkpoint.sidecar
        if self.sidecar is None and self.backbone is not None:
            self.sidecar = recognise(self.backbone).sidecar

    def run(self) -> Inspection:
        """Everything, in the order to be shown."""
        facts = self.found.facts
        facts["format"] = self.checkpoint.format_name
        facts["role"] = _ROLES[self.checkpoint.role]
        facts["base"] = self._base_words()
        config = self._config()
        self._training()
        if self.sidecar is None:
            if self.checkpoint.role is not None:
                self.found.problems.append(
                    f"{self.checkpoint.path}: no nla_meta.yaml here, above, or with its base; "
                    "name one with --sidecar"
                )
        else:
            self._sidecar(self.sidecar, config)
            self._tokenizer(self.sidecar)
        self._head(config)
        self._weights()
        self._as_loading(config)
        return self.found

    def _backbone(self, base: str | Path | None) -> Path | None:
        """Folder of the whole model: the checkpoint itself, or what an adapter sits on."""
        try:
            return whole_model_of(self.checkpoint, None, base)
        except UserError as error:
            self.found.oddities.append(str(error))
            return None

    def _base_words(self) -> str:
        stated = self.checkpoint.base_named
        if stated is None and self.checkpoint.sidecar is not None:
            stated = self.checkpoint.sidecar.base_model
        words = stated or _NOT_STATED
        if self.checkpoint.layout != "full":
            words += f" → {self.backbone}" if self.backbone else " (not found here)"
        return words

    def _config(self) -> Any:
        if self.backbone is None:
            return None
        config = read_config(self.backbone, self.placement)
        with self._collecting():
            trusted = self.placement.trust_remote_code
            check_size(self.backbone, config, trust_remote_code=trusted)
        name = (getattr(config, "architectures", None) or [type(config).__name__])[0]
        self.found.facts["model"] = (
            f"{name}, {number_of_blocks(config)} blocks, d_model {hidden_size(config)}"
        )
        return config

    def _training(self) -> None:
        """LoRA settings, and whether the final norm is in use."""
        facts, lora = self.found.facts, self.checkpoint.ar_lora
        if self.checkpoint.layout == "adapter":
            adapter = read_json_object(self.checkpoint.path / ADAPTER_CONFIG)
            kind = "rsLoRA" if adapter.get("use_rslora") else "LoRA"
            facts["adapter"] = f"{kind}, r {adapter.get('r')}, α {adapter.get('lora_alpha')}"
        if lora is not None:
            quantized = lora.quantization not in ("none", "None", "")
            facts["adapter"] = (
                f"rsLoRA, r {lora.rank}, α {lora.alpha:g}, first {lora.blocks} blocks"
                + (f", trained on a base quantised to {lora.quantization}" if quantized else "")
            )
        if self.checkpoint.role == "ar":
            kept = lora is not None and not lora.final_norm_stripped
            facts["final norm"] = "kept" if kept else "stripped"

    def _sidecar(self, sidecar: Sidecar, config: Any) -> None:
        facts, role = self.found.facts, self.checkpoint.role
        facts["sidecar"] = str(sidecar.path)
        facts["stage"] = sidecar.stage or _NOT_STATED
        facts["layer"] = _NOT_STATED if sidecar.layer_index is None else str(sidecar.layer_index)
        with self._collecting():
            transform = transform_of(
                sidecar, [self.checkpoint.path, self.backbone or self.checkpoint.path]
            )
            facts["activations"] = "raw" if transform is None else transform.describe()
        injection = injection_of(sidecar)
        if role != "ar":
            facts["injection"] = _injection_words(sidecar, injection)
        if role != "av":
            facts["MSE scale"] = _scale_words(sidecar)
            trained = sidecar.ar_trained_in_rl
            facts["AR trained in RL"] = (
                "not recorded" if trained is None else "yes" if trained else "no"
            )
        tokens = sidecar.tokens
        facts["marker"] = (
            f"{tokens.injection_char!r}, token {tokens.injection_token_id} between "
            f"{tokens.left_neighbor_id} and {tokens.right_neighbor_id}"
        )
        facts["AV prompt"] = sidecar.av_template or _NOT_STATED
        facts["AR prompt"] = sidecar.ar_template or _NOT_STATED
        if config is None:
            return
        with self._collecting():
            check_width(sidecar, config, self.checkpoint.path)
        if role == "ar":
            lora = self.checkpoint.ar_lora
            blocks = number_of_blocks(config) if lora is None else lora.blocks
            check_ar_layer(sidecar, blocks, self.checkpoint.path, self.found.problems.append)
        if role == "av":
            with self._collecting():
                check_injection(injection, config, self.checkpoint.path)

    def _tokenizer(self, sidecar: Sidecar) -> None:
        folder = self.checkpoint.path if self.checkpoint.has_tokenizer else self.backbone
        if folder is None:
            self.found.facts["tokenizer"] = "none here"
            return
        before = len(self.found.problems)
        with self._collecting():
            tokenizer = read_tokenizer(folder, self.placement)
            self.found.facts["tokenizer"] = f"{len(tokenizer):,} tokens"
            if self.checkpoint.role != "ar":
                av_prompt(tokenizer, sidecar, refuse=self.found.problems.append)
            if self.checkpoint.role != "av":
                check_ar_prompt(tokenizer, sidecar, refuse=self.found.problems.append)
        if len(self.found.problems) == before:
            self.found.facts["tokenizer"] += ", agrees with the sidecar"

    def _head(self, config: Any) -> None:
        if self.checkpoint.role != "ar":
            return
        with self._collecting():
            head, _ = head_of(self.checkpoint)
            self.found.facts["head"] = _head_words(head)
            width = None if config is None else hidden_size(config)
            check_head(head, width, self.checkpoint.path, self.found.problems.append)

    def _weights(self) -> None:
        """Health of the checkpoint's own weights (an adapter's base is a checkpoint of its own)."""

        def seen() -> Iterator[tuple[str, torch.Tensor]]:
            for path in sorted(self.checkpoint.path.glob("*.safetensors")):
                if path.name != HEAD_FILE:
                    yield from _tensors(path)

        health = scan(seen())
        self.found.facts["weights"] = _weight_words(health)
        if (problem := health.problem()) is not None:
            self.found.problems.append(f"{self.checkpoint.path}: {problem}")

    def _as_loading(self, config: Any) -> None:
        """What loading would refuse or say, by loading names and shapes alone."""
        if self.backbone is None:
            return
        path, found = self.checkpoint.path, self.found

        def refuse(problem: str) -> None:
            if problem not in found.problems:
                found.problems.append(problem)

        def notice(oddity: str) -> None:
            if oddity not in found.oddities:
                found.oddities.append(oddity)

        lora = self.checkpoint.ar_lora
        blocks = number_of_blocks(config) if lora is None else lora.blocks
        before = len(found.problems)
        check_blocks(types_in(weight_files(self.backbone)), blocks, self.backbone, refuse)
        if len(found.problems) > before:
            return  # a config of a million blocks would be built for hours
        without_weights = replace(self.placement, device_map="meta")
        try:
            if self.checkpoint.role is None:
                with quiet_transformers():
                    read_causal_lm(path, config, without_weights, role="av", refuse=refuse)
            else:
                is_av = self.checkpoint.role == "av"
                load_with(
                    path if is_av else None,
                    None if is_av else path,
                    base=self.backbone,
                    sidecar=self.sidecar.path if self.sidecar is not None else None,
                    placement=without_weights,
                    refuse=refuse,
                    notice=notice,
                )
        except UserError as error:
            refuse(str(error))

    def _collecting(self) -> _Collecting:
        return _Collecting(self.found.problems)


class _Collecting:
    """Turns a :class:`UserError` inside the ``with`` into a problem."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, UserError):
            self._problems.append(str(error))
            return True
        return False


def _tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a file, one in memory at a time.

    Raises:
        UserError: damaged.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            for name in sorted(file.keys()):
                yield name, file.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot read ({first_line(error)}); fetch it again") from None


def _injection_words(sidecar: Sidecar, injection: Injection) -> str:
    stated = (
        sidecar.injection_text is not None
        or sidecar.inject_unscaled
        or sidecar.injection_scale is not None
    )
    how = {
        "replace": "the marker's embedding is replaced",
        "add": "added, norm-matched, at the output of that block",
    }[injection.kind]
    source = "stated" if stated else "implied: no injection_scale; --injection overrides it"
    return f"{injection} ({how}; {source})"


def _scale_words(sidecar: Sidecar) -> str:
    if sidecar.mse_scale is None:
        return "raw vectors"
    root = sidecar.d_model**0.5
    name = " (√d_model)" if abs(sidecar.mse_scale - root) < 1e-6 * root else ""
    return f"{sidecar.mse_scale:g}{name}"


def _head_words(head: torch.Tensor) -> str:
    shape = " × ".join(map(str, head.shape)) or "one number"
    kind = str(head.dtype).removeprefix("torch.")
    if head.numel() == 0 or not head.is_floating_point():
        return f"{shape} {kind}"
    health = head_health(head)
    distance = "" if health.from_identity is None else f", {health.from_identity:.3g} from identity"
    return (
        f"{shape} {kind}, largest {health.largest:.3g}{distance}, {health.non_finite:.2%} not "
        f"finite, {health.absurd:.2%} absurd, {health.dead_rows} dead rows"
    )


def _weight_words(health: WeightHealth) -> str:
    return (
        f"{health.parameters:,} in {count(health.tensors, 'tensor')} ({', '.join(health.dtypes)}), "
        f"largest {health.largest:.3g}, {count(len(health.non_finite), 'tensor')} not finite"
    )
