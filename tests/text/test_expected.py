"""What sentences of one subject share anyway, and what is beyond it."""

from __future__ import annotations

import numpy as np
import pytest

from nla_audit.text.expected import Expected, Grid

#: Two sentences a text; the partners are the first and the last of each four cells.
PARTNERS = np.array([0, 3, 4, 7])


def grid(values: list[float]) -> Grid:
    """Pairs of texts of two sentences each."""
    pairs = len(values) // 4
    row = np.arange(2 * pairs).repeat(2)
    column = (np.array([0, 1, 0, 1]) + 2 * np.arange(pairs)[:, None]).ravel()
    return Grid(row, column, np.array(values))


def test_neighbours_on_the_same_subject_let_expect_more() -> None:
    # The first pair of texts shares much else, the second nothing.
    texts = grid([0.6, 0.4, 0.4, 0.6, 0.6, 0.0, 0.0, 0.6])
    expected = Expected.fit(texts, PARTNERS).of(texts, PARTNERS)
    assert expected[:2] == pytest.approx(expected[0])
    assert expected[2:] == pytest.approx(expected[2])
    assert expected[0] > expected[2] + 0.15


def test_a_partner_lets_nothing_expect_of_its_neighbours() -> None:
    one, other = (grid([said, 0.2, 0.2, 0.6]) for said in (0.3, 0.9))
    known = Expected(0.2, (0.5, 0.5))
    assert known.of(one, PARTNERS[:2]) == pytest.approx(known.of(other, PARTNERS[:2]))


def test_exchanging_the_texts_exchanges_the_weights() -> None:
    generator = np.random.default_rng(0)
    row, column = np.arange(6).repeat(5), np.tile(np.arange(5), 6)
    values = generator.random(6)[row] + 0.3 * generator.random(5)[column]
    matched = np.array([0, 6, 12, 18, 24])
    there = Expected.fit(Grid(row, column, values), matched)
    back = Expected.fit(Grid(column, row, values), matched)
    assert there.weights == pytest.approx(back.weights[::-1])
    # What varies from row to row is told by the others of the row.
    assert there.weights[0] > there.weights[1] >= 0


def test_without_other_sentences_the_mean_is_expected() -> None:
    alone = Grid(np.array([0]), np.array([0]), np.array([0.7]))
    assert Expected(0.2, (0.5, 0.5)).of(alone, np.array([0])) == pytest.approx(0.2)
    assert Expected.fit(alone, np.array([0])).of(alone, np.array([0])) == pytest.approx(0.0)
    none = Grid(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))
    assert len(Expected.fit(none, np.zeros(0, dtype=np.int64)).of(none, none.row)) == 0


def test_other_activations_have_a_mean_of_their_own() -> None:
    learnt = Expected.fit(grid([0.6, 0.4, 0.4, 0.6]), PARTNERS[:2])
    assert learnt.mean == pytest.approx(0.4)
    apart = grid([0.1, 0.0, 0.0, 0.1])
    assert learnt.of(apart, PARTNERS[:2]).min() > 0.1
    assert learnt.elsewhere().of(apart, PARTNERS[:2]) == pytest.approx([0.0, 0.0])


def test_sentences_that_say_the_same_again_let_expect_no_more_than_chance_does() -> None:
    # Each text says one thing twice.
    texts = grid([0.8, 0.8, 0.8, 0.8])
    assert Expected.fit(texts, PARTNERS[:2]).of(texts, PARTNERS[:2]).min() > 0.7
    known = Expected.fit(texts, PARTNERS[:2], most=0.3)
    assert known.of(texts, PARTNERS[:2]) == pytest.approx([0.3, 0.3], abs=0.01)


def test_neighbours_that_share_nothing_leave_the_usual_weights() -> None:
    texts = grid([0.5, 0.0, 0.0, 0.5])
    assert Expected.fit(texts, PARTNERS[:2]).weights == pytest.approx((0.5, 0.5))
