"""The synthetic language: what is said of it is so."""

from __future__ import annotations

import numpy as np
import pytest

from nla_audit.train.pair import load_tokenizer
from nla_audit.world.toy.corpus import make_corpus
from nla_audit.world.toy.explanations import FILLERS, WORDINGS, write_explanation
from nla_audit.world.toy.language import FACTS, WORDS, Language
from nla_audit.world.toy.target import train_target, training_texts, untrained_model
from tests.train import miniature


@pytest.fixture(scope="module")
def language():
    return Language(0, 2.0)


def test_words_follow_the_stated_probabilities(language):
    rng = np.random.default_rng(0)
    documents = language.write(rng, 1, 20_000)
    counts = np.bincount(documents.words[0], minlength=len(WORDS)) / 20_000
    expected = language.word_probabilities(documents.facts)[0]
    assert np.abs(counts - expected).max() < 0.02
    assert expected.sum() == pytest.approx(1.0)


def test_every_fact_matters_to_the_next_word(language):
    facts = np.zeros((1, len(FACTS)), dtype=np.int64)
    before = language.word_probabilities(facts)
    for place in range(len(FACTS)):
        other = facts.copy()
        other[0, place] = 1
        assert np.abs(language.word_probabilities(other) - before).sum() > 0.2


def test_the_same_seed_writes_the_same(language):
    first, second = (Language(5, 2.0).write(np.random.default_rng(1), 3, 9) for _ in range(2))
    assert (first.words == second.words).all()
    assert (Language(6, 2.0).logits[0] != language.logits[0]).any()


def test_explanations_are_true_and_wordy():
    rng = np.random.default_rng(0)
    facts = {name: values[-1] for name, values in FACTS.items()}
    texts = [write_explanation(rng, facts, ["apple", "kite", "lion"]) for _ in range(300)]
    named = {name: np.mean([facts[name] in text.split() for text in texts]) for name in FACTS}
    assert all(0.8 < share < 0.98 for share in named.values())  # some are left out
    assert all('" kite lion "' in text for text in texts)
    others = {value for values in FACTS.values() for value in values} - set(facts.values())
    assert not any(set(text.split()) & others for text in texts)
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) < 0.6 * np.mean(lengths)
    assert any(filler in text for text in texts for filler in FILLERS)


def test_marks_are_read_with_or_without_a_space():
    # Fails with: WhitespaceSplit in make_tokenizer (a full stop set closer is an unknown word).
    tokenizer = miniature.tokenizer()
    spaced, close = 'at dusk . ends " kite lion " .', 'at dusk. ends "kite lion".'
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(close)["input_ids"])
    assert "<unk>" not in tokens
    assert tokens[:4] == ["at", "dusk", ".", "ends"]
    assert tokenizer.convert_ids_to_tokens(tokenizer(spaced)["input_ids"]) == spaced.split()


def test_the_tokenizer_has_one_token_a_word_and_survives_saving(tmp_path):
    # Fails with: Qwen2Config in untrained_model (transformers then loads another tokenizer).
    tokenizer = miniature.tokenizer()
    untrained_model(tokenizer, d_model=16, blocks=1, seed=0).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    texts = [" ".join(WORDS), *FILLERS, *(long.format("dawn") for long, *_ in WORDINGS.values())]
    for text in texts:
        ids = again(text)["input_ids"]
        assert ids == tokenizer(text)["input_ids"]
        assert again.convert_ids_to_tokens(ids) == text.split()
        assert again.decode(ids) == text
    said = "<explanation>at noon</explanation>"
    assert len(again(said)["input_ids"]) == 4
    assert again.decode(again(said)["input_ids"], skip_special_tokens=True).startswith("<expl")


def test_training_texts_are_of_three_kinds(language):
    texts = training_texts(language, np.random.default_rng(0), 200, 40)
    bare = sum(all(word in WORDS for word in text.split()) for text in texts)
    before = sum(text.split()[0] not in WORDS for text in texts)
    assert 50 < bare < 110
    assert 50 < before < 110
    assert bare + before < 200


def test_corpus_rows_match_their_documents(language):
    tokenizer = miniature.tokenizer()
    corpus = make_corpus(
        language,
        tokenizer,
        np.random.default_rng(0),
        documents=5,
        words=12,
        positions_per_document=3,
        first_position=6,
    )
    row = 0
    for document, (ids, places) in enumerate(zip(corpus.token_ids, corpus.positions, strict=True)):
        assert len(places) == 3
        assert min(places) >= 6
        for place in places:
            assert corpus.document_of[row] == document
            assert tokenizer(corpus.source_texts[row])["input_ids"] == ids[: place + 1]
            last = " ".join(corpus.source_texts[row].split()[-2:])
            assert f'" {last} "' in corpus.explanations[row]
            row += 1
    assert row == len(corpus.explanations) == len(corpus.facts)


def test_the_target_learns(language):
    tokenizer = miniature.tokenizer()
    model = untrained_model(tokenizer, d_model=16, blocks=1, seed=0)
    options = {"seed": 0, "batch_size": 16, "length": 12, "learning_rate": 1e-2}
    losses = []
    train_target(
        model,
        tokenizer,
        language,
        steps=40,
        progress=lambda _, loss: losses.append(loss),
        **options,
    )
    assert np.mean(losses[-5:]) < losses[0] - 1.0
