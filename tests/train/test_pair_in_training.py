"""What the pair reads and is judged by in training is what it is afterwards (docs/failures.md).

Every test names the mutation under which it was seen to fail.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from nla_audit.checkpoint.load import load
from nla_audit.checkpoint.read_sidecar import parse_sidecar
from nla_audit.checkpoint.save import new_sidecar
from nla_audit.errors import UserError
from nla_audit.nla.fve import squared_error
from nla_audit.nla.generation import NO_TOKEN
from nla_audit.nla.injection import Injection
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.responses import response_log_probs
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.train.lengths import Charge
from nla_audit.train.pair import (
    new_reconstructor,
    new_verbalizer,
    save_trained_ar,
    save_trained_av,
)
from nla_audit.train.recipe import PairSettings
from nla_audit.train.recipe_data import Target
from nla_audit.train.recipe_optimizer import Lora, Optimizer
from nla_audit.train.recipe_warm_start import Supervised
from nla_audit.train.reconstruction import accumulate_ar_gradients, ar_trainer, direction_mse
from nla_audit.train.rewards import Samples, rewards_of
from nla_audit.train.rollout import repeated, sample
from nla_audit.train.update import Trainer
from nla_audit.train.warm_start import _trainer, gold_ids, plain_gold
from tests.pairs import tiny
from tests.train import miniature
from tests.train.test_resume import SETTINGS, make_run

ARCHITECTURES = ("llama", "gemma3_text", "qwen3")
TEXTS = ["a story about a fair", "", "formal register; a quoted word, and more of the same"]


def sidecar(tokenizer, role, injection, mse_scale=None):
    return new_sidecar(
        tokenizer,
        role=role,
        d_model=tiny.D_MODEL,
        layer_index=tiny.LAYER,
        injection_char=tiny.MARKER,
        injection=injection,
        av_template=tiny.AV_TEMPLATE,
        ar_template=tiny.AR_TEMPLATE,
        base_model="tiny/random",
        stage="test",
        mse_scale=mse_scale,
    )


def verbalizer(architecture, injection):
    tokenizer = tiny.make_tokenizer(bos=tiny.has_bos(architecture))
    model = tiny.random_model(tiny.make_config(architecture, len(tokenizer)), seed=0)
    return Verbalizer(model, tokenizer, sidecar(tokenizer, "av", injection))


def reconstructor(architecture):
    tokenizer = tiny.make_tokenizer(bos=tiny.has_bos(architecture))
    config = tiny.make_config(architecture, len(tokenizer))
    tiny.keep_first_blocks(config, tiny.LAYER + 1)
    model = tiny.random_model(config, seed=1)
    return Reconstructor(
        model,
        torch.eye(tiny.D_MODEL),
        tokenizer,
        sidecar(tokenizer, "ar", Injection("add", block=1)),
    )


def vectors(rows, width=tiny.D_MODEL):
    return np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)


@pytest.mark.parametrize("injection", [Injection("replace", scale=5.0), Injection("add", block=1)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_sees_the_vector_where_sampling_did(architecture, injection):
    # Fails with: the vector injected a token too late in response_log_probs; embeddings looked up
    # in the raw table there (Gemma's module multiplies them by √d); the prompt given a second BOS;
    # responses padded on the left.
    av = verbalizer(architecture, injection)
    prompts = repeated(vectors(3), np.arange(3), 2)
    said = sample(av, prompts, seed=0, max_new_tokens=12, generation_batch=None).generated
    token_ids = torch.from_numpy(said.token_ids)
    is_token = token_ids != NO_TOKEN
    with torch.no_grad():
        found = response_log_probs(
            av, torch.from_numpy(prompts.activations), torch.where(is_token, token_ids, 0)
        )
    old = torch.from_numpy(said.log_probs)
    assert (found - old)[is_token].abs().max() < 2e-4


@pytest.mark.parametrize("mse_scale", [np.sqrt(tiny.D_MODEL), None], ids=["scaled", "raw"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_ar_is_trained_on_what_it_is_scored_by(architecture, mse_scale):
    # Fails with: AR prompts tokenised without special tokens in accumulate_ar_gradients (no BOS);
    # read at the padded end instead of the last token; `mse_scale or √d` in direction_mse (an
    # explicit null is raw MSE); targets of other rows.
    ar = reconstructor(architecture)
    ar.mse_scale = mse_scale
    targets = 3 * vectors(len(TEXTS))
    loss = accumulate_ar_gradients(ar, TEXTS, targets, token_budget=40)
    wanted, _ = squared_error(ar.reconstruct(TEXTS), targets, mse_scale)
    assert loss == pytest.approx(wanted.mean(), rel=1e-4)


def test_the_mse_scale_is_kept_when_an_ar_is_saved(tmp_path):
    # Fails with: mse_scale filled in with √d wherever it is null in parse_sidecar.
    ar = miniature.reconstructor()
    raw = dict(ar.sidecar.raw)
    raw["extraction"] = {**raw["extraction"], "mse_scale": None}
    ar.sidecar = replace(parse_sidecar(raw, ar.sidecar.path), role="ar")
    save_trained_ar(ar, tmp_path / "ar", {"stage": "rl", "ar_trained_in_rl": True})
    found = load(ar=tmp_path / "ar").reconstructor
    assert found.mse_scale is None
    meta = yaml.safe_load((tmp_path / "ar" / "nla_meta.yaml").read_text(encoding="utf-8"))
    del meta["extraction"]["mse_scale"]
    (tmp_path / "ar" / "nla_meta.yaml").write_text(yaml.safe_dump(meta), encoding="utf-8")
    assert load(ar=tmp_path / "ar").reconstructor.mse_scale == pytest.approx(4.0)


def test_direction_mse_is_the_mse_of_the_audit():
    # Fails with: `mse_scale or √d` in direction_mse; the mean taken over the batch.
    predicted, wanted = vectors(4), 2 * vectors(4)[::-1].copy()
    for scale in (4.0, None):
        ours = direction_mse(torch.from_numpy(predicted), torch.from_numpy(wanted), scale)
        np.testing.assert_allclose(ours, squared_error(predicted, wanted, scale)[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("gold", "read"),
    [
        ("  about a fair\n", "about a fair"),
        ("<explanation>\nabout a fair </explanation>", "about a fair"),
        ("well: <explanation> </explanation> and more", ""),
    ],
)
def test_the_ar_reads_gold_without_tags_and_stripped(gold, read):
    # Fails with: `.strip()` left out of plain_gold; tags left in.
    assert plain_gold(gold) == read


@pytest.mark.parametrize("response", [" x\n</explanation>", "x</explanation>"])
def test_the_ar_reads_samples_stripped(response):
    # Fails with: `.strip()` left out of read_explanation.
    av = verbalizer("llama", Injection("add", block=1))
    ids = av.tokenizer(f"<explanation>{response}<end>", add_special_tokens=False)["input_ids"]
    assert av.read(miniature.generated([ids])).explanations == ["x"]


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_gold_responses_have_no_bos_and_one_end(architecture):
    # Fails with: add_special_tokens=True in gold_ids (a BOS in the middle of the sequence); no end
    # token appended, or one that does not end an answer.
    av = verbalizer(architecture, Injection("add", block=1))
    (ids,) = gold_ids(av, ["about a fair"])
    bos = av.tokenizer.convert_tokens_to_ids("<bos>")
    assert bos not in ids
    assert [token in av.end_ids for token in ids] == [False] * (len(ids) - 1) + [True]
    assert av.tokenizer.decode(ids[:-1]) == "<explanation>about a fair</explanation>"


def test_a_foreign_tokenizer_is_refused_before_training():
    # Fails with: neighbours of the marker not compared in av_prompt.
    tokenizer = miniature.tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("<end>", "<eos>")
    raw = dict(miniature.sidecar("av", Injection("replace", scale=4.0)).raw)
    pinned = parse_sidecar(raw, miniature.verbalizer().sidecar.path)
    Verbalizer(miniature.model(), tokenizer, pinned)  # the marker's neighbours are the same
    other = {**raw, "prompt_templates": {**raw["prompt_templates"], "av": "{injection_char} of"}}
    with pytest.raises(UserError, match="neighbours"):
        Verbalizer(miniature.model(), tokenizer, parse_sidecar(other, pinned.path))


def test_the_prompt_is_a_list_of_ids():
    # Fails with: chat_ids returning `apply_chat_template(tokenize=True)`, which transformers 5
    # makes an encoding.
    av = verbalizer("llama", Injection("add", block=1))
    assert all(type(token) is int for token in av.prompt.ids)
    assert av.tokenizer.decode(av.prompt.ids).count("<bos>") == 1
    marker = av.tokenizer.convert_ids_to_tokens(av.prompt.ids[av.prompt.marker])
    assert av.tokenizer.convert_tokens_to_string([marker]) == tiny.MARKER


def test_a_description_of_the_marker_raises_the_alarm_and_can_cost():
    # Fails with: the term cjk always 0.
    samples = Samples(
        ["㈎ 括弧", "a fair"],
        np.array([1.0, 1.0]),
        np.array([5, 5]),
        np.array([2, 2]),
        np.array([0.75, 0.0]),
    )
    rewards, terms = rewards_of(samples, {"cjk": -2.0}, length_penalty=0.0, charge=Charge())
    assert rewards.tolist() == terms["cjk"].tolist() == [-1.5, 0.0]


def test_length_in_content_tokens_leaves_the_overhead_out():
    # Fails with: n_tokens counted whatever `length_counts` says.
    samples = Samples(
        ["", "a b c"],
        np.array([1.0, 1.0]),
        np.array([11, 14]),
        np.array([0, 3]),
        np.zeros(2),
    )
    _, terms = rewards_of(samples, {}, length_penalty=0.1, charge=Charge("content"))
    np.testing.assert_allclose(terms["length"], [0.0, -0.3])
    assert miniature.advantages(terms["length"], 2, "centered").tolist() == pytest.approx(
        [0.15, -0.15]
    )


def test_the_ar_learns_from_empty_explanations_but_not_from_failed_ones(warm, tmp_path):
    # Fails with: `if text` for `if text is not None` in _update_ar; failed ones read as "".
    run = make_run(warm, tmp_path)
    prompts = repeated(warm.dataset.activations[:1], warm.dataset.idx[:1], 4)
    texts = ["", None, "at noon", None]
    predicted = run.arms.training.reconstruct(texts)
    mse, _ = squared_error(predicted, prompts.activations, run.arms.training.mse_scale)
    zeros = np.zeros(4, dtype=np.int64)
    samples = Samples(texts, mse, zeros, zeros, np.zeros(4))
    figures = run._update_ar(prompts.activations, samples, step=0)
    assert figures["ar_loss"] == pytest.approx(np.nanmean(mse), rel=1e-5)
    assert mse[0] != pytest.approx(mse[2], rel=1e-3)


def test_an_ar_in_bf16_is_trained_in_float32():
    # Fails with: `model.float()` left out of rl._ar_trainer; the head kept in the model's dtype.
    ar = miniature.reconstructor()
    ar.model.bfloat16()
    trainer = ar_trainer(ar, SETTINGS, seed=0)
    assert {one.dtype for one in trainer.parameters.values()} == {torch.float32}
    assert ar.head.dtype == torch.float32
    before = ar.head.detach().clone()
    accumulate_ar_gradients(ar, ["at noon"], miniature.activations(1), None)
    trainer.step(0)
    assert not torch.equal(ar.head, before)


@pytest.mark.parametrize("lora", [None, Lora(rank=2, alpha=4.0)], ids=["full", "lora"])
def test_the_warm_start_in_bf16_is_trained_in_float32(lora):
    # Fails with: `model.float()` left out of warm_start._trainer.
    model = miniature.model().bfloat16()
    half = Supervised(optimizer=Optimizer(learning_rate=1e-3), lora=lora)
    trainer = _trainer(model, {}, half, seed=0)
    assert {one.dtype for one in trainer.parameters.values()} == {torch.float32}
    assert all(one.requires_grad for one in trainer.parameters.values())


def test_a_degenerate_prediction_does_not_outweigh_all_that_follows():
    # Fails with: gradients not clipped in Trainer.step, for then the optimiser's average of their
    # squares is so large that nothing is learnt for thousands of steps.
    ar = miniature.reconstructor()
    with torch.no_grad():
        ar.head.mul_(1e-9)
    ar.head.requires_grad_(True)
    trainer = Trainer({"head": ar.head}, Optimizer(learning_rate=1e-3), steps=10)
    accumulate_ar_gradients(ar, ["at noon"], miniature.activations(1), None)
    assert float(ar.head.grad.norm()) > 1e6
    assert trainer.step(0) > 1e6
    assert torch.isfinite(ar.head).all()
    assert trainer.optimizer.state[ar.head]["exp_avg_sq"].max() <= 1.0


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_a_base_model_trains_on_the_plain_template(architecture, tmp_path):
    # Fails with: the template given to one half only, or not saved; a BOS of the template's beside
    # the tokenizer's own; an answer that ends in no token, or in one that is not trained.
    tokenizer = tiny.make_tokenizer(bos=tiny.has_bos(architecture))
    model = tiny.random_model(tiny.make_config(architecture, len(tokenizer)), seed=0)
    tokenizer.chat_template = None
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "base")
    target = Target(model=str(tmp_path / "base"), device="cpu")
    prompts = {"marker": tiny.MARKER, "av_template": tiny.AV_TEMPLATE}
    with pytest.raises(UserError, match=r"no chat template.*pair\.chat_template: plain"):
        new_verbalizer(tmp_path / "base", tiny.LAYER, target, PairSettings(**prompts))
    settings = PairSettings(**prompts, chat_template="plain")
    long = settings.model_copy(update={"marker": "a fair, with a quoted word"})
    with pytest.raises(UserError, match=f"must be one token.*'{tiny.MARKER}' would do"):
        new_verbalizer(tmp_path / "base", tiny.LAYER, target, long)
    av = new_verbalizer(tmp_path / "base", tiny.LAYER, target, settings)
    new_reconstructor(tmp_path / "base", tiny.LAYER, target, settings)
    text = av.tokenizer.decode(av.prompt.ids)
    bos = tokenizer.bos_token if tiny.has_bos(architecture) else ""
    message = tiny.AV_TEMPLATE.format(injection_char=tiny.MARKER)
    assert text == f"{bos}user:\n{message}\n\nassistant:\n"
    assert gold_ids(av, ["noun"])[0][-1] == tokenizer.eos_token_id
    save_trained_av(av, tmp_path / "av", {"stage": "warm_start"})
    assert load(av=tmp_path / "av").verbalizer.prompt == av.prompt
