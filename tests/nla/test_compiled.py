"""Our own loop with shapes that stay the same: what it says, what it compiles, what it refuses.

That every family says the same is in ``test_families.py``.
"""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nla_audit.checkpoint.load import load
from nla_audit.errors import UserError
from nla_audit.nla import compiled
from nla_audit.nla.architecture import blocks_of, decoder_of, keep_first_blocks
from nla_audit.nla.injection import Injection
from nla_audit.nla.verbalizer import Explanations, Verbalizer
from nla_audit.train.adapters import RL_ADAPTER, add_lora
from nla_audit.train.recipe_optimizer import Lora
from nla_audit.train.recipe_rl import Rl
from tests.pairs import tiny
from tests.pairs.explaining import FLOAT32

TOKENS = 12
#: The step as it is: shapes and buffers are those of a compiled one.
AS_IT_IS = {"disable": True}


def loaded(folder: Path) -> Verbalizer:
    av = load(av=folder, placement=FLOAT32).verbalizer
    assert av is not None
    return av


@pytest.fixture(autouse=True)
def _untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest listens to all logs, and has torch write down every step of a compilation."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)


@pytest.fixture
def av(pair_path: Path) -> Verbalizer:
    """Says explanations of very different lengths."""
    return loaded(pair_path / "av")


def shorten(model: Any, blocks: int) -> None:
    """Fewer blocks are compiled sooner."""
    keep_first_blocks(model.config, blocks)
    del blocks_of(decoder_of(model))[blocks:]


def same(found: Explanations, wanted: Explanations) -> None:
    np.testing.assert_array_equal(found.generated.token_ids, wanted.generated.token_ids)
    np.testing.assert_array_equal(found.generated.ended, wanted.generated.ended)
    np.testing.assert_allclose(found.generated.log_probs, wanted.generated.log_probs, atol=1e-4)


class Recorded:
    """A compiler that keeps the graphs and runs them as they are."""

    def __init__(self) -> None:
        self.graphs: list[torch.fx.GraphModule] = []

    def __call__(self, graph: torch.fx.GraphModule, _inputs: Any) -> Callable[..., Any]:
        self.graphs.append(graph)
        return graph.forward


