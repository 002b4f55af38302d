"""Models and adapters out of the ordinary, read from disk as a user would."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from nla_audit import cli
from nla_audit.checkpoint.check import check_injection
from nla_audit.checkpoint.load import load
from nla_audit.checkpoint.save import save_ar
from nla_audit.errors import UserError
from nla_audit.nla.architecture import keep_first_blocks
from nla_audit.nla.injection import Injection
from nla_audit.nla.prompts import AnswerDecoder, content_tokens, read_explanation
from nla_audit.runs.target import load_target
from nla_audit.train.pair import new_reconstructor
from nla_audit.train.recipe import PairSettings
from nla_audit.train.recipe_data import Target
from tests.nla.test_families import COMMON, WINDOWS, config_of, model_of
from tests.pairs import tiny
from tests.pairs.explaining import FLOAT32, OPTIONS, run, table_of

IDS = [[7, 8, 9, 10, 11, 12], [20, 21, 22]]
PER_LAYER = {
    **COMMON,
    **WINDOWS,
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 8,
}


def saved(folder: Path, config: Any, tokenizer: Any) -> Any:
    model = model_of(config, 0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def states_of(model: Any, ids: list[int]) -> Any:
    with torch.no_grad():
        return model(
            input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False
        ).hidden_states


def extract_layer_1(model: Path, texts: Path, out: Path) -> int:
    """``nla-audit extract`` of five positions; returns the exit code."""
    options = ["--layer", "1", "--device", "cpu", "--minimum-position", "2", "--out", str(out)]
    return cli.run(["extract", str(model), str(texts), *options])


def gemma3n(tokenizer: Any) -> Any:
    n = len(tokenizer)
    special = {"vocab_size": n, "vocab_size_per_layer_input": n, "laurel_rank": 4}
    sparsity = {"activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0]}
    return AutoConfig.for_model("gemma3n_text", **PER_LAYER, **special, **sparsity)


def gemma4(tokenizer: Any) -> Any:
    n = len(tokenizer)
    special = {"vocab_size": n, "vocab_size_per_layer_input": n, "global_head_dim": 8}
    return AutoConfig.for_model("gemma4_text", **PER_LAYER, **special)


class TestFromDisk:
    def test_per_layer_embeddings_at_every_layer(self, tmp_path: Path) -> None:
        tokenizer = tiny.make_tokenizer(bos=True)
        model = saved(tmp_path, gemma4(tokenizer), tokenizer)
        for layer in range(3):  # behind the last block, transformers puts the final norm
            target = load_target(tmp_path, layer_index=layer, placement=FLOAT32)
            found = target.activations(IDS, [[len(ids) - 1] for ids in IDS])
            wanted = [states_of(model, ids)[layer + 1][0, -1].numpy() for ids in IDS]
            np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-3)
        last: list[torch.Tensor] = []
        target = load_target(tmp_path, layer_index=3, placement=FLOAT32)
        model.model.layers[3].register_forward_hook(lambda _m, _i, output: last.append(output))
        states_of(model, IDS[0])
        found = target.activations(IDS[:1], [[5]])
        np.testing.assert_allclose(found[0], last[0][0, 5].numpy(), atol=1e-4, rtol=1e-3)

    def test_shared_keys_are_counted_anew(self) -> None:
        config = gemma4(tiny.make_tokenizer(bos=True))
        config.hidden_size_per_layer_input = 0
        keep_first_blocks(config, 3)
        assert config.kv_sharing_modes == ["store", "store", "reuse"]
        config.num_kv_shared_layers = 1
        keep_first_blocks(config, 1)
        assert config.num_kv_shared_layers == 0

    def test_several_streams_give_the_active_one(self, tmp_path: Path) -> None:
        tokenizer = tiny.make_tokenizer(bos=True)
        model = saved(tmp_path, gemma3n(tokenizer), tokenizer)
        for layer in range(4):
            target = load_target(tmp_path, layer_index=layer, placement=FLOAT32)
            streams: list[torch.Tensor] = []
            handle = model.model.layers[layer].register_forward_hook(
                lambda _m, _i, output, kept=streams: kept.append(output)
            )
            states_of(model, IDS[0])
            handle.remove()
            found = target.activations(IDS[:1], [[5]])
            np.testing.assert_allclose(found[0], streams[0][0, 0, 5].numpy(), atol=1e-4, rtol=1e-3)

    @pytest.mark.parametrize(("make", "layer"), [(gemma3n, 1), (gemma3n, 2), (gemma4, 2)])
    def test_an_ar_of_the_first_blocks_is_saved_and_loaded(
        self, tmp_path: Path, make: Any, layer: int
    ) -> None:
        """Their embeddings of all blocks are one matrix, of which the AR keeps its own part."""
        tokenizer = tiny.make_tokenizer(bos=True)
        model = saved(tmp_path / "base", make(tokenizer), tokenizer)
        settings = Target(model=str(tmp_path / "base"), device="cpu", dtype="float32")
        reader = new_reconstructor(tmp_path / "base", layer, settings, PairSettings())
        ids = reader.prompt_ids(["a story about a fair"])[0]
        blocks: list[torch.Tensor] = []
        model.model.layers[layer].register_forward_hook(
            lambda _m, _i, output: blocks.append(output)
        )
        states_of(model, ids)
        kept: list[torch.Tensor] = []
        handle = reader.decoder.layers[layer].register_forward_hook(
            lambda _m, _i, output: kept.append(output)
        )
        read = reader.reconstruct(["a story about a fair"], notice=lambda _line: None)
        handle.remove()
        ours, theirs = kept[-1][..., -1, :], blocks[0][..., -1, :]
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
        save_ar(reader, tmp_path / "ar")
        again = load(ar=tmp_path / "ar", placement=FLOAT32).reconstructor
        assert again is not None
        found = again.reconstruct(["a story about a fair"], notice=lambda _line: None)
        np.testing.assert_allclose(found, read, atol=1e-4, rtol=1e-3)

    def test_a_vector_that_no_token_would_see_is_refused(self, tmp_path: Path) -> None:
        config = gemma4(tiny.make_tokenizer(bos=True))  # its last two blocks have no keys
        check_injection(Injection("add", block=0), config, tmp_path)
        with pytest.raises(UserError, match=r"no later token would see the vector.* is 0"):
            check_injection(Injection("add", block=1), config, tmp_path)

    def test_vision_wrapper(self, tmp_path: Path) -> None:
        tokenizer = tiny.make_tokenizer(bos=False)
        model = saved(tmp_path / "model", config_of("qwen2_5_vl", len(tokenizer)), tokenizer)
        texts, out = tmp_path / "texts.txt", tmp_path / "out.parquet"
        texts.write_text("a story about a fair, with a quoted word")
        assert extract_layer_1(tmp_path / "model", texts, out) == 0
        rows = pl.read_parquet(out)
        ids = tokenizer(texts.read_text())["input_ids"]
        wanted = states_of(model, ids)[2][0]
        assert rows.height == 5
        for place, vector in rows.select("position", "activation_vector").iter_rows():
            np.testing.assert_allclose(vector, wanted[place].numpy(), atol=1e-4, rtol=1e-3)

    def test_a_vision_wrapper_explains(self, pair_path: Path, tmp_path: Path) -> None:
        """Its weights do not talk: what is asked is that every row is answered for."""
        av = tmp_path / "av"
        tokenizer = AutoTokenizer.from_pretrained(pair_path / "av")
        saved(av, config_of("qwen2_5_vl", len(tokenizer)), tokenizer)
        shutil.copy(pair_path / "av" / "nla_meta.yaml", av)
        table, out = tmp_path / "rows.parquet", tmp_path / "out.parquet"
        vectors = np.random.default_rng(0).normal(size=(3, tiny.D_MODEL)).astype(np.float32)
        table_of(vectors).write_parquet(table)
        shutil.copytree(pair_path / "ar", tmp_path / "ar")
        assert run(tmp_path, table, "--out", out, *OPTIONS) == 0
        assert pl.read_parquet(out).height == 3


def adapter_with_tokens(
    folder: Path, base: Path, *, resized: bool, trained: list[str] | None = None
) -> tuple[Any, Any]:
    """An adapter whose tokenizer has three more tokens than its base has rows.

    Where it was ``resized``, peft saves the rows; ``trained`` are modules that it saves anyway.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<one>", "<two>", "<three>"])
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(0)
    if resized:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=trained)
    wrapped = get_peft_model(model, config)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))
    wrapped.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return wrapped, tokenizer


