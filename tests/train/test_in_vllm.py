"""RL whose responses another engine samples: it follows the policy, and the run learns by it."""

from __future__ import annotations

import shutil
from contextlib import closing
from importlib.util import find_spec
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nla_audit.checkpoint.load import load
from nla_audit.errors import UserError
from nla_audit.nla.injection import Injection
from nla_audit.nla.vllm_settings import VllmSettings
from nla_audit.nla.vllm_worker import AddsAtBlock
from nla_audit.train import in_vllm
from nla_audit.train.dataset import Dataset, make_dataset
from nla_audit.train.generated_texts import GENERATED_FILE
from nla_audit.train.interruption import StopSignal
from nla_audit.train.layout import Layout
from nla_audit.train.ranks import Ranks
from nla_audit.train.read_recipe import parse_recipe
from nla_audit.train.recipe_optimizer import Lora, Optimizer
from nla_audit.train.recipe_rl import Evaluating, Rl
from nla_audit.train.recipe_warm_start import OnGenerated
from nla_audit.train.rl import Arms, RlRun
from nla_audit.train.state import METRICS_FILE, read_metrics
from nla_audit.train.warm_start_stage import _said_by_the_av
from tests.pairs import talking
from tests.pairs.engines import VllmStandIn
from tests.pairs.explaining import FLOAT32
from tests.train import miniature

D_MODEL = 64
SETTINGS = Rl(
    steps=12,
    prompts=2,
    samples=8,
    max_new_tokens=16,
    # Each token costs as much as the worst reading: a bandit whose best answer is the shortest.
    length_penalties=(1.0,),
    kl=0.0,
    lora=Lora(rank=4, alpha=4.0),
    optimizer=Optimizer(learning_rate=3e-2, schedule="constant", warmup_steps=0),
    evaluate=Evaluating(every=100, rows=4),
    engine="vllm",
    engine_options={"enforce_eager": True, "distributed_executor_backend": "uni"},
)


class FollowingStandIn(VllmStandIn):
    """A :class:`VllmStandIn` that may be told to keep what it was given first."""

    follows = True

    def reload(self, folder: Path) -> None:
        if self.follows:
            super().reload(folder)

    def take_adapter(self, folder: Path) -> int:
        return super().take_adapter(folder) if self.follows or len(self._models) == 1 else 1


@pytest.fixture(scope="module")
def pair_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking.save_pair(tmp_path_factory.mktemp("pair") / "pair", d_model=D_MODEL, words=5)


