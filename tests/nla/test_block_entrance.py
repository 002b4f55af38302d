"""Vectors that come in as marked rows: what a model makes of them, whatever its blocks return."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

from nla_audit.errors import UserError
from nla_audit.nla.block_entrance import AtBlock, BlockEntrance, marked
from nla_audit.nla.injection import Injection, injected
from nla_audit.nla.vllm_worker import AddsAtBlock

D_MODEL, BLOCKS = 24, 3
#: What a block returns: its residual stream; two addends of it; it, and what was before it.
RETURNED = ("stream", "addends", "stream and before")
#: Of values around 1, a few roundings.
ATOL = {torch.float32: 1e-5, torch.bfloat16: 0.1, torch.float16: 0.01}


class RunsPastHooks(nn.Module):
    """As vLLM's modules that can be compiled."""

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self.forward(*given, **named)


class Block(RunsPastHooks):
    def __init__(self, returned: str) -> None:
        super().__init__()
        self.linear, self._returned = nn.Linear(D_MODEL, D_MODEL), returned

    def forward(self, hidden: torch.Tensor, before: torch.Tensor | None) -> Any:
        is_addend = self._returned == "addends" and before is not None
        stream = hidden + before if is_addend else hidden
        update = torch.tanh(self.linear(stream))
        if self._returned == "addends":
            return update, stream
        return stream + update if self._returned == "stream" else (stream + update, stream)


class Decoder(nn.Module):
    """Each row by itself, as a stranger's model calls its blocks."""

    def __init__(self, returned: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(returned) for _ in range(BLOCKS))
        self._returned = returned

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        before = None
        for block in self.layers:
            output = block(hidden, before)
            hidden, before = output if isinstance(output, tuple) else (output, None)
        return hidden + before if self._returned == "addends" and before is not None else hidden


class Model(RunsPastHooks):
    def __init__(self, returned: str = "addends") -> None:
        super().__init__()
        self.model = Decoder(returned)

    def forward(self, inputs_embeds: torch.Tensor | None = None) -> torch.Tensor:
        if inputs_embeds is None:
            inputs_embeds = torch.zeros(1, D_MODEL, dtype=next(self.parameters()).dtype)
        return self.model(inputs_embeds)


def model(returned: str = "addends", dtype: torch.dtype = torch.float32) -> Model:
    torch.manual_seed(0)
    return Model(returned).to(dtype)