class TestAddedTokens:
    @pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
    @pytest.mark.parametrize("trained", [None, ["embed_tokens", "lm_head"]], ids=str)
    @pytest.mark.parametrize("how", ["as the AV", "on top of it"])
    def test_rows_saved_along(
        self, how: str, trained: list[str] | None, pair_path: Path, tmp_path: Path
    ) -> None:
        base, folder = pair_path / "av", tmp_path / "adapter"
        wrapped, tokenizer = adapter_with_tokens(folder, base, resized=True, trained=trained)
        sidecar = base / "nla_meta.yaml"
        if how == "as the AV":
            options: dict[str, Any] = {"av": tmp_path / "adapter", "base": base}
        else:
            options = {"av": base, "adapter": tmp_path / "adapter"}
        av = load(**options, sidecar=sidecar, placement=FLOAT32).verbalizer
        assert av is not None
        assert len(av.tokenizer) == len(tokenizer)
        ids = torch.tensor([[5, 9, len(tokenizer) - 1]])
        with torch.no_grad():
            torch.testing.assert_close(av.model(ids).logits, wrapped.float()(ids).logits)

    def test_tokenizer_alone(self, pair_path: Path, tmp_path: Path) -> None:
        base, folder = pair_path / "av", tmp_path / "adapter"
        adapter_with_tokens(folder, base, resized=False)
        assert load(av=base, adapter=folder, placement=FLOAT32).verbalizer is not None
        # A prompt that holds an added token, which has no row.
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = "<three>" + tokenizer.chat_template
        tokenizer.save_pretrained(folder)
        with pytest.raises(UserError, match=r"the prompt holds token .* rows for .* tokens only"):
            load(av=base, adapter=folder, placement=FLOAT32)


