"""The AR with gradient: read explanations, predict activations, compare directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.distributed.device_mesh import DeviceMesh

from nla_audit.nla.batching import by_token_budget
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.train.adapters import RL_ADAPTER, add_lora
from nla_audit.train.log_probs import default_token_budget
from nla_audit.train.recipe_rl import Rl
from nla_audit.train.sharding import shard
from nla_audit.train.update import Trainer


def direction_mse(
    predictions: torch.Tensor, targets: torch.Tensor, mse_scale: float | None
) -> torch.Tensor:
    """MSE ``[n]`` of ``[n, d_model]``, both scaled to norm ``mse_scale``, in float32.

    ``None`` compares them as they are. At √d_model this is 2(1 − cos).
    """
    predicted, wanted = predictions.float(), targets.float()
    if mse_scale is not None:
        predicted = torch.nn.functional.normalize(predicted, dim=-1) * mse_scale
        wanted = torch.nn.functional.normalize(wanted, dim=-1) * mse_scale
    return ((predicted - wanted) ** 2).mean(dim=-1)


def predict(reconstructor: Reconstructor, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Reconstructions ``[n, d_model]`` of AR prompts given as token ids, with gradient.

    Padded on the right, where a causal model's padding reaches nothing; read at the last token.
    """
    device = reconstructor.device
    longest = max(len(ids) for ids in prompts)
    batch = torch.zeros((len(prompts), longest), dtype=torch.int64)
    for row, ids in enumerate(prompts):
        batch[row, : len(ids)] = torch.tensor(ids)
    last = torch.tensor([len(ids) - 1 for ids in prompts], device=device)
    hidden = reconstructor.decoder(
        input_ids=batch.to(device), use_cache=False
    ).last_hidden_state  # [n, longest, d_model]
    final = hidden[torch.arange(len(prompts), device=device), last]
    return final.float() @ reconstructor.head.T


def accumulate_ar_gradients(
    reconstructor: Reconstructor,
    texts: Sequence[str],
    activations: npt.NDArray[np.float32],
    token_budget: int | None,
    *,
    share: float = 1.0,
    passes: Callable[[int], int] = lambda needed: needed,
) -> float:
    """Add the gradient of ``share`` × the mean MSE over all ``texts``; returns that product.

    Explanations too long for the AR's positions are left out, as they are when scoring.

    Args:
        passes: from the number of passes that ``texts`` need to the number to make. More than
            needed are made, without effect, where weights are divided among processes that need
            different numbers.
    """
    prompts = reconstructor.prompt_ids(texts)
    fitting = [row for row, ids in enumerate(prompts) if len(ids) <= reconstructor.longest_prompt]
    budget = token_budget or default_token_budget(reconstructor.device.type)
    groups = by_token_budget([len(prompts[row]) for row in fitting], budget)
    for _ in range(passes(len(groups)) - len(groups)):
        (0.0 * predict(reconstructor, reconstructor.prompt_ids([""])).sum()).backward()
    total = 0.0
    for group in groups:
        rows = [fitting[place] for place in group]
        targets = torch.from_numpy(activations[rows]).to(reconstructor.device)
        errors = direction_mse(
            predict(reconstructor, [prompts[row] for row in rows]),
            targets,
            reconstructor.mse_scale,
        )
        loss = share * errors.sum() / len(fitting)
        loss.backward()
        total += float(loss.detach())
    return total


def ar_trainer(
    reconstructor: Reconstructor, settings: Rl, *, seed: int, mesh: DeviceMesh | None = None
) -> Trainer:
    """What trains the AR in RL: adapters and head, or all that it uses.

    Its output matrix over words is not among that.
    """
    model = reconstructor.model
    if settings.ar_lora is not None:
        add_lora(model, settings.ar_lora, RL_ADAPTER, seed=seed)
    else:
        model.float()  # bf16 weights would lose small updates
        model.requires_grad_(False)
        reconstructor.decoder.requires_grad_(True)
    if mesh is not None:
        shard(reconstructor.decoder, mesh)
    parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
    reconstructor.head.requires_grad_(True)
    parameters["value_head.weight"] = reconstructor.head
    return Trainer(
        parameters, settings.ar_optimizer, steps=settings.steps, average_decay=settings.ar_ema
    )
