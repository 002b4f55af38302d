"""Tables of activations and extraction: right numbers, and one line for what is wrong."""

from __future__ import annotations

import gzip

import numpy as np
import polars as pl
import pytest
import torch

from nla_audit.errors import UserError
from nla_audit.runs.activations import read_activations
from nla_audit.runs.target import TargetModel
from nla_audit.train.dataset import (
    make_dataset,
    read_dataset,
    read_training_table,
    write_dataset,
)
from nla_audit.train.labeler import cached, write_missing_gold
from nla_audit.train.layout import Layout
from nla_audit.train.prepare import extracted, make_activations
from nla_audit.train.read_recipe import parse_recipe
from nla_audit.train.recipe_data import Labeler
from nla_audit.train.seeds import Use, rows_of_step
from tests.train import miniature


def table(rows=6, **columns):
    base = {
        "activation_vector": miniature.activations(rows).tolist(),
        "doc_id": [f"d{row // 2}" for row in range(rows)],
        "response": ["<explanation>harbour scene</explanation>"] * rows,
    }
    return pl.DataFrame(base | columns)


def read(frame, tmp_path):
    path = tmp_path / "t.parquet"
    frame.write_parquet(path)
    return read_training_table(path, held_out_share=0.3, seed=0)


def test_published_tables_are_read_and_written_back(tmp_path):
    dataset = read(table(detokenized_text_truncated=[f"s{row}" for row in range(6)]), tmp_path)
    np.testing.assert_array_equal(dataset.activations, miniature.activations(6))
    assert dataset.source_texts[3] == "s3"
    assert dataset.positions == [None] * 6
    write_dataset(dataset, tmp_path / "out.parquet", layer_index=3)
    assert read_activations(tmp_path / "out.parquet").layer == 3
    again = read_dataset(tmp_path / "out.parquet")
    np.testing.assert_array_equal(again.activations, dataset.activations)
    assert again.explanations == dataset.explanations
    assert (again.is_held_out == dataset.is_held_out).all()
    assert dataset.is_held_out.sum() == 2


