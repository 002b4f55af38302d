"""An AR whose reading of every text is known in closed form.

One block whose attention looks at all tokens alike and whose MLP is off; of all tokens only the
keywords have an embedding, each along an axis of its own. The reconstruction of a text is then the
sum of the axes of its keywords, up to a factor that FVE does not see, and what each keyword is
worth to an activation can be written down.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from nla_audit.checkpoint.load import Placement, load
from nla_audit.checkpoint.save import new_sidecar, save_ar
from nla_audit.nla.fve import Baselines
from nla_audit.nla.injection import Injection
from nla_audit.nla.reconstructor import Reconstructor
from tests.pairs import tiny

D_MODEL = 16
KEYWORDS = (" fair", " ribbon", " register", " phrase", " winter", " harbour")


def save_planted_ar(folder: Path) -> Path:
    """Write the AR in the layout of the release."""
    tokenizer = tiny.make_tokenizer(bos=True)
    tokenizer.add_tokens(list(KEYWORDS))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=D_MODEL,
        intermediate_size=D_MODEL,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = AutoModelForCausalLM.from_config(config).float().eval()
    attention = model.model.layers[0].self_attn
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.zero_()
        attention.v_proj.weight.copy_(torch.eye(D_MODEL))
        attention.o_proj.weight.copy_(torch.eye(D_MODEL))
        table = model.get_input_embeddings().weight
        for axis, token in enumerate(tokenizer.convert_tokens_to_ids(list(KEYWORDS))):
            table[token, axis] = 1.0
    sidecar = new_sidecar(
        tokenizer,
        role="ar",
        d_model=D_MODEL,
        layer_index=0,
        injection_char=tiny.MARKER,
        injection=Injection("replace", scale=1.0),
        av_template=tiny.AV_TEMPLATE,
        ar_template=tiny.AR_TEMPLATE,
        base_model="tiny/planted",
        stage="rl",
    )
    save_ar(Reconstructor(model, torch.eye(D_MODEL), tokenizer, sidecar), folder)
    return folder


def load_planted_ar(folder: Path) -> Reconstructor:
    """The AR that was written, as ``nla-audit`` loads it."""
    loaded = load(ar=folder, placement=Placement(dtype="float32", device="cpu")).reconstructor
    assert loaded is not None
    return loaded


def save_study(
    root: Path, rows: Sequence[dict[str, Any]], vectors: Sequence[npt.NDArray[np.float32]]
) -> None:
    """The AR, the explanations and the activations as ``ar``, ``texts`` and ``activations``."""
    save_planted_ar(root / "ar")
    pl.DataFrame(rows).write_parquet(root / "texts.parquet")
    pl.DataFrame(
        {"idx": range(len(vectors)), "activation_vector": [vector.tolist() for vector in vectors]}
    ).write_parquet(root / "activations.parquet")


def activation(weights: Sequence[float]) -> npt.NDArray[np.float32]:
    """``[d_model]``: how much of each keyword an activation holds."""
    vector = np.zeros(D_MODEL, dtype=np.float32)
    vector[: len(weights)] = weights
    return vector


def known_fve(text: str, vector: npt.NDArray[np.float32], baselines: Baselines) -> float:
    """The raw-variance FVE of ``text`` for ``vector``, written down; NaN without a keyword."""
    counts = np.array([text.count(keyword) for keyword in KEYWORDS], dtype=np.float64)
    if not counts.any():
        return float("nan")
    wanted = vector[: len(KEYWORDS)].astype(np.float64)
    cosine = counts @ wanted / np.linalg.norm(counts) / np.linalg.norm(wanted)
    return float(1 - 2 * (1 - cosine) / baselines.raw_variance)
