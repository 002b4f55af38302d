"""The rules of the verdict, on losses that are set."""

from __future__ import annotations

import pytest

from nla_audit.probes.stego.retention import Effect
from nla_audit.probes.stego.verdict import CANNOT_TELL, PLAIN, CodeEvidence, decide
from nla_audit.probes.transforming.cards import transforms


@pytest.mark.parametrize(
    ("value", "high", "category", "said"),
    [
        (0.10, 0.14, PLAIN, "the costliest change that keeps it, paraphrase, loses 10%"),
        (0.47, 0.64, CANNOT_TELL, "up to 64% may be lost with paraphrase, which keeps the meaning"),
        (0.55, 0.64, CANNOT_TELL, "most is lost with a change that keeps the meaning"),
    ],
)
def test_plain_meaning_is_not_said_of_what_half_may_be_lost_of(value, high, category, said) -> None:
    # Fails with: 47 % [31, 64] of the reconstruction lost to a paraphrase, called plain meaning.
    losses = {
        "letter_case": Effect(0.02, 0.01, 0.03, 0.005, 0.001),
        "paraphrase": Effect(value, 2 * value - high, high, (high - value) / 2, 0.001),
        "synonyms": Effect(0.01, 0.0, 0.02, 0.005, 0.05),
    }
    verdict = decide(CodeEvidence(transforms(), losses, {}, carries=True, n=200))
    assert verdict.category == category
    assert said in verdict.because


def test_few_texts_with_a_wide_interval_do_not_hide_plain_meaning() -> None:
    # Fails with: 20 % [-15, 55] of a tenth of the texts, taken for half of the reconstruction.
    losses = {
        "paraphrase": Effect(0.10, 0.06, 0.14, 0.02, 0.001),
        "synonyms": Effect(0.20, -0.15, 0.55, 0.18, 0.3),
    }
    evidence = CodeEvidence(
        transforms(), losses, {}, carries=True, n=300, touched={"synonyms": 0.1}
    )
    assert decide(evidence).category == PLAIN
