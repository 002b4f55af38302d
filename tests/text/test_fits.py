"""Fits on tables that could mislead them: repetition, few texts, words never seen before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from nla_audit.table.completions import Completions, from_frame
from nla_audit.text.pairs import TextPair, text_of
from nla_audit.text.reading import Reading, read_afresh

NOUNS = """harbour fog price soup code castle soccer match garden train violin vaccine trial tax
poem letter verse river market lawyer robot planet ocean forest owl wheat silver pump ticket clown
opera tower tunnel battery cellar ladder mast map desert camel pepper honey tulip moss truffle sheep
velvet zipper loom curtain hinge crown shield arrow senate comet barley circus""".split()


def phrase(generator: np.random.Generator) -> list[str]:
    return generator.choice(NOUNS, 6, replace=False).tolist()


def again(words: Sequence[str], share: float, generator: np.random.Generator) -> str:
    """The same words, but for a share of them."""
    return " ".join(
        word if generator.random() < share else str(generator.choice(NOUNS)) for word in words
    )


def reading_of(texts: Sequence[tuple[str, str]]) -> tuple[Completions, Reading]:
    rows = [
        {"model": model, "length_penalty": penalty, "idx": idx, "explanation": text}
        for idx, both in enumerate(texts)
        for (model, penalty), text in zip((("reference", 0.0), ("other", 0.1)), both, strict=True)
    ]
    table = from_frame(pl.DataFrame(rows), reference="reference")
    return table, read_afresh(table)


def kept(reading: Reading) -> float:
    return float(reading.claims.filter(pl.col("model") == "other")["kept"].mean())


@pytest.mark.parametrize("times", [2, 3])
def test_a_text_that_says_one_thing_several_times_still_says_it(times: int) -> None:
    """0.29 and 0.37 where its other sentences may let expect any similarity."""
    generator = np.random.default_rng(times)
    texts = []
    for _ in range(40):
        words = phrase(generator)
        said = [
            [f"{start} {again(words, 0.8, generator)}." for _ in range(times)]
            for start in ("It is about the", "It deals with a")
        ]
        texts.append((" ".join(said[0]), " ".join(said[1])))
    assert kept(reading_of(texts)[1]) > 0.75


def test_few_unrelated_sentences_say_nothing_of_each_other() -> None:
    found = []
    for seed in range(10):
        generator = np.random.default_rng(seed)
        texts = []
        for _ in range(8):
            words = generator.permutation(NOUNS).tolist()
            texts.append((f"It is about the {' '.join(words[:6])}.", f"A {' '.join(words[6:12])}."))
        _, reading = reading_of(texts)
        assert not reading.reader.fits["other"].measured
        found.append(kept(reading))
    assert np.mean(found) < 0.1


def paraphrased(activations: int) -> list[tuple[str, str]]:
    """Three lines, of which two are said again in words of which a share is the same."""
    generator = np.random.default_rng(0)
    texts = []
    for _ in range(activations):
        lines = [phrase(generator) for _ in range(3)]
        first = " ".join(f"It is about the {' '.join(words)}." for words in lines)
        said = [again(words, 0.6, generator) for words in lines[:2]]
        texts.append((first, " ".join(f"It deals with a {words}." for words in said)))
    return texts


@pytest.mark.parametrize("activations", [6, 40])
def test_what_is_read_again_alone_is_read_the_same(activations: int) -> None:
    texts = paraphrased(activations)
    _, reading = reading_of(texts)
    assert reading.reader.fits["other"].measured == (activations > 6)
    pair = TextPair("other", 0, 0, 0, *map(text_of, texts[0]))
    alone = reading.reader.segment("other", [pair])[0].kept
    own = reading.claims.filter((pl.col("idx") == 0) & (pl.col("model") == "other"))["kept"]
    assert alone == pytest.approx(own.to_numpy(), abs=1e-5)
