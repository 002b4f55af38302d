"""Lines that say what several sentences said: all found, the same both ways, and not invented."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from nla_audit.table.completions import from_frame
from nla_audit.text.claims import split_claims
from nla_audit.text.reading import Reading, read_afresh
from nla_audit.world.sweep.planted import PlantedModel, plant

ACTIVATIONS = 80


@pytest.fixture(scope="module")
def texts() -> list[list[str]]:
    """Sentences of each activation's explanation."""
    rows = plant([PlantedModel("a", 0.0)], activations=ACTIVATIONS, seed=5).completions.sort("idx")
    found = []
    for text in rows["explanation"]:
        sentences: dict[int, list[str]] = {}
        for claim in split_claims(text):
            sentences.setdefault(claim.sentence, []).append(claim.text.rstrip("."))
        found.append([" ".join(parts) for parts in sentences.values()])
    return found


def reading(first: list[str], second: list[str], reference: str = "a") -> Reading:
    rows = [
        {"model": model, "idx": idx, "explanation": text}
        for model, texts in (("a", first), ("b", second))
        for idx, text in enumerate(texts)
    ]
    return read_afresh(from_frame(pl.DataFrame(rows), reference=reference))


def shares(found: Reading) -> tuple[float, float]:
    """Share of the reference's tokens kept, and of the other's supported."""
    rows = found.explanations
    return (
        rows["kept_tokens"].sum() / rows["tokens_reference"].sum(),
        rows["supported_tokens"].sum() / rows["tokens_model"].sum(),
    )


def said(texts: list[list[str]]) -> list[str]:
    return ["\n".join(sentences) for sentences in texts]


def run_together(texts: list[list[str]]) -> list[str]:
    """Three sentences in a line, with nothing between them."""
    return [
        "\n".join(" ".join(one[start : start + 3]) for start in range(0, len(one), 3))
        for one in texts
    ]


def test_lines_that_hold_three_sentences_keep_all(texts: list[list[str]]) -> None:
    kept, supported = shares(reading(said(texts), run_together(texts)))
    assert kept > 0.97
    assert supported > 0.97


def test_the_order_of_the_texts_does_not_matter(texts: list[list[str]]) -> None:
    first, second = said(texts), run_together(texts)
    kept, supported = shares(reading(first, second))
    kept_back, supported_back = shares(reading(first, second, reference="b"))
    assert kept == pytest.approx(supported_back, abs=0.01)
    assert supported == pytest.approx(kept_back, abs=0.01)


def test_deleted_sentences_are_not_found_in_the_lines_that_are_left(
    texts: list[list[str]],
) -> None:
    generator = np.random.default_rng(0)
    left = [[text for text in one if generator.random() < 0.5] or one[:1] for one in texts]
    kept, _ = shares(reading(said(texts), said(left)))
    words = sum(len(" ".join(one).split()) for one in texts)
    true = sum(len(" ".join(one).split()) for one in left) / words
    assert kept == pytest.approx(true, abs=0.04)
    # … nor in lines that hold three of those that are left.
    kept, _ = shares(reading(said(texts), run_together(left)))
    assert kept == pytest.approx(true, abs=0.06)
