"""Directions, what they may not be, and how they are planted beside their controls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from nla_audit.errors import UserError
from nla_audit.nla.transform import ActivationTransform
from nla_audit.probes.sensitivity.controls import (
    DIRECTIONS,
    random_directions,
    variance_directions,
)
from nla_audit.probes.sensitivity.directions import (
    Direction,
    check_apart,
    from_file,
    from_pairs,
    in_the_pairs_space,
    mean_direction,
)
from nla_audit.probes.sensitivity.planting import ladder_of, plant

WIDTH = 24


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def unit_of(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / np.linalg.norm(vector))


class TestDirections:
    def test_contrasted_texts_give_the_planted_direction(
        self, generator: np.random.Generator
    ) -> None:
        concept = unit_of(generator.normal(size=WIDTH))
        without = generator.normal(size=(400, WIDTH))
        lengths = np.linalg.norm(without, axis=1, keepdims=True)
        found = from_pairs("c", without + 0.5 * lengths * concept, without)
        assert found.vector @ concept > 0.97
        assert found.held_out > 0.95
        assert np.linalg.norm(found.vector) == pytest.approx(1)

    def test_texts_that_do_not_differ_are_told(self, generator: np.random.Generator) -> None:
        found = from_pairs("c", *generator.normal(size=(2, 50, WIDTH)))
        assert found.held_out < 0.7
        assert "may be chance" in found.notes()[0]

    def test_five_texts_are_too_few(self, generator: np.random.Generator) -> None:
        with pytest.raises(UserError, match="5 pairs of texts are too few"):
            from_pairs("c", *generator.normal(size=(2, 5, WIDTH)))

    def test_equal_texts_have_no_difference(self, generator: np.random.Generator) -> None:
        same = generator.normal(size=(12, WIDTH))
        with pytest.raises(UserError, match="length zero"):
            from_pairs("c", same, same)

    def test_every_kind_of_file(self, tmp_path: Path, generator: np.random.Generator) -> None:
        rows = generator.normal(size=(3, WIDTH)).astype(np.float32)
        np.save(tmp_path / "w.npy", rows)
        np.save(tmp_path / "one.npy", rows[1])
        save_file({"probe": rows[1], "bias": rows[0, :1]}, tmp_path / "w.safetensors")
        pl.DataFrame({"name": ["a", "b", "c"], "weight": rows.tolist()}).write_parquet(
            tmp_path / "w.parquet"
        )
        for name in ("w.npy:1", "one.npy", "w.safetensors:probe", "w.parquet:1"):
            found = from_file(str(tmp_path / name), WIDTH)
            np.testing.assert_allclose(found.vector, unit_of(rows[1]), rtol=1e-6)

    def test_what_is_no_direction(self, tmp_path: Path, generator: np.random.Generator) -> None:
        rows = np.vstack([np.zeros(WIDTH), np.full(WIDTH, np.nan)])
        np.save(tmp_path / "w.npy", rows)
        np.save(tmp_path / "texts.npy", np.array(["a", "b"]))
        np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
        save_file({"a": rows, "b": rows}, tmp_path / "w.safetensors")
        pl.DataFrame({"name": ["a"]}).write_parquet(tmp_path / "w.parquet")
        (tmp_path / "w.txt").write_text("1 2")
        told = {
            "w.npy:0": "length zero",
            "w.npy:1": "not finite",
            "w.npy:2": "say which as",
            "w.npy": "say which as",
            "texts.npy:0": "no vector",
            "objects.npy": "not a NumPy array",
            "w.safetensors": "holds the tensors a, b",
            "w.parquet": "no column holds vectors",
            "w.txt": "ends in",
            "none.npy": "no such file",
        }
        for name, why in told.items():
            with pytest.raises(UserError, match=why):
                from_file(str(tmp_path / name), WIDTH)

    def test_another_width(self, tmp_path: Path) -> None:
        np.save(tmp_path / "w.npy", np.ones(7))
        with pytest.raises(UserError, match="24 wide"):
            from_file(str(tmp_path / "w.npy"), WIDTH)

    def test_the_mean_activation_is_no_concept(self, generator: np.random.Generator) -> None:
        shift = unit_of(generator.normal(size=WIDTH))
        mean = mean_direction(5 * shift + generator.normal(size=(200, WIDTH)))
        with pytest.raises(UserError, match="mean activation"):
            check_apart(Direction("c", -shift, "made up"), mean)
        other = unit_of(generator.normal(size=WIDTH))
        assert abs(check_apart(Direction("c", other, "made up"), mean)) < 0.95

    def test_whitened_pairs_see_a_whitened_direction(self, generator: np.random.Generator) -> None:
        matrix = np.diag(generator.uniform(0.5, 2, WIDTH))
        transform = ActivationTransform("w", "0", generator.normal(size=WIDTH), matrix, Path("w"))
        raw, step = generator.normal(size=(2, WIDTH))
        moved = transform.apply((raw + step)[None])[0] - transform.apply(raw[None])[0]
        np.testing.assert_allclose(in_the_pairs_space(step, transform), moved, atol=1e-5)


class TestPlanting:
    def test_norms_stay_and_the_component_rises(self, generator: np.random.Generator) -> None:
        vectors = generator.normal(size=(30, WIDTH)) * 7
        directions = np.tile(unit_of(generator.normal(size=WIDTH)), (30, 1))
        strength = np.linspace(0, 1, 30)
        planted = plant(vectors, directions, strength)
        np.testing.assert_allclose(
            np.linalg.norm(planted.vectors, axis=1), np.linalg.norm(vectors, axis=1)
        )
        np.testing.assert_allclose(planted.vectors[0], vectors[0])
        assert planted.gained[0] == pytest.approx(0)
        assert (planted.gained[1:] > 0).all()
        # Worked out by hand for the last one, which gets as much as it has.
        unit = vectors[-1] / np.linalg.norm(vectors[-1])
        after = (unit + directions[0]) / np.linalg.norm(unit + directions[0])
        assert planted.gained[-1] == pytest.approx((after - unit) @ directions[0])

    def test_ladders(self) -> None:
        assert ladder_of("0.4,0.1, 0.2,0.1") == (0.1, 0.2, 0.4)
        for text in ("", "a", "0,0.1", "-1", "nan", "inf"):
            with pytest.raises(UserError, match="--strengths"):
                ladder_of(text)


class TestControls:
    def test_random_directions_share_nothing_with_the_concept(
        self, generator: np.random.Generator
    ) -> None:
        concept = unit_of(generator.normal(size=WIDTH))
        drawn = random_directions(concept, DIRECTIONS, 0)
        np.testing.assert_allclose(drawn @ concept, 0, atol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1)
        assert np.linalg.matrix_rank(drawn) == DIRECTIONS

    @pytest.mark.parametrize("rows", [15, 400])  # fewer and more than there are dimensions
    def test_the_variance_is_matched(self, rows: int, generator: np.random.Generator) -> None:
        widths = np.geomspace(3, 0.1, WIDTH)
        vectors = generator.normal(size=(rows, WIDTH)) * widths
        directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        centred = directions - directions.mean(axis=0)
        concept = unit_of(np.where(np.arange(WIDTH) < 6, 1.0, 0.0))
        drawn, share = variance_directions(concept, vectors, DIRECTIONS, 0)
        along = ((centred @ drawn.T) ** 2).sum(axis=0) / (centred**2).sum()
        own = ((centred @ concept) ** 2).sum() / (centred**2).sum()
        assert share == pytest.approx(own)
        np.testing.assert_allclose(along, own, rtol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1)
        assert np.linalg.matrix_rank(drawn) > 10
        even = random_directions(concept, DIRECTIONS, 0)
        assert ((centred @ even.T) ** 2).sum() / (centred**2).sum() / DIRECTIONS < own / 2

    def test_activations_that_are_all_one(self) -> None:
        concept = unit_of(np.ones(WIDTH))
        # Thirteen equal rows are not exactly their mean.
        rows = np.tile(np.geomspace(3, 0.1, WIDTH), (13, 1))
        drawn, share = variance_directions(concept, rows, DIRECTIONS, 0)
        assert share == 0
        np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1)
