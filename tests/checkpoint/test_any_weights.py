"""Weights with any faults at all: a result or one line, and inspecting agrees with loading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nla_audit.checkpoint.load import load
from nla_audit.errors import UserError
from tests.checkpoint.faults import (
    ADAPTER,
    FLOAT32,
    HEAD,
    Edit,
    Tensors,
    edited,
    inspected,
    inspected_or_refused,
    logits,
    sound_logits,
)

_WORDS = ["_orig_mod", "module", "base_model", "model", "weight", "lora_A", "default", "x", "", "9"]

_CHANGES: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda one: one[:1],
    lambda one: one[:0],
    torch.flatten,
    lambda one: one[None],
    lambda one: one.to(torch.int16),
    lambda one: one.to(torch.complex64),
    lambda one: one.to(torch.bfloat16),
    lambda one: one * torch.nan,
    lambda one: one != 0,
]


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    """A few renamings, losses, additions and changes of shape or type, of some tensors or all."""
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["insert", "delete", "lose", "copy", "change"]),
                st.integers(0, 40) | st.just(-1),  # which tensor; −1 is all of them
                st.integers(0, 5),
                st.sampled_from(_WORDS),
                st.sampled_from(_CHANGES),
            ),
            min_size=1,
            max_size=3,
        )
    )

    def edit(tensors: Tensors) -> Tensors:
        for kind, which, place, word, change in steps:
            names = sorted(tensors)
            chosen = names if which < 0 else names[which % max(1, len(names)) :][:1]
            for name in chosen:
                words = name.split(".")
                one = tensors[name]
                if kind != "copy":
                    del tensors[name]
                if kind == "lose":
                    continue
                if kind in ("insert", "copy"):
                    words.insert(place, word)
                elif kind == "delete" and len(words) > 1:
                    words.pop(place % len(words))
                tensors[".".join(words)] = change(one) if kind == "change" else one.clone()
        return tensors

    return edit


@pytest.mark.parametrize("part", [pytest.param("adapter", marks=pytest.mark.slow), "head"])
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(edit=edits())
def test_a_result_or_one_line(
    part: str, edit: Edit, llama: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Loading gives a result or a one-line error, and inspecting says the same."""
    folder = tmp_path_factory.mktemp("any") / part
    source, file = ("adapter", ADAPTER) if part == "adapter" else ("ar", HEAD)
    checkpoint = edited(llama / source, folder, file, edit)
    base = llama / "av" if part == "adapter" else None
    half: dict[str, Any] = {"av" if part == "adapter" else "ar": checkpoint}
    try:
        load(**half, base=base, placement=FLOAT32, notice=lambda _: None)
    except UserError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert "\n" not in said
        assert inspected_or_refused(checkpoint, base, said) != []
    else:
        assert inspected(checkpoint, base) == []
        if part == "adapter":  # what is loaded is applied
            assert not torch.equal(sound_logits(llama / "av"), logits(checkpoint, base=base))
