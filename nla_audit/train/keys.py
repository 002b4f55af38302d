"""Hashes of settings: what a stage's result depends on, and nothing else.

Two rules hold for every section, so that no setting needs care of its own. What changes how a
result is reached but not what it is (processes, workers, the device) is left out. What is at its
default is left out too, so that a new setting orphans no run of before; settings that were hashed
at their defaults when this rule came are listed in :data:`_ALWAYS`, which never grows.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel

from nla_audit.nla.vllm_settings import ROOM_OPTIONS

#: Never hashed.
_WITHOUT_EFFECT: dict[str, frozenset[str]] = {
    "Rl": frozenset({"processes", "checkpoint_every", "sharding"}),
    "WarmStart": frozenset({"checkpoint_every"}),
    "Judge": frozenset({"workers", "most_missing"}),
}
#: Hashed as if they stood at their defaults: without effect, but among those of :data:`_ALWAYS`.
_AT_DEFAULT: dict[str, frozenset[str]] = {
    "Target": frozenset({"device"}),
    "Labeler": frozenset({"workers"}),
}
#: Of settings that hold options of others: those that only say how much there is room for.
_ROOM: dict[str, dict[str, frozenset[str]]] = {
    "OnGenerated": {"engine_options": ROOM_OPTIONS},
    "Rl": {"engine_options": ROOM_OPTIONS},
}
#: Hashed at their defaults as well.
_ALWAYS: dict[str, frozenset[str]] = {
    section: frozenset(names.split())
    for section, names in {
        "World": "words peakiness d_model blocks steps batch_size learning_rate documents",
        "Target": "model world layer_index dtype device load_in_4bit",
        "Labeler": "kind model base_url max_new_tokens workers prompt",
        "Data": "table texts positions_per_document first_position context_tokens held_out_share "
        "labeler",
        "PairSettings": "injection marker av_template ar_template av ar",
        "Lora": "rank alpha target_modules",
        "Optimizer": "learning_rate schedule warmup_steps weight_decay max_grad_norm",
        "Supervised": "optimizer steps batch_size lora",
        "WarmStart": "av ar evaluate_every evaluation_rows",
        "Evaluating": "every rows",
        "Rl": "length_penalties length_counts rewards steps minutes prompts samples "
        "max_new_tokens clip kl advantage length_normalization updates_per_step optimizer lora "
        "train_ar ar_optimizer micro_batch_tokens generation_batch gradient_checkpointing evaluate "
        "max_skipped_steps",
        "Evaluation": "activations samples",
        "FixedPrefixes": "lengths weights final_weight",
        "RandomPrefix": "unit shortest longest draw",
        "Separators": "token at_most weight length_penalties",
    }.items()
}


def hashed(section: BaseModel) -> dict[str, Any]:
    """The settings of ``section`` that change a result, as plain data."""
    kind, plain = type(section).__name__, section.model_dump(mode="json")
    without_effect = _WITHOUT_EFFECT.get(kind, frozenset())
    at_default = _AT_DEFAULT.get(kind, frozenset())
    # A grading's kind is the default of its class, and says which class it is.
    always = _ALWAYS.get(kind, frozenset()) | {"kind"}
    found: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if (room := _ROOM.get(kind, {}).get(name)) is not None:
            value = plain[name] = {key: one for key, one in value.items() if key not in room}
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if name in without_effect or (value == default and name not in always):
            continue
        if name in at_default:
            found[name] = default
        elif isinstance(value, BaseModel):
            found[name] = hashed(value)
        elif isinstance(value, dict) and any(isinstance(one, BaseModel) for one in value.values()):
            found[name] = {key: hashed(one) for key, one in value.items()}
        else:
            found[name] = plain[name]
    return found


def digest(*parts: Any) -> str:
    """A hash of plain data or sections."""
    plain = [hashed(part) if isinstance(part, BaseModel) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
