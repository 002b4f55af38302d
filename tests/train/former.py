"""The objective as it was before gradings, one number a response: a reference for today's."""

from __future__ import annotations

import numpy as np
import torch

from nla_audit.nla.fve import squared_error
from nla_audit.train.clock import Clock
from nla_audit.train.grpo import is_flat
from nla_audit.train.log_probs import micro_batches
from nla_audit.train.measure import content_tokens
from nla_audit.train.reconstruction import accumulate_ar_gradients
from nla_audit.train.rewards import Samples, rewards_of
from nla_audit.train.rl import RlRun
from nla_audit.train.rollout import sample
from nla_audit.train.seeds import Use, derived
from nla_audit.train.step_record import step_summary
from nla_audit.train.update import Experience, warm_log_probs


def group_advantages(rewards, group, kind):
    """Advantages ``[n]`` of rewards ``[n]``; each ``group`` neighbours share an activation."""
    grouped = np.asarray(rewards, dtype=np.float64).reshape(-1, group)
    centered = grouped - grouped.mean(axis=1, keepdims=True)
    centered[is_flat(rewards, group)] = 0.0
    if kind == "standardized":
        centered = centered / (grouped.std(axis=1, keepdims=True) + 1e-6)
    return centered.ravel()


class FormerRun(RlRun):
    """A run on one process whose steps are those of before, line for line."""

    def _step(self, step):
        settings, clock = self.settings, Clock(self.policy.verbalizer.device)
        verbalizer, reader = self.policy.verbalizer, self.arms.training
        with clock.phase("step"):
            prompts = self.sampler.prompts(step)
            said = sample(
                verbalizer,
                prompts,
                seed=derived(self.seed, Use.SAMPLING, step),
                max_new_tokens=settings.max_new_tokens,
                generation_batch=settings.generation_batch,
            )
            mse, _ = squared_error(
                reader.reconstruct(said.explanations), prompts.activations, reader.mse_scale
            )
            samples = Samples(
                explanations=said.explanations,
                mse=mse,
                n_tokens=said.generated.lengths,
                content_tokens=content_tokens(verbalizer.tokenizer, said),
                cjk=said.cjk,
            )
            rewards, terms = rewards_of(
                samples,
                settings.rewards,
                length_penalty=self.length_penalty,
                charge=settings.charge(),
            )
            generated = said.generated
            advantages = group_advantages(rewards, settings.samples, settings.advantage)
            experience = Experience(
                activations=torch.from_numpy(prompts.activations),
                old_log_probs=torch.from_numpy(generated.log_probs),
                credit=np.repeat(advantages[:, None], generated.token_ids.shape[1], axis=1),
                weights=self._weights(generated.lengths),
                batches=micro_batches(
                    generated.token_ids,
                    generated.lengths,
                    len(verbalizer.prompt.ids),
                    settings.micro_batch_tokens,
                    verbalizer.device,
                ),
            )
            warm = warm_log_probs(self.policy, experience)
            measures, norm = self._update(experience, warm, step)
            ar = self._former_ar(prompts, samples, step)
        record = {
            "kind": "step",
            "step": step + 1,
            "reward": float(rewards.mean()),
            "terms": {name: float(values.mean()) for name, values in terms.items()},
            "flat_groups": float(is_flat(rewards, settings.samples).mean()),
            **step_summary(samples, self.baselines),
            "loss": measures.loss,
            "kl": measures.kl / measures.tokens,
            "clip_share": measures.clipped / measures.tokens,
            "grad_norm": norm,
            **ar,
            "time": clock.seconds,
        }
        return record, norm is not None

    def _former_ar(self, prompts, samples, step):
        if not self.settings.train_ar:
            return {}
        rows = [row for row, text in enumerate(samples.explanations) if text is not None]
        if not rows:
            return {"ar_loss": None, "ar_grad_norm": None}
        loss = accumulate_ar_gradients(
            self.arms.training,
            [samples.explanations[row] or "" for row in rows],
            prompts.activations[rows],
            self.settings.micro_batch_tokens,
        )
        return {"ar_loss": loss, "ar_grad_norm": self.trainers["ar"].step(step)}
