"""``nla-audit explain``: activations in, completions with their FVE out.

Two stages, each in batches that are kept as they finish: the AV explains, then the AR reads
every distinct explanation once. Batches depend on the settings alone, so that a run that was
killed and taken up again writes the same table as one that was not.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from nla_audit.checkpoint.load import Pair
from nla_audit.errors import UserError
from nla_audit.files import write_parquet
from nla_audit.nla.batching import Notice
from nla_audit.nla.fve import BaselineName, Baselines, baselines_with
from nla_audit.nla.scoring import RowScores, score_columns, score_rows
from nla_audit.nla.verbalizer import DEFAULT_BATCH_SIZE, DEFAULT_MAX_NEW_TOKENS, Verbalizer
from nla_audit.progress import Progress, silent
from nla_audit.record import MODELS, run_record, versions
from nla_audit.runs.activations import Activations
from nla_audit.runs.fit import fitted
from nla_audit.runs.made_from import (
    activations_record,
    baselines_record,
    finished_table,
    is_done,
    table_and_record,
)
from nla_audit.runs.prefix_curves import curve_path, read_curves
from nla_audit.runs.remote import (
    AnyReconstructor,
    AnyVerbalizer,
    RemotePair,
    each_of,
    record_of,
)
from nla_audit.shards import Shards, digest_of

_STAGE = "explained"
_NO_END = "no end token before the cap"
_NO_TAGS = "no explanation between tags"

#: Share of CJK characters above which it is said; an AV that gets no vector describes the marker,
#: which is a CJK character (docs/failures.md).
_CJK_ALARM = 0.05

#: Settings that change what is said; the others are labels or enter after the last batch.
_GENERATION = (
    "samples",
    "seed",
    "temperature",
    "max_new_tokens",
    "batch_size",
    "token_budget",
)

#: Types of a finished batch of explanations; the row and sample say what was explained.
_PIECE: dict[str, pl.DataType] = {
    "row": pl.Int64(),
    "sample": pl.Int64(),
    "explanation": pl.String(),
    "n_tokens": pl.Int64(),
    "content_tokens": pl.Int64(),
    "cjk": pl.Float64(),
    "failure": pl.String(),
}


@dataclass(frozen=True)
class ExplainSettings:
    """How to explain.

    Attributes:
        model: name of the AV in the table.
        ruler: name of the AR in the table.
        length_penalty: λ the AV was trained with; ``None``: unknown, or none.
        samples: explanations of each activation.
        seed: of the sampling.
        temperature: 1 samples from the AV's own distribution, 0 is greedy.
        max_new_tokens: cap; an explanation that hits it has failed.
        batch_size: rows generated at once, and the most that a killed run loses.
        token_budget: tokens the AR reads at once, padding included; ``None``: by device.
        baseline: the one that column ``fve`` uses.
        given_baselines: values to use instead of measuring them on the activations.
        prefixes: units (tokens, claims) in which FVE by prefix is written besides.
    """

    model: str
    ruler: str
    length_penalty: float | None = None
    samples: int = 1
    seed: int = 0
    temperature: float = 1.0
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    batch_size: int = DEFAULT_BATCH_SIZE
    token_budget: int | None = None
    baseline: BaselineName = "raw_variance"
    given_baselines: Mapping[BaselineName, float] = field(default_factory=dict)
    prefixes: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            UserError: several greedy samples, or a count below 1.
        """
        if self.samples < 1 or self.max_new_tokens < 1 or self.batch_size < 1:
            raise UserError("samples, max_new_tokens and batch_size must be at least 1")
        if "segments" in self.prefixes:
            raise UserError(
                "explanations have no segments while they are written: leave segments out of "
                "--prefixes, and score a table that has segment_ends"
            )
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature {self.temperature:g}: must be 0 (greedy) or more")
        if self.length_penalty is not None and not 0 <= self.length_penalty < math.inf:
            raise UserError(f"length penalty {self.length_penalty:g}: must be 0 or more")
        if self.temperature == 0 and self.samples > 1:
            raise UserError(
                f"{self.samples} greedy samples would all be the same: ask for one, or sample "
                "with --temperature 1"
            )


