"""What the small files of a checkpoint may declare: fields with their types and bounds.

What a file says besides is left alone: published configs hold many fields that only their authors
know. Read by :mod:`nla_audit.checkpoint.door`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from nla_audit.strangers import is_inside, number, shown, whole_number

#: Far above any published model (Llama-3.1-405B has 126 blocks of width 16,384).
_MOST_BLOCKS = 1024
_MOST_WIDTH = 1 << 20
_MOST_VOCABULARY = 1 << 24
#: Blocks times experts: the modules that have to be made, one by one.
_MOST_EXPERTS = 1 << 20
_MOST_RANK = 1 << 16
_LONGEST_PATH = 4096
_DTYPE = re.compile(r"(torch\.)?(auto|float|half|double|b?float(16|32|64)|float8_\w+|float4_\w+)")
#: transformers would fetch and run code from the Hub for such a name.
_KERNEL = re.compile(r"_?(attn|experts)_implementation(_internal)?")


def _or_none(check: Callable[[Any], Any], *, many: bool = False) -> AfterValidator:
    """A field that may be null or absent and, with ``many``, a list with one value per block."""

    def checked(value: Any) -> Any:
        if many and isinstance(value, list):
            if len(value) > _MOST_BLOCKS:
                raise ValueError(f"must be a list of at most {_MOST_BLOCKS:,}")
            return [None if one is None else check(one) for one in value]
        return None if value is None else check(value)

    return AfterValidator(checked)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_PATH or not value.isprintable():
        raise ValueError(f"must be a line of text of at most {_LONGEST_PATH:,} characters")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _dtype(value: Any) -> Any:
    kinds = list(value.values()) if isinstance(value, Mapping) else [value]
    if not all(isinstance(kind, str) and _DTYPE.fullmatch(kind) for kind in kinds):
        raise ValueError("must be a floating type such as bfloat16")
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > 1 << 16:
        raise ValueError("must be a list of names")
    return [_text(one) for one in value]


def _one_or_more_texts(value: Any) -> str | list[str]:
    return _texts(value) if isinstance(value, list) else _text(value)


def _mapping(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError("must be an object")
    return value


def _named(name: str, check: Callable[[Any], Any], value: Any) -> None:
    try:
        check(value)
    except ValueError as error:
        raise ValueError(f"{name} {error}, found {shown(value)}") from None


def _check_finite(name: str, value: Any) -> None:
    """Numbers of the rotary embedding, lists and nested objects of them included."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_finite(f"{name}.{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            _check_finite(name, inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        positive = name.endswith(("factor", "rope_theta", "original_max_position_embeddings"))
        _named(name, number(0 if positive else -1e12, 1e12, above=positive), value)


def _replication(value: Any) -> Any:
    """Ranges of blocks that are repeated; PEFT makes every one of them."""
    ranges = value if isinstance(value, list) else [value]
    total = 0
    for pair in ranges:
        if not (isinstance(pair, list) and len(pair) == 2):
            raise ValueError("must be a list of [first, last] pairs")
        first, last = (whole_number(0, _MOST_BLOCKS)(one) for one in pair)
        total += max(0, last - first)
    if total > _MOST_BLOCKS:
        raise ValueError(f"repeats {total:,} blocks")
    return value


def _by_pattern(check: Callable[[Any], Any]) -> AfterValidator:
    """An object from patterns to values that pass ``check``, or null."""

    def checked(value: Any) -> Any:
        if not isinstance(value, Mapping) or len(value) > 1 << 14:
            raise ValueError("must be an object of patterns")
        for key, one in value.items():
            _text(key)
            _named(key[:40], check, one)
        return value

    return _or_none(checked)


Blocks = Annotated[Any, _or_none(whole_number(1, _MOST_BLOCKS))]
Width = Annotated[Any, _or_none(whole_number(1, _MOST_WIDTH))]
Widths = Annotated[Any, _or_none(whole_number(1, _MOST_WIDTH), many=True)]
Vocabulary = Annotated[Any, _or_none(whole_number(1, _MOST_VOCABULARY))]
Heads = Annotated[Any, _or_none(whole_number(1, 1 << 16), many=True)]
#: -1 stands for "none" in some.
TokenIds = Annotated[Any, _or_none(whole_number(-1, 1 << 31), many=True)]
Epsilon = Annotated[Any, _or_none(number(0, 1, above=True))]
Factor = Annotated[Any, _or_none(number(0, 1e12, above=True))]
Finite = Annotated[Any, _or_none(number(-1e30, 1e30))]
Flag = Annotated[Any, _or_none(_flag)]
TextValue = Annotated[Any, _or_none(_text)]


class Declared(BaseModel):
    """What a file declares; fields that are not named here are nobody's business."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())


class Model(Declared):
    """``config.json``: what transformers builds a model from, in the families' several names."""

    model_type: TextValue = None
    architectures: Annotated[Any, _or_none(_texts)] = None
    dtype: Annotated[Any, _or_none(_dtype)] = None
    torch_dtype: Annotated[Any, _or_none(_dtype)] = None
    hidden_size: Widths = None
    n_embd: Width = None
    d_model: Width = None
    intermediate_size: Widths = None
    n_inner: Width = None
    d_ff: Width = None
    moe_intermediate_size: Widths = None
    head_dim: Annotated[Any, _or_none(whole_number(0, _MOST_WIDTH))] = None
    d_kv: Width = None
    num_hidden_layers: Blocks = None
    n_layer: Blocks = None
    n_layers: Blocks = None
    num_layers: Annotated[Any, _or_none(whole_number(1, _MOST_BLOCKS), many=True)] = None
    num_decoder_layers: Blocks = None
    num_attention_heads: Heads = None
    n_head: Heads = None
    num_heads: Heads = None
    num_key_value_heads: Heads = None
    num_experts: Annotated[Any, _or_none(whole_number(0, 1 << 16), many=True)] = None
    num_local_experts: Annotated[Any, _or_none(whole_number(0, 1 << 16))] = None
    n_routed_experts: Annotated[Any, _or_none(whole_number(0, 1 << 16))] = None
    n_shared_experts: Annotated[Any, _or_none(whole_number(0, 1 << 12))] = None
    num_experts_per_tok: Annotated[Any, _or_none(whole_number(0, 1 << 16), many=True)] = None
    vocab_size: Vocabulary = None
    max_position_embeddings: Annotated[Any, _or_none(number(1, 1 << 40))] = None
    n_positions: Annotated[Any, _or_none(whole_number(1, 1 << 32))] = None
    sliding_window: Annotated[Any, _or_none(whole_number(-1, 1 << 40), many=True)] = None
    layer_types: Annotated[Any, _or_none(_texts)] = None
    eos_token_id: TokenIds = None
    bos_token_id: TokenIds = None
    pad_token_id: TokenIds = None
    rms_norm_eps: Epsilon = None
    layer_norm_eps: Epsilon = None
    layer_norm_epsilon: Epsilon = None
    norm_eps: Epsilon = None
    norm_epsilon: Epsilon = None
    rope_theta: Factor = None
    rope_local_base_freq: Factor = None
    partial_rotary_factor: Annotated[Any, _or_none(number(0, 1))] = None
    query_pre_attn_scalar: Factor = None
    attn_logit_softcapping: Factor = None
    final_logit_softcapping: Factor = None
    initializer_range: Annotated[Any, _or_none(number(0, 1e6))] = None
    rope_scaling: Annotated[Any, _or_none(_mapping)] = None
    rope_parameters: Annotated[Any, _or_none(_mapping)] = None
    quantization_config: Annotated[Any, _or_none(_mapping)] = None
    hidden_act: TextValue = None
    hidden_activation: TextValue = None
    activation_function: TextValue = None
    tie_word_embeddings: Flag = None
    is_encoder_decoder: Flag = None
    use_cache: Flag = None
    attention_bias: Flag = None

    @model_validator(mode="after")
    def _fits_together(self) -> Model:
        heads, key_heads = self.num_attention_heads, self.num_key_value_heads
        if isinstance(heads, int) and isinstance(key_heads, int) and heads % key_heads:
            raise ValueError(
                f"num_attention_heads {heads} is no multiple of num_key_value_heads {key_heads}"
            )
        numbers = (self.num_experts, self.num_local_experts, self.n_routed_experts)
        experts = max([0, *(one for one in numbers if isinstance(one, int))])
        chosen = self.num_experts_per_tok
        if experts and isinstance(chosen, int) and chosen > experts:
            raise ValueError(f"num_experts_per_tok is {chosen} of {experts} experts")
        blocks = max([1, *(one for one in (self.num_hidden_layers, self.n_layer) if one)])
        if experts * blocks > _MOST_EXPERTS:
            raise ValueError(f"{experts:,} experts in each of {blocks:,} blocks")
        if self.sliding_window == 0 and (self.model_extra or {}).get("use_sliding_window", True):
            raise ValueError("sliding_window is 0; null stands for none")
        return self

    @model_validator(mode="after")
    def _others(self) -> Model:
        """Fields of every family that share a meaning by their names."""
        for name, value in (self.model_extra or {}).items():
            if name.endswith(("dropout", "pdrop")) and isinstance(value, float):
                _named(name, number(0, 1), value)
            elif re.search(r"(?:^|_)(?:layers?|blocks|experts|depths?)$", name):
                for one in value if isinstance(value, list) else [value]:
                    if isinstance(one, int) and abs(one) > 1 << 16:
                        raise ValueError(f"{name} is {shown(one)}, far more than any model has")
            elif _KERNEL.fullmatch(name) and isinstance(value, str) and "/" in value:
                raise ValueError(f"{name} is {shown(value)}, code to be fetched from the Hub")
        for name in ("rope_scaling", "rope_parameters"):
            _check_finite(name, getattr(self, name))
        return self


class GenerationSettings(Declared):
    """``generation_config.json``, of which only the end tokens count here."""

    eos_token_id: TokenIds = None
    bos_token_id: TokenIds = None
    pad_token_id: TokenIds = None


class TokenizerSettings(Declared):
    """``tokenizer_config.json`` and ``special_tokens_map.json``."""

    tokenizer_class: TextValue = None
    model_max_length: Annotated[Any, _or_none(number(1, 1e40))] = None
    added_tokens_decoder: Annotated[Any, _or_none(_mapping)] = None
    chat_template: Any = None

    @model_validator(mode="after")
    def _tokens(self) -> TokenizerSettings:
        for name, value in (self.model_extra or {}).items():
            is_token = value is None or isinstance(value, str | Mapping)
            if name.endswith("_token") and not name.startswith(("add_", "use_")) and not is_token:
                raise ValueError(f"{name} must be text, found {shown(value)}")
        for key, value in (self.added_tokens_decoder or {}).items():
            sound = isinstance(value, Mapping) and isinstance(value.get("content"), str)
            if not (re.fullmatch(r"[0-9]{1,8}", key) and sound):
                raise ValueError(f"added_tokens_decoder holds {shown(key)}: {shown(value)}")
        return self


class Adapter(Declared):
    """``adapter_config.json`` of PEFT."""

    peft_type: TextValue = None
    base_model_name_or_path: TextValue = None
    r: Annotated[Any, _or_none(whole_number(1, _MOST_RANK))] = None
    lora_alpha: Finite = None
    lora_dropout: Annotated[Any, _or_none(number(0, 1))] = None
    target_modules: Annotated[Any, _or_none(_one_or_more_texts)] = None
    exclude_modules: Annotated[Any, _or_none(_one_or_more_texts)] = None
    modules_to_save: Annotated[Any, _or_none(_texts)] = None
    layers_pattern: Annotated[Any, _or_none(_one_or_more_texts)] = None
    layers_to_transform: Annotated[Any, _or_none(whole_number(0, _MOST_BLOCKS), many=True)] = None
    layer_replication: Annotated[Any, _or_none(_replication)] = None
    rank_pattern: Annotated[Any, _by_pattern(whole_number(1, _MOST_RANK))] = None
    alpha_pattern: Annotated[Any, _by_pattern(number(-1e30, 1e30))] = None
    init_lora_weights: Any = None
    use_rslora: Flag = None
    use_dora: Flag = None
    lora_bias: Flag = None
    fan_in_fan_out: Flag = None
    megatron_config: None = None
    """PEFT imports whatever module the config names for it."""

    @model_validator(mode="after")
    def _initial(self) -> Adapter:
        start = self.init_lora_weights
        if start is not None and not isinstance(start, bool | str):
            raise ValueError(f"init_lora_weights must be a name, found {shown(start)}")
        steps = re.fullmatch(r"pissa_niter_(\d+)", start) if isinstance(start, str) else None
        if steps is not None and (len(steps[1]) > 4 or int(steps[1]) > 1000):
            raise ValueError(f"init_lora_weights is {shown(start)}: more steps than any run takes")
        return self


class ArLoraMeta(Declared):
    """``ar_meta.json`` of nanoNLA's AR-LoRA."""

    ar_num_layers: Annotated[int, AfterValidator(whole_number(1, _MOST_BLOCKS))]
    lora_r: Annotated[int, AfterValidator(whole_number(1, _MOST_RANK))]
    lora_alpha: Annotated[float, AfterValidator(number(-1e30, 1e30))]
    target_modules: Annotated[Any, AfterValidator(_texts)]
    quant: str | None = "none"
    final_norm_stripped: bool = False


class WeightsIndex(Declared):
    """``model.safetensors.index.json``."""

    weight_map: Annotated[Any, AfterValidator(_mapping)]

    @model_validator(mode="after")
    def _beside_it(self) -> WeightsIndex:
        for name in self.files():
            if not isinstance(name, str) or not is_inside(name):
                raise ValueError(f"weight_map names {shown(name)}, which is no file beside it")
        return self

    def files(self) -> list[str]:
        """The file of each tensor."""
        return list(self.weight_map.values())
