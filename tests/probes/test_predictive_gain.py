"""Predictive gain: a model that expects the keywords it has read, and texts that name them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from nla_audit import cli
from nla_audit.checkpoint.load import load_language_model
from nla_audit.findings import Finding
from nla_audit.nla.likelihood import continuation_losses
from nla_audit.probes import registry
from nla_audit.probes._continuations import continuations
from nla_audit.table.completions import Completions, from_frame
from tests.declared import absent, undeclared
from tests.pairs import tiny
from tests.pairs.planted_pair import D_MODEL, KEYWORDS, save_planted_ar

DOCUMENTS = 36
SOURCE = "a story"


def save_reader(folder: Path) -> Path:
    """A language model that expects each keyword as much as it was read before.

    Its attention looks at all tokens alike, and only keywords have an embedding: the hidden state
    holds their mean, and the output matrix reads it off. Having read none it expects all tokens
    alike.
    """
    tokenizer = tiny.make_tokenizer(bos=True)
    tokenizer.add_tokens(list(KEYWORDS))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=D_MODEL,
        intermediate_size=D_MODEL,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    model = AutoModelForCausalLM.from_config(config).float().eval()
    attention = model.model.layers[0].self_attn
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.zero_()
        attention.v_proj.weight.copy_(torch.eye(D_MODEL))
        attention.o_proj.weight.copy_(torch.eye(D_MODEL))
        for axis, token in enumerate(tokenizer.convert_tokens_to_ids(list(KEYWORDS))):
            model.get_input_embeddings().weight[token, axis] = 1.0
            model.lm_head.weight[token, axis] = 1.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each document says its keyword four times; explanations name it, another one, or none."""
    root = tmp_path_factory.mktemp("gain")
    save_reader(root / "reader")
    own = [KEYWORDS[document % len(KEYWORDS)] for document in range(DOCUMENTS)]
    next_one = [KEYWORDS[(document + 1) % len(KEYWORDS)] for document in range(DOCUMENTS)]
    said = {"told": own, "wrong": next_one, "nothing": [""] * DOCUMENTS}
    rows = [
        {
            "model": model,
            "idx": document,
            "doc_id": f"d{document}",
            "source_text": SOURCE,
            "explanation": f"a{words[document]}",
        }
        for model, words in said.items()
        for document in range(DOCUMENTS)
    ]
    pl.DataFrame(rows).write_parquet(root / "texts.parquet")
    documents = [
        {"doc_id": f"d{document}", "text": SOURCE + 4 * word} for document, word in enumerate(own)
    ]
    (root / "documents.jsonl").write_text("\n".join(map(json.dumps, documents)))
    return root


def run(root: Path, reference: str = "told", **options: Any) -> Finding:
    table = from_frame(pl.read_parquet(root / "texts.parquet"), reference=reference)
    options = {"texts": (str(root / "documents.jsonl"),), **options}
    return registry()["predictive-gain"].run(
        table, base_model=str(root / "reader"), seed=0, **options
    )


@pytest.fixture(scope="module")
def finding(root: Path) -> Finding:
    return run(root)


def test_texts_that_name_what_follows_gain(finding: Finding) -> None:
    own = finding.headline["told"]
    assert own["explanations"] == DOCUMENTS
    assert own["gain_low"] > 0.3
    assert own["chance_gain_high"] < own["gain_low"]
    assert own["gain_over_another"] == pytest.approx(own["gain"] - own["chance_gain"])
    assert own["better_than_another_low"] > 0.6
    assert "tell something of how the text goes on" in finding.verdict
    # Before any keyword is read all tokens are as likely; the first says what the others are.
    places = finding.tables["by_place"].filter(pl.col("model") == "told")
    tokens = len(tiny.make_tokenizer(bos=True)) + len(KEYWORDS)
    assert places["token"].to_list() == ["1", "2–4"]
    assert places["tokens"].to_list() == [DOCUMENTS, 3 * DOCUMENTS]
    assert places["nats_without"][0] == pytest.approx(np.log(tokens), abs=1e-5)
    assert places["gain"][0] > places["gain"][1]


def test_texts_that_name_something_else_mislead(root: Path, finding: Finding) -> None:
    own = finding.headline["wrong"]
    assert own["gain"] < 0
    assert own["gain_over_another_high"] < 0
    assert "mislead" in run(root, "wrong").verdict


def test_texts_that_name_nothing_gain_nothing(root: Path, finding: Finding) -> None:
    own = finding.headline["nothing"]
    assert own["gain"] == pytest.approx(0, abs=1e-5)
    assert own["gain_over_another"] == pytest.approx(0, abs=1e-5)
    assert "not shown to help" in run(root, "nothing").verdict


