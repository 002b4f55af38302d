"""Two processes take the step that one would have taken."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.fsdp import FSDPModule

from nla_audit.checkpoint.load import load
from nla_audit.errors import UserError
from nla_audit.train.grpo import response_weights
from nla_audit.train.interruption import Stopped, StopSignal
from nla_audit.train.pair import save_trained_ar, save_trained_av
from nla_audit.train.ranks import Ranks
from nla_audit.train.recipe_optimizer import Lora
from nla_audit.train.sharding import is_sharded, plain_weights, shard, whole
from nla_audit.train.state import STATE_FILE
from tests.pairs import tiny
from tests.train import miniature
from tests.train.children import in_two_processes
from tests.train.close import close
from tests.train.test_resume import SETTINGS, make_run, without_times

#: Two activations a process, and a cap that not every response keeps to, so that the processes
#: differ in how many explanations they read.
SHARED = SETTINGS.model_copy(update={"prompts": 4, "steps": 3, "max_new_tokens": 9})

#: Of float32 sums in another order: a few hundred numbers, each rounded to a share of 2⁻²⁴.
ROUNDING = 1e-5


def make_smooth_run(warm, folder, settings, *, ranks=None):
    """A run whose every step is a smooth function of its gradients.

    AdamW's is not with its own ε of 1e-8: where a weight's gradient is of that size, and every
    model has such weights, the digits that rounding leaves to the order of summation decide how
    far and even in which direction the weight goes, up to a whole learning rate. Another
    processor sums in another order. With ε a tenth of the norm to which gradients are clipped, a
    difference of a share δ of that norm moves a weight by at most some 10 δ learning rates, while
    gradients that are wrong still make other weights.
    """
    run = make_run(warm, folder, settings, ranks=ranks)
    for trainer in run.trainers.values():
        for group in trainer.optimizer.param_groups:
            group["eps"] = trainer.settings.max_grad_norm / 10
    return run


def assert_same_run(folder, wanted, settings) -> None:
    """The same metrics and the same state, but for rounding, of two smooth runs.

    A gradient is a sum of up to some hundred numbers, each rounded to 2⁻²⁴: in another order it
    differs by less than :data:`ROUNDING` of its norm. Adam's averages of clipped gradients and of
    their squares can differ by no more than that, in units of the norm and of its square.
    """
    ours, theirs = without_times(folder), without_times(wanted)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert close(one, other), (one, other)
    weights, wanted_weights = load_file(folder / STATE_FILE), load_file(wanted / STATE_FILE)
    assert weights.keys() == wanted_weights.keys()
    for name, tensor in wanted_weights.items():
        part, field = name.split("/")[0], name.split("/")[-1]
        optimizer = settings.optimizer if part == "av" else settings.ar_optimizer
        norm = optimizer.max_grad_norm
        # Of weights: ten learning rates of 5e-3, twice over for momentum, for some six updates.
        size = {"exp_avg": norm, "exp_avg_sq": norm**2, "weight": 1.0, "step": 0.0}[field]
        np.testing.assert_allclose(
            weights[name], tensor, rtol=0, atol=ROUNDING * size, err_msg=name
        )


@pytest.mark.parametrize(("how", "sharding"), [("batch", "none"), ("sample", "fsdp2")])
def test_two_gloo_processes_give_the_single_process_result(warm, tmp_path, how, sharding):
    # Fails with: gradients averaged instead of summed, or not exchanged; weights of a rank's own
    # share; the AR's gradient not weighted by how many explanations each process read; the same
    # prompts on every process.
    settings = SHARED.model_copy(update={"length_normalization": how})
    make_smooth_run(warm, tmp_path / "one", settings).run(StopSignal(), lambda _: None)
    shared = settings.model_copy(update={"sharding": sharding})

    def work(rank):
        ranks = Ranks.join(rank, 2, f"file://{tmp_path}/meeting")
        run = make_smooth_run(warm, tmp_path / "two", shared, ranks=ranks)
        assert is_sharded(run.policy.verbalizer.model) == (sharding == "fsdp2")
        run.run(StopSignal(), lambda _: None)

    in_two_processes(work)
    assert_same_run(tmp_path / "two", tmp_path / "one", settings)
    one = without_times(tmp_path / "one")
    assert len(one) == 3 + 3
    assert any(0 < record["extracted"] < 1 for record in one if record["kind"] == "step")


@pytest.mark.parametrize("how", ["sample", "batch", "constant"])
def test_each_process_weighs_its_own_responses(warm, tmp_path, how):
    # Fails with: the weights of the first process's responses for those of any; of its own share.
    # Only those of "sample" differ from response to response.
    lengths = [np.array([2, 5, 3]), np.array([7, 4]), np.array([1, 6, 8])]
    settings = SHARED.model_copy(update={"length_normalization": how})
    whole = response_weights(np.concatenate(lengths), how, settings.max_new_tokens)
    assert (len(set(whole)) == len(whole)) == (how == "sample")
    found = []
    for rank, own in enumerate(lengths):
        ranks = Ranks()
        ranks.rank, ranks.gathered = rank, lambda _: lengths
        run = make_run(warm, tmp_path / str(rank), settings)
        run.ranks = ranks
        found.append(run._weights(own))
    assert [len(one) for one in found] == [3, 2, 3]
    np.testing.assert_array_equal(np.concatenate(found), whole)


#: What differs in how passes are made and what is trained, from what :data:`SHARED` has.
WAYS = {
    "adapters of both": {"ar_lora": Lora(rank=2, alpha=4.0)},
    # Longer responses in one process than in the other, who needs fewer passes.
    "small passes": {"micro_batch_tokens": 40, "max_new_tokens": 16},
    "whole AV and frozen AR": {"lora": None, "train_ar": False, "gradient_checkpointing": True},
}


@pytest.mark.parametrize(
    "way",
    [
        pytest.param("adapters of both", marks=pytest.mark.slow),
        pytest.param("small passes", marks=pytest.mark.slow),
        "whole AV and frozen AR",
    ],
)
def test_divided_weights_give_the_single_process_result(warm, tmp_path, way):
    # Fails with: gradients of divided weights averaged (FSDP's default); clipping by the norm of a
    # process's own share; a process that needs fewer passes making fewer (the others wait for it).
    # A clip that bites: the norm must be that of the whole gradient.
    clipped = SHARED.optimizer.model_copy(update={"max_grad_norm": 0.01})
    settings = SHARED.model_copy(update={**WAYS[way], "steps": 2, "optimizer": clipped})
    make_smooth_run(warm, tmp_path / "one", settings).run(StopSignal(), lambda _: None)
    steps = [record for record in without_times(tmp_path / "one") if record["kind"] == "step"]
    assert all(record["grad_norm"] > 0.01 for record in steps)
    divided = settings.model_copy(update={"sharding": "fsdp2"})

    def work(rank):
        ranks = Ranks.join(rank, 2, f"file://{tmp_path}/meeting")
        run = make_smooth_run(warm, tmp_path / "two", divided, ranks=ranks)
        needed = []
        real = run.ranks.most
        run.ranks.most = lambda count: (needed.append(count), real(count))[1]
        run.run(StopSignal(), lambda _: None)
        if way == "small passes":
            one, other = ranks.gathered(needed)
            assert one != other

    in_two_processes(work)
    assert_same_run(tmp_path / "two", tmp_path / "one", settings)


@pytest.mark.slow
def test_a_divided_run_resumes_divided_or_alone_and_is_saved_whole(warm, tmp_path):
    # Fails with: a process's own share written for the whole; optimiser averages restored
    # undivided; weights saved while they are divided.
    settings = SHARED.model_copy(update={"sharding": "fsdp2", "lora": None})
    stop = StopSignal()

    def ask(step):
        stop.requested = step == 1  # stops after the next

    def work(rank):
        ranks = Ranks.join(rank, 2, f"file://{tmp_path}/meeting")
        whole = make_smooth_run(warm, tmp_path / "whole", settings, ranks=ranks)
        whole.run(StopSignal(), lambda _: None)
        with whole.to_be_saved():
            if ranks.is_first:
                save_trained_av(whole.policy.verbalizer, tmp_path / "av", {"stage": "rl"})
                save_trained_ar(whole.arms.training, tmp_path / "ar", {"stage": "rl"})
        assert is_sharded(whole.policy.verbalizer.model)
        with pytest.raises(Stopped, match="after step 2"):
            make_smooth_run(warm, tmp_path / "parts", settings, ranks=ranks).run(stop, ask)
        if ranks.is_first:
            shutil.copytree(tmp_path / "parts", tmp_path / "alone")
        ranks.wait()
        again = make_smooth_run(warm, tmp_path / "parts", settings, ranks=ranks)
        again.run(StopSignal(), lambda _: None)

    in_two_processes(work)
    assert without_times(tmp_path / "parts") == without_times(tmp_path / "whole")
    ours, theirs = (load_file(tmp_path / one / STATE_FILE) for one in ("parts", "whole"))
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    steps = []
    make_smooth_run(warm, tmp_path / "alone", settings).run(StopSignal(), steps.append)
    assert steps == [3]
    assert_same_run(tmp_path / "alone", tmp_path / "whole", settings)
    state = load_file(tmp_path / "whole" / STATE_FILE)
    saved = load(av=tmp_path / "av", ar=tmp_path / "ar")
    for part, model in (("av", saved.verbalizer.model), ("ar", saved.reconstructor.model)):
        for name, parameter in model.named_parameters():
            if f"{part}/{name}/weight" in state:
                assert torch.equal(parameter, state[f"{part}/{name}/weight"])
    assert torch.equal(saved.reconstructor.head, state["ar/value_head.weight/weight"])
    config = json.loads((tmp_path / "av" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]


def test_prompts_must_be_shared_out_evenly(warm, tmp_path):
    # Fails with: the check left out of Ranks.share, which then drops some.
    with pytest.raises(UserError, match=r"rl\.prompts 3 cannot be shared by 2 processes"):
        make_run(warm, tmp_path, ranks=Ranks(0, 2))


def test_each_process_holds_half_and_tied_weights_stay_tied(tmp_path):
    # Fails with: a tensor of its own for each place a divided weight stands in plain_weights.
    tokenizer = tiny.make_tokenizer(bos=True)
    model = tiny.random_model(tiny.make_config("gemma3_text", len(tokenizer)), seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    total = sum(parameter.numel() for parameter in model.parameters())
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits

    def work(rank):
        ranks = Ranks.join(rank, 2, f"file://{tmp_path}/meeting")
        shard(model, ranks.mesh(torch.device("cpu")))
        held = sum(parameter.to_local().numel() for parameter in model.parameters())
        assert sum(ranks.gathered(held)) == total
        assert held < 0.6 * total
        with whole(model), torch.inference_mode():
            if ranks.is_first:
                torch.testing.assert_close(model(input_ids=ids).logits, logits)
        with plain_weights(model, keep=ranks.is_first):
            if ranks.is_first:
                tied = model.get_input_embeddings().weight, model.get_output_embeddings().weight
                assert tied[0] is tied[1]
                found = model.state_dict()
                assert all(torch.equal(found[name], value) for name, value in before.items())

    in_two_processes(work)


def test_a_torch_that_cannot_is_named(monkeypatch):
    monkeypatch.delattr(FSDPModule, "set_force_sum_reduction_for_comms")
    with pytest.raises(UserError, match=r"cannot sum gradients in torch .*leave sharding out"):
        shard(miniature.model(), None)


def test_every_row_is_someones():
    # Fails with: a share that is one too small.
    parts = [Ranks(rank, 3).share(12) for rank in range(3)]
    assert sorted(place for part in parts for place in range(12)[part]) == list(range(12))