class TestThoughts:
    def test_template_that_opens_one(
        self,
        pair_path: Path,
        activations: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        pair = Path(shutil.copytree(pair_path, tmp_path / "pair"))
        tokenizer = AutoTokenizer.from_pretrained(pair / "av")
        before, mark = tokenizer.chat_template.split("<start>model\n")
        tokenizer.chat_template = f"{before}<start>model\n<think>\n{mark}"
        tokenizer.save_pretrained(pair / "av")
        out = tmp_path / "out.parquet"
        assert run(pair, activations, "--out", out, *OPTIONS) == 0
        said = " ".join(capsys.readouterr().err.split())
        assert said.count("the chat template opens a thought (<think>)") == 1
        assert pl.read_parquet(out)["explanation"].drop_nulls().len() > 10

    @pytest.mark.parametrize(
        ("response", "wanted"),
        [
            ("<explanation>a fair</explanation>", "a fair"),
            ("a thought</think>\n\n<explanation>a fair</explanation>", "a fair"),
            (
                "so <explanation>draft</explanation>?</think><explanation>a fair</explanation>",
                "a fair",
            ),
            ("<think>so<explanation></think><explanation>a fair</explanation>", "a fair"),
            ("<explanation>the end of </think></explanation>", "the end of </think>"),
            ("<explanation>a fair</explanation></think>", "a fair"),
            ("a thought without an end", None),
        ],
    )
    @pytest.mark.parametrize("special", [False, True])
    def test_what_is_read(self, response: str, wanted: str | None, special: bool) -> None:
        tokenizer: Any = tiny.make_tokenizer(bos=True)
        if special:
            tags = ["<start>", "<end>", "<think>", "</think>"]
            tokenizer.add_special_tokens({"additional_special_tokens": tags})
        ids = tokenizer(f"{response}<end>", add_special_tokens=False)["input_ids"]
        decode = AnswerDecoder(tokenizer)
        (text,) = decode([ids])
        assert read_explanation(text, ended=True) == wanted
        if wanted is not None:
            alone = tokenizer(wanted, add_special_tokens=False)["input_ids"]
            assert abs(content_tokens(decode, ids, wanted) - len(alone)) <= 2