@pytest.fixture(scope="module")
def adding_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors are added at a block."""
    root = tmp_path_factory.mktemp("adding") / "pair"
    return talking.save_pair(root, d_model=D_MODEL, words=5, injection=Injection("add", block=1))


def dataset_of(gold: str | None = None) -> Dataset:
    rows = 24
    return make_dataset(
        np.random.default_rng(0).normal(size=(rows, D_MODEL)).astype(np.float32),
        doc_ids=[f"d{row // 2}" for row in range(rows)],
        positions=list(range(rows)),
        source_texts=[None] * rows,
        explanations=[gold] * rows,
        held_out_share=0.2,
        seed=0,
    )


def trained(pair_path: Path, folder: Path, **changes: Any) -> list[dict[str, Any]]:
    """The steps of a whole run."""
    dataset = dataset_of()
    pair = load(pair_path / "av", pair_path / "ar", placement=FLOAT32)
    assert pair.verbalizer is not None
    assert pair.reconstructor is not None
    run = RlRun(
        pair.verbalizer,
        Arms(pair.reconstructor, pair.reconstructor),
        dataset,
        SETTINGS.model_copy(update=changes),
        length_penalty=1.0,
        seed=0,
        folder=folder,
        key="k",
    )
    run.run(StopSignal(), lambda _: None)
    records = read_metrics(folder / METRICS_FILE)
    return [one for one in records if one["kind"] == "step"]


def learned(steps: list[dict[str, Any]]) -> None:
    """The bandit is learned, from samples of the weights that are trained."""
    lengths = [one["n_tokens"] for one in steps]
    assert lengths[0] > 6
    assert lengths[-1] < 4  # two tags and the end token are three
    assert max(one["sampler_off"] for one in steps) < 1e-3


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[FollowingStandIn]:
    monkeypatch.setattr(in_vllm, "VllmEngine", FollowingStandIn)
    monkeypatch.setattr(in_vllm, "check_installed", lambda: None)
    return FollowingStandIn


#: What is handed over before a step: adapters, the whole with adapters in it, a whole without any.
HANDED_OVER: dict[str, dict[str, Any]] = {
    "adapters": {},
    "merged": {"engine_options": {**SETTINGS.engine_options, "enable_lora": False}},
    "weights": {"lora": None},
}


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(("how", "which"), [("adapters", "adding_pair"), ("merged", "pair_path")])
def test_learns_by_samples_of_its_own_weights(
    request: pytest.FixtureRequest, tmp_path: Path, how: str, which: str
) -> None:
    learned(trained(request.getfixturevalue(which), tmp_path, **HANDED_OVER[how]))


@pytest.mark.parametrize("how", HANDED_OVER)
def test_weights_that_are_not_taken_are_refused(
    pair_path: Path,
    tmp_path: Path,
    stand_in: type[FollowingStandIn],
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    monkeypatch.setattr(stand_in, "follows", False)
    with pytest.raises(UserError, match="the stand-in computes something else than"):
        trained(pair_path, tmp_path, steps=3, **HANDED_OVER[how])


def test_our_own_loop_samples_from_the_policy_itself(pair_path: Path, tmp_path: Path) -> None:
    steps = trained(pair_path, tmp_path, steps=1, engine="own", engine_options={})
    assert "sampler_off" not in steps[0]
    assert "sync" not in steps[0]["time"]


@pytest.mark.usefixtures("stand_in")
def test_refusals() -> None:
    replaced = miniature.verbalizer(injection=Injection("replace", scale=4.0))
    reader = miniature.reconstructor()
    dataset = make_dataset(
        miniature.activations(8),
        doc_ids=[str(row) for row in range(8)],
        positions=[None] * 8,
        source_texts=[None] * 8,
        explanations=[None] * 8,
        held_out_share=0.5,
        seed=0,
    )
    given: dict[str, Any] = {"length_penalty": 0.0, "seed": 0, "folder": Path(), "key": "k"}
    with pytest.raises(UserError, match="start without torchrun"):
        RlRun(replaced, Arms(reader, reader), dataset, SETTINGS, ranks=Ranks(0, 2), **given)
    replaced.model.is_quantized = True
    with pytest.raises(UserError, match="weights that were quantised on loading"):
        in_vllm.PolicyInVllm(replaced, VllmSettings(9))
    with pytest.raises(ValueError, match=r"engine_options are for rl\.engine"):
        Rl(engine_options={"enforce_eager": True})
    with pytest.raises(ValueError, match=r"rl\.engine_options: engine option model: is set by"):
        Rl(engine="vllm", engine_options={"model": "other"})
    with pytest.raises(ValueError, match=r"takes rl\.processes: 1"):
        Rl(engine="vllm", processes=2)
    more: dict[str, Any] = {"optimizer": Optimizer(learning_rate=1e-3)}
    with pytest.raises(
        ValueError, match=r"engine_options are for warm_start\.ar_on_generated\.eng"
    ):
        OnGenerated(engine_options={"enforce_eager": True}, **more)
    with pytest.raises(
        ValueError, match=r"_generated\.engine_options: engine option model: is set"
    ):
        OnGenerated(engine="vllm", engine_options={"model": "other"}, **more)


@pytest.mark.usefixtures("stand_in")
def test_what_vllm_cannot_sample_from_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    def check(
        engine: str = "vllm",
        writer: str = "own",
        processes: int = 1,
        options: dict[str, Any] | None = None,
        **pair: str,
    ) -> None:
        raw: dict[str, Any] = {"name": "n", "target": {"model": "m", "layer_index": 1}}
        writing = {"engine": writer, "optimizer": {"learning_rate": 1e-3}}
        raw |= {"pair": pair, "warm_start": {"ar_on_generated": writing}}
        raw |= {"rl": {"engine": engine}, "data": {"texts": "t"}}
        for section in (writing, raw["rl"]):
            if section["engine"] == "vllm":
                section["engine_options"] = options or {}
        layout = Layout(parse_recipe(raw, "recipe"), tmp_path, tmp_path)
        in_vllm.check_before(layout, Ranks(0, processes))

    check(injection="replace:4")
    check(injection="add:1")
    check(injection="replace:4", options={"enforce_eager": False})
    # A pair that is brought along says by itself where its vectors enter.
    check(av="av", ar="ar")
    check("own", "vllm", av="av", ar="ar", processes=2)  # and so has no warm start
    for engines, setting in (
        (("vllm", "own"), "rl"),
        (("own", "vllm"), r"warm_start\.ar_on_gen.*"),
    ):
        with pytest.raises(
            UserError, match=rf"^{setting}\.engine_options: .* enforce_eager=false: this AV's"
        ):
            check(*engines, injection="add:1", options={"enforce_eager": False})
        with pytest.raises(UserError, match=rf"^{setting}\.engine: vllm .*start without torchrun"):
            check(*engines, processes=2, injection="replace:4")
    (tmp_path / "warm-start").mkdir()
    (tmp_path / "warm-start" / GENERATED_FILE).touch()
    check("own", "vllm", processes=2, injection="replace:4")  # it has written


def test_finished_models_of_the_same_settings_share_a_host() -> None:
    with closing(in_vllm.Hosts()) as hosts:
        assert hosts.host_of(Rl()) is None
        first = hosts.host_of(SETTINGS)
        assert first is not None
        assert first.settings == VllmSettings(16, SETTINGS.engine_options)
        assert hosts.host_of(SETTINGS.model_copy(update={"steps": 3})) is first
        assert hosts.host_of(SETTINGS.model_copy(update={"max_new_tokens": 9})) is not first


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of vLLM's own calls, about torch
@pytest.mark.parametrize("how", ["adapters", "merged"])
@pytest.mark.parametrize("which", ["pair_path", "adding_pair"])
def test_the_real_vllm_follows(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    which: str,
    how: str,
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    learned(trained(request.getfixturevalue(which), tmp_path, **HANDED_OVER[how]))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of vLLM's own calls, about torch
def test_the_real_vllm_follows_embeddings_that_are_trained(
    adding_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The marker's is among them, which vLLM puts back in the place of the vectors."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    told: list[list[float]] = []
    add = AddsAtBlock.nla_audit_add_at_block

    def telling(worker: AddsAtBlock, block: int | None, embedding: list[float]) -> str | None:
        told.append(embedding)
        return add(worker, block, embedding)

    monkeypatch.setattr(AddsAtBlock, "nla_audit_add_at_block", telling)
    steps = trained(adding_pair, tmp_path, steps=4, **HANDED_OVER["weights"])
    assert max(one["sampler_off"] for one in steps) < 1e-3
    assert len(told) == 4
    assert np.abs(np.diff(told, axis=0)).max(axis=1).min() > 1e-3


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of vLLM's own calls, about torch
def test_the_real_vllm_writes_for_the_ar_and_ends(
    pair_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    raw: dict[str, Any] = {"name": "n", "target": {"model": "m", "layer_index": 1}}
    writing = {"engine": "vllm", "engine_options": SETTINGS.engine_options, "texts": 24}
    writing["optimizer"] = {"learning_rate": 1e-3}
    raw |= {"data": {"texts": "t"}, "warm_start": {"ar_on_generated": writing}}
    layout = Layout(parse_recipe(raw, "recipe"), tmp_path, tmp_path / "out")
    shutil.copytree(pair_path / "av", layout.warm_start / "av")
    section = layout.recipe.warm_start.ar_on_generated
    assert section is not None
    before = set(active_children())
    told: list[int] = []
    said = _said_by_the_av(
        layout,
        section,
        dataset_of(" fair noun register story opens"),
        np.arange(24),
        lambda _what, done, _total: told.append(done),
    )
    assert told == [24]
    assert len(said) > 12
    assert len(set(said.values())) > 6
    assert set(active_children()) == before
