"""The warm start: both halves learn from gold explanations.

The AV learns to write a gold response with the vector injected (cross-entropy); the AR learns to
predict the vector from the gold explanation, comparing directions only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nla_audit.errors import UserError
from nla_audit.nla.fve import measure_baselines, squared_error
from nla_audit.nla.generation import padded
from nla_audit.nla.prefixes import first_tokens, token_ends
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.responses import response_log_probs
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.stats import Resampler, derangement
from nla_audit.train.adapters import add_lora
from nla_audit.train.best import Best, Kept
from nla_audit.train.dataset import Dataset
from nla_audit.train.interruption import Stopped, Wish
from nla_audit.train.learned import against_others, in_words
from nla_audit.train.log_probs import MicroBatch, micro_batches
from nla_audit.train.measure import explain_and_score, summary
from nla_audit.train.recipe_warm_start import Supervised, WarmStart
from nla_audit.train.reconstruction import accumulate_ar_gradients
from nla_audit.train.seeds import Use, derived, rows_of_step, stream
from nla_audit.train.state import MetricsLog, Progress, load_state, save_state
from nla_audit.train.tracker import TrackerName
from nla_audit.train.update import Trainer

#: Called with steps done.
Tell = Callable[[int], None]

_log = logging.getLogger(__name__)

_ADAPTER = "warm_start"
_TAG = "<explanation>"
#: Steps in a row that may have no finite loss.
_MAX_SKIPPED = 5
#: Cap on responses, in lengths of the longest held-out gold response.
_CAP_IN_GOLDS = 2


def gold_response(explanation: str) -> str:
    """The response the AV learns: the explanation between its tags, as is if it has them."""
    return explanation if _TAG in explanation else f"{_TAG}{explanation}</explanation>"


def gold_ids(verbalizer: Verbalizer, explanations: list[str]) -> list[list[int]]:
    """Token ids of gold responses, end token included."""
    end = verbalizer.tokenizer.eos_token_id
    if end not in verbalizer.end_ids:
        end = min(verbalizer.end_ids)
    texts = [gold_response(text) for text in explanations]
    encoded = verbalizer.tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [[*ids, end] for ids in encoded]


def cap_by_gold(verbalizer: Verbalizer, explanations: list[str]) -> int:
    """Tokens that a response of an AV of such gold may have where nothing else says so."""
    return _CAP_IN_GOLDS * max(len(ids) for ids in gold_ids(verbalizer, explanations))


def plain_gold(explanation: str) -> str:
    """The text between the tags of a gold explanation, stripped: what the AR reads."""
    text = explanation
    if _TAG in text:
        text = text.split(_TAG, 1)[1].split("</explanation>", 1)[0]
    return text.strip()


def cut_at_random(
    tokenizer: Any, texts: list[str], share: float, rng: np.random.Generator
) -> list[str]:
    """``texts``, of which a ``share`` is cut after one of its tokens, each alike."""
    is_cut, places = rng.random(len(texts)) < share, rng.random(len(texts))
    if not is_cut.any():
        return texts
    return [
        first_tokens(text, ends, 1 + int(place * len(ends))) if cut else text
        for text, ends, cut, place in zip(
            texts, token_ends(tokenizer, texts), is_cut, places, strict=True
        )
    ]


def train_av(
    verbalizer: Verbalizer,
    dataset: Dataset,
    settings: WarmStart,
    *,
    reader: Reconstructor | None,
    seed: int,
    folder: Path,
    key: str,
    stop: Wish,
    tell: Tell,
    tracking: Sequence[TrackerName] | None = None,
) -> Kept | None:
    """Cross-entropy on gold responses with the vector injected; trains in place.

    Returns:
        Which weights were kept, where that are not the last.

    Args:
        reader: the AR that has had its warm start; held-out explanations are scored by it as
            training goes. Without one only the held-out loss is measured.

    Raises:
        UserError: the best are to be kept and there is no reader to tell which.
    """
    if settings.keep != "last" and reader is None:
        raise UserError(f"warm_start.keep: {settings.keep} needs an AR that reads explanations")
    rows = dataset.training_rows
    dataset.gold(rows)  # all of them, before any training
    held_out = dataset.held_out_rows(settings.evaluation_rows)
    trainer = _trainer(verbalizer.model, {}, settings.av, seed)
    cap = cap_by_gold(verbalizer, dataset.gold(held_out))

    def loss_of(step: int) -> float:
        chosen = rows[
            rows_of_step(seed, Use.AV_WARM_START, step, settings.av.batch_size, len(rows))
        ]
        batches, tokens = _gold_batches(verbalizer, dataset, chosen)
        total = 0.0
        for batch in batches:
            nats = _nats(verbalizer, dataset.activations[chosen[batch.rows]], batch)
            loss = nats.sum() / tokens
            loss.backward()
            total += float(loss.detach())
        return total

    def evaluate() -> dict[str, float | None]:
        figures = _gold_likelihood(
            verbalizer, dataset, held_out, seed=derived(seed, Use.EVALUATION)
        )
        if reader is None:
            return figures
        measured = explain_and_score(
            verbalizer,
            reader,
            dataset.activations[held_out],
            keys=dataset.idx[held_out],
            seed=derived(seed, Use.EVALUATION),
            max_new_tokens=cap,
        )
        figures |= summary(measured)
        said = [row for row, text in enumerate(measured.explanations.explanations) if text]
        return figures | against_others(
            reader.reconstruct([str(measured.explanations.explanations[row]) for row in said]),
            dataset.activations[held_out[said]],
            [dataset.doc_ids[held_out[row]] for row in said],
            measured.scores.baselines,
            seed=derived(seed, Use.EVALUATION),
        )

    return _run(
        "av",
        trainer,
        settings,
        settings.av,
        loss_of_step=loss_of,
        evaluate=evaluate,
        figure="fve_with_failures",
        read="generated",
        folder=folder,
        key=key,
        stop=stop,
        tell=tell,
        tracking=tracking,
    )


@torch.inference_mode()
def _gold_likelihood(
    verbalizer: Verbalizer, dataset: Dataset, rows: npt.NDArray[np.int64], *, seed: int
) -> dict[str, float | None]:
    """Loss on gold responses, and by how many nats a response is likelier with its own activation
    than with one of another document: the first sign that the AV reads the vector."""
    batches, tokens = _gold_batches(verbalizer, dataset, rows)

    def nats(activations: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        found = np.zeros(len(rows))
        for batch in batches:
            found[batch.rows] = _nats(verbalizer, activations[batch.rows], batch).cpu()
        return found

    own = nats(dataset.activations[rows])
    figures: dict[str, float | None] = {"held_out_loss": float(own.sum() / tokens)}
    doc_ids = [dataset.doc_ids[row] for row in rows]
    partners = derangement(doc_ids, seed)
    if (partners < 0).any():
        return figures
    gain = nats(dataset.activations[rows[partners]]) - own
    return figures | Resampler(doc_ids, seed=seed).mean(gain).entries("nats_of_own_activation")


def _gold_batches(
    verbalizer: Verbalizer, dataset: Dataset, rows: npt.NDArray[np.int64]
) -> tuple[list[MicroBatch], int]:
    """Gold responses of ``rows`` in passes, and how many tokens they have in all."""
    ids = gold_ids(verbalizer, dataset.gold(rows))
    lengths = np.array([len(one) for one in ids], dtype=np.int64)
    batches = micro_batches(
        padded(ids), lengths, len(verbalizer.prompt.ids), None, verbalizer.device
    )
    return batches, int(lengths.sum())


def _nats(
    verbalizer: Verbalizer, activations: npt.NDArray[np.float32], batch: MicroBatch
) -> torch.Tensor:
    """Minus the log-probability of each response of ``batch``, with gradient."""
    here = torch.from_numpy(activations).to(verbalizer.device)
    log_probs = response_log_probs(verbalizer, here, batch.token_ids, batch.is_token)
    return -torch.where(batch.is_token, log_probs, 0.0).sum(dim=1)


def train_ar(
    reconstructor: Reconstructor,
    dataset: Dataset,
    settings: WarmStart,
    *,
    seed: int,
    folder: Path,
    key: str,
    stop: Wish,
    tell: Tell,
    read: str = "gold",
    tracking: Sequence[TrackerName] | None = None,
) -> Kept | None:
    """Direction-only MSE on gold explanations; head and body are trained, in place.

    Args:
        read: what the held-out explanations of ``dataset`` are, in a word.

    Returns:
        Which weights were kept, where that are not the last.
    """
    rows = dataset.training_rows
    held_out = dataset.held_out_rows(settings.evaluation_rows)
    dataset.gold([*rows, *held_out])  # all of them, before any training
    trainer = _trainer(
        reconstructor.model, {"value_head.weight": reconstructor.head}, settings.ar, seed
    )
    targets = dataset.activations[held_out]
    baselines = measure_baselines(
        dataset.activations[dataset.held_out_rows()], reconstructor.mse_scale
    )

    def loss_of(step: int) -> float:
        chosen = rows[
            rows_of_step(seed, Use.AR_WARM_START, step, settings.ar.batch_size, len(rows))
        ]
        texts = cut_at_random(
            reconstructor.tokenizer,
            [plain_gold(text) for text in dataset.gold(chosen)],
            settings.ar_prefixes,
            stream(seed, Use.PREFIXES, step),
        )
        return accumulate_ar_gradients(reconstructor, texts, dataset.activations[chosen], None)

    def evaluate() -> dict[str, float | None]:
        texts = [plain_gold(text) for text in dataset.gold(held_out)]
        predictions = reconstructor.reconstruct(texts)
        mse, _ = squared_error(predictions, targets, reconstructor.mse_scale)
        return {
            "held_out_mse": float(mse.mean()),
            "fve_raw_variance": 1 - float(mse.mean()) / baselines.raw_variance,
            "fve_mean_normalized": 1 - float(mse.mean()) / baselines.mean_normalized,
            **against_others(
                predictions,
                targets,
                [dataset.doc_ids[row] for row in held_out],
                baselines,
                seed=derived(seed, Use.EVALUATION),
            ),
        }

    return _run(
        "ar",
        trainer,
        settings,
        settings.ar,
        loss_of_step=loss_of,
        evaluate=evaluate,
        figure="fve_raw_variance",
        read=read,
        folder=folder,
        key=key,
        stop=stop,
        tell=tell,
        tracking=tracking,
    )


def _trainer(model: Any, extra: dict[str, Any], settings: Supervised, seed: int) -> Trainer:
    if settings.lora is not None:
        parameters = add_lora(model, settings.lora, _ADAPTER, seed=derived(seed, Use.ADAPTERS))
    else:
        model.float()  # bf16 weights would lose small updates
        model.requires_grad_(True)
        parameters = dict(model.named_parameters())
    for parameter in extra.values():
        parameter.requires_grad_(True)
    return Trainer({**parameters, **extra}, settings.optimizer, steps=settings.steps)


def _run(
    name: str,
    trainer: Trainer,
    settings: WarmStart,
    half: Supervised,
    *,
    loss_of_step: Callable[[int], float],
    evaluate: Callable[[], dict[str, float | None]],
    figure: str,
    read: str,
    folder: Path,
    key: str,
    stop: Wish,
    tell: Tell,
    tracking: Sequence[TrackerName] | None = None,
) -> Kept | None:
    """Steps from the last saved state to the end; ``figure`` is what the best are best in, of
    the texts named by ``read``."""
    done = load_state(folder, key, {name: trainer})
    best = None
    if settings.keep == "best_fve":
        best = Best(folder, key, {name: trainer}, figure)
        best.go_on_from(done.step)
    with closing(MetricsLog(folder, tracking)) as log:
        log.keep_until(done.step)
        seconds, skipped, in_a_row = done.seconds, done.skipped, 0
        for step in range(done.step, half.steps):
            began = time.perf_counter()
            loss = loss_of_step(step)
            norm = trainer.step(step) if np.isfinite(loss) else None
            if norm is None:
                trainer.zero_grad()
                skipped += 1
                in_a_row += 1
            else:
                in_a_row = 0
            seconds += time.perf_counter() - began
            finished = step + 1
            log.write(
                {
                    "kind": "step",
                    "step": finished,
                    "loss": loss,
                    "grad_norm": norm,
                    "skipped": skipped,
                }
            )
            if in_a_row >= _MAX_SKIPPED:
                raise UserError(
                    f"warm start of the {name.upper()}: {in_a_row} steps in a row without a finite "
                    f"loss, stopped at step {finished}; lower its learning rate"
                )
            if finished % settings.evaluate_every == 0 or finished == half.steps:
                figures = evaluate()
                log.write({"kind": "held_out", "step": finished, **figures})
                if best is not None:
                    value = figures[figure]
                    best.offer(finished, float("nan") if value is None else value)
                _log.info(
                    "warm start of the %s, step %d of %d: %s; %.1f s a step",
                    name.upper(),
                    finished,
                    half.steps,
                    in_words(figures, read),
                    seconds / finished,
                )
            asked = stop.requested  # once: a Ctrl-C from here on waits for the next step
            last = finished == half.steps or asked
            if finished % settings.checkpoint_every == 0 or last:
                save_state(folder, key, Progress(finished, seconds, skipped), {name: trainer})
                if best is not None:
                    best.covered(finished)
            tell(finished)
            if asked and finished < half.steps:
                raise Stopped(f"warm start of the {name.upper()} stopped after step {finished}")
    return None if best is None else best.restore()