def explain(
    pair: Pair | RemotePair,
    activations: Activations,
    out: Path,
    settings: ExplainSettings,
    *,
    arguments: Mapping[str, Any] | None = None,
    force: bool = False,
    progress: Progress = silent,
    notice: Notice = warnings.warn,
) -> pl.DataFrame:
    """Explain every usable activation and score every explanation.

    Writes ``out`` (Parquet), sorted by activation and sample, and beside it a record
    (``<out>.record.json``). Takes up a former run of the same settings where it stopped; does
    nothing if that run was finished.

    Args:
        pair: both halves, here or held by other processes.
        arguments: as passed on the command line, for the record.
        force: explain activations of another layer than the pair's.
        progress: told of rows done.
        notice: told what the user should know and does not stop the work.

    Returns:
        The table: the columns of a completions table (:mod:`nla_audit.table.completions`), and
        ``cosine``, ``fve_raw_variance``, ``fve_mean_normalized``, ``fve_baseline`` and
        ``fve_baseline_value`` (the one that ``fve`` uses) and ``reason`` (why a row has no FVE).

    Raises:
        UserError: half a pair, activations of another width or layer, no usable activation, or
            ``out`` is there already and not from this run.
    """
    settings.check()
    if pair.verbalizer is None or pair.reconstructor is None:
        raise UserError("explaining needs both halves: name an AV and an AR")
    verbalizer, reconstructor = pair.verbalizer, pair.reconstructor
    activations = fitted(
        activations, verbalizer=verbalizer, reconstructor=reconstructor, force=force
    )
    problems = activations.describe_problems()
    if problems is not None:
        notice(problems)
    usable = activations.usable_rows()
    if not usable:
        raise UserError(f"{activations.path}: no usable activation in {len(activations.vectors)}")
    baselines = baselines_with(
        settings.given_baselines, activations.vectors, reconstructor.mse_scale
    )
    progress("hashing the models", 0, 0)
    computation = _computation(verbalizer, reconstructor, activations, settings)
    key = digest_of({**computation, "labels": _labels(settings)})
    if is_done(out, key):
        notice(f"{out}: already finished with these settings; nothing to do")
        return finished_table(out)
    shards = Shards(out, digest_of(computation))
    if others := shards.others():
        notice(f"{others[0]}: parts of an unfinished run with other settings; not used")

    explained = _explained(
        verbalizer,
        activations,
        usable,
        settings,
        shards=shards,
        progress=progress,
        notice=notice,
    )
    scores = score_rows(
        reconstructor,
        explained["explanation"].to_list(),
        activations.vectors,
        explained["row"].to_numpy(),
        token_budget=settings.token_budget,
        shards=shards,
        progress=progress,
        notice=notice,
    )
    table = _completions(
        activations, explained, scores, settings, baselines=baselines, reconstructor=reconstructor
    )
    if settings.prefixes:
        curves = read_curves(
            reconstructor,
            table,
            activations.vectors,
            explained["row"].to_numpy(),
            units=settings.prefixes,
            ruler=settings.ruler,
            baselines=baselines,
            baseline=settings.baseline,
            token_budget=settings.token_budget,
            shards=shards,
            progress=progress,
            notice=notice,
        )
        write_parquet(curves, curve_path(out))
    record = {
        "command": "explain",
        "key": key,
        **run_record("explain", arguments, MODELS),
        "settings": asdict(settings),
        "seed": settings.seed,
        "counts": _counts(table),
        "baselines": baselines_record(baselines, settings.given_baselines, settings.baseline),
        **computation,
        "activations": activations_record(activations),
    }
    with table_and_record(out, record) as partial:
        table.write_parquet(partial)
    shards.remove()
    share = table["cjk"].mean()
    if isinstance(share, float) and share > _CJK_ALARM:
        notice(
            f"{out}: {share:.0%} of what the AV wrote is CJK; if the sources are not, the "
            f"injection ({verbalizer.injection}) may be wrong; see --injection"
        )
    return table


def sampling_key(idx: object, sample: int) -> int:
    """Names a row to the random generator: by its activation, wherever it stands in a table."""
    digest = hashlib.sha256(f"{idx}\0{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _computation(
    verbalizer: AnyVerbalizer,
    reconstructor: AnyReconstructor,
    activations: Activations,
    settings: ExplainSettings,
) -> dict[str, Any]:
    """All that changes what is said or how it scores; labels and baselines come afterwards."""
    return {
        "av": record_of(verbalizer),
        "ar": record_of(reconstructor),
        "activations": {"sha256": activations.sha256},
        "generation": {name: getattr(settings, name) for name in _GENERATION},
        "versions": versions(MODELS),
    }


def _labels(settings: ExplainSettings) -> dict[str, Any]:
    names = ("model", "ruler", "length_penalty", "baseline")
    labels = {name: getattr(settings, name) for name in names} | {
        "given_baselines": dict(settings.given_baselines)
    }
    return labels | ({"prefixes": list(settings.prefixes)} if settings.prefixes else {})


