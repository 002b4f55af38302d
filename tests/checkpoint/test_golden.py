"""The authors' own inference code as the reference (``tests/golden``, see its README).

All three published formats: AR vectors (directions where the AR normalises before its head),
MSE and cosine, first-position logits and greedy continuations, prompt ids, both baselines.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from nla_audit.checkpoint.load import Pair, Placement, load
from nla_audit.nla.fve import measure_baselines, scaled
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.verbalizer import Verbalizer
from tests.pairs.golden import GOLDEN

FLOAT32 = Placement(dtype="float32", device="cpu")


@dataclass(frozen=True)
class Case:
    """One golden pair; ``suffix`` tells apart the ARs of one folder."""

    folder: str
    load: Callable[[Path], Pair]
    av_key: str | None
    ar_suffix: str | None = ""
    normalises_before_head: bool = True


CASES = {
    "released": Case(
        "released_qwen2",
        lambda root: load(av=root / "av", ar=root / "ar", placement=FLOAT32),
        av_key="av",
        normalises_before_head=False,
    ),
    "nano": Case(
        "nano_qwen3",
        lambda root: load(av=root / "av", ar=root / "ar", placement=FLOAT32),
        av_key="av",
    ),
    "nano adapter on merged AV": Case(
        "nano_qwen3",
        lambda root: load(av=root / "av", adapter=root / "rl-lora/p0.0", placement=FLOAT32),
        av_key="av_p0.0",
        ar_suffix=None,
    ),
    "nano adapter alone": Case(
        "nano_qwen3",
        lambda root: load(av=root / "rl-lora/p0.006", placement=FLOAT32),
        av_key="av_p0.006",
        ar_suffix=None,
    ),
    "nano LoRA": Case(
        "nano_lora",
        lambda root: load(av=root / "av_sft_lora", ar=root / "ar_lora", placement=FLOAT32),
        av_key="av",
    ),
    "nano LoRA, norm kept": Case(
        "nano_lora",
        lambda root: load(ar=root / "ar_lora_norm_kept", placement=FLOAT32),
        av_key=None,
        ar_suffix="_norm_kept",
    ),
}


@dataclass(frozen=True)
class Loaded:
    case: Case
    pair: Pair
    activations: np.ndarray
    expected: dict[str, Any]

    @property
    def av(self) -> tuple[Verbalizer, list[dict[str, Any]]]:
        assert self.pair.verbalizer is not None
        assert self.case.av_key is not None
        return self.pair.verbalizer, self.expected[self.case.av_key]

    @property
    def ar(self) -> Reconstructor:
        assert self.pair.reconstructor is not None
        return self.pair.reconstructor


with_av = pytest.mark.parametrize(
    "loaded", [name for name, case in CASES.items() if case.av_key is not None], indirect=True
)
with_ar = pytest.mark.parametrize(
    "loaded", [name for name, case in CASES.items() if case.ar_suffix is not None], indirect=True
)


@pytest.fixture(scope="module")
def loaded(request: pytest.FixtureRequest) -> Loaded:
    case = CASES[request.param]
    root = GOLDEN / case.folder
    rows = pl.read_parquet(root / "activations.parquet")["activation_vector"].to_list()
    expected = json.loads((root / "expected.json").read_text())
    return Loaded(case, case.load(root), np.array(rows, dtype=np.float32), expected)


@with_av
def test_av_prompt_is_exact(loaded: Loaded) -> None:
    verbalizer, _ = loaded.av
    assert list(verbalizer.prompt.ids) == loaded.expected["prompt_ids"]


@with_av
def test_first_logits(loaded: Loaded) -> None:
    verbalizer, rows = loaded.av
    logits = verbalizer.first_logits(loaded.activations[: len(rows)]).numpy()
    reference = np.array([row["first_logits"] for row in rows])
    np.testing.assert_allclose(logits, reference, atol=1e-4, rtol=1e-4)


@with_av
def test_greedy_continuation(loaded: Loaded) -> None:
    # Exact on any processor: along these continuations no two logits that lead are closer than
    # 7e-4, some hundred times what float32 leaves open.
    verbalizer, rows = loaded.av
    said = verbalizer.generate(
        loaded.activations[: len(rows)], temperature=0, max_new_tokens=len(rows[0]["greedy_ids"])
    )
    assert said.generated.token_ids.tolist() == [row["greedy_ids"] for row in rows]


@with_ar
def test_reconstructions_and_scores(loaded: Loaded) -> None:
    reconstructor, suffix = loaded.ar, loaded.case.ar_suffix
    texts = loaded.expected["texts"]
    vectors = reconstructor.reconstruct(texts)
    reference = np.array(loaded.expected[f"ar_vectors{suffix}"])
    if loaded.case.normalises_before_head:
        vectors, reference = scaled(vectors, 1.0), scaled(reference, 1.0)
    np.testing.assert_allclose(vectors, reference, atol=1e-4, rtol=1e-4)

    scores = reconstructor.score(texts, loaded.activations[: len(texts)])
    wanted = loaded.expected[f"ar_scores{suffix}"]
    np.testing.assert_allclose(scores.mse, [row["mse"] for row in wanted], atol=1e-4)
    np.testing.assert_allclose(scores.cosine, [row["cos"] for row in wanted], atol=1e-4)


@with_ar
def test_baselines(loaded: Loaded) -> None:
    measured = measure_baselines(loaded.activations, loaded.ar.mse_scale)
    wanted = loaded.expected["baselines"]
    assert measured.raw_variance == pytest.approx(wanted["raw_variance"], abs=1e-6)
    assert measured.mean_normalized == pytest.approx(wanted["mean_normalized"], abs=1e-6)
