"""Baselines: what there is to explain, and where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest

from nla_audit.errors import UserError
from nla_audit.nla.fve import baselines_with, measure_baselines

VECTOR = np.random.default_rng(0).normal(size=8)
NOISE = np.random.default_rng(1).normal(size=(20, 8))


@pytest.mark.parametrize(
    ("vectors", "mse_scale"),
    [
        (np.tile(VECTOR, (20, 1)), 8**0.5),
        (np.tile(VECTOR, (20, 1)), None),
        (np.arange(1, 21)[:, None] * VECTOR, 8**0.5),  # one direction, and of that alone is asked
        ((VECTOR + 1e-8 * NOISE).astype(np.float32), None),
    ],
)
def test_equal_activations_have_no_variance_to_explain(
    vectors: np.ndarray, mse_scale: float | None
) -> None:
    """The rounding of their mean is no baseline: FVE would be −1e30."""
    with pytest.raises(UserError, match="20 usable activations do not differ"):
        measure_baselines(vectors, mse_scale)
    given = baselines_with({"raw_variance": 1.0, "mean_normalized": 1.0}, vectors, mse_scale)
    assert given.raw_variance == 1


def test_activations_that_differ_little_have_a_small_baseline() -> None:
    vectors = VECTOR + 1e-4 * NOISE
    assert measure_baselines(vectors, None).raw_variance == pytest.approx(1e-8, rel=0.5)
    lengths = np.arange(1, 21)[:, None] * VECTOR
    assert measure_baselines(lengths, None).raw_variance > 1