class TestSameTexts:
    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    def test_groups_of_one_activation(
        self, av: Verbalizer, vectors: np.ndarray, temperature: float
    ) -> None:
        # Fails with: rows filled up with others than their own; a size left while it is needed.
        groups, how = np.repeat(vectors[:7], 5, axis=0), {"max_new_tokens": TOKENS, "seed": 3}
        caps = [1 + row % TOKENS for row in range(len(groups))]
        wanted = [
            av.generate(groups, temperature=temperature, **how),
            av.generate(groups, temperature=temperature, caps=caps, batch_size=20, **how),
        ]
        av.compile(AS_IT_IS)
        same(av.generate(groups, temperature=temperature, **how), wanted[0])
        # Smaller batches go through the same buffers, in which longer rows were.
        same(
            av.generate(groups, temperature=temperature, caps=caps, batch_size=20, **how), wanted[1]
        )

    @pytest.mark.parametrize(
        ("architecture", "how"),
        [
            ("gemma3", Injection("add", block=1)),
            pytest.param("qwen3", Injection("replace", scale=20.0), marks=pytest.mark.slow),
        ],
    )
    def test_in_one_graph(
        self, architecture: str, how: Injection, vectors: np.ndarray, tmp_path: Path
    ) -> None:
        """Whole, with adapters, whatever the number of rows, in buffers that need no copy."""
        tiny.save_pair(tmp_path, architecture, how)
        av = loaded(tmp_path / "av")
        shorten(av.model, 2)  # one with a window, one without
        add_lora(av.model, Lora(rank=2), RL_ADAPTER, seed=0)
        with torch.no_grad():
            for name, weight in av.model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.1)
        av.end_ids = frozenset(range(5, 400, 6))
        wanted = av.generate(vectors[:40], max_new_tokens=TOKENS)
        assert len(set(wanted.generated.lengths.tolist())) > 3
        compiler = Recorded()
        av.compile({"backend": compiler})
        same(av.generate(vectors[:40], max_new_tokens=TOKENS), wanted)
        # Sizes are 64, 32, 16 and 8: the second is seen to be another, if not known before.
        assert len(compiler.graphs) in (1, 2)
        for graph in compiler.graphs:
            # All else, weights and buffers, lies where it lay at the step before.
            moving = [
                str(node.target)
                for node in graph.graph.find_nodes(op="placeholder")
                if isinstance(node.meta["example_value"], torch.Tensor)
                and "_dynamo_static_input_type" not in node.meta["tensor_dict"]
            ]
            assert len(moving) == 1, moving
            assert "ids" in moving[0]

    def test_buffers_stay_where_they_are(self, av: Verbalizer, vectors: np.ndarray) -> None:
        av.compile(AS_IT_IS)
        assert av.steps is not None
        places = []
        for rows in (40, 9, 40, 33):
            av.generate(vectors[:rows], max_new_tokens=TOKENS)
            assert av.steps._cache is not None
            places.append([one.keys.data_ptr() for one in av.steps._cache.layers])
        assert places == [places[0]] * 4

    def test_buffers_that_leave_no_memory_for_a_step_are_given_back(
        self, av: Verbalizer, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wanted = av.generate(vectors[:16], max_new_tokens=TOKENS)
        av.compile(AS_IT_IS)
        assert av.steps is not None
        step = compiled.step

        def of_few_rows(model: Any, cache: Any, ids: torch.Tensor) -> torch.Tensor:
            if len(ids) > 8:
                raise torch.OutOfMemoryError
            return step(model, cache, ids)

        # The comparison, which is not compiled, needs most.
        monkeypatch.setattr(compiled, "step", of_few_rows)
        with pytest.warns(UserWarning, match="out of memory with 16 rows"):
            found = av.generate(vectors[:16], max_new_tokens=TOKENS)
        same(found, wanted)
        assert av.steps._cache is not None
        assert [len(one._buffers[0]) for one in av.steps._cache.layers] == [8] * len(
            av.steps._cache.layers
        )

    @pytest.mark.slow
    @pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
    def test_compiled_in_earnest(self, vectors: np.ndarray, tmp_path: Path) -> None:
        tiny.save_pair(tmp_path, "gemma3", Injection("add", block=1))
        av = loaded(tmp_path / "av")
        av.end_ids = frozenset(range(5, 400, 6))
        wanted = av.generate(vectors[:20], max_new_tokens=TOKENS)
        av.compile()
        same(av.generate(vectors[:20], max_new_tokens=TOKENS), wanted)


class TestRefusals:
    @pytest.fixture
    def shallow(self, av: Verbalizer) -> Verbalizer:
        shorten(av.model, 1)
        return av

    def test_a_model_that_is_compiled_wrongly(
        self, shallow: Verbalizer, vectors: np.ndarray
    ) -> None:
        def wrong(graph: torch.fx.GraphModule, _inputs: Any) -> Callable[..., Any]:
            return lambda *given: tuple(one * 1.1 for one in graph.forward(*given))

        shallow.compile({"backend": wrong})
        with pytest.raises(UserError, match="computes something else once it is compiled"):
            shallow.generate(vectors[:2], max_new_tokens=4)

    def test_a_model_that_is_not_compiled(self, shallow: Verbalizer, vectors: np.ndarray) -> None:
        def broken(*_: Any) -> Any:
            raise RuntimeError("no such kernel\nand much more")

        shallow.compile({"backend": broken})
        with pytest.raises(UserError, match=r"cannot be compiled.*no such kernel") as refused:
            shallow.generate(vectors[:2], max_new_tokens=4)
        assert "\n" not in str(refused.value)

    def test_a_cache_of_fixed_size_that_is_read_wrongly(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        tiny.save_pair(tmp_path, "qwen3", Injection("add", block=1))
        av = loaded(tmp_path / "av")
        monkeypatch.setattr(
            "nla_audit.nla.fixed_cache.FixedLayer.get_seq_length", lambda self: self.place[0] + 1
        )
        with pytest.raises(UserError, match="does not compute the same with a cache of fixed"):
            av.compile(AS_IT_IS)

    def test_several_devices(self, av: Verbalizer) -> None:
        spread = copy.copy(av)
        spread.model = copy.deepcopy(av.model)
        spread.model.lm_head.to("meta")
        with pytest.raises(UserError, match="several devices"):
            spread.compile(AS_IT_IS)

    def test_no_compiler(self, av: Verbalizer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "which", lambda _: None)
        with pytest.raises(UserError, match=r"needs a C\+\+ compiler \(g\+\+"):
            av.compile()
        monkeypatch.setattr(compiled, "find_spec", lambda _: None)
        with pytest.raises(UserError, match="needs Triton"):
            compiled.check_compiler(torch.device("cuda"))

    @pytest.mark.parametrize("other", [{"engine": "vllm"}, {"sharding": "fsdp2"}])
    def test_recipes(self, other: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"rl\.decoding: compiled"):
            Rl.model_validate({"decoding": "compiled", **other})