def test_what_is_held_out_is_not_trained_on(tmp_path):
    # Fails with: every row trained on.
    dataset = read(table(8), tmp_path)
    held_out, trained = dataset.held_out_rows(), dataset.training_rows
    assert len(held_out) > 0
    assert sorted([*held_out, *trained]) == list(range(8))
    names = [{dataset.doc_ids[row] for row in rows} for rows in (held_out, trained)]
    assert names[0].isdisjoint(names[1])


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (table(0), "no activations"),
        (table(doc_id=["one"] * 6), "1 document"),
        (table().drop("activation_vector"), "no column activation_vector"),
        (table().drop("doc_id"), "no column doc_id"),
        (table(activation_vector=[[0.0] * 4, *[[1.0] * 4] * 5]), "1 activations are zero or not"),
        (table(activation_vector=[[1.0] * 4, *[[1.0] * 3] * 5]), "rows of different widths"),
    ],
)
def test_bad_tables(frame, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read(frame, tmp_path)


def test_a_file_that_is_no_parquet(tmp_path):
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(UserError, match="not a whole Parquet file"):
        read_training_table(tmp_path / "x.parquet", held_out_share=0.1, seed=0)


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_empty_gold_is_named(empty, tmp_path):
    gold = ["x", empty, "x", "x", "x", "x"]
    with pytest.raises(UserError, match=r"1 of 6 rows has no gold explanation .* idx 1"):
        read(table(response=gold), tmp_path).gold(range(6))


def test_extraction_is_hidden_states_after_the_block():
    # Fails with: hidden_states[layer]; padding on the left; the final norm applied.
    model = miniature.model()
    documents = [[5, 6, 7, 8, 9], [7, 7], [9, 8, 7]]
    positions = [[1, 4], [0], [2]]
    for layer in range(miniature.BLOCKS):
        target = TargetModel(model, miniature.tokenizer(), layer)
        found = extracted(target, documents, positions, lambda *_: None)
        expected = []
        for ids, places in zip(documents, positions, strict=True):
            block_output = []
            handle = model.model.layers[layer].register_forward_hook(
                lambda _m, _i, output, kept=block_output: kept.append(output)
            )
            with torch.no_grad():
                model(input_ids=torch.tensor([ids]))
            handle.remove()
            hidden = block_output[0]
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            expected += [hidden[0, place].numpy() for place in places]
        np.testing.assert_allclose(found, np.stack(expected), rtol=1e-5, atol=1e-4)


def test_rows_of_a_step_pass_over_everything_in_turn():
    taken = np.concatenate([rows_of_step(1, Use.PROMPTS, step, 4, 10) for step in range(5)])
    assert sorted(taken[:10].tolist()) == sorted(taken[10:].tolist()) == list(range(10))
    assert taken[:10].tolist() != taken[10:].tolist()
    assert rows_of_step(1, Use.PROMPTS, 3, 4, 10).tolist() == taken[12:16].tolist()


def test_gold_is_written_once_for_rows_without(tmp_path, monkeypatch):
    asked = []

    def write(prompt):
        asked.append(prompt)
        return f"gold {len(asked)}"

    settings = Labeler(model="m", prompt="Explain: {text}", workers=1)
    monkeypatch.setattr("nla_audit.train.labeler.labeler_of", lambda _: write)
    dataset = make_dataset(
        miniature.activations(4),
        doc_ids=list("aabb"),
        positions=[None] * 4,
        source_texts=["s0", "s1", "s2", "s3"],
        explanations=["there", None, "", "there"],
        held_out_share=0.5,
        seed=0,
    )
    for _ in range(2):
        written = write_missing_gold(dataset, settings, tmp_path, lambda *_: None)
        assert written.explanations == ["there", "gold 1", "gold 2", "there"]
    assert asked == ["Explain: s1", "Explain: s2"]


def test_an_empty_answer_is_no_gold(tmp_path):
    ask = cached(lambda _: "  ", Labeler(model="m"), tmp_path)
    with pytest.raises(UserError, match="empty explanation"):
        ask("x")


def test_fixed_lists_packed_tables_and_tags_are_read(tmp_path):
    texts = [
        "<explanation>\na b</explanation>",
        "<EXPLANATION>c",
        " d <explanation>",
        "e",
        "f",
        None,
    ]
    frame = table(response=texts)
    if "explanation" in frame.columns:
        frame = frame.drop("explanation")
    width = len(frame["activation_vector"][0])
    fixed = frame.cast({"activation_vector": pl.Array(pl.Float32, width)})
    fixed = fixed.rename({name: name.upper() for name in fixed.columns})
    fixed.write_parquet(tmp_path / "plain.parquet")
    packed = tmp_path / "t.parquet.gz"
    packed.write_bytes(gzip.compress((tmp_path / "plain.parquet").read_bytes()))
    for path in (tmp_path / "plain.parquet", packed):
        found = read_training_table(path, held_out_share=0.3, seed=0)
        np.testing.assert_array_equal(found.activations, miniature.activations(6))
        assert found.explanations == ["a b", "c", " d <explanation>", "e", "f", None]


@pytest.mark.parametrize("values", [[1] * 6, [["a"]] * 6, [True] * 6])
def test_gold_that_is_no_text_is_named(values, tmp_path):
    with pytest.raises(UserError, match='column "explanation" holds'):
        read(table().with_columns(explanation=pl.Series(values)), tmp_path)


def test_special_tokens_are_never_taken(tmp_path):
    """What ``extract`` never reads, a course does not read either."""
    # Fails with: every position from first_position on drawn from.
    miniature.model().save_pretrained(tmp_path / "model")
    tokenizer = miniature.tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    special = tokenizer.eos_token
    texts = [f"harbour {special} scene {special} {special} kitchen"] * 4
    pl.DataFrame({"text": texts, "doc_id": list("abcd")}).write_ndjson(tmp_path / "t.jsonl")
    raw = {
        "name": "x",
        "target": {"model": "model", "layer_index": 1},
        "data": {"texts": "t.jsonl", "positions_per_document": 9, "first_position": 0},
    }
    layout = Layout(parse_recipe(raw, "x"), tmp_path, tmp_path / "out")
    make_activations(layout, lambda *_: None)
    found = read_dataset(layout.activations)
    places = tokenizer(texts[0])["input_ids"]
    plain = [place for place, token in enumerate(places) if token not in tokenizer.all_special_ids]
    assert 0 < len(plain) < len(places)
    assert found.positions == plain * 4
