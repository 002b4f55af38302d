"""GRPO for one run: sample, score, update, measure, save; and again.

A step reads from top to bottom in :meth:`RlRun._step`. Everything random in it is drawn from the
seed and the step's number, so a run that was killed goes on from its last state to exactly the
metrics it would have had. The draws do not depend on λ: runs of a sweep see the same activations
in the same order, with the same random numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nla_audit.errors import UserError
from nla_audit.nla.fve import Baselines, measure_baselines
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.train.best import Best, Kept
from nla_audit.train.clock import Clock
from nla_audit.train.credit import end_advantages, token_credit
from nla_audit.train.dataset import Dataset
from nla_audit.train.grpo import Settings, response_weights
from nla_audit.train.in_vllm import PolicyInVllm, refuse_several, settings_of
from nla_audit.train.interruption import Stopped, Wish
from nla_audit.train.judging import Judges
from nla_audit.train.learned import in_words
from nla_audit.train.log_probs import micro_batches, shared_micro_batches, without_tokens
from nla_audit.train.measure import explain_and_score, summary
from nla_audit.train.policy import Policy
from nla_audit.train.ranks import Ranks
from nla_audit.train.recipe_rl import Rl
from nla_audit.train.reconstruction import accumulate_ar_gradients, ar_trainer
from nla_audit.train.rewards import Samples, check_terms, rewards_of
from nla_audit.train.rollout import samples_of
from nla_audit.train.sampling import Draw, Sampler
from nla_audit.train.seeds import Use, derived
from nla_audit.train.separating import check_has_separator
from nla_audit.train.sharding import plain_weights, whole
from nla_audit.train.state import MetricsLog, Progress, load_state, save_state
from nla_audit.train.step_record import step_record
from nla_audit.train.tracker import TrackerName
from nla_audit.train.update import (
    Experience,
    PolicyMeasures,
    Trainer,
    accumulate_gradients,
    warm_log_probs,
)

_log = logging.getLogger(__name__)

#: Called with steps done.
Tell = Callable[[int], None]


@dataclass(frozen=True)
class Arms:
    """Who reads explanations.

    Attributes:
        training: the AR whose reconstructions are rewarded; trained along if the recipe says so,
            and then its running average may be what reads.
        ruler: the warm-start AR, never trained: held-out figures of all runs are by it.
    """

    training: Reconstructor
    ruler: Reconstructor


class RlRun:
    """One run of a sweep.

    Args:
        verbalizer: the warm-started AV; changed in place.
        arms: the ARs.
        length_penalty: λ.
        folder: where state and metrics go.
        key: hash of all that changes the result; a state of another key is refused.
        ranks: the processes that share each step.
        title: what messages call the run; by default its λ.
        anchor: the AV that the KL is to; by default ``verbalizer`` as it is now.
        tracking: where metrics go besides the folder.
        judges: those of ``settings``, with their cache; by default without one on disk.

    Raises:
        UserError: an unknown reward term, prompts that cannot be shared out evenly, or an engine
            that is not there or does not take this AV.
    """

    def __init__(
        self,
        verbalizer: Verbalizer,
        arms: Arms,
        dataset: Dataset,
        settings: Rl,
        *,
        length_penalty: float,
        seed: int,
        folder: Path,
        key: str,
        ranks: Ranks | None = None,
        title: str | None = None,
        anchor: Verbalizer | None = None,
        tracking: Sequence[TrackerName] | None = None,
        judges: Judges | None = None,
    ) -> None:
        self.title = f"λ = {length_penalty:g}" if title is None else title
        check_terms(settings.rewards, settings.judges)
        self.judges = judges or Judges(settings.judges, None)
        self.judges.check_sources([dataset.source_texts[row] for row in dataset.training_rows])
        check_has_separator(verbalizer.tokenizer, settings.grading.separator())
        self.ranks = ranks or Ranks()
        self.ranks.share(settings.prompts)
        self.settings = settings
        self.dataset = dataset
        self.arms = arms
        self.length_penalty = length_penalty
        self.seed = seed
        self.folder = folder
        self.key = key
        self.tracking = tracking
        # One process alone has nobody to share with.
        self.is_sharded = settings.sharding == "fsdp2" and self.ranks.size > 1
        mesh = self.ranks.mesh(verbalizer.device) if self.is_sharded else None
        self.policy = Policy(
            verbalizer,
            settings.lora,
            seed=derived(seed, Use.ADAPTERS),
            gradient_checkpointing=settings.gradient_checkpointing,
            mesh=mesh,
            anchor=anchor,
        )
        if settings.decoding == "compiled":
            verbalizer.compile()  # only now that it has its adapters
        self.trainers = {
            "av": Trainer(self.policy.parameters, settings.optimizer, steps=settings.steps)
        }
        if settings.train_ar:
            self.trainers["ar"] = ar_trainer(
                arms.training, settings, seed=derived(seed, Use.AR_ADAPTERS), mesh=mesh
            )
        self.best = self._keeps_best()
        self.engine = self._other_engine()
        self.sampler = Sampler(
            verbalizer,
            arms.training,
            dataset,
            settings,
            length_penalty=length_penalty,
            seed=seed,
            ranks=self.ranks,
            reading=self._reading,
            judges=self.judges,
            engine=self.engine,
        )
        held_out = dataset.held_out_rows()
        self.held_out = dataset.held_out_rows(settings.evaluate.rows)
        self.baselines: Baselines = measure_baselines(
            dataset.activations[held_out], arms.ruler.mse_scale
        )

    def _other_engine(self) -> PolicyInVllm | None:
        """Who samples in the place of our own loop, where the recipe wants it."""
        if self.settings.engine == "own":
            return None
        refuse_several(self.ranks)
        return PolicyInVllm(self.policy.verbalizer, settings_of(self.settings))

    def _keeps_best(self) -> Best | None:
        """Keeps the best weights, where the recipe wants them."""
        figures = {"best_fve": "fve_with_failures", "best_reward": "reward"}
        figure = figures.get(self.settings.keep)
        if figure is None:
            return None
        return Best(self.folder, self.key, self.trainers, figure, is_writer=self.ranks.is_first)

    def run(self, stop: Wish, tell: Tell) -> Progress:
        """Train from the last saved state to the end of the budget.

        Raises:
            Stopped: the user asked to; the state is saved.
            UserError: too many steps in a row without a finite loss, or the state cannot be saved.
        """
        done = load_state(self.folder, self.key, self.trainers)
        if self.best is not None:
            self.best.go_on_from(done.step)
        self.ranks.wait()
        if not self.ranks.is_first:
            return self._train(None, done, stop, tell)
        with (
            closing(MetricsLog(self.folder, self.tracking)) as log,
            nullcontext() if self.engine is None else closing(self.engine),
        ):
            log.keep_until(done.step)
            return self._train(log, done, stop, tell)

    def _train(self, log: MetricsLog | None, done: Progress, stop: Wish, tell: Tell) -> Progress:
        """Steps from ``done`` on; only the process that writes has a log."""
        if done.step == 0:
            self._measure(log, done)
        in_a_row = 0
        while not self._is_over(done):
            record, is_sound = self._step(done.step)
            in_a_row = 0 if is_sound else in_a_row + 1
            done = replace(
                done,
                step=done.step + 1,
                seconds=done.seconds + record["time"]["step"],
                skipped=done.skipped + (not is_sound),
            )
            if log is not None:
                log.write({**record, "seconds": done.seconds, "skipped": done.skipped})
            if in_a_row >= self.settings.max_skipped_steps:
                raise UserError(
                    f"{self.folder}: {in_a_row} steps in a row without a finite loss and gradient, "
                    f"stopped at step {done.step}; lower rl.optimizer.learning_rate and begin this "
                    "run again"
                )
            # Asked once: a Ctrl-C from here on waits for the next step.
            asked, over = any(self.ranks.gathered(stop.requested)), self._is_over(done)
            self._measure_and_save(log, done, is_last=over or asked, is_over=over)
            tell(done.step)
            if asked and not over:
                self.ranks.wait()
                raise Stopped(f"{self.title} stopped after step {done.step}")
        return done

    def _measure_and_save(
        self, log: MetricsLog | None, done: Progress, *, is_last: bool, is_over: bool
    ) -> None:
        """What is due after a step, in the order that makes a saved state cover its log."""
        if done.step % self.settings.evaluate.every == 0 or is_over:
            self._measure(log, done)
        is_due = done.step % self.settings.checkpoint_every == 0 or is_last
        if is_due and (self.ranks.is_first or self.is_sharded):
            save_state(self.folder, self.key, done, self.trainers, is_writer=self.ranks.is_first)
        if is_due and self.best is not None:
            self.best.covered(done.step)

    def restore_kept(self) -> Kept | None:
        """Leave the run with the weights that the recipe wants kept; ``None`` are the last ones.

        All processes must call this.
        """
        self.ranks.wait()  # for the one that writes
        return None if self.best is None else self.best.restore()

    def _measure(self, log: MetricsLog | None, done: Progress) -> None:
        """Held-out figures, by the process that writes; the others lend it their shares."""
        figures: dict[str, Any] = {}
        with self._reading(), whole(*self._models()):
            if log is not None:
                figures = self._held_out()
                held_out = {"kind": "held_out", "step": done.step, "seconds": done.seconds}
                log.write({**held_out, **figures})
                _log.info(
                    "RL at %s, step %d of %d: %s; %.1f s a step",
                    self.title,
                    done.step,
                    self.settings.steps,
                    in_words(figures, "generated"),
                    done.seconds / max(done.step, 1),
                )
        if self.best is not None:
            first = self.ranks.gathered(figures)[0]
            self.best.offer(done.step, first[self.best.figure])

    def _reading(self) -> AbstractContextManager[None]:
        """Within it the AR is what rewards are by: its average, where it has one."""
        average = self.trainers["ar"].average if self.settings.train_ar else None
        return nullcontext() if average is None else average.in_place()

    def _models(self) -> tuple[nn.Module, nn.Module]:
        return self.policy.verbalizer.model, self.arms.training.decoder

    @contextmanager
    def to_be_saved(self) -> Iterator[None]:
        """Both models with ordinary whole weights in the process that writes.

        All processes must enter.
        """
        with self._reading(), plain_weights(*self._models(), keep=self.ranks.is_first):
            yield

    def _is_over(self, done: Progress) -> bool:
        minutes = self.settings.minutes
        out_of_time = minutes is not None and done.seconds >= 60 * minutes
        return done.step >= self.settings.steps or out_of_time

    def _step(self, step: int) -> tuple[dict[str, Any], bool]:
        """One step; returns its record, and whether it changed the policy."""
        clock, before = Clock(self.policy.verbalizer.device), self.judges.spent()
        with clock.phase("step"):
            draw = self.sampler.draw(step, clock)
            drawn = draw.drawn
            experience = self._experience(draw)
            with clock.phase("reference"):
                warm = warm_log_probs(self.policy, experience)
            with clock.phase("update"):
                measures, norm = self._update(experience, warm, step)
            with clock.phase("ar_update"):
                ar = self._update_ar(drawn.activations, drawn.samples, step)
        record = step_record(
            draw,
            measures,
            settings=self.settings,
            baselines=self.baselines,
            ranks=self.ranks,
            seconds=clock.seconds,
            spent=(before, self.judges.spent()),
        )
        numbers = {"kind": "step", "step": step + 1, "grad_norm": norm}
        return {**numbers, **record, **ar}, norm is not None

    def _experience(self, draw: Draw) -> Experience:
        settings, verbalizer, drawn = self.settings, self.policy.verbalizer, draw.drawn
        graded = drawn.samples.graded
        assert graded is not None
        used = np.flatnonzero(draw.is_used)
        advantages = np.zeros(drawn.values.shape)
        advantages[used] = end_advantages(
            drawn.values[used],
            graded.ends.is_reached[used],
            settings.samples,
            settings.advantage,
            lambda own: np.concatenate(self.ranks.gathered(own)),
        )
        weights = np.zeros(len(drawn.lengths))
        weights[used] = self._weights(drawn.lengths[used])
        activations = torch.from_numpy(drawn.activations).to(verbalizer.device)
        budget, device, prompt = settings.micro_batch_tokens, verbalizer.device, verbalizer.prompt
        rows = (drawn.token_ids, drawn.lengths)
        if self.policy.shares_prompts:
            batches = shared_micro_batches(activations, *rows, prompt, budget, is_used=draw.is_used)
        else:
            batches = micro_batches(*rows, len(prompt.ids), budget, device, is_used=draw.is_used)
        missing = self._passes(len(batches)) - len(batches)
        batches += [without_tokens(device)] * missing
        longest = drawn.token_ids.shape[1]
        return Experience(
            activations=activations,
            old_log_probs=torch.from_numpy(drawn.log_probs).to(device),
            credit=token_credit(advantages, graded.ends, longest, settings.credit),
            weights=weights,
            batches=batches,
        )

    def _passes(self, needed: int) -> int:
        """How many passes to make where ``needed`` would do: divided weights need everybody."""
        return self.ranks.most(needed) if self.is_sharded else needed

    def _weights(self, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Of this process's responses within the whole step."""
        settings = self.settings
        every = self.ranks.gathered(lengths)
        weights = response_weights(
            np.concatenate(every), settings.length_normalization, settings.max_new_tokens
        )
        start = sum(len(one) for one in every[: self.ranks.rank])
        return weights[start : start + len(lengths)]

    def _update(
        self, experience: Experience, warm: list[torch.Tensor], step: int
    ) -> tuple[PolicyMeasures, float | None]:
        """The optimiser's passes; the measures are those of the last, the norm of the first."""
        objective = Settings(clip=self.settings.clip, kl=self.settings.kl)
        trainer, norms = self.trainers["av"], []
        for _ in range(self.settings.updates_per_step):
            own = accumulate_gradients(self.policy, experience, warm, objective)
            measures = reduce(add, self.ranks.gathered(own))
            if measures.tokens == 0:
                # Nothing was worth more than anything else: no step, and no momentum of others.
                trainer.zero_grad()
                return measures, 0.0
            self.ranks.sum_gradients(self.policy.parameters.values())
            norm = trainer.step(step) if np.isfinite(measures.loss) else None
            norms.append(norm)
            if norm is None:
                trainer.zero_grad()
                break
        return measures, None if None in norms else norms[0]

    def _update_ar(
        self, activations: npt.NDArray[np.float32], samples: Samples, step: int
    ) -> dict[str, Any]:
        """One step of the AR on the explanations it has just read, where it is trained."""
        if not self.settings.train_ar:
            return {}
        whole_only = [[text] for text in samples.explanations]
        texts = whole_only if samples.graded is None else samples.graded.ends.texts
        read = [(row, text) for row, some in enumerate(texts) for text in some if text is not None]
        rows = [row for row, _ in read]
        total = sum(self.ranks.gathered(len(rows)))
        if total == 0:
            return {"ar_loss": None, "ar_grad_norm": None}
        own = accumulate_ar_gradients(
            self.arms.training,
            [text for _, text in read],
            activations[rows],
            self.settings.micro_batch_tokens,
            share=len(rows) / total,
            passes=self._passes,
        )
        loss = sum(self.ranks.gathered(own))
        self.ranks.sum_gradients(self.trainers["ar"].parameters.values())
        trainer = self.trainers["ar"]
        norm = trainer.step(step) if np.isfinite(loss) else None
        if norm is None:
            trainer.zero_grad()
        return {"ar_loss": loss, "ar_grad_norm": norm}

    def _held_out(self) -> dict[str, Any]:
        """Held-out figures by the ruler, and by the trained AR where it differs."""
        verbalizer, keys = self.policy.verbalizer, self.dataset.idx[self.held_out]
        measured = explain_and_score(
            verbalizer,
            self.arms.ruler,
            self.dataset.activations[self.held_out],
            keys=keys,
            seed=derived(self.seed, Use.EVALUATION),
            max_new_tokens=self.settings.max_new_tokens,
            baselines=self.baselines,
        )
        figures: dict[str, Any] = summary(measured)
        if self.settings.keep == "best_reward":
            texts = measured.explanations.explanations
            sources = [self.dataset.source_texts[row] for row in self.held_out]
            rewards, _ = rewards_of(
                samples_of(measured, self.judges.scores(texts, sources)),
                self.settings.rewards,
                length_penalty=self.length_penalty,
                charge=self.settings.charge(),
            )
            figures["reward"] = float(np.nanmean(rewards))
        if self.settings.train_ar:
            own = self.arms.training.score(
                measured.explanations.explanations,
                self.dataset.activations[self.held_out],
                baselines=self.baselines,
            )
            known = own.fve[np.isfinite(own.fve)]
            figures["own_fve_raw_variance"] = float(known.mean()) if len(known) else float("nan")
        return figures