def test_the_card_declares_every_number(finding: Finding) -> None:
    assert undeclared(finding) == []
    assert absent(finding, finding.metrics) == []


def test_what_the_source_says_is_no_gain(root: Path, finding: Finding) -> None:
    """Where the source, read in between, names the keyword many times, little is left to tell."""
    table = pl.read_parquet(root / "texts.parquet")
    own = pl.Series([KEYWORDS[idx % len(KEYWORDS)] for idx in table["idx"]])
    longer = from_frame(table.with_columns(source_text=pl.lit(SOURCE) + own + own))
    found = registry()["predictive-gain"].run(
        longer,
        base_model=str(root / "reader"),
        texts=(str(root / "documents.jsonl"),),
        context=40,
    )
    assert found.headline["told"]["gain"] < finding.headline["told"]["gain"] / 2


def test_losses_are_those_of_the_model(root: Path) -> None:
    model, tokenizer = load_language_model(root / "reader")
    prefix, ending = f"a{KEYWORDS[0]}{KEYWORDS[1]}", KEYWORDS[0] + KEYWORDS[2] + KEYWORDS[0]
    (found,) = continuation_losses(model, tokenizer, [prefix], [ending], most_tokens=2)
    ids = [1, *tokenizer(prefix + ending, add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        log_probs = model(torch.tensor([ids])).logits[0].log_softmax(dim=-1)
    expected = [-float(log_probs[place - 1, ids[place]]) for place in (-3, -2)]
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_prefix_without_room_loses_its_beginning(root: Path) -> None:
    model, tokenizer = load_language_model(root / "reader")
    long = KEYWORDS[0] * 100 + KEYWORDS[1] * 60
    cut, short = continuation_losses(
        model, tokenizer, [long, KEYWORDS[1] * 60], [KEYWORDS[1]] * 2, most_tokens=5
    )
    assert len(cut) == 1
    # 64 tokens: the first, one of the ending, and 62 of the prefix, two of them the other keyword.
    assert cut[0] > short[0]
    assert cut[0] < short[0] + 0.1


def test_a_first_token_behind_nothing_has_no_loss(root: Path) -> None:
    model, tokenizer = load_language_model(root / "reader")
    tokenizer.bos_token = tokenizer.eos_token = None
    alone, behind = continuation_losses(
        model, tokenizer, ["", "a"], [KEYWORDS[0] * 2] * 2, most_tokens=5
    )
    assert np.isnan(alone[0])
    assert np.isfinite([alone[1], *behind]).all()


def _table(rows: list[tuple[int, str, str]]) -> Completions:
    schema = ["idx", "doc_id", "source_text"]
    return from_frame(
        pl.DataFrame(rows, schema=schema, orient="row").with_columns(
            model=pl.lit("a"), explanation=pl.lit("x")
        )
    )


def test_how_a_document_goes_on_is_found_in_it_or_in_longer_sources() -> None:
    table = _table([(0, "d", "one two"), (1, "d", "one two three"), (2, "e", "six"), (3, "f", "a")])
    assert continuations(table, {}, None) == {0: " three"}
    documents = {"e": "five six seven", "f": "a b a c"}
    assert continuations(table, documents, None) == {0: " three", 2: " seven", 3: " b a c"}
    tail = _table([(0, "f", "b a"), (1, "g", "a")])
    twice = {"f": "a b a c b a d", "g": "x a y a z"}
    assert continuations(tail, twice, None) == {}  # where they end is not known
    further = pl.DataFrame({"doc_id": ["g", "d"], "source_text": ["a and so on", "one"]})
    assert continuations(tail, {}, further) == {1: " and so on"}


def test_the_command_says_what_is_missing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["predictive-gain", str(root / "texts.parquet")]
    documents = str(root / "documents.jsonl")
    assert cli.run(given) == 2
    assert "give --base-model MODEL" in capsys.readouterr().err
    halves = save_planted_ar(root / "ar")
    assert cli.run([*given, "--base-model", str(halves), "--texts", documents]) == 2
    assert f"{halves}: this is an AR, which foresees no text" in capsys.readouterr().err
    given += ["--base-model", str(root / "reader")]
    assert cli.run(given) == 2
    assert "how its document goes on: give the documents with --texts" in capsys.readouterr().err
    given += ["--texts", documents, "--limit", "12", "--json"]
    assert cli.run(given) == 0
    assert json.loads(capsys.readouterr().out)["headline"]["told"]["explanations"] == 12
