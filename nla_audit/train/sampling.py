"""The samples of a step: drawn, scored, rewarded; and groups that teach nothing drawn again.

A group whose responses are all worth the same at every graded end has no advantages. It may be
kept, left out, or replaced by one of another activation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from nla_audit.nla.compiled import check_compiler
from nla_audit.nla.generation import NO_TOKEN
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.train.clock import Clock
from nla_audit.train.credit import is_telling
from nla_audit.train.dataset import Dataset
from nla_audit.train.grading import Stopping
from nla_audit.train.in_vllm import PolicyInVllm
from nla_audit.train.judging import Judges
from nla_audit.train.layout import Layout
from nla_audit.train.lengths import MeanGuess
from nla_audit.train.pair import placement_of
from nla_audit.train.ranks import Ranks
from nla_audit.train.recipe_rl import Rl
from nla_audit.train.rewards import Samples, end_rewards
from nla_audit.train.rollout import Prompts, repeated, responses_of, scored
from nla_audit.train.rows import joined, taken
from nla_audit.train.seeds import Use, derived, rows_of_step, stream
from nla_audit.train.sharding import whole

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Drawn:
    """Responses of a step (or of one process's share of it) and what they are worth.

    Attributes:
        activations: ``[n, d_model]``, groups together.
        token_ids: ``[n, longest]``, ``NO_TOKEN`` behind the last.
        log_probs: ``[n, longest]`` of the distribution sampled from; NaN behind the last.
        lengths: ``[n]`` tokens.
        samples: what rewards were computed from.
        values: ``[n, ends]`` worth of each graded end.
        terms: ``[n]`` by reward term.
    """

    activations: npt.NDArray[np.float32]
    token_ids: npt.NDArray[np.int64]
    log_probs: npt.NDArray[np.float32]
    lengths: npt.NDArray[np.int64]
    samples: Samples
    values: Floats
    terms: dict[str, Floats]

    def telling(self, group: int) -> Flags:
        """``[groups]`` whether its responses differ in worth."""
        graded = self.samples.graded
        assert graded is not None
        return is_telling(self.values, graded.ends.is_reached, group)

    def padded_to(self, longest: int) -> Drawn:
        """The same with room for so many tokens."""
        more = ((0, 0), (0, longest - self.token_ids.shape[1]))
        ids = np.pad(self.token_ids, more, constant_values=NO_TOKEN)
        log_probs = np.pad(self.log_probs, more, constant_values=np.nan)
        return Drawn(**{**vars(self), "token_ids": ids, "log_probs": log_probs})


@dataclass(frozen=True)
class Draw:
    """What a step learns from.

    Attributes:
        drawn: all responses.
        is_used: ``[n]`` whether the policy learns from it.
        was_flat: ``[groups]`` whether all of a group were worth the same when it was first drawn.
        is_replaced: ``[groups]`` whether it is of another activation than at first.
    """

    drawn: Drawn
    is_used: Flags
    was_flat: Flags
    is_replaced: Flags


def check_decoding(layout: Layout) -> None:
    """Refuse before anything is trained to sample without a compiler that is wanted.

    Raises:
        UserError: there is none.
    """
    if any(run.rl.decoding == "compiled" for run in layout.runs):
        check_compiler(torch.device(placement_of(layout.recipe.target).chosen_device()))


class Sampler:
    """Draws the samples of each step.

    Args:
        verbalizer: the policy.
        reader: the AR whose reconstructions are rewarded.
        reading: entered around its reading.
        judges: who else scores explanations.
        engine: who samples in the place of our own loop.
    """

    def __init__(
        self,
        verbalizer: Verbalizer,
        reader: Reconstructor,
        dataset: Dataset,
        settings: Rl,
        *,
        length_penalty: float,
        seed: int,
        ranks: Ranks,
        reading: Callable[[], AbstractContextManager[None]],
        judges: Judges,
        engine: PolicyInVllm | None = None,
    ) -> None:
        self._verbalizer = verbalizer
        self._reader = reader
        self._dataset = dataset
        self._settings = settings
        self._length_penalty = length_penalty
        self._seed = seed
        self._ranks = ranks
        self._reading = reading
        self._judges = judges
        self._engine = engine
        self._rows = dataset.training_rows
        self._guess = None
        if settings.nothing_pays == "longest_length":
            self._guess = MeanGuess(dataset.activations[self._rows], reader.mse_scale)

    def draw(self, step: int, clock: Clock) -> Draw:
        """The samples of a step, this process's share of them."""
        group, how = self._settings.samples, self._settings.flat_groups
        stopping = self._stopping(step)
        if self._engine is not None:
            with clock.phase("sync"):
                self._engine.follow()
        drawn = self._sampled(self.prompts(step), stopping, step, clock)
        assert drawn is not None
        telling = drawn.telling(group)
        was_flat, is_replaced = ~telling, np.zeros(len(telling), dtype=bool)
        for others in self._replacements(step) if how == "replace" else ():
            # All processes go on while any has something to replace: models are put together.
            places = np.flatnonzero(~telling & (others >= 0))
            if self._ranks.most(len(places)) == 0:
                break
            again = self._sampled(
                self._prompts_of(others[places]), _some(stopping, places), step, clock
            )
            if again is not None:
                found = again.telling(group)
                drawn = _with_groups(drawn, again, places, found, group)
                telling[places], is_replaced[places] = found, found
        is_used = np.repeat(telling if how != "keep" else np.ones_like(telling), group)
        return Draw(drawn, is_used, was_flat, is_replaced)

    def prompts(self, step: int) -> Prompts:
        """The activations of a step, this process's share of them."""
        return self._prompts_of(self._of_step(step)[self._ranks.share(self._settings.prompts)])

    def _of_step(self, step: int) -> npt.NDArray[np.int64]:
        """Rows of the data set that a step is about, in all processes."""
        return self._rows[
            rows_of_step(self._seed, Use.PROMPTS, step, self._settings.prompts, len(self._rows))
        ]

    def _prompts_of(self, chosen: npt.NDArray[np.int64]) -> Prompts:
        return repeated(
            self._dataset.activations[chosen],
            self._dataset.idx[chosen],
            self._settings.samples,
            [self._dataset.source_texts[row] for row in chosen],
        )

    def _replacements(self, step: int) -> Iterator[npt.NDArray[np.int64]]:
        """Round for round, which row takes the place of each group; −1 where none is left.

        No row comes twice in a step, for the same row would be given the same responses.
        """
        prompts = self._settings.prompts
        others = np.setdiff1d(self._rows, self._of_step(step))
        order = stream(self._seed, Use.REPLACEMENTS, step).permutation(others)
        for start in range(0, self._settings.replacement_rounds * prompts, prompts):
            chosen = np.full(prompts, -1, dtype=np.int64)
            left = order[start : start + prompts]
            chosen[: len(left)] = left
            yield chosen[self._ranks.share(prompts)]

    def _stopping(self, step: int) -> Stopping:
        """Where this process's groups stop; drawn for all groups of the step."""
        rng = stream(self._seed, Use.GRADING, step)
        everywhere = self._settings.grading.stopping(self._settings.prompts, rng)
        share = self._ranks.share(self._settings.prompts)
        return _some(everywhere, np.arange(self._settings.prompts)[share])

    def _sampled(
        self, prompts: Prompts, stopping: Stopping, step: int, clock: Clock
    ) -> Drawn | None:
        """Responses to ``prompts``; ``None`` where there are none of them here."""
        settings, tokenizer = self._settings, self._verbalizer.tokenizer
        is_needed = len(prompts.activations) > 0
        engine = nullcontext() if self._engine is None else self._engine.speaking()
        with clock.phase("generate"), whole(self._verbalizer.model), engine:
            if is_needed:
                responses = responses_of(
                    self._verbalizer,
                    prompts,
                    stopping,
                    seed=derived(self._seed, Use.SAMPLING, step),
                    max_new_tokens=settings.max_new_tokens,
                    generation_batch=settings.generation_batch,
                )
        # Judges take their time over a network, and the AR reads meanwhile.
        texts = responses.said.explanations if is_needed else []
        with self._judges.asked(texts, prompts.sources) as judged:
            with clock.phase("score"), self._reading(), whole(self._reader.decoder):
                if not is_needed:
                    return None
                samples = scored(
                    self._reader,
                    prompts,
                    responses,
                    settings.grading.ends(responses, self._length_penalty),
                    tokenizer=tokenizer,
                    charge=settings.charge(),
                    guess=self._guess,
                )
            if self._judges.settings:
                with clock.phase("judge"):  # what is left to wait for
                    samples = replace(samples, scores=judged())
        values, terms = end_rewards(samples, settings.rewards, settings.samples)
        generated = responses.said.generated
        return Drawn(
            activations=prompts.activations,
            token_ids=generated.token_ids,
            log_probs=generated.log_probs,
            lengths=generated.lengths,
            samples=samples,
            values=values,
            terms=terms,
        )


def _some(stopping: Stopping, groups: npt.NDArray[np.int64]) -> Stopping:
    """Where these groups stop."""
    tokens, claims = stopping.tokens, stopping.claims
    return Stopping(
        tokens=None if tokens is None else [tokens[group] for group in groups],
        claims=None if claims is None else [claims[group] for group in groups],
    )


def _with_groups(
    drawn: Drawn, again: Drawn, places: npt.NDArray[np.int64], is_better: Flags, group: int
) -> Drawn:
    """``drawn`` with those groups of ``again`` that are better in their places."""
    longest = max(drawn.token_ids.shape[1], again.token_ids.shape[1])
    both = joined([drawn.padded_to(longest), again.padded_to(longest)])
    groups = np.arange(len(drawn.lengths) // group)
    groups[places[is_better]] = len(groups) + np.flatnonzero(is_better)
    return taken(both, (groups[:, None] * group + np.arange(group)).ravel())
