"""The built-in similarity: a dictionary learnt from parallel explanations."""

from __future__ import annotations

import numpy as np
import pytest

from nla_audit.text.claims import split_claims
from nla_audit.text.segmentation import CLAUSE, SENTENCE, START, WORD, LikelihoodRatios
from nla_audit.text.similarity import (
    ParallelTexts,
    TranslationSimilarity,
    breaks_between,
    similarity_named,
)

#: Each subject at length and in other words that share no stem with it.
_SUBJECTS = {
    "sailing vessels crossing rough seas": "ships braving waves",
    "medieval abbey built by monks": "cloister architecture centuries old",
    "bread dough rising overnight": "sourdough baking technique",
    "glaciers melting across alpine valleys": "ice retreating uphill",
    "parliament debating tax reform": "lawmakers argue levies",
    "violin concerto played by soloists": "orchestral music performance",
    "penguins huddling against blizzards": "antarctic birds sheltering",
    "programmers fixing stubborn defects": "software bugs repaired",
}


def pair(reference: str, other: str) -> ParallelTexts:
    return split_claims(reference), split_claims(other)


def parallel(seed: int = 0, count: int = 120) -> list[ParallelTexts]:
    """References of three subjects each, beside other words for two of them and a stray one."""
    generator = np.random.default_rng(seed)
    subjects = list(_SUBJECTS)
    pairs = []
    for _ in range(count):
        chosen = [subjects[n] for n in generator.permutation(len(subjects))[:4]]
        said = [_SUBJECTS[chosen[n]] for n in (0, 1, 3)]
        generator.shuffle(said)
        pairs.append(pair("\n".join(chosen[:3]), "\n".join(said)))
    return pairs


@pytest.fixture(scope="module")
def fitted() -> TranslationSimilarity:
    similarity = TranslationSimilarity()
    similarity.fit(parallel())
    return similarity


def one(similarity: TranslationSimilarity, reference: str, other: str) -> LikelihoodRatios:
    (evidence,) = similarity.evidence([pair(reference, other)])
    return evidence


def test_other_words_for_a_claim_are_learnt(fitted: TranslationSimilarity) -> None:
    references, others = list(_SUBJECTS), list(_SUBJECTS.values())
    evidence = one(fitted, "\n".join(references), "\n".join(others))
    by_claim = np.array([evidence.ratio[evidence.owners == n].mean(axis=0) for n in range(8)])
    assert (by_claim.argmax(axis=1) == np.arange(8)).all()
    right = np.diag(by_claim)
    wrong = by_claim[~np.eye(8, dtype=bool)]
    assert right.min() > 2.0
    assert right.min() > 2 * wrong.max()


def test_nothing_is_learnt_from_texts_that_are_not_parallel() -> None:
    pairs = parallel()
    crossed = [(pairs[n][0], pairs[(n + 37) % len(pairs)][1]) for n in range(len(pairs))]
    # Words that differ between the two sides, so that only chance could pair them.
    similarity = TranslationSimilarity()
    similarity.fit(crossed)
    evidence = one(similarity, "\n".join(_SUBJECTS), "\n".join(_SUBJECTS.values()))
    right = [evidence.ratio[evidence.owners == n, n].mean() for n in range(8)]
    assert np.mean(right) < 2.0


def test_pairs_in_any_order_give_the_same_dictionary(fitted: TranslationSimilarity) -> None:
    pairs = parallel()
    order = np.random.default_rng(1).permutation(len(pairs))
    shuffled = TranslationSimilarity()
    shuffled.fit([pairs[n] for n in order])
    for reference, other in pairs[:10]:
        ours = fitted.evidence([(reference, other)])[0]
        theirs = shuffled.evidence([(reference, other)])[0]
        np.testing.assert_allclose(ours.ratio, theirs.ratio, rtol=1e-6, atol=1e-9)


def test_fitting_twice_gives_the_same(fitted: TranslationSimilarity) -> None:
    again = TranslationSimilarity()
    again.fit(parallel())
    reference, other = parallel()[0]
    np.testing.assert_array_equal(
        fitted.evidence([(reference, other)])[0].ratio,
        again.evidence([(reference, other)])[0].ratio,
    )


def test_evidence_does_not_depend_on_what_else_is_asked(fitted: TranslationSimilarity) -> None:
    pairs = parallel()[:15]
    together = fitted.evidence(pairs)
    for found, asked in zip(together, pairs, strict=True):
        np.testing.assert_array_equal(found.ratio, fitted.evidence([asked])[0].ratio)


def test_words_never_seen_fit_only_themselves(fitted: TranslationSimilarity) -> None:
    evidence = one(fitted, "quokkas grazing lagoons\nzeppelins docking", "zeppelins grazing tundra")
    expected = np.array([[False, True], [True, False], [False, False]])
    assert ((evidence.ratio > 0) == expected).all()
    assert (evidence.ratio[expected] > 1).all()


def test_an_unfitted_or_emptily_fitted_similarity_knows_words_only() -> None:
    for fit in (None, [], [pair("", "")], [pair("", "a word")]):
        similarity = TranslationSimilarity()
        if fit is not None:
            similarity.fit(fit)
        evidence = one(similarity, "ships sail harbours", "ships anchor")
        assert evidence.ratio.shape == (2, 1)
        assert evidence.ratio[0, 0] > 0
        assert evidence.ratio[1, 0] == 0


@pytest.mark.parametrize(
    ("reference", "other", "shape"),
    [("", "ships sail", (2, 0)), ("ships sail", "", (0, 1)), ("", "", (0, 0))],
)
def test_empty_texts(
    fitted: TranslationSimilarity, reference: str, other: str, shape: tuple[int, int]
) -> None:
    evidence = one(fitted, reference, other)
    assert evidence.ratio.shape == shape
    assert len(evidence.breaks) == len(evidence.owners) == shape[0]
    assert len(evidence.sentences) == shape[1]


def test_like_spellings_count_less_than_the_same_word() -> None:
    similarity = TranslationSimilarity()
    # No explanation stands beside another, so that there is nothing to learn but spelling.
    similarity.fit([pair("photograph", ""), pair("", "photography"), pair("oats", "")])
    same = one(similarity, "photograph", "photograph").ratio[0, 0]
    like = one(similarity, "photograph", "photography").ratio[0, 0]
    unlike = one(similarity, "photograph", "oats").ratio[0, 0]
    assert same > like > 0
    assert unlike == 0


def test_breaks_tell_words_clauses_and_sentences() -> None:
    claims = split_claims(
        "Regional newspaper covering harbours, formal register prevails throughout. Three rivers"
    )
    units = np.array([len(claim.stems) for claim in claims])
    breaks = breaks_between(claims, units)
    assert breaks[0] == START
    assert breaks[units[0]] == CLAUSE
    assert breaks[units[0] + units[1]] == SENTENCE
    assert (np.delete(breaks, [0, units[0], units[0] + units[1]]) == WORD).all()


def test_the_built_in_similarity_needs_no_name() -> None:
    assert isinstance(similarity_named(None), TranslationSimilarity)
    assert isinstance(similarity_named("table"), TranslationSimilarity)
