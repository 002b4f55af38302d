"""Worth of claims, read by an AR whose claims have a known worth."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nla_audit.errors import UserError
from nla_audit.nla.fve import BaselineName, Baselines
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.probes.causal.counterfactual import (
    PARTS,
    SUBSETS,
    Difference,
    counterfactuals,
    difference_from,
    shapley,
    split_change,
)
from nla_audit.probes.causal.worth import cheap_first, claim_worth, without
from nla_audit.text.claims import split_claims
from tests.pairs import planted_pair

BASELINES = Baselines(0.7, 0.9, 100, 1.0)

FAIR = "a long story about a county fair,"
QUOTE = 'with the quoted words "blue ribbon" near the end.'
REGISTER = "The register is formal and slightly old-fashioned."
TOKEN = "The final token opens a noun phrase."
TEXT = f"{FAIR} {QUOTE}\n{REGISTER} {TOKEN}"
#: A wording stands for itself: what it is worth when it occurs.
WORTH = {"county fair": 0.3, "blue ribbon": 0.2, "formal": 0.05, "noun phrase": 0.1}
SHORT_WORTH = {"fair (county)": 0.25, "NP next": 0.08, "winter": -0.04}


@dataclass(frozen=True)
class Scored:
    fve: npt.NDArray[np.float64]
    reasons: list[str | None]


class PlantedAR:
    """Its FVE is the sum of what the known wordings in a text are worth, times the activation.

    ``pair_bonus`` is earned by "county fair" and "noun phrase" together, in any wording.
    """

    def __init__(self, *, pair_bonus: float = 0.0) -> None:
        self.pair_bonus = pair_bonus

    def fve(self, text: str) -> float:
        worth = sum(value for words, value in {**WORTH, **SHORT_WORTH}.items() if words in text)
        both = any(words in text for words in ("county fair", "fair (county)")) and any(
            words in text for words in ("noun phrase", "NP next")
        )
        return worth + self.pair_bonus * both

    def score(
        self,
        texts: Sequence[str | None],
        activations: npt.ArrayLike,
        *,
        baselines: Baselines | None = None,
        baseline_name: BaselineName = "raw_variance",
    ) -> Scored:
        assert baselines is BASELINES
        rows = np.asarray(activations)
        assert len(rows) == len(texts)
        fve = [
            np.nan if text is None else self.fve(text) * row[0]
            for text, row in zip(texts, rows, strict=True)
        ]
        return Scored(
            np.array(fve), [None if text is not None else "no explanation" for text in texts]
        )


class TestClaimWorth:
    def test_planted_worth_is_found(self) -> None:
        texts = [TEXT, None, "", TOKEN]
        table = claim_worth(
            PlantedAR(), texts, np.array([[1.0], [1.0], [1.0], [2.0]]), baselines=BASELINES
        )
        assert set(table["row"]) == {0, 3}
        planted = {
            (0, claim.text): sum(value for words, value in WORTH.items() if words in claim.text)
            for claim in split_claims(TEXT)
        } | {(3, TOKEN): 0.2}
        assert set(zip(table["row"], table["text"], strict=True)) == set(planted)
        for row in table.iter_rows(named=True):
            assert row["worth"] == pytest.approx(planted[row["row"], row["text"]])
            assert TEXT[row["start"] : row["end"]] == row["text"] or row["row"] == 3
        assert table.filter(table["row"] == 0)["claim"].to_list() == list(
            range(len(split_claims(TEXT)))
        )

    def test_control_is_the_same_deletion_for_another_activation(self) -> None:
        # The planted AR multiplies by the activation: deleting costs there what it is times 3.
        texts = [TOKEN, FAIR, QUOTE]
        vectors = np.array([[1.0], [1.0], [3.0]])
        table = claim_worth(
            PlantedAR(), texts, vectors, baselines=BASELINES, groups=["d0", "d0", "d1"]
        )
        by_row = {row["row"]: row for row in table.iter_rows(named=True)}
        assert by_row[0]["worth_elsewhere"] == pytest.approx(3 * by_row[0]["worth"])
        assert by_row[2]["worth_elsewhere"] == pytest.approx(by_row[2]["worth"] / 3)
        alone = claim_worth(PlantedAR(), [TOKEN], np.ones((1, 1)), baselines=BASELINES)
        assert alone["worth_elsewhere"].null_count() == 1
        assert alone["worth"].null_count() == 0

    def test_a_claim_said_twice_is_worth_nothing_alone(self) -> None:
        twice = f"{TOKEN} {TOKEN}"
        table = claim_worth(PlantedAR(), [twice], np.ones((1, 1)), baselines=BASELINES)
        np.testing.assert_allclose(table["worth"].to_numpy(), 0, atol=1e-12)

    def test_nothing_to_delete(self) -> None:
        table = claim_worth(PlantedAR(), [None, ""], np.ones((2, 1)), baselines=BASELINES)
        assert table.height == 0
        assert "worth" in table.columns

    def test_unscored_is_null_with_a_reason(self) -> None:
        class Failing(PlantedAR):
            def score(self, texts: object, activations: object, **options: object) -> Scored:
                assert isinstance(texts, list)
                return Scored(np.full(len(texts), np.nan), ["too long for the AR"] * len(texts))

        table = claim_worth(Failing(), [TOKEN], np.ones((1, 1)), baselines=BASELINES)
        assert table["worth"].null_count() == 1
        assert table["reason"].to_list() == ["too long for the AR"]


class TestWithout:
    @pytest.mark.parametrize(
        ("text", "removed", "left"),
        [
            ("One thing, two things. Three.", "One thing,", "two things. Three."),
            ("One thing, two things. Three.", "two things.", "One thing. Three."),
            ("One thing, two things. Three.", "Three.", "One thing, two things."),
            ("One thing, two things", "two things", "One thing"),
            ("One thing.\nTwo things.\nThree.", "Two things.", "One thing.\nThree."),
            ("One, two,\nThree.", "two,", "One\nThree."),
            ("Only this.", "Only this.", ""),
        ],
    )
    def test_cut_is_tidy(self, text: str, removed: str, left: str) -> None:
        start = text.index(removed)
        assert without(text, start, start + len(removed)) == left

    def test_every_claim_of_a_text_can_go(self) -> None:
        for claim in split_claims(TEXT):
            left = without(TEXT, claim.start, claim.end)
            assert claim.text not in left
            others = [other.text.strip(".,") for other in split_claims(TEXT) if other != claim]
            assert all(other in left for other in others)


class TestShapley:
    @given(arrays.arrays(np.float64, (4, SUBSETS), elements=st.floats(-1, 1)))
    def test_parts_sum_to_the_change(self, values: npt.NDArray[np.float64]) -> None:
        parts = shapley(values)
        np.testing.assert_allclose(parts.sum(axis=1), values[:, -1] - values[:, 0], atol=1e-12)

    @given(arrays.arrays(np.float64, (3,), elements=st.floats(-1, 1)))
    def test_additive_parts_are_returned(self, parts: npt.NDArray[np.float64]) -> None:
        bits = np.array([[subset >> part & 1 for part in range(3)] for subset in range(SUBSETS)])
        values = (bits * parts).sum(axis=1)[None]
        np.testing.assert_allclose(shapley(values)[0], parts, atol=1e-12)

    def test_interaction_is_shared(self) -> None:
        values = np.zeros((1, SUBSETS))
        values[0, [0b011, 0b111]] = 0.6  # only omission and rewording together do anything
        np.testing.assert_allclose(shapley(values), [[0.3, 0.3, 0.0]])

    def test_missing_stays_missing(self) -> None:
        values = np.zeros((2, SUBSETS))
        values[1, 3] = np.nan
        assert np.isnan(shapley(values)[1]).any()
        assert not np.isnan(shapley(values)[0]).any()


def span(part: str) -> tuple[int, int]:
    start = TEXT.index(part)
    return start, start + len(part)


DIFFERENCE = Difference(
    dropped=(span(QUOTE), span(REGISTER)),
    reworded=((*span(FAIR), "fair (county);"), (*span(TOKEN), "NP next")),
    added=((span(QUOTE)[1], "winter"),),
)
SHORTER = "fair (county); winter; NP next"


class TestCounterfactuals:
    def test_each_subset_changes_what_it_says(self) -> None:
        texts = counterfactuals(TEXT, SHORTER, DIFFERENCE)
        assert len(texts) == SUBSETS
        assert (texts[0], texts[-1]) == (TEXT, SHORTER)
        for subset, text in enumerate(texts):
            omitted, reworded, added = (bool(subset >> part & 1) for part in range(3))
            assert ("blue ribbon" in text) is not omitted
            assert ("formal" in text) is not omitted
            assert ("county fair" in text) is not reworded
            assert ("NP next" in text) is reworded
            assert ("winter" in text) is added

    def test_nothing_differs(self) -> None:
        assert set(counterfactuals(TEXT, TEXT, Difference())) == {TEXT}

    @pytest.mark.parametrize("dropped", [((0, 10), (5, 20)), ((0, 10_000),), ((5, 3),)])
    def test_spans_that_cannot_be(self, dropped: tuple[tuple[int, int], ...]) -> None:
        with pytest.raises(ValueError, match="overlap or leave"):
            counterfactuals(TEXT, "x", Difference(dropped=dropped))


class TestDifferenceFrom:
    CLAIMS = (span(FAIR), span(QUOTE), span(REGISTER), span(TOKEN))

    def test_alignment_becomes_a_difference(self) -> None:
        segments = [("fair (county);", 0), ("winter", None), ("NP", 3), ("next", 3)]
        difference = difference_from(self.CLAIMS, segments)
        assert difference.dropped == (span(QUOTE), span(REGISTER))
        assert difference.reworded == ((*span(FAIR), "fair (county);"), (*span(TOKEN), "NP next"))
        assert difference.added == ((span(FAIR)[1], "winter"),)
        all_but_omission = counterfactuals(TEXT, SHORTER, difference)[0b110]
        assert all_but_omission.startswith("fair (county); winter with the quoted words")
        assert all_but_omission.endswith("old-fashioned. NP next")

    def test_nothing_is_said_again(self) -> None:
        difference = difference_from(self.CLAIMS, [("winter", None), ("again", None)])
        assert difference.dropped == self.CLAIMS
        assert difference.reworded == ()
        texts = counterfactuals(TEXT, "winter again", difference)
        assert texts[0b001] == ""
        assert texts[0b101] == "winter again"
        assert texts[0b100] == f"winter again {TEXT}"

    def test_order_of_additions_at_one_place_is_kept(self) -> None:
        segments = [("fair,", 0), ("first", None), ("second", None)]
        text = counterfactuals(TEXT, "x", difference_from(self.CLAIMS, segments))[0b100]
        assert text.startswith(f"{FAIR} first second ")


class TestSplitChange:
    def split(self, scorer: PlantedAR, **options: object) -> dict[str, float]:
        (row,) = split_change(
            scorer, [TEXT], [SHORTER], [DIFFERENCE], np.ones((1, 1)), baselines=BASELINES
        ).iter_rows(named=True)
        return row

    def test_planted_parts_are_found(self) -> None:
        row = self.split(PlantedAR())
        assert row["omission"] == pytest.approx(-(0.2 + 0.05))
        assert row["rewording"] == pytest.approx((0.25 - 0.3) + (0.08 - 0.1))
        assert row["additions"] == pytest.approx(-0.04)
        assert row["change"] == pytest.approx(sum(row[part] for part in PARTS))
        assert row["fve_reference"] == pytest.approx(0.65)

    def test_what_stays_in_every_subset_is_no_part(self) -> None:
        # The bonus is earned in both wordings, so no step changes it.
        assert self.split(PlantedAR(pair_bonus=0.5))["omission"] == pytest.approx(-0.25)

    def test_failed_texts_are_null(self) -> None:
        table = split_change(
            PlantedAR(),
            [TEXT, None, TEXT],
            [SHORTER, SHORTER, None],
            [DIFFERENCE] * 3,
            np.ones((3, 1)),
            baselines=BASELINES,
        )
        assert table["change"].is_null().to_list() == [False, True, True]
        assert table["reason"].to_list() == [None, "no explanation", "no explanation"]

    def test_counts_must_agree(self) -> None:
        with pytest.raises(UserError, match="give one of each a row"):
            split_change(PlantedAR(), [TEXT], [], [], np.ones((1, 1)), baselines=BASELINES)


class TestCheapFirst:
    def test_planted_order(self) -> None:
        rows = np.repeat(np.arange(40), 5)
        worth = np.tile([0.1, 0.2, 0.3, 0.4, 0.5], 40)
        cheap = cheap_first(worth, worth > 0.25, rows, rows)
        assert cheap.value == 1
        assert cheap.excludes(0.5)
        assert cheap_first(worth, worth < 0.25, rows, rows).value == 0
        assert cheap_first(np.ones(200), worth < 0.25, rows, rows).value == 0.5

    def test_random_order_is_chance(self) -> None:
        generator = np.random.default_rng(0)
        rows = np.repeat(np.arange(200), 6)
        interval = cheap_first(
            generator.normal(size=1200), generator.random(1200) < 0.5, rows, rows
        )
        assert interval.low < 0.5 < interval.high

    def test_only_pairs_within_an_explanation_count(self) -> None:
        # Rich explanations keep all, poor ones drop all: nothing within any of them to compare.
        rows = np.repeat(np.arange(20), 3)
        interval = cheap_first(rows * 1.0, rows >= 10, rows, rows)
        assert interval.n == 0
        assert np.isnan(interval.value)


@pytest.fixture(scope="module")
def reconstructor(tmp_path_factory: pytest.TempPathFactory) -> Reconstructor:
    folder = planted_pair.save_planted_ar(tmp_path_factory.mktemp("planted") / "ar")
    return planted_pair.load_planted_ar(folder)


@pytest.fixture(scope="module")
def vectors() -> npt.NDArray[np.float32]:
    """Two activations by how much of each keyword is in them."""
    weights = [[3.0, 2.0, 1.0, 2.0, 0.5], [1.0, 0.0, 3.0, 1.0, 2.0]]
    return np.stack([planted_pair.activation(row) for row in weights])


class TestPlantedPair:
    """A real AR, loaded from disk, whose FVE of every text is known in closed form."""

    REFERENCE = (
        "The long passage describes a village fair. Some judge hands out the ribbon there. "
        "The formal old register holds throughout. The last token opens another phrase."
    )
    SHORTER = "Topic: county fair scene; then comes a phrase; mood of deep winter."

    def test_closed_form(
        self, reconstructor: Reconstructor, vectors: npt.NDArray[np.float32]
    ) -> None:
        for text in (self.REFERENCE, self.SHORTER, "two words: fair fair phrase"):
            scores = reconstructor.score([text, text], vectors, baselines=BASELINES)
            wanted = [planted_pair.known_fve(text, vector, BASELINES) for vector in vectors]
            np.testing.assert_allclose(scores.fve, wanted, atol=1e-5)

    def test_worth_of_claims(
        self, reconstructor: Reconstructor, vectors: npt.NDArray[np.float32]
    ) -> None:
        table = claim_worth(reconstructor, [self.REFERENCE] * 2, vectors, baselines=BASELINES)
        assert table.height == 2 * 4
        for row in table.iter_rows(named=True):
            rest = self.REFERENCE.replace(row["text"], "")
            vector = vectors[row["row"]]
            wanted = planted_pair.known_fve(
                self.REFERENCE, vector, BASELINES
            ) - planted_pair.known_fve(rest, vector, BASELINES)
            assert row["worth"] == pytest.approx(wanted, abs=1e-5)
        # The second activation holds nothing of the ribbon: saying it costs.
        ribbon = table.filter(table["text"].str.contains("ribbon"))["worth"].to_list()
        assert ribbon[0] > 0 > ribbon[1]

    def test_a_text_without_any_keyword_has_no_direction(
        self, reconstructor: Reconstructor, vectors: npt.NDArray[np.float32]
    ) -> None:
        table = claim_worth(
            reconstructor,
            ["The long passage describes a village fair."],
            vectors[:1],
            baselines=BASELINES,
        )
        assert table["worth"].null_count() == 1
        assert table["reason"].to_list() == ["reconstruction is zero or not finite"]

    def test_split_of_a_change(
        self, reconstructor: Reconstructor, vectors: npt.NDArray[np.float32]
    ) -> None:
        claims = split_claims(self.REFERENCE)
        fair, ribbon, register, phrase = [(claim.start, claim.end) for claim in claims]
        difference = Difference(
            dropped=(ribbon, register),
            reworded=((*fair, "Topic: county fair scene;"), (*phrase, "then comes a phrase;")),
            added=((phrase[1], "mood of deep winter."),),
        )
        table = split_change(
            reconstructor,
            [self.REFERENCE] * 2,
            [self.SHORTER] * 2,
            [difference] * 2,
            vectors,
            baselines=BASELINES,
        )
        texts = counterfactuals(self.REFERENCE, self.SHORTER, difference)
        known = np.array(
            [[planted_pair.known_fve(text, v, BASELINES) for text in texts] for v in vectors]
        )
        parts = table.select(PARTS).to_numpy()
        np.testing.assert_allclose(parts, shapley(known), atol=1e-5)
        np.testing.assert_allclose(parts.sum(axis=1), table["change"].to_numpy(), atol=1e-12)
        # Every keyword survives its rewording, so other words change nothing; leaving out costs,
        # and what is added pays only where the activation holds enough of it.
        np.testing.assert_allclose(table["rewording"].to_numpy(), 0, atol=1e-5)
        assert (table["omission"].to_numpy() < 0).all()
        assert table["additions"][0] < 0 < table["additions"][1]


def test_analyzers_may_import_it_without_torch() -> None:
    program = (
        "import sys; import nla_audit.probes.causal.counterfactual; print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
