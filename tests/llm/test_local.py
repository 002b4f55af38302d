"""``hf:`` with tiny models that were fitted, here, to answer a few requests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from nla_audit.errors import UserError
from nla_audit.llm.cache import AnswerCache
from nla_audit.llm.interface import Request
from nla_audit.llm.local import LocalModel
from nla_audit.llm.prompts import Naming, messages
from tests.pairs import planted_pair

#: Line → what the fitted models make of it. Of unlike length, so that a batch is padded.
ANSWERS = {
    "a harbour": "a port",
    "an old sailor sings by the sea": "a seaman of years sings at the shore",
    "the word “fair”": "fair, a word",
}
_CHAT = (
    "{% for m in messages %}<start>{{ m['role'] }}\n{{ m['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<start>model\n{% endif %}"
)


def _request(*lines: str) -> Request:
    return Request("paraphrase", "Say it in other words.", lines)


def _tokenizer(texts: Sequence[str], *, chat: bool) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<pad>", "<eos>", "<start>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(list(texts) * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        additional_special_tokens=["<start>", "<end>"],
    )
    if chat:
        tokenizer.chat_template = _CHAT
    return tokenizer


def _fit(model: Any, batches: Sequence[dict[str, torch.Tensor]]) -> None:
    """Overfit ``model`` to its few batches, until it makes no mistake on any."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(400):
        worst = 0.0
        optimizer.zero_grad()
        for batch in batches:
            output = model(**batch)
            output.loss.backward()
            worst = max(worst, float(output.loss.detach()))
        if worst < 0.01:
            return
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    raise AssertionError("the tiny model did not fit")


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model that answers one line, and that answers two with one line too few."""
    torch.manual_seed(0)
    pairs = [(_request(line), f'{{"lines": ["{answer}"]}}') for line, answer in ANSWERS.items()]
    pairs.append((_request("one", "two"), '{"lines": ["eins"]}'))
    contents = [part["content"] for request, _ in pairs for part in messages(request)]
    tokenizer = _tokenizer([*contents, *(answer for _, answer in pairs)], chat=True)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=1024,
        pad_token_id=0,
        eos_token_id=3,
    )
    model = Qwen3ForCausalLM(config).float()
    batches = []
    for request, answer in pairs:
        prompt = tokenizer.apply_chat_template(
            messages(request), tokenize=False, add_generation_prompt=True
        )
        start = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        whole = start + tokenizer(f"{answer}<end>", add_special_tokens=False)["input_ids"]
        ids = torch.tensor([whole])
        labels = ids.clone()
        labels[:, : len(start)] = -100
        batches.append({"input_ids": ids, "labels": labels})
    _fit(model, batches)
    folder = tmp_path_factory.mktemp("chat")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def seq2seq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 that paraphrases a line after its task's name, as T5 paraphrasers are trained."""
    torch.manual_seed(0)
    prompts = {f"paraphrase: {line}": answer for line, answer in ANSWERS.items()}
    tokenizer = _tokenizer([*prompts, *prompts.values()], chat=False)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    model = T5ForConditionalGeneration(config).float()
    batches = [
        {
            "input_ids": torch.tensor([tokenizer(prompt)["input_ids"]]),
            "labels": torch.tensor([[*tokenizer(answer)["input_ids"], 1]]),
        }
        for prompt, answer in prompts.items()
    ]
    _fit(model, batches)
    folder = tmp_path_factory.mktemp("seq2seq")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["chat", "seq2seq"])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_a_batch_answers_as_each_alone(kind, batch_size, request):
    folder = request.getfixturevalue(kind)
    requests = [_request(line) for line in ANSWERS]
    with LocalModel(str(folder), batch_size=batch_size, max_new_tokens=40) as writer:
        answers = writer.write([*requests, requests[0]])
        assert [answer.lines for answer in answers[:3]] == [(text,) for text in ANSWERS.values()]
        assert answers[3] == answers[0]
        assert (writer.account.requests, writer.account.failures) == (3, 0)
        assert writer.account.input_tokens > writer.account.output_tokens > 0


def test_a_seq2seq_model_answers_no_questions(seq2seq):
    with (
        LocalModel(str(seq2seq)) as model,
        pytest.raises(UserError, match="answers no questions: name a chat model"),
    ):
        model.ask([Naming("evaluation", "", "a harbour")], stage="asking")


def test_lines_of_a_request_come_back_in_order(seq2seq):
    with LocalModel(str(seq2seq), max_new_tokens=40) as writer:
        assert writer.write([_request(*ANSWERS)])[0].lines == tuple(ANSWERS.values())


def test_an_answer_that_is_none_is_a_failure_and_not_kept(chat, tmp_path):
    for _ in range(2):  # a failure is asked again, an answer is not
        with LocalModel(
            str(chat), cache=AnswerCache(tmp_path / "cache"), max_new_tokens=40
        ) as writer:
            wrong, right = writer.write([_request("one", "two"), _request("a harbour")])
            assert (wrong.lines, wrong.reason) == (None, "1 line for 2")
            assert right.lines == ("a port",)
    assert (writer.account.requests, writer.account.cached, writer.account.failures) == (1, 1, 1)


def test_an_ar_is_no_writer(tmp_path):
    planted_pair.save_planted_ar(tmp_path / "ar")
    with pytest.raises(UserError, match="an AR, which writes no text"):
        LocalModel(str(tmp_path / "ar"))


def test_a_model_without_a_chat_template_is_refused(chat, tmp_path):
    for file in chat.iterdir():
        if file.suffix != ".jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="no chat template"):
        LocalModel(str(tmp_path))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_pickles_are_refused(name: str, chat: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(chat, tmp_path / "chat")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match=r"^hf:[^\n]*a pickle that can run code[^\n]*$"):
        LocalModel(str(folder))


def test_a_config_of_its_own_is_checked(chat: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(chat, tmp_path / "chat")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 10**5}))
    with pytest.raises(UserError, match="num_hidden_layers: must be"):
        LocalModel(str(folder))


def test_a_chat_template_without_end_is_ended(chat: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(chat, tmp_path / "chat")
    (folder / "chat_template.jinja").write_text("{{ 'a' * 10**11 }}")
    with pytest.raises(UserError, match="rendering the chat template needs more than"):
        LocalModel(str(folder))
