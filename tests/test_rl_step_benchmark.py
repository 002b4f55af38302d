"""The benchmark of a step, in miniature."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import obvious_step, rl_step
from benchmarks.reciting_pair import reciting_pair

torch.set_num_threads(1)


def test_every_response_has_as_many_tokens_as_wanted() -> None:
    # Fails with: blocks that are not quiet; a word that is not one token to the AR.
    pair = reciting_pair(d_model=64, blocks=3, tokens=20)
    assert pair.verbalizer is not None
    assert pair.reconstructor is not None
    vectors = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    said = pair.verbalizer.generate(vectors, max_new_tokens=20)
    assert (said.generated.lengths == 20).all()
    texts = [text for text in said.explanations if text is not None]
    assert len(texts) == 64
    assert len(set(texts)) > 32
    assert {len(text.split()) for text in texts} == {17}  # without tags and end


def test_the_obvious_loop_computes_what_ours_does() -> None:
    # Fails with: a response's log-probabilities read a place too late; the vector not injected in
    # transformers' generate; padding counted.
    pair = reciting_pair(d_model=32, blocks=2, tokens=8)
    assert pair.verbalizer is not None
    given = rl_step.settings_of(rl_step.arguments_of(["--tokens", "8", "--samples", "3"]))
    torch.manual_seed(0)
    group = obvious_step._sampled(pair.verbalizer, torch.randn(32), given)
    assert [len(one.ids) for one in group] == [8, 8, 8]
    with torch.no_grad():
        again = obvious_step._log_probs(pair.verbalizer, group)
    for one, log_probs in zip(group, again, strict=True):
        torch.testing.assert_close(log_probs, one.log_probs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lora", [(), ("--lora", "2")])
def test_a_table_comes_out(tmp_path: Path, lora: tuple[str, ...]) -> None:
    out = tmp_path / "step.md"
    size = ("--d-model", "32", "--blocks", "2", "--tokens", "12", "--prompts", "2")
    rl_step.main(
        [*size, "--samples", "2", "--rounds", "1", "--threads", "1", *lora, "--out", str(out)]
    )
    text = out.read_text(encoding="utf-8")
    assert "2 × 2 samples of 12 tokens" in text
    rows = {
        phase: [float(cell.strip(" *")) for cell in cells.split("|")]
        for phase, cells in re.findall(r"^\| (\w+) \| ([\d. |*]+) \|$", text, re.M)
    }
    assert list(rows) == [*rl_step.PHASES, "step"]
    for place in (0, 1, 3):  # seconds: ours, obvious, bare
        assert min(row[place] for row in rows.values()) > 0
        whole = sum(rows[phase][place] for phase in rl_step.PHASES)
        assert rows["step"][place] == pytest.approx(whole, abs=0.003)
