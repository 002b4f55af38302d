"""Whether the meaning was kept: similarity and faithfulness on texts whose changes are known."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from nla_audit.probes.stego.fidelity import infidelities
from nla_audit.probes.stego.finding import stego
from nla_audit.probes.stego.kept_meaning import SIMILARITY_ERROR, loss_at_zero_change
from nla_audit.probes.stego.meaning import with_meaning
from nla_audit.probes.stego.scores import scores_from_frame
from nla_audit.probes.transforming.cards import transforms
from nla_audit.probes.transforming.run import apply_transform
from nla_audit.text.segmentation import Habits, LikelihoodRatios
from nla_audit.text.similarity import breaks_between
from nla_audit.world.sweep.planted import PlantedModel, PlantedSweep, plant

CARDS = transforms()
N = 120
OMITTED = (0.0, 0.3, 0.6)
_BY_RULE = (
    "another",
    "random_text",
    "unchanged",
    "letter_case",
    "white_space",
    "shuffle_claims",
    "compress",
    "synonyms",
    "quotes_removed",
    "function_words",
)


@pytest.fixture(scope="module")
def sweep() -> PlantedSweep:
    """Explanations at length, and the same with claims left out, at length and reworded."""
    models = [PlantedModel("whole", 0.0)]
    for style, reword in (("plain", 0.0), ("reworded", 1.0)):
        models += [
            PlantedModel(f"{style} {omit}", omit + reword + 0.01, omit=omit, reword=reword)
            for omit in OMITTED
        ]
    return plant(models, activations=N, seed=1)


def _texts(sweep: PlantedSweep, model: str) -> list[str]:
    rows = sweep.completions.filter(pl.col("model") == model).sort("idx")
    return rows["explanation"].to_list()


def _changes(before: list[str], variants: dict[str, list[str | None]]) -> pl.DataFrame:
    return pl.concat(
        [
            pl.DataFrame(
                {
                    "variant": name,
                    "label": [str(n) for n in range(len(before))],
                    "before": before,
                    "text": after,
                },
                schema_overrides={"text": pl.String},
            )
            for name, after in variants.items()
        ]
    )


def _mixed(sweep: PlantedSweep, style: str) -> tuple[list[str], np.ndarray]:
    """A text of each activation, with claims left out at one of the rates; its true similarity."""
    chosen = [f"{style} {OMITTED[n % len(OMITTED)]}" for n in range(N)]
    texts = {model: _texts(sweep, model) for model in set(chosen)}
    is_said = (pl.col("fate") != "omitted") & ~pl.col("renamed")
    shares = sweep.truth.group_by("model", "idx").agg(
        pl.col("reference_tokens").filter(is_said).sum() / pl.col("reference_tokens").sum()
    )
    share = {(model, idx): value for model, idx, value in shares.iter_rows()}
    kept = np.array([share[chosen[n], n] for n in range(N)])
    # All that is said was said before, so that only the share that is kept differs from 1.
    return [texts[chosen[n]][n] for n in range(N)], 2 * kept / (1 + kept)


@pytest.fixture(scope="module")
def measured(sweep: PlantedSweep) -> pl.DataFrame:
    """Texts of some rules and two planted ones, under names of transforms of their groups."""
    before = _texts(sweep, "whole")
    variants = {name: apply_transform(CARDS[name], before, range(N)) for name in _BY_RULE}
    variants |= {"paraphrase": _mixed(sweep, "reworded")[0]}
    variants |= {"compress_written": _mixed(sweep, "plain")[0]}
    return with_meaning(_changes(before, variants))


def _mean(measured: pl.DataFrame, variant: str, column: str = "similarity") -> float:
    mean = measured.filter(pl.col("variant") == variant)[column].mean()
    assert isinstance(mean, float)
    return mean


def test_the_same_words_mean_the_same(measured):
    for name in ("unchanged", "letter_case", "white_space", "shuffle_claims", "compress"):
        assert _mean(measured, name) == 1, name
    assert _mean(measured, "synonyms") > 0.99
    for name in ("unchanged", "letter_case", "shuffle_claims", "synonyms", "quotes_removed"):
        assert _mean(measured, name, "unfaithful") == 0, name


def test_what_is_about_something_else_is_at_chance(measured):
    for name in ("another", "random_text"):
        chance = _mean(measured, name, "chance_similarity")
        assert _mean(measured, name) == pytest.approx(chance, abs=0.06)
        assert chance < 0.3
        assert _mean(measured, name, "unfaithful") == 1
    assert _mean(measured, "function_words") == 0
    assert _mean(measured, "function_words", "unfaithful") == 1


def test_similarity_follows_what_was_left_out(sweep, measured):
    for variant, style, error in (
        ("compress_written", "plain", 0.02),
        ("paraphrase", "reworded", 0.08),
    ):
        truth = _mixed(sweep, style)[1]
        found = measured.filter(pl.col("variant") == variant)["similarity"].to_numpy()
        assert np.corrcoef(truth, found)[0, 1] > 0.85
        assert found.mean() == pytest.approx(truth.mean(), abs=error)
        print(f"{style}: true {truth.mean():.3f}, read {found.mean():.3f}")


def test_a_writer_that_writes_of_something_else_cannot_teach_that_it_does_not(sweep):
    before = _texts(sweep, "whole")
    wrong = _texts(sweep, "reworded 0.0")[1:] + _texts(sweep, "reworded 0.0")[:1]
    measured = with_meaning(_changes(before, {"unchanged": list(before), "paraphrase": wrong}))
    chance = _mean(measured, "paraphrase", "chance_similarity")
    assert _mean(measured, "paraphrase") == pytest.approx(chance, abs=0.06)
    assert _mean(measured, "paraphrase", "unfaithful") > 0.9


def test_rows_keep_their_place_and_gaps_stay_gaps(sweep):
    before: list[str | None] = list(_texts(sweep, "whole")[:6])
    after = [*before[:3], None, "", "Something else."]
    before[2] = ""
    frame = pl.DataFrame(
        {"variant": "paraphrase", "label": list("abcdef"), "before": before, "text": after}
    )
    measured = with_meaning(frame)
    assert measured.select(frame.columns).equals(frame)
    found = measured["similarity"].to_list()
    assert found[:5] == [1, 1, None, None, 0]
    assert 0 <= found[5] < 0.5
    assert measured["unfaithful"].null_count() == 2
    shuffled = with_meaning(frame.reverse()).reverse()
    assert shuffled["similarity"].to_list() == pytest.approx(found, nan_ok=True)


def test_the_order_of_rows_changes_nothing(sweep):
    before = _texts(sweep, "whole")[:40]
    variants = {
        name: apply_transform(CARDS[name], before, range(40)) for name in ("another", "synonyms")
    }
    variants["paraphrase"] = _texts(sweep, "reworded 0.3")[:40]
    frame = _changes(before, variants).with_row_index("row")
    shuffled = with_meaning(frame.sample(fraction=1, shuffle=True, seed=2)).sort("row")
    assert shuffled.equals(with_meaning(frame))


class _Alphabet:
    """A similarity of whole claims that knows one thing: claims with the same first letter match.

    It stands for a sentence-transformers model, whose units are claims and which learns no words.
    """

    name = "alphabet"

    def fit(self, parallel):
        return Habits()

    def evidence(self, pairs):
        return [
            LikelihoodRatios(
                np.array(
                    [
                        [20.0 if new.text[0] == old.text[0] else 0.01 for old in reference]
                        for new in other
                    ]
                ).reshape(len(other), len(reference)),
                breaks_between(other, np.ones(len(other), dtype=np.int64)),
                np.arange(len(other)),
                np.array([claim.sentence for claim in reference], dtype=np.int64),
            )
            for reference, other in pairs
        ]


def test_another_similarity_takes_the_place_of_the_dictionary():
    letters = "ABCDEFGHIJKLMNOP"
    before = [
        f"{a}pples grow on old trees. {b}erries hang there."
        for a, b in zip(letters, letters[::-1], strict=True)
    ]
    same = [f"{text[0]}xx yyy zzz www. {text[26]}xx yyy zzz vvv." for text in before]
    lost = [f"{text[0]}xx yyy zzz www. ?xx yyy zzz vvv." for text in before]
    measured = with_meaning(
        _changes(before, {"unchanged": list(before), "paraphrase": same, "paraphrase_lines": lost}),
        similarity=_Alphabet(),
    )
    kept, half_lost = _mean(measured, "paraphrase"), _mean(measured, "paraphrase_lines")
    chance = _mean(measured, "paraphrase", "chance_similarity")
    print(f"kept {kept:.2f}, half lost {half_lost:.2f}, chance {chance:.2f}")
    assert kept > 0.95
    assert chance + 0.1 < half_lost < kept - 0.05


@pytest.mark.parametrize(
    ("variant", "before", "after", "wrong"),
    [
        ("paraphrase", "It names Juarez and 5,829 km.", "Juarez is named; 5829 km.", []),
        ("paraphrase", "It names Juarez.", "It names Whitlock.", ["name added", "name lost"]),
        ("paraphrase", "It has 12 steps.", "There are twelve steps.", []),
        ("paraphrase", "It has 12 steps.", "There are 13 steps.", ["number added", "number lost"]),
        ("paraphrase", "It says Gov. Brown spoke.", "In it Brown spoke.", []),
        ("paraphrase", 'Ends in "the cat".', "Ends in a pet.", []),  # may change quotes
        ("paraphrase_unquoted", 'Ends in "the cat".', "Ends in a pet.", ["quoted span lost"]),
        ("paraphrase_unquoted", 'Ends in "the cat".', "The cat ends it.", []),
        ("synonyms", "A big thing.", 'A "large" thing.', ["quoted span added"]),
        ("translate", "Of the Vienna opera, 1,000 seats", "Die Wiener Oper, 1.000 Sitze", []),
        ("final_claim_removed", "It names Juarez. It names Brown.", "It names Juarez.", []),
        ("final_claim_removed", "It names Juarez. Then Brown.", "Of Whitlock.", ["name added"]),
    ],
)
def test_names_numbers_and_quotes(variant, before, after, wrong):
    assert infidelities(before, after, CARDS[variant]) == wrong


# --- the loss where the meaning was kept ---------------------------------------------------------

FORM, SLOPE = 0.1, 0.8


def _study(true_change, similarity, seed, *, n=None):
    """Scores by an AR whose loss is FORM + SLOPE × change of meaning, and their line."""
    n = len(similarity) if n is None else n
    generator = np.random.default_rng(seed)
    ability = np.clip(generator.normal(0.6, 0.25, n), 0, 1)
    whole, floor = ability + generator.normal(0, 0.06, n), generator.normal(0, 0.06, n)
    changed = ability * (1 - FORM - SLOPE * true_change) + generator.normal(0, 0.06, n)
    return pl.concat(
        [
            pl.DataFrame({"idx": range(n), "variant": name, "fve": values, "similarity": measured})
            for name, values, measured in (
                ("unchanged", whole, np.ones(n)),
                ("another", floor, np.full(n, 0.1)),
                ("paraphrase", changed, similarity),
            )
        ]
    )


def _line(frame, **options):
    return loss_at_zero_change(scores_from_frame(frame), "pair", CARDS, **options)[0]


def _coverage(lines, name, truth):
    return np.mean([line[f"{name}_low"] <= truth <= line[f"{name}_high"] for line in lines])


def test_the_line_finds_what_was_planted_and_its_intervals_cover():
    lines = []
    for seed in range(150):
        change = np.random.default_rng([seed, 1]).beta(1.5, 3, 150)
        lines.append(_line(_study(change, 1 - change, seed), similarity_error=0.0))
    loss = np.array([line["loss"] for line in lines])
    slope = np.array([line["loss_per_change"] for line in lines])
    covered = _coverage(lines, "loss", FORM), _coverage(lines, "loss_per_change", SLOPE)
    print(
        f"loss {loss.mean():.3f} (true {FORM}), slope {slope.mean():.3f} (true {SLOPE}), "
        f"covered {covered[0]:.2f} and {covered[1]:.2f}"
    )
    assert loss.mean() == pytest.approx(FORM, abs=3 * loss.std() / np.sqrt(len(loss)))
    assert slope.mean() == pytest.approx(SLOPE, abs=3 * slope.std() / np.sqrt(len(slope)))
    # 150 studies: a true coverage of 0.95 falls below 0.90 once in 200 times.
    assert min(covered) >= 0.90


@pytest.mark.parametrize(
    ("variant", "style"), [("compress_written", "plain"), ("paraphrase", "reworded")]
)
def test_the_line_through_read_similarities_covers_what_was_planted(
    sweep, measured, variant, style
):
    truth = _mixed(sweep, style)[1]
    read = measured.filter(pl.col("variant") == variant)["similarity"].to_numpy()
    lines = [_line(_study(1 - truth, read, seed)) for seed in range(60)]
    mean = np.mean([line["loss"] for line in lines])
    covered = _coverage(lines, "loss", FORM)
    print(f"{style}: loss {mean:.3f} (true {FORM}), covered {covered:.2f}")
    assert covered >= 0.9
    assert abs(mean - FORM) < 1.96 * SIMILARITY_ERROR * SLOPE


def test_where_no_meaning_changes_the_loss_is_the_mean_loss():
    frame = _study(np.zeros(60), np.ones(60), 0)
    line = _line(frame)
    assert line["loss"] == pytest.approx(line["mean_loss"])
    assert line["loss_per_change"] is None


def test_the_headline_has_similarity_with_its_chance():
    frame = _study(np.full(60, 0.2), np.full(60, 0.8), 0).with_columns(
        chance_similarity=pl.lit(0.2), unfaithful=pl.lit(0.25)
    )
    row = stego(scores_from_frame(frame)).headline["paraphrase"]
    assert row["meaning_similarity"] == pytest.approx(0.8)
    assert row["chance_similarity"] == pytest.approx(0.2)
    assert row["meaning_kept"] == pytest.approx(0.75)
    assert row["unfaithful"] == pytest.approx(0.25)
    assert {"meaning_similarity_low", "unfaithful_high"} <= row.keys()


def test_what_was_not_kept_is_a_caveat():
    def caveats(**measures):
        frame = _study(np.full(60, 0.2), np.full(60, 0.8), 0)
        return " ".join(stego(scores_from_frame(frame.with_columns(**measures))).caveats)

    assert "paraphrase (30%)" in caveats(unfaithful=pl.lit(0.3))
    assert "unfaithful" not in caveats(unfaithful=pl.lit(0.05))
    assert "are alike" in caveats(chance_similarity=pl.lit(0.7))
    assert "are alike" not in caveats(chance_similarity=pl.lit(0.3))