def prompts(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings ``[4, 3, d_model]`` of one prompt, and a vector for each."""
    draws = torch.Generator().manual_seed(1)
    one = torch.randn(3, D_MODEL, generator=draws).to(dtype)
    return one.expand(4, -1, -1).clone(), 30 * torch.randn(4, D_MODEL, generator=draws)


def expected(made: Model, embeddings: torch.Tensor, at: AtBlock) -> torch.Tensor:
    """What comes of it in float32, where the place in the prompt is known."""
    stream, way = embeddings.float(), Injection("add", block=at.block)
    for index, block in enumerate(made.model.float().layers):
        stream = stream + torch.tanh(block.linear(stream))
        if index == at.block:
            stream[:, at.column] = injected(stream[:, at.column], at.vectors, way)
    return stream


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    atol = ATOL[found.dtype]
    torch.testing.assert_close(found.float(), wanted.float(), atol=atol, rtol=atol / 10)


@pytest.mark.parametrize("returned", RETURNED)
@pytest.mark.parametrize("block", range(BLOCKS))
@pytest.mark.parametrize("dtype", ATOL, ids=str)
@torch.inference_mode()
def test_added_at_the_block(returned: str, block: int, dtype: torch.dtype) -> None:
    made, (embeddings, vectors) = model(returned, dtype), prompts(dtype)
    at = AtBlock(block, 1, vectors)
    plain = made(inputs_embeds=embeddings.clone())
    given = marked(embeddings, at)
    buffer = given.reshape(-1, D_MODEL)
    before = buffer.clone()
    entrance = BlockEntrance(made, block, embeddings[0, at.column])
    found = made(inputs_embeds=buffer).view_as(plain)
    assert torch.equal(buffer, before), "an engine's buffer is its own"
    assert torch.equal(made(inputs_embeds=embeddings), plain), "the next pass has none of them"
    # In an order and in parts of the engine's own.
    order = torch.randperm(len(buffer), generator=torch.Generator().manual_seed(2))
    parts = torch.cat([made(inputs_embeds=one) for one in buffer[order].split(5)])
    entrance.remove()
    close(parts, found.view_as(buffer)[order])
    for column in (0, 2):
        assert torch.equal(found[:, column], plain[:, column])
    close(found, expected(made, embeddings, at))
    assert (found - plain)[:, 1].float().norm(dim=-1).min() > 1


@pytest.mark.parametrize("dtype", ATOL, ids=str)
@pytest.mark.parametrize("length", [2.0**-130, 1.0, 2.0**100])
def test_directions_stay_what_they_are(dtype: torch.dtype, length: float) -> None:
    embeddings, vectors = prompts(dtype)
    # Computed in half precision, as most are.
    own = vectors[:1].to(torch.bfloat16).float() * length
    row = marked(embeddings[:1], AtBlock(0, 1, own))[0, 1].double()
    assert torch.isfinite(row).all()
    assert torch.equal(row * (own.double().max() / row.max()), own[0].double())


@torch.inference_mode()
def test_large_embeddings_are_taken_for_what_they_are() -> None:
    made, (embeddings, _) = model(dtype=torch.float16), prompts(torch.float16)
    embeddings[0, 1, 3] = 1e4
    plain = made(inputs_embeds=embeddings)
    BlockEntrance(made, 1, torch.zeros(D_MODEL))
    assert torch.equal(made(inputs_embeds=embeddings), plain)
    assert torch.isfinite(made()).all()  # nor is anything found where nothing is handed over


@torch.inference_mode()
def test_removed_it_leaves_what_was_there() -> None:
    made, (embeddings, vectors) = model(), prompts()
    given, own = marked(embeddings, AtBlock(1, 1, vectors)), made.forward

    def somebodys(inputs_embeds: torch.Tensor) -> torch.Tensor:
        return own(inputs_embeds) + 1

    made.forward = somebodys  # type: ignore[method-assign]
    before = made(inputs_embeds=given)
    entrance = BlockEntrance(made, 1, embeddings[0, 1])
    assert made(inputs_embeds=given).abs().max() < 1e3
    entrance.remove()
    assert torch.equal(made(inputs_embeds=given), before)
    assert made.forward is somebodys
    assert "forward" not in vars(made.model.layers[1])


@torch.inference_mode()
def test_passes_beside_each_other_are_not_mixed() -> None:
    made, (embeddings, vectors) = model(), prompts()
    rows = marked(embeddings, AtBlock(1, 1, vectors))
    BlockEntrance(made, 1, embeddings[0, 1])
    alone = [made(inputs_embeds=one) for one in rows]
    # All have come in before any gets to the block.
    meeting = threading.Barrier(len(rows), timeout=20)

    def meet(_block: Any, _given: Any) -> None:
        meeting.wait()

    made.model.layers[0].linear.register_forward_pre_hook(meet)
    found: dict[int, torch.Tensor] = {}

    @torch.inference_mode()
    def read(row: int) -> None:
        found[row] = made(inputs_embeds=rows[row])

    threads = [threading.Thread(target=read, args=(row,)) for row in range(len(rows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for row, wanted in enumerate(alone):
        assert torch.equal(found[row], wanted)


def test_rows_that_go_missing_on_the_way() -> None:
    made, (embeddings, vectors) = model(), prompts()
    made.model.register_forward_pre_hook(lambda _, given: (given[0][:2],))
    BlockEntrance(made, 1, embeddings[0, 1])
    given = marked(embeddings, AtBlock(1, 1, vectors)).view(-1, D_MODEL)
    with pytest.raises(RuntimeError, match="12 rows entered the model, and 2 the block"):
        made(inputs_embeds=given)
    made.model.layers[1] = Block("addends")
    with pytest.raises(RuntimeError, match="vectors came in, and block 1 did not run"):
        made(inputs_embeds=given)


class TakesTokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Decoder("stream")

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return input_ids


@pytest.mark.parametrize(
    ("made", "block", "said"),
    [
        (Model("stream"), BLOCKS, "only 3 blocks"),
        (TakesTokens(), 1, "^TakesTokens takes no embeddings$"),
        (nn.Linear(2, 2), 1, "no decoder blocks found in Linear"),
    ],
)
def test_models_without_such_a_place(made: nn.Module, block: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        BlockEntrance(made, block, torch.zeros(D_MODEL))
    assert "forward" not in vars(made)


class Worker(AddsAtBlock):
    """What vLLM makes of its own and of ours."""

    def __init__(self, made: nn.Module) -> None:
        self._made = made

    def get_model(self) -> nn.Module:
        return self._made


class TestWorker:
    def test_adds_where_it_was_told_last(self) -> None:
        made, (embeddings, vectors) = model(), prompts()
        worker, found = Worker(made), []
        for block in (0, 2, None, 0):
            row = embeddings[0, 1].tolist()
            assert worker.nla_audit_add_at_block(block, row if block is not None else []) is None
            given = embeddings if block is None else marked(embeddings, AtBlock(block, 1, vectors))
            found.append(made(inputs_embeds=given))
            if block is not None:
                close(found[-1], expected(made, embeddings, AtBlock(block, 1, vectors)))
        assert torch.equal(found[0], found[3])
        assert not torch.allclose(found[0], found[1])

    def test_says_why_not(self) -> None:
        assert "only 3 blocks" in str(Worker(model()).nla_audit_add_at_block(9, []))

    def test_a_model_in_parts(self) -> None:
        """Of a pipeline only who has the first block gets rows, and must have the other one."""
        first, last = model(), model()
        first.model.layers[2] = nn.Identity()
        last.model.layers[0] = last.model.layers[1] = nn.Identity()
        row = [0.0] * D_MODEL
        assert Worker(last).nla_audit_add_at_block(1, row) is None
        assert Worker(first).nla_audit_add_at_block(1, row) is None
        said = Worker(first).nla_audit_add_at_block(2, row)
        assert said == "block 2 is on another device than the first (pipeline_parallel_size)"
        assert "forward" not in vars(last)
