"""Planted truth: length-penalty sweeps of which every omission and rewording is known.

An activation is a set of facts; its source text is true to all of them. A reference explanation
states most of them at length; each model, with its own rates, leaves claims out, says them
tersely, adds others, copies the tail of the source or names what is not there. The analyzers are
tested by how well they recover these rates from the texts alone.

All draws come from local generators, one per model and sample, so that a model's texts do not
change when other models are added to the sweep.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.progress import Progress

from nla_audit.errors import UserError
from nla_audit.files import whole_file
from nla_audit.world.sweep.activation import draw_activations
from nla_audit.world.sweep.speaker import (
    UNIFORMS_PER_EXPLANATION,
    PlantedModel,
    count_tokens,
    planted_explanation,
)
from nla_audit.world.sweep.truth import WORTH, PlantedRows, summarise

__all__ = [
    "DEFAULT_MODELS",
    "PlantedModel",
    "PlantedSweep",
    "count_tokens",
    "default_sweep",
    "plant",
    "plant_to_parquet",
]

#: Standard deviation of what an explanation's FVE varies by beside what it states, FVE points.
EXPLANATION_NOISE = 0.03
#: Mean FVE points that any activation loses …
EASY_LOSS = 0.04
#: … and that a hard one loses on top; together they give the published spread (docs/object.md).
HARD_LOSS = 0.5
#: Share of hard activations.
HARD_SHARE = 0.2

_CHUNK = 2_000


@dataclass(frozen=True)
class PlantedSweep:
    """A planted sweep and its truth.

    Attributes:
        completions: the published schema (docs/formats.md) with ``sample``; one row per
            explanation.
        truth: one row per (``model``, ``idx``, ``sample``, ``claim``), where ``claim`` numbers the
            claims of the reference's sample 0 in order. ``start`` and ``end`` are its character
            span there, ``reference_tokens`` its cost there; ``fate`` is ``kept`` (at length),
            ``reworded`` (tersely) or ``omitted`` in this text, ``tokens`` its cost here (0 when
            omitted), ``own_start`` and ``own_end`` its span here, ``named`` what it names here
            (an entity, a number, quoted words), ``spurious`` whether that is wrong, ``renamed``
            whether a claim about a name or number names another than the reference's, ``worth``
            the FVE points it is worth. There are no rows for an activation whose reference failed
            or is empty, nor for an explanation that failed. The reference's sample 0 has ``kept``
            everywhere, by definition.
        explanations: one row per explanation, columns as documented in
            :mod:`nla_audit.world.sweep.truth`: where its tokens go, what its saving over the
            reference consists of, what it names, quotes and copies.
        summary: the realised rates of each model (not those asked for).
        worth: relative worth of a stated claim, by kind.
        reference: name of the reference model.
    """

    completions: pl.DataFrame
    truth: pl.DataFrame
    explanations: pl.DataFrame
    summary: pl.DataFrame
    reference: str
    worth: Mapping[str, float] = field(default_factory=lambda: dict(WORTH))


def plant(
    models: Sequence[PlantedModel],
    *,
    activations: int,
    seed: int,
    samples: int = 1,
    reference: str | None = None,
    resampling_omission: float | None = None,
    paragraph_break: str = "  ",
) -> PlantedSweep:
    """Generate a sweep with known truth.

    Each sample of the reference states each planned fact (5–9 an activation) with probability
    1 − ``resampling_omission``, independently; other models state it with 1 − their ``omit``. So
    the chance that a model leaves out a claim of the reference is exactly its ``omit``, and a
    model with ``omit`` equal to ``resampling_omission`` and all else as in the reference does not
    differ from it.

    Args:
        models: the sweep, each with its own name.
        activations: number of activations; ``idx`` runs from 0.
        seed: any non-negative integer; same arguments, same sweep.
        samples: explanations of each activation by each model.
        reference: model that the truth is relative to; the first when not given.
        resampling_omission: chance that one sample of the reference leaves out what it is meant
            to state. Not given: 0.1 with several samples, else 0.
        paragraph_break: what separates paragraphs; two spaces as in the published tables.

    The first activations of a longer sweep are those of a shorter one with the same seed.

    Raises:
        UserError: no models, a name twice, an unknown reference, or a rate out of range.
    """
    plan = _Plan.check(
        models=models,
        activations=activations,
        seed=seed,
        samples=samples,
        reference=reference,
        resampling_omission=resampling_omission,
        paragraph_break=paragraph_break,
    )
    chunks = list(_chunks(plan))
    completions = pl.concat([chunk[0] for chunk in chunks], rechunk=False)
    truth = pl.concat([chunk[1] for chunk in chunks], rechunk=False)
    explanations = pl.concat([chunk[2] for chunk in chunks], rechunk=False)
    summary = summarise(plan.models, completions, truth, explanations)
    return PlantedSweep(completions, truth, explanations, summary, plan.reference)


def plant_to_parquet(
    path: str | Path,
    models: Sequence[PlantedModel],
    *,
    activations: int,
    seed: int,
    samples: int = 1,
    reference: str | None = None,
    resampling_omission: float | None = None,
    paragraph_break: str = "  ",
) -> Path:
    """Write the completions of :func:`plant` to ``path`` without holding them in memory.

    The file appears when it is whole. Progress is shown on standard error.

    Raises:
        UserError: as :func:`plant`, or when the folder cannot be written to.
    """
    path = Path(path)
    plan = _Plan.check(
        models=models,
        activations=activations,
        seed=seed,
        samples=samples,
        reference=reference,
        resampling_omission=resampling_omission,
        paragraph_break=paragraph_break,
    )
    with (
        whole_file(path) as partial,
        tempfile.TemporaryDirectory(dir=partial.parent, prefix=f"{partial.name}-") as folder,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        parts = []
        task = progress.add_task("planting", total=activations)
        for number, (completions, _, _) in enumerate(_chunks(plan, with_claims=False)):
            parts.append(Path(folder) / f"{number:06d}.parquet")
            completions.write_parquet(parts[-1])
            progress.update(task, advance=completions["idx"].n_unique())
        pl.scan_parquet(parts).sink_parquet(partial)
    return path


def default_sweep(activations: int = 400, seed: int = 0, samples: int = 1) -> PlantedSweep:
    """A sweep in the manner of the published one: ``base`` and λ from 0 to 0.03.

    The rates are ours; lengths and FVE fall in the same order as in docs/published.md. The
    reference is ``p0.0``.
    """
    return plant(
        DEFAULT_MODELS, activations=activations, seed=seed, samples=samples, reference="p0.0"
    )


#: The models of :func:`default_sweep`.
DEFAULT_MODELS: tuple[PlantedModel, ...] = (
    PlantedModel("base", None, omit=0.15, add=0.5, spurious=0.25, filler=0.3, fail=0.01),
    PlantedModel("p0.0", 0.0, spurious=0.15, filler=0.2, fail=0.01),
    PlantedModel(
        "p0.001",
        0.001,
        omit={
            "style": 0.3,
            "momentum": 0.25,
            "number": 0.2,
            "genre": 0.1,
            "repetition": 0.2,
            "structure": 0.1,
            "expectation": 0.1,
            "entity": 0.1,
        },
        reword=0.2,
        add=0.2,
        spurious=0.12,
        filler=0.05,
        tail_copy=0.02,
    ),
    PlantedModel(
        "p0.006",
        0.006,
        omit={
            "style": 0.8,
            "momentum": 0.7,
            "number": 0.6,
            "genre": 0.3,
            "repetition": 0.6,
            "structure": 0.45,
            "expectation": 0.35,
            "entity": 0.4,
            "final_token": 0.15,
        },
        reword=0.9,
        add=0.1,
        spurious=0.1,
        tail_copy=0.1,
    ),
    PlantedModel(
        "p0.03",
        0.03,
        omit={
            "style": 0.99,
            "momentum": 0.97,
            "number": 0.95,
            "genre": 0.85,
            "repetition": 0.95,
            "structure": 0.9,
            "expectation": 0.9,
            "entity": 0.9,
            "final_token": 0.25,
        },
        reword=1.0,
        spurious=0.08,
        tail_copy=0.3,
        fail=0.003,
        empty=0.02,
    ),
)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The checked arguments of a sweep."""

    models: tuple[PlantedModel, ...]
    activations: int
    seed: int
    samples: int
    reference: str
    resampling_omission: float
    paragraph_break: str

    @staticmethod
    def check(
        *,
        models: Sequence[PlantedModel],
        activations: int,
        seed: int,
        samples: int,
        reference: str | None,
        resampling_omission: float | None,
        paragraph_break: str,
    ) -> _Plan:
        names = [model.name for model in models]
        if not names:
            raise UserError("a planted sweep needs at least one model; none was given")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"planted sweep: two models are called {twice[0]!r}; rename one")
        if reference is None:
            reference = names[0]
        if reference not in names:
            raise UserError(
                f"planted sweep: no model is called {reference!r}; "
                f"choose the reference from {', '.join(names)}"
            )
        if activations < 1 or samples < 1:
            raise UserError(
                f"planted sweep: {activations} activations and {samples} samples; "
                "give at least 1 of each"
            )
        if seed < 0:
            raise UserError(f"planted sweep: the seed is {seed}; give 0 or more")
        if resampling_omission is None:
            resampling_omission = 0.1 if samples > 1 else 0.0
        if not 0.0 <= resampling_omission <= 1.0:
            raise UserError(
                f"planted sweep: resampling_omission is {resampling_omission:g}; "
                "give a value from 0 to 1"
            )
        if models[names.index(reference)].omit not in (0, 0.0, resampling_omission):
            raise UserError(
                f"planted sweep: the reference {reference!r} has its own omit; "
                "what it leaves out is set by resampling_omission, so leave omit at 0"
            )
        return _Plan(
            tuple(models),
            activations,
            seed,
            samples,
            reference,
            resampling_omission,
            paragraph_break,
        )