def _explained(
    verbalizer: AnyVerbalizer,
    activations: Activations,
    usable: Sequence[int],
    settings: ExplainSettings,
    *,
    shards: Shards,
    progress: Progress,
    notice: Notice,
) -> pl.DataFrame:
    """What the AV says about every usable row; the columns of :data:`_PIECE`."""
    todo = [(row, sample) for row in usable for sample in range(settings.samples)]
    idx = activations.keys["idx"].to_list()
    batches = [
        todo[start : start + settings.batch_size]
        for start in range(0, len(todo), settings.batch_size)
    ]
    pieces = {number: shards.get(_STAGE, number) for number in range(len(batches))}
    missing = [number for number, piece in pieces.items() if piece is None]
    done = len(todo) - sum(len(batches[number]) for number in missing)
    progress("explaining", done, len(todo))
    asked = (
        (number, _AskedBatch(batches[number], *_given(batches[number], activations, idx), settings))
        for number in missing
    )
    for number, piece in each_of(verbalizer, _said, asked, notice):
        shards.put(_STAGE, number, piece)
        pieces[number] = piece
        done += piece.height
        progress("explaining", done, len(todo))
    return pl.concat([piece for piece in pieces.values() if piece is not None])


@dataclass(frozen=True)
class _AskedBatch:
    """A batch of rows to explain, with all that it takes besides the AV.

    Attributes:
        batch: row and sample of each.
        vectors: ``[batch, d_model]``.
        row_keys: ``[batch]`` of the sampling.
        settings: how.
    """

    batch: Sequence[tuple[int, int]]
    vectors: npt.NDArray[np.float32]
    row_keys: Sequence[int]
    settings: ExplainSettings


def _given(
    batch: Sequence[tuple[int, int]], activations: Activations, idx: Sequence[object]
) -> tuple[npt.NDArray[np.float32], list[int]]:
    vectors = activations.vectors[[row for row, _ in batch]]
    return vectors, [sampling_key(idx[row], sample) for row, sample in batch]


def _said(verbalizer: Verbalizer, asked: _AskedBatch, notice: Notice) -> pl.DataFrame:
    """What the AV says about one batch; the columns of :data:`_PIECE`."""
    settings = asked.settings
    said = verbalizer.generate(
        asked.vectors,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        seed=settings.seed,
        row_keys=asked.row_keys,
        batch_size=settings.batch_size,
        notice=notice,
    )
    ended = said.generated.ended.tolist()
    return pl.DataFrame(
        {
            "row": [row for row, _ in asked.batch],
            "sample": [sample for _, sample in asked.batch],
            "explanation": said.explanations,
            "n_tokens": said.generated.lengths,
            "content_tokens": verbalizer.content_tokens(said),
            "cjk": said.cjk,
            "failure": [
                None if text is not None else _NO_TAGS if has_ended else _NO_END
                for text, has_ended in zip(said.explanations, ended, strict=True)
            ],
        },
        schema=_PIECE,
    )


def _completions(
    activations: Activations,
    explained: pl.DataFrame,
    scores: RowScores,
    settings: ExplainSettings,
    *,
    baselines: Baselines,
    reconstructor: AnyReconstructor,
) -> pl.DataFrame:
    """Keys, texts and scores side by side, in canonical columns."""
    keys = activations.keys[explained["row"].to_numpy()]
    failure = explained["failure"].to_list()
    reasons = [why or reason for why, reason in zip(failure, scores.reasons, strict=True)]
    return pl.DataFrame(
        {
            "model": pl.repeat(settings.model, len(keys), dtype=pl.String, eager=True),
            "length_penalty": pl.repeat(
                settings.length_penalty, len(keys), dtype=pl.Float64, eager=True
            ),
            "idx": keys["idx"],
            "sample": explained["sample"],
            "ar": pl.repeat(settings.ruler, len(keys), dtype=pl.String, eager=True),
            "doc_id": keys["doc_id"],
            "position": keys["position"],
            "source_text": keys["source_text"],
            "explanation": explained["explanation"],
            "n_tokens": explained["n_tokens"],
            "content_tokens": explained["content_tokens"],
            **score_columns(scores, baselines, settings.baseline),
            "reward": _reward(scores, explained, reconstructor),
            "extracted": explained["explanation"].is_not_null(),
            "cjk": explained["cjk"],
            "reason": pl.Series(reasons, dtype=pl.String),
        }
    )


def _reward(
    scores: RowScores, explained: pl.DataFrame, reconstructor: AnyReconstructor
) -> pl.Series:
    """−MSE, and for a failed extraction that of an orthogonal guess (docs/failures.md)."""
    reward = -scores.mse
    if reconstructor.mse_scale is not None:
        orthogonal = 2 * reconstructor.mse_scale**2 / reconstructor.d_model
        reward = np.where(explained["explanation"].is_null().to_numpy(), -orthogonal, reward)
    return pl.Series("reward", reward, nan_to_null=True)


def _counts(table: pl.DataFrame) -> dict[str, int]:
    return {
        "rows": table.height,
        "failed": int((~table["extracted"]).sum()),
        "empty": int((table["explanation"] == "").sum()),
        "scored": table.height - table["fve"].null_count(),
        "distinct_explanations": table["explanation"].drop_nulls().n_unique(),
    }
