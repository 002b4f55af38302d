"""Attribution on readers whose truth is known: words, quotes, order; and texts of little use."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from nla_audit.analyzers import registry
from nla_audit.findings import Finding
from nla_audit.probes.attribution.scores import (
    GREEDY,
    MOST_CLAIMS,
    NOBODY,
    OWN,
    REJOINED,
    Explanation,
    attribute,
)
from nla_audit.report.colours import ModelColours
from nla_audit.report.figures import render_figures
from nla_audit.stats import MIN_CLUSTERS
from tests.declared import absent, undeclared
from tests.probes.attribution.planted import (
    KEYWORDS,
    QUOTED,
    SENTENCE,
    PlantedReader,
    draw,
    finding_of,
    judged,
)

#: Studies of each planted truth, and activations of each.
SEEDS, N = 20, 16
#: More false alarms than this among 20 are less likely than 1 in 100 at a true rate of 5 %.
MOST_FALSE = 4
#: Sentences of few words: what is tested is their order.
SHORT = ("Some {} appears early.",)


def _headline(finding: Finding) -> dict[str, float]:
    return {name: np.nan if x is None else x for name, x in finding.headline["p0.0"].items()}


class TestWords:
    def test_the_saliency_of_a_word_is_what_it_is_worth(self) -> None:
        made, worth = draw(12, 4, 0, sentences=(SENTENCE, QUOTED))
        reader = PlantedReader(worth, per_word=-0.003)
        scores = attribute(made, reader)
        for row in scores.tokens.iter_rows(named=True):
            at = int(row["idx"])
            word = row["text"]
            is_word = word.isalnum()
            own, other = (
                (worth[target, KEYWORDS.index(word)] if word in KEYWORDS else 0.0) - 0.003 * is_word
                for target in (at, (at + 1) % 12)
            )
            assert row["saliency"] == pytest.approx(own)
            assert row["saliency_elsewhere"] == pytest.approx(other)
            assert row["marginal"] == pytest.approx(own)

    def test_what_prefixes_add_sums_to_fve(self) -> None:
        made, worth = draw(12, 4, 1)
        scores = attribute(made, PlantedReader(worth, decay=0.6, per_word=-0.002, noise=0.02))
        sums = scores.tokens.group_by("idx").agg(total=scores.tokens["marginal"].sum())
        assert sums.height == 12
        for row in scores.texts.iter_rows(named=True):
            own = scores.tokens.filter(scores.tokens["idx"] == row["idx"])
            assert own["marginal"].sum() == pytest.approx(row["fve"] - row["fve_empty"])
        shares = [row["gain_share"] for row in finding_of(scores).tables["quotes"].to_dicts()]
        assert sum(shares) == pytest.approx(1)

    def test_the_saliency_of_a_claim_is_that_of_its_keyword(self) -> None:
        made, worth = draw(12, 4, 2)
        scores = attribute(made, PlantedReader(worth))
        for row in scores.claims.iter_rows(named=True):
            (keyword,) = (place for place, word in enumerate(KEYWORDS) if word in row["text"])
            assert row["saliency"] == pytest.approx(worth[int(row["idx"]), keyword])

    def test_elsewhere_shows_what_is_not_about_the_activation(self) -> None:
        made, worth = draw(24, 4, 3)
        numbers = _headline(judged(made, PlantedReader(np.zeros_like(worth), per_word=0.01)))
        assert numbers["token_saliency"] == pytest.approx(numbers["token_saliency_elsewhere"])
        assert numbers["token_saliency"] > 0.5


class TestQuotes:
    @pytest.mark.parametrize(
        ("quotes", "words"), [("inside", "carry more"), ("outside", "carry less")]
    )
    def test_where_the_reader_looks_is_named(self, quotes: str, words: str) -> None:
        made, worth = draw(24, 4, 0, sentences=(SENTENCE, QUOTED))
        finding = judged(made, PlantedReader(worth, quotes=quotes, noise=0.01))
        assert f"Quoted words {words} than others" in finding.verdict
        share = _headline(finding)["quoted_gain_share"]
        assert share == pytest.approx(float(quotes == "inside"), abs=0.05)

    def test_without_quotes_nothing_is_said_of_them(self) -> None:
        made, worth = draw(12, 3, 0)
        finding = judged(made, PlantedReader(worth))
        assert "cannot be compared" in finding.verdict
        assert finding.headline["p0.0"]["quoted_token_share"] == 0
        assert finding.headline["p0.0"]["quoted_over_unquoted"] is None

    def test_a_few_explanations_that_quote_are_too_few(self) -> None:
        made, worth = draw(24, 4, 0)
        quoting, _ = draw(24, 4, 0, sentences=(QUOTED,))
        finding = judged([*quoting[:5], *made[5:]], PlantedReader(worth, quotes="inside"))
        assert "Too few explanations quote" in finding.verdict
        assert finding.headline["p0.0"]["quoted_over_unquoted_low"] is None

    @pytest.mark.slow
    def test_equal_worth_is_seldom_called_more_or_less(self) -> None:
        false = 0
        for seed in range(SEEDS):
            worded = ("Some {} appears early here.", 'Then "some {} appears early" here.')
            made, worth = draw(N, 4, seed, sentences=worded)
            # One keyword in five words outside, one in four inside: worth a word is made equal by
            # giving each word the same, and the keywords none on average.
            centred = np.random.default_rng(seed).normal(0, 0.05, worth.shape)
            reader = PlantedReader(np.where(worth > 0, centred + 0.0, 0.0), noise=0.01)
            numbers = _headline(judged(made, reader))
            false += numbers["quoted_over_unquoted_low"] > 0
            false += numbers["quoted_over_unquoted_high"] < 0
        print(f"quotes told apart though equal: {false} of {SEEDS} seeds")
        assert false <= MOST_FALSE


class TestOrder:
    def test_greedy_finds_the_best_order_of_a_reader_that_forgets(self) -> None:
        made, worth = draw(12, 5, 0)
        scores = attribute(made, PlantedReader(worth, decay=0.7))
        best = {
            str(row["idx"]): sum(
                0.7**place * value
                for place, value in enumerate(sorted(worth[int(row["idx"])], reverse=True))
            )
            for row in scores.texts.iter_rows(named=True)
        }
        greedy = scores.orders.filter(
            (scores.orders["arrangement"] == GREEDY) & (scores.orders["joints"] == REJOINED)
        )
        for row in greedy.iter_rows(named=True):
            assert row["fve"] == pytest.approx(best[row["idx"]])

    @pytest.mark.slow
    def test_power_and_false_alarms(self) -> None:
        found = luck = false = 0
        for seed in range(SEEDS):
            made, worth = draw(N, 5, seed, sentences=SHORT)
            sensitive = _headline(judged(made, PlantedReader(worth, decay=0.5, noise=0.02)))
            indifferent = _headline(judged(made, PlantedReader(worth, noise=0.02)))
            found += sensitive["order_gain_low"] > 0
            false += indifferent["order_gain_low"] > 0
            luck += indifferent["order_gain_searched_low"] > 0
        print(
            f"a better order found where there is one: {found} of {SEEDS}; where there is none: "
            f"{false} once rejoined, {luck} where it was selected"
        )
        assert found >= 0.9 * SEEDS
        assert false <= MOST_FALSE
        assert luck > SEEDS / 2  # the control is needed: the search finds accidents

    def test_an_av_that_writes_in_the_best_order_is_above_random(self) -> None:
        made, worth = draw(24, 5, 1)
        sorted_made = []
        for one in made:
            ranked = np.argsort(-worth[one.target])[:5]
            text = " ".join(SENTENCE.format(KEYWORDS[place]) for place in ranked)
            sorted_made.append(replace(one, text=text))
        finding = judged(sorted_made, PlantedReader(worth, decay=0.7, noise=1e-4))
        numbers = _headline(finding)
        assert numbers["own_over_random_low"] > 0
        assert numbers["kendall_tau"] == pytest.approx(1, abs=0.05)
        assert numbers["order_gain"] == pytest.approx(0, abs=0.1)  # points; random is 2 below
        assert "No better order" in finding.verdict

    def test_a_reader_that_does_not_see_separators_is_not_believed(self) -> None:
        made, worth = draw(24, 5, 0, sentences=SHORT)
        reader = PlantedReader(worth, noise=0.02)

        def blind(stage: str, texts: list[str], targets: list[int]) -> np.ndarray:
            return reader(stage, [" ".join(text.split()) for text in texts], targets)

        finding = finding_of(attribute(made, blind))
        assert finding.headline["p0.0"]["order_gain"] is None
        assert _headline(finding)["order_gain_searched_low"] > 0  # accidents
        assert "another order would carry more than the AV's own cannot be told" in finding.verdict
        assert any("does not see how claims are separated" in text for text in finding.caveats)

    def test_no_order_at_all(self) -> None:
        made, worth = draw(24, 4, 0, sentences=SHORT)
        finding = judged(made, PlantedReader(worth))
        assert "No better order of the claims than the AV's own was found" in finding.verdict
        assert abs(_headline(finding)["own_over_random"]) < 1e-9

    def test_early_and_late(self) -> None:
        for place, word in ((0, "early"), (4, "late")):
            made, worth = draw(24, 5, 2)
            weights = np.zeros_like(worth)
            for one in made:
                named = [word for word in one.text.split() if word in KEYWORDS]
                weights[one.target, KEYWORDS.index(named[place])] = 0.4
            assert f"FVE accrues {word}" in judged(made, PlantedReader(weights)).verdict


def _one(text: str, number: int = 0, other: int = 1) -> Explanation:
    return Explanation("p0.0", str(number), str(number), text, number, other)


class TestLittleToRead:
    @pytest.mark.parametrize(
        "texts",
        [
            ["", ""],
            ["lantern", "harbour"],
            ["Just one claim here about some lantern.", ""],
            ["…", '"'],
            [SENTENCE.format("lantern") * 2, "x"],
        ],
    )
    def test_awkward_texts(self, texts: list[str]) -> None:
        made = [_one(text, row, 1 - row) for row, text in enumerate(texts)]
        finding = judged(made, PlantedReader(np.full((2, len(KEYWORDS)), 0.1)))
        _check(finding)
        assert finding.verdict.startswith("Cannot tell")
        assert finding.headline["p0.0"]["explanations"] == 2
        low = [
            key
            for key, value in finding.headline["p0.0"].items()
            if key.endswith("_low") and value is not None
        ]
        assert low == []  # no interval from two activations

    def test_no_other_activation(self) -> None:
        made = [_one(SENTENCE.format("lantern"), other=NOBODY)]
        finding = judged(made, PlantedReader(np.full((1, len(KEYWORDS)), 0.1)))
        _check(finding)
        render_figures(finding, ModelColours.of(["p0.0"], {"p0.0": 0.0}))
        assert finding.headline["p0.0"]["token_saliency_elsewhere"] is None
        assert any("No other activation" in caveat for caveat in finding.caveats)

    def test_no_score_is_missing_and_counted(self) -> None:
        made, worth = draw(12, 3, 0)
        reader = PlantedReader(worth)

        def forgetful(stage: str, texts: list[str], targets: list[int]) -> np.ndarray:
            scores = reader(stage, texts, targets)
            scores[[place for place, text in enumerate(texts) if text == ""]] = np.nan
            return scores

        scores = attribute(made, forgetful)
        finding = finding_of(scores)
        _check(finding)
        assert scores.texts["fve_empty"].null_count() == 12
        assert scores.tokens.filter(scores.tokens["token"] == 0)["marginal"].null_count() == 12
        assert finding.headline["p0.0"]["accrual"] is None
        assert finding.headline["p0.0"]["token_saliency"] is not None

    def test_a_long_text_is_read_but_not_searched(self) -> None:
        texts = [" ".join(SENTENCE.format(KEYWORDS[0]) for _ in range(MOST_CLAIMS + 1)), "one two"]
        made = [_one(text, row, 1 - row) for row, text in enumerate(texts)]
        scores = attribute(made, PlantedReader(np.ones((2, len(KEYWORDS)))))
        assert (scores.not_searched, scores.orders.height) == (1, 0)
        assert any("no order searched" in caveat for caveat in finding_of(scores).caveats)

    def test_a_claim_said_twice_costs_nothing_alone(self) -> None:
        class Once(PlantedReader):
            def fve(self, text: str, target: int) -> float:
                return 0.4 * ("lantern" in text)

        twice = " ".join([SENTENCE.format("lantern")] * 2)
        scores = attribute([_one(twice), _one("", 1, 0)], Once(np.zeros((2, 1))))
        assert scores.tokens["saliency"].abs().max() == 0


def _check(finding: Finding) -> None:
    data = json.loads(finding.to_json())
    assert data["verdict"].strip()
    for name, value in data["headline"]["p0.0"].items():
        assert value is None or math.isfinite(value), name
        if value is not None and f"{name}_low" in data["headline"]["p0.0"]:
            low, high = (data["headline"]["p0.0"][f"{name}_{end}"] for end in ("low", "high"))
            assert (low is None) == (high is None)
            assert low is None or low <= high


def test_figures_and_numbers_of_a_whole_study() -> None:
    made, worth = draw(MIN_CLUSTERS, 4, 0, sentences=(SENTENCE, QUOTED))
    finding = judged(made, PlantedReader(worth, noise=0.01))
    _check(finding)
    drawn = render_figures(finding, ModelColours.of(["p0.0"], {"p0.0": 0.0}))
    assert {figure.name for figure in drawn} == {
        "attribution-token-kinds",
        "attribution-prefixes",
        "attribution-claim-kinds",
        "attribution-orders",
    }
    assert undeclared(finding) == absent(finding, finding.metrics) == []
    columns = {column for table in finding.tables.values() for column in table.columns}
    assert set(finding.columns) - columns == set()
    own = finding.tables["orders"].filter(finding.tables["orders"]["arrangement"] == OWN)
    assert own["gain"].null_count() == 2


def test_explanations_in_any_order_give_the_same_bytes() -> None:
    made, worth = draw(12, 4, 0)
    reader = PlantedReader(worth, decay=0.8, noise=0.02)
    assert judged(made, reader).to_json() == judged(made[::-1], reader).to_json()


def test_each_text_is_read_once_for_each_activation() -> None:
    made, worth = draw(12, 4, 0)
    reader, read = PlantedReader(worth), []

    def counting(stage: str, texts: list[str], targets: list[int]) -> np.ndarray:
        read.extend(zip(texts, targets, strict=True))
        return reader(stage, texts, targets)

    scores = attribute(made, counting)
    assert len(read) == len(set(read))
    assert scores.texts_read == len({text for text, _ in read})


def test_audit_does_not_run_it() -> None:
    assert "attribution" not in registry()