# What each stream of random numbers decides.
_ACTIVATION_STREAM = 1
_DIFFICULTY_STREAM = 2
_WORDS_STREAM = 3
_RULER_STREAM = 4


def _stream(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng([seed, *key])


def _chunks(
    plan: _Plan, *, with_claims: bool = True
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]]:
    """Completions, truth and explanations of some thousand activations at a time."""
    activation_stream = _stream(plan.seed, _ACTIVATION_STREAM)
    difficulty_stream = _stream(plan.seed, _DIFFICULTY_STREAM)
    texts = [(model, sample) for model in plan.models for sample in range(plan.samples)]
    # Streams keyed by name: a model's texts do not depend on the others in the sweep.
    keys = {(model.name, sample): zlib.crc32(model.name.encode()) for model, sample in texts}
    words = {key: _stream(plan.seed, _WORDS_STREAM, keys[key], key[1]) for key in keys}
    ruler = {key: _stream(plan.seed, _RULER_STREAM, keys[key], key[1]) for key in keys}
    for first in range(0, plan.activations, _CHUNK):
        count = min(_CHUNK, plan.activations - first)
        activations = list(draw_activations(activation_stream, first, count))
        difficulty = _difficulty(difficulty_stream, count)
        rows = PlantedRows(with_claims=with_claims)
        draws = {
            key: stream.random((count, UNIFORMS_PER_EXPLANATION)) for key, stream in words.items()
        }
        noise = {key: stream.normal(0.0, EXPLANATION_NOISE, count) for key, stream in ruler.items()}
        for number, activation in enumerate(activations):
            explanations = {
                (model.name, sample): planted_explanation(
                    model,
                    activation,
                    draws[model.name, sample][number].tolist(),
                    omission=plan.resampling_omission if model.name == plan.reference else None,
                    paragraph_break=plan.paragraph_break,
                )
                for model, sample in texts
            }
            for model, sample in texts:
                rows.add(
                    model,
                    sample,
                    activation,
                    explanations[model.name, sample],
                    explanations[plan.reference, 0],
                    fve_noise=float(noise[model.name, sample][number] - difficulty[number]),
                )
        yield rows.frames()


def _difficulty(rng: np.random.Generator, count: int) -> np.ndarray:
    """FVE points ``[count]`` that an activation loses whatever is said of it.

    Shared by all explanations of an activation, with the heavy low tail of the published sweep.
    """
    uniforms = rng.random((count, 3))
    exponential = -np.log1p(-uniforms[:, :2])
    is_hard = uniforms[:, 2] < HARD_SHARE
    return EASY_LOSS * exponential[:, 0] + HARD_LOSS * is_hard * exponential[:, 1]
