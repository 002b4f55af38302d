"""An AV that is handed over to another engine: the seam, and what an engine may get wrong."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from nla_audit.checkpoint.load import load
from nla_audit.errors import UserError
from nla_audit.nla import vllm_engine
from nla_audit.nla.block_entrance import AtBlock
from nla_audit.nla.engine import hand_over
from nla_audit.nla.generation import Generated
from nla_audit.nla.injection import Injection
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.nla.vllm_engine import VllmEngine
from nla_audit.nla.vllm_settings import SET_FOR_BLOCKS, VllmSettings
from nla_audit.nla.vllm_worker import AddsAtBlock
from nla_audit.train.keys import digest, hashed
from nla_audit.train.recipe_optimizer import Optimizer
from nla_audit.train.recipe_rl import Rl
from nla_audit.train.recipe_warm_start import OnGenerated
from tests.pairs import tiny
from tests.pairs.engines import StandIn
from tests.pairs.explaining import FLOAT32
from tests.train import miniature

TOKENS = 12


def loaded(folder: Path) -> Verbalizer:
    av = load(av=folder, placement=FLOAT32).verbalizer
    assert av is not None
    return av


def handed_over(folder: Path, **options: Any) -> tuple[Verbalizer, StandIn]:
    av = loaded(folder)
    engine = StandIn(copy.deepcopy(av.model), **options)
    hand_over(av, lambda: engine)
    return av, engine


class TestSeam:
    # Gemma multiplies embeddings by √d: what is injected must not be.
    @pytest.mark.parametrize("architecture", ["qwen2", "gemma3"])
    @pytest.mark.parametrize(
        "way", [Injection("replace", scale=20.0), Injection("add", block=1)], ids=str
    )
    def test_says_what_our_own_loop_says(
        self, architecture: str, way: Injection, vectors: np.ndarray, tmp_path: Path
    ) -> None:
        tiny.save_pair(tmp_path, architecture, way)
        own, (other, _) = loaded(tmp_path / "av"), handed_over(tmp_path / "av")
        wanted = own.generate(vectors[:4], max_new_tokens=TOKENS, temperature=0).generated
        found = other.generate(vectors[:4], max_new_tokens=TOKENS, temperature=0).generated
        longest = wanted.token_ids.shape[1]
        np.testing.assert_array_equal(found.token_ids[:, :longest], wanted.token_ids)
        np.testing.assert_array_equal(found.lengths, wanted.lengths)
        np.testing.assert_array_equal(found.ended, wanted.ended)
        np.testing.assert_allclose(found.log_probs[:, :longest], wanted.log_probs, atol=1e-4)

    def test_a_rows_sampling_is_its_own(self, pair_path: Path, vectors: np.ndarray) -> None:
        av, _ = handed_over(pair_path / "av")
        keys = [5, 2**63 + 1, 7, 9]
        whole = av.generate(vectors[:4], max_new_tokens=TOKENS, seed=3, row_keys=keys)
        parts = av.generate(
            vectors[[3, 1]], max_new_tokens=TOKENS, seed=3, row_keys=[9, keys[1]], batch_size=1
        )
        assert parts.responses == [whole.responses[3], whole.responses[1]]
        others = av.generate(vectors[:4], max_new_tokens=TOKENS, seed=4, row_keys=keys)
        assert others.responses != whole.responses

    def test_caps_are_passed_on(self, pair_path: Path, vectors: np.ndarray) -> None:
        av, _ = handed_over(pair_path / "av")
        said = av.generate(vectors[:3], max_new_tokens=TOKENS, caps=[1, 2, TOKENS])
        assert said.generated.lengths[0] == 1
        assert said.generated.lengths[1] == 2

    def test_only_embeddings_are_kept(self, pair_path: Path) -> None:
        av, _ = handed_over(pair_path / "av")
        embeddings = av.model.get_input_embeddings().weight
        kept = [one for one in av.model.parameters() if not one.is_meta]
        assert [id(one) for one in kept] == [id(embeddings)]


class TestRefusals:
    def test_other_weights_than_the_pairs(self, pair_path: Path) -> None:
        av = loaded(pair_path / "av")
        other = copy.deepcopy(av.model)
        with torch.no_grad():
            other.lm_head.weight.mul_(0.9)
        with pytest.raises(UserError, match=r"the stand-in computes something else.*nats"):
            hand_over(av, lambda: StandIn(other))
        assert av.engine is None

    def test_vectors_of_which_nothing_is_heard(self, tmp_path: Path) -> None:
        """An engine that does not add them."""
        tiny.save_pair(tmp_path, "qwen2", Injection("add", block=1))
        av = loaded(tmp_path / "av")

        class Deaf(StandIn):
            def generate(self, prompts: torch.Tensor, **how: Any) -> Generated:
                return super().generate(prompts, **{**how, "at_block": None})

        with pytest.raises(UserError, match="the stand-in computes something else"):
            hand_over(av, lambda: Deaf(copy.deepcopy(av.model)))

    def test_embeddings_for_each_block(self, pair_path: Path) -> None:
        av = loaded(pair_path / "av")
        av.model.config.hidden_size_per_layer_input = 8
        with pytest.raises(UserError, match="every block of this model is given embeddings"):
            hand_over(av, lambda: StandIn(av.model))


def set_vllm(monkeypatch: pytest.MonkeyPatch, llm: Any) -> None:
    """Have another class in the place of ``vllm.LLM``."""
    vllm, platforms = ModuleType("vllm"), ModuleType("vllm.platforms")
    contents = {"LLM": llm, "SamplingParams": SimpleNamespace, "__version__": "0"}
    vars(vllm).update(contents)
    vars(platforms)["current_platform"] = SimpleNamespace(device_type="none")
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    monkeypatch.setattr("nla_audit.nla.vllm_settings.find_spec", lambda name: object())
    monkeypatch.setattr("nla_audit.nla.vllm_engine._SHOWS_LOG", False)
    for name in ("VLLM_NO_USAGE_STATS", "VLLM_LOGGING_STREAM", "VLLM_LOGGING_LEVEL"):
        monkeypatch.setenv(name, "1")  # so that what is set there is taken back


class TestStart:
    """How vLLM's own words become one line, with a vLLM that only fails."""

    def start(
        self,
        monkeypatch: pytest.MonkeyPatch,
        fail: Any,
        injection: Injection | None = None,
        **options: Any,
    ) -> str:
        set_vllm(monkeypatch, fail)
        av = miniature.verbalizer(injection=injection)
        with pytest.raises(UserError) as refused:
            VllmEngine(av, Path("av"), VllmSettings(50, options))
        return str(refused.value)

    def test_the_cause_is_found_in_the_log(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        def fail(**_: Any) -> None:
            sys.__stderr__.write("ERROR x\n(EngineCore) ERROR ValueError: Free memory 3 GiB\n")
            sys.__stderr__.flush()
            raise RuntimeError("Engine core initialization failed. See root cause above.")

        said = self.start(monkeypatch, fail)
        assert said == "vLLM does not start: ValueError: Free memory 3 GiB"
        assert capfd.readouterr().err == ""

    def test_an_invalid_option(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(**_: Any) -> None:
            raise ValueError(
                "1 validation error for ModelConfig\n  Value error, it is too long "
                "[type=value_error, input_value=1]\n    For further information"
            )

        assert self.start(monkeypatch, fail) == "vLLM does not start: it is too long"

    def test_what_is_not_the_users_to_say(self, monkeypatch: pytest.MonkeyPatch) -> None:
        said = self.start(monkeypatch, None, logprobs_mode="raw_logits")
        assert said == "engine option logprobs_mode: is set by nla-audit"

    @pytest.mark.parametrize(
        ("name", "value"), [("enforce_eager", False), ("worker_extension_cls", "of.mine")]
    )
    def test_what_keeps_vectors_from_a_block(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
    ) -> None:
        def fail(**given: Any) -> None:
            raise ValueError(f"{name} is {given.get(name)}")

        added = Injection("add", block=1)
        said = self.start(monkeypatch, fail, added, **{name: value})
        assert said.startswith(f"engine option {name}={str(value).lower()}: this AV's vectors are")
        # Elsewhere it is the user's to say.
        assert f"{name} is {value}" in self.start(monkeypatch, fail, **{name: value})
        found = self.start(monkeypatch, fail, added)
        assert f"{name} is {SET_FOR_BLOCKS[name]}" in found

    def test_a_secret_is_not_for_the_record(self, monkeypatch: pytest.MonkeyPatch) -> None:
        said = self.start(monkeypatch, None, hf_token="hf_0123")
        assert said.startswith("engine option hf_token: would stand in the record")
        assert "0123" not in said


class FakeVllm:
    """Says an end token to everything, and keeps what it was told."""

    answers: ClassVar[list[str | None]] = [None, None]

    def __init__(self, **options: Any) -> None:
        self.told: list[tuple[Any, ...]] = []

    def collective_rpc(self, method: str, args: tuple[Any, ...]) -> list[str | None]:
        assert hasattr(AddsAtBlock, method)
        self.told.append(args)
        return self.answers

    def reset_prefix_cache(self) -> None:
        self.told.append(("forget",))

    def generate(self, asked: list[dict[str, Any]], *_: Any, **__: Any) -> list[Any]:
        self.told.append(("generate", asked[0]["prompt_embeds"]))
        token = {2: SimpleNamespace(logprob=-1.0)}
        said = SimpleNamespace(token_ids=[2], logprobs=[token], finish_reason="stop")
        return [SimpleNamespace(outputs=[said]) for _ in asked]


class TestBlocks:
    """What vLLM's workers are told of blocks, and when."""

    def ask(self, engine: VllmEngine, block: int | None, embedding: float = 1.0) -> list[Any]:
        """What vLLM was told of one row, whose token has this embedding."""
        at = None if block is None else AtBlock(block, 1, torch.ones(1, 4))
        engine._model.told.clear()
        engine.generate(
            torch.full((1, 3, 4), embedding),
            at_block=at,
            end_ids=frozenset({2}),
            max_new_tokens=5,
            temperature=0,
            seeds=[0],
        )
        *told, (_, row) = engine._model.told
        assert (float(row.max()) > 1e9) is (at is not None)
        assert torch.equal(row[[0, 2]], torch.full((2, 4), embedding))
        return told

    def engine(self, monkeypatch: pytest.MonkeyPatch) -> VllmEngine:
        set_vllm(monkeypatch, FakeVllm)
        av = miniature.verbalizer(injection=Injection("add", block=1))
        return VllmEngine(av, Path("av"), VllmSettings(50))

    def test_told_when_it_is_another(self, monkeypatch: pytest.MonkeyPatch) -> None:
        engine, forget = self.engine(monkeypatch), ("forget",)
        assert self.ask(engine, None) == []
        assert self.ask(engine, 1) == [forget, (1, [1.0] * 4)]
        assert self.ask(engine, 1) == []
        # Training moved it.
        assert self.ask(engine, 1, 1.5) == [forget, (1, [1.5] * 4)]
        assert self.ask(engine, 2, 1.5) == [forget, (2, [1.5] * 4)]
        # Another AV, whose vectors enter by embeddings.
        assert self.ask(engine, None) == [forget, (None, [])]
        assert self.ask(engine, None) == []

    def test_a_vllm_without_such_a_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = self.engine(monkeypatch)
        monkeypatch.setattr(FakeVllm, "answers", [None, "Odd takes no embeddings"])
        for _ in range(2):  # it is not taken for done
            with pytest.raises(UserError) as refused:
                self.ask(engine, 1)
            assert str(refused.value) == (
                "vLLM cannot add vectors at block 1 of this model: Odd takes no embeddings: use "
                "engine own"
            )


def test_what_vllm_cut_off_is_no_answer() -> None:
    def completion(reason: str) -> Any:
        return SimpleNamespace(finish_reason=reason)

    vllm_engine._refuse_cut_off([completion("stop"), completion("length")])
    with pytest.raises(RuntimeError, match="told to end"):
        vllm_engine._refuse_cut_off([completion("stop"), completion("abort")])


@pytest.mark.parametrize(
    "section", [Rl, partial(OnGenerated, optimizer=Optimizer(learning_rate=1e-3))]
)
def test_room_may_change_when_a_run_goes_on(section: Callable[..., BaseModel]) -> None:
    def key(**options: Any) -> str:
        return digest(section(engine="vllm", engine_options=options))

    # Those of before engines could be named go on, too.
    assert not [name for name in hashed(section()) if name.startswith("engine")]
    assert key() != digest(section())
    assert key() == key(gpu_memory_utilization=0.3, max_num_seqs=4)
    assert key() != key(enforce_eager=True)
    assert key(enforce_eager=True) == key(enforce_eager=True, gpu_memory_utilization=0.3)
