"""Every pair of a sweep asked about the same planted activations; a table, resumable by pair."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from nla_audit.checkpoint.load import Pair
from nla_audit.errors import UserError
from nla_audit.llm.interface import LanguageModel
from nla_audit.nla.batching import Notice
from nla_audit.nla.segments import SEPARATOR
from nla_audit.nla.transform import ActivationTransform
from nla_audit.nla.verbalizer import DEFAULT_BATCH_SIZE, DEFAULT_MAX_NEW_TOKENS
from nla_audit.probes.sensitivity.asking import with_answers
from nla_audit.probes.sensitivity.design import Design, design
from nla_audit.probes.sensitivity.directions import Direction, check_apart, mean_direction
from nla_audit.probes.sensitivity.mentions import Sought, nearness
from nla_audit.probes.sensitivity.pairs import Generation, subject_of
from nla_audit.probes.sensitivity.planting import LADDER
from nla_audit.probes.sensitivity.reading import explained
from nla_audit.progress import Progress, silent
from nla_audit.record import MODELS, versions
from nla_audit.runs.activations import Activations
from nla_audit.runs.explain import sampling_key
from nla_audit.runs.fit import fitted
from nla_audit.runs.made_from import (
    activations_record,
    reconstructor_record,
    table_and_record,
    verbalizer_record,
)
from nla_audit.shards import Shards, digest_of

#: Activations at most that the covariance is taken from; the time it takes grows with their square.
_BACKGROUND = 2000

#: A direction in the space of a pair, which depends on what its activations go through.
DirectionOf = Callable[[ActivationTransform | None], Direction]


@dataclass(frozen=True)
class SweepSettings:
    """How to plant and ask.

    Attributes:
        strengths: the ladder, as shares of an activation's norm.
        limit: activations, spread evenly over the table.
        seed: of controls and sampling.
        temperature: of the AV; 0 is greedy.
        max_new_tokens: cap of an answer.
        batch_size: texts generated at once.
        token_budget: tokens the AR reads at once; ``None``: by device.
        separator: the token by which AVs that were trained to end segments.
    """

    strengths: tuple[float, ...] = LADDER
    limit: int = 100
    seed: int = 0
    temperature: float = 1.0
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    batch_size: int = DEFAULT_BATCH_SIZE
    token_budget: int | None = None
    separator: str = SEPARATOR


@dataclass(frozen=True)
class Named:
    """A pair of a sweep under its name in the table."""

    model: str
    length_penalty: float | None
    ar: str
    pair: Pair


def planted_table(
    pairs: Iterable[Named],
    activations: Activations,
    concept: Sought,
    *,
    direction: DirectionOf,
    out: Path,
    settings: SweepSettings | None = None,
    other: DirectionOf | None = None,
    similarity: str | None = None,
    asked: LanguageModel | None = None,
    record: dict[str, Any] | None = None,
    force: bool = False,
    progress: Progress = silent,
    notice: Notice = warnings.warn,
) -> tuple[pl.DataFrame, list[str]]:
    """Plant ``concept`` and its controls, ask every pair, write ``out`` with its record.

    Args:
        pairs: loaded one after the other, so that one is in memory at a time.
        activations: held out; what is planted into.
        concept: the words that name it.
        direction: of it.
        out: Parquet file (:mod:`nla_audit.probes.sensitivity.table`); finished batches are kept
            beside it, and the same call goes on from them.
        settings: how.
        other: another concept, a control.
        similarity: sentence-transformers model that also looks for the concept.
        asked: language model that is also asked whether explanations name it; its answers are kept
            in its own cache.
        record: what the caller adds to the record.
        force: plant into activations of another layer than a pair's.
        progress: told of texts asked for.
        notice: told what does not stop the work.

    Returns:
        The table, and what is to be known of the directions, in sentences.

    Raises:
        UserError: ``out`` is there already; activations, directions and pairs do not fit together;
            two pairs have one name; or no answer of ``asked`` can be used.
    """
    settings = settings or SweepSettings()
    frames: list[pl.DataFrame] = []
    made_from: dict[str, Any] = {}
    plan: Design | None = None
    of_first: ActivationTransform | None = None
    notes: list[str] = []
    kept: list[Shards] = []
    tokens_in: dict[str, Callable[[str], int]] = {}
    keys, row_keys = pl.DataFrame(), list[int]()
    for named in pairs:
        if named.model in made_from:
            raise UserError(f'two pairs are called "{named.model}": name them as NAME=PAIR')
        subject = subject_of(
            named.pair, named.model, named.ar, named.length_penalty, _how(settings), notice=notice
        )
        verbalizer, reconstructor = named.pair.verbalizer, named.pair.reconstructor
        assert verbalizer is not None
        assert reconstructor is not None
        seen = fitted(activations, verbalizer=verbalizer, reconstructor=reconstructor, force=force)
        if plan is None:
            of_first = reconstructor.transform
            rows = _chosen(seen, settings.limit)
            keys = seen.keys[rows]
            row_keys = [sampling_key(idx, 0) for idx in keys["idx"]]
            plan, notes = _planned(
                seen,
                rows,
                direction(of_first),
                settings,
                None if other is None else other(of_first),
            )
        elif reconstructor.transform != of_first:
            raise UserError(
                f"{named.model}: it reads activations after another transform than the first pair: "
                "ask them in two runs"
            )
        progress(f"hashing the models ({named.model})", 0, 0)
        made_from[named.model] = {
            "av": verbalizer_record(verbalizer),
            "ar": reconstructor_record(reconstructor),
        }
        computation = {
            "models": made_from[named.model],
            "model": [named.model, named.length_penalty, named.ar],
            "planted": plan.digest(),
            "words": [list(phrase) for phrase in concept.words.phrases],
            "concept": concept.name,
            "settings": asdict(settings),
            "versions": versions(MODELS),
        }
        tokens_in[named.model] = subject.tokens_in
        kept.append(Shards(out, digest_of(computation)))
        frames.append(
            explained(
                subject,
                plan,
                keys,
                row_keys,
                concept,
                batch_size=settings.batch_size,
                shards=kept[-1],
                progress=progress,
            )
        )
    if not frames:
        raise UserError("no pair to ask: name one or more")
    table = pl.concat(frames)
    if similarity is not None:
        near = nearness(concept, table["explanation"].to_list(), similarity)
        table = table.with_columns(nearness=pl.Series(near, nan_to_null=True))
    if asked is not None:
        table = with_answers(table, concept, asked, tokens_in=tokens_in, progress=progress)
    whole = {
        **(record or {}),
        "settings": asdict(settings),
        "models": made_from,
        "activations": activations_record(activations),
        "notes": notes,
    }
    with table_and_record(out, whole) as partial:
        table.write_parquet(partial)
    for shards in kept:
        shards.remove()
    return table, notes


def must_not_be_there(out: Path) -> None:
    """Refuse to take models in hand for a table that is there already.

    Raises:
        UserError: it is.
    """
    if out.exists():
        raise UserError(
            f"{out}: exists already: read it again with `nla-audit sensitivity {out}`, or name "
            "another --out"
        )


def _how(settings: SweepSettings) -> Generation:
    return Generation(
        seed=settings.seed,
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        token_budget=settings.token_budget,
        separator=settings.separator,
    )


def _chosen(activations: Activations, limit: int) -> list[int]:
    """Usable rows, spread evenly over the table."""
    usable = activations.usable_rows()
    if not usable:
        raise UserError(f"{activations.path}: no usable activation in {len(activations.vectors)}")
    places = np.linspace(0, len(usable) - 1, min(limit, len(usable))).round().astype(int)
    return [usable[place] for place in np.unique(places)]


def _planned(
    activations: Activations,
    rows: list[int],
    concept: Direction,
    settings: SweepSettings,
    other: Direction | None,
) -> tuple[Design, list[str]]:
    vectors = activations.vectors[rows].astype(np.float64)
    background = activations.vectors[_chosen(activations, _BACKGROUND)].astype(np.float64)
    keys = activations.keys[rows]
    cosine = check_apart(concept, mean_direction(background))
    has_documents = keys["doc_id"].null_count() == 0
    plan = design(
        concept,
        vectors,
        settings.strengths,
        clusters=keys["doc_id" if has_documents else "idx"].to_list(),
        background=background,
        other=other,
        seed=settings.seed,
    )
    return plan, [
        *concept.notes(),
        *([] if other is None else other.notes()),
        f"{concept.name}: cosine {cosine:.2f} with the mean activation, "
        f"{plan.share:.1%} of the variance of the activations.",
    ]
