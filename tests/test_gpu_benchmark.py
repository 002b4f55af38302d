"""The script that fills an hour of a GPU, in miniature on a CPU."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks import gpu
from nla_audit.checkpoint import in_vllm
from tests.pairs.engines import VllmStandIn
from tests.pairs.fixtures import as_it_is

torch.set_num_threads(1)


__all__ = ["as_it_is"]


@pytest.mark.slow
@pytest.mark.usefixtures("as_it_is")
def test_a_table_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "find_spec", lambda _: True)
    monkeypatch.setattr(in_vllm, "VllmEngine", VllmStandIn)
    out = tmp_path / "gpu.md"
    size = ("--steps", "1", "--loop-prompts", "1", "--loop-rows", "2")
    gpu.main(["--shape", "miniature", "--device", "cpu", *size, "--out", str(out)])
    text = out.read_text(encoding="utf-8")
    assert "2 × 2 samples of at most 16 tokens" in text
    rows = {
        name: [float(cell.strip(" %").replace(",", "")) for cell in cells.split("|")[:-1]]
        for name, cells in re.findall(r"^\| ([^|]+?) \| (.+\d.*)$", text, re.M)
    }
    phases = [rows[phase] for phase in gpu.PHASES]
    for place in (0, 2):  # ours, and the loop
        whole = rows["**step**"][place]
        assert min(row[place] for row in phases) > 0
        assert whole == pytest.approx(sum(row[place] for row in phases), abs=0.003)
    assert all(0 < row[1] < 100 for row in phases)  # no more than the device can do
    assert rows["ours, AV and AR, tables written"][0] == 12
    assert rows["one row at a time"][0] == 2
    assert all(min(rows[name]) > 0 for name in list(rows)[-5:-3])
    batches = re.findall(r"^\| (ours|ours, compiled|vLLM) \| (\d+) \| (\d+) \|", text, re.M)
    written = {(who, int(rows)): int(tokens) for who, rows, tokens in batches}
    assert set(written) == {(who, n) for who in ("ours", "ours, compiled", "vLLM") for n in (4, 16)}
    assert all(written["ours, compiled", n] == written["ours", n] > n for n in (4, 16))


def test_the_av_explains() -> None:
    bench = gpu.Bench(gpu.SHAPES["miniature"], torch.device("cpu"))
    pair = bench.pair()
    assert pair.verbalizer is not None
    said = pair.verbalizer.generate(bench.vectors, max_new_tokens=64)
    texts = [text for text in said.explanations if text is not None]
    assert len(texts) > 0.8 * len(bench.vectors)
    words = sum(len(text.split()) for text in texts) / len(texts)
    assert 4 < words < 16  # 8 on average, and few behind the cap


def test_the_large_shape_is_that_of_qwen3_8b() -> None:
    bench = gpu.Bench(gpu.SHAPES["qwen3-8b"], torch.device("cpu"))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(bench.config())
    assert sum(one.numel() for one in model.parameters()) == 8_190_735_360
    assert gpu.weights_of(model) == 8_190_735_360 - 151_936 * 4096
    assert model.config.rope_parameters["rope_theta"] == 1e6


def test_not_the_large_shape_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["--device", "cpu"])
    assert "--shape miniature" in capsys.readouterr().err
