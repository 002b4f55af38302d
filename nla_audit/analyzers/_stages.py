"""Chains and separators: does each stage say first what the one before it said, and go on?

A stage of a chain is a model that was trained from the one before; of an AV with separators, a
segment of its text. What is found is compared with chance (the stage's text of another activation)
and, for chains, with what a second sample of the predecessor says again: no successor can be asked
to say more of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl

from nla_audit.analyzers._multiscale_verdict import CANNOT_TELL
from nla_audit.errors import UserError
from nla_audit.stats import (
    UNKNOWN,
    Interval,
    chance_corrected,
    or_none,
    percentile_limits,
)
from nla_audit.table.completions import Completions, from_frame
from nla_audit.table.door import check_model, named_models
from nla_audit.table.pairing import column, resampler, thinned
from nla_audit.text.pairs import RESAMPLING_FLOOR
from nla_audit.text.reading import READING_ERROR, Reading, read_afresh
from nla_audit.text.words import piece_count, word_spans

CHAIN, SEPARATORS = "chain", "separators"
#: Of what a second sample of the predecessor says again, this much is nearly all, and this little
#: next to nothing.
NEARLY_ALL, HARDLY_ANY = 0.8, 0.2
ALL, SOME, NONE = "nearly all", "part", "hardly any"
#: Of a larger table this many activations are read: each link costs as much as a whole reading.
_MOST_ACTIVATIONS = 400
#: Texts below which nothing is read of a link.
_FEWEST_TEXTS = 20
#: A predecessor of which a second sample says no more than this above chance has no claims that
#: could be found again.
_LEAST_FLOOR = 4 * READING_ERROR
#: Matches that lie no further than this from the middle of the null, in its standard deviations,
#: are not told from it: how many there are is then read far too high. Of planted stages
#: (benchmarks/stages.md) those of two seeds lie 1.75 to 2.8 from it; fits of matches as one normal,
#: which were in use before, were wrong where they lay up to 0.8 from it.
_LEAST_APART = 1.0
#: Where more than this matches by chance, nothing can be told from it.
_MOST_CHANCE = 0.5
#: Share of what is said in far fewer words that is taken to be overlooked: by so much may more be
#: said than is read. Limits that reach up by it cover planted ones (benchmarks/stages.md).
_OVERLOOKED = 0.16
#: Of what a stage says of its own, this share besides may repeat earlier parts only in subject
#: (benchmarks/stages.md).
_SAME_SUBJECT_REPEATED = 0.08
_FIRST, _LAST, _BEFORE, _STAGE = "first tokens", "last tokens", "before", "stage"

_INTERVALS = ("said_first", "floor", "of_floor", "said_last", "longer_by", "repeated")
LINKS = {
    "kind": pl.String,
    "before": pl.String,
    "stage": pl.String,
    "texts": pl.Int64,
    **{f"{name}{end}": pl.Float64 for name in _INTERVALS for end in ("", "_low", "_high")},
    "chance": pl.Float64,
    "repeated_chance": pl.Float64,
    "says_first": pl.String,
}


def links_named(completions: Completions, chains: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of neighbours of ``chains``, each a list of models with commas between them.

    Raises:
        UserError: a chain of fewer than two models, of one that is not in the table, or of one
            twice.
    """
    links: list[tuple[str, str]] = []
    for chain in chains:
        names = named_models(chain, "--chain")
        if len(names) < 2 or len(set(names)) < len(names):
            raise UserError(f"--chain {chain}: name two or more models, first to last, as A,B,C")
        for name in names:
            check_model(name, completions.models, f"--chain {chain}")
        links += [link for link in pairwise(names) if link not in links]
    return links


def stages_of(
    completions: Completions, links: Sequence[tuple[str, str]], seed: int
) -> pl.DataFrame:
    """Every link of chains, and of each model with segments each that follows another.

    A row has ``said_first`` (share of the predecessor's claims in the successor's first tokens, as
    many as the predecessor's text has), its ``chance`` and ``floor``, ``of_floor`` (both beyond
    chance, as a share), ``said_last`` (in as many of its last tokens), ``longer_by`` (tokens),
    and ``repeated`` (share of the claims behind the first tokens that the predecessor made
    already, beside ``repeated_chance``). Segments have ``repeated`` alone: a text up to a segment's
    end begins with the segments before it.
    """
    completions = _some_activations(completions)
    rows = [_chain_link(completions, before, stage, seed) for before, stage in links]
    for model in completions.models:
        rows += _segment_links(completions, model, seed)
    return pl.DataFrame(rows, schema=LINKS)


def _some_activations(completions: Completions) -> Completions:
    chosen = thinned(completions.rows["idx"].unique().sort(), _MOST_ACTIVATIONS)
    rows = completions.rows.filter(pl.col("idx").is_in(chosen.to_list()))
    return replace(completions, rows=rows)


class _Key(NamedTuple):
    """Whose text it is; the sample is that of the predecessor which it is read beside."""

    idx: int
    sample: int
    document: str | None


@dataclass(frozen=True)
class _Cut:
    """One explanation of a successor, cut where its predecessor's of the same activation ends."""

    key: _Key
    before: str
    first: str
    last: str
    rest: str
    longer_by: float


def first_parts(completions: Completions, before: str, stage: str) -> dict[int, int]:
    """Activation → characters of a successor's first tokens, of its first sample."""
    return {cut.key.idx: len(cut.first) for cut in reversed(list(_cut(completions, before, stage)))}


def _chain_link(completions: Completions, before: str, stage: str, seed: int) -> dict[str, object]:
    cuts = list(_cut(completions, before, stage))
    row: dict[str, object] = {
        "kind": CHAIN,
        "before": before,
        "stage": stage,
        "texts": len(cuts),
        "says_first": CANNOT_TELL,
    }
    if len(cuts) < _FEWEST_TEXTS:
        return row
    longer = pl.DataFrame(
        {"idx": [cut.key.idx for cut in cuts], "doc_id": [cut.key.document for cut in cuts]}
    )
    row |= resampler(longer, seed).mean([cut.longer_by for cut in cuts]).entries("longer_by")
    again = _read(
        _BEFORE,
        {
            _FIRST: [(cut.key, cut.first) for cut in cuts],
            _LAST: [(cut.key, cut.last) for cut in cuts],
        },
        _all_samples(completions, before),
        seed,
    )
    said, chance = _rates(again, _FIRST, seed)
    floor, floor_chance = _rates(again, RESAMPLING_FLOOR, seed)
    of_floor = _of_floor(again, (said.value, chance), (floor.value, floor_chance), seed)
    row |= said.entries("said_first") | {"chance": or_none(chance)}
    row |= floor.entries("floor") | of_floor.entries("of_floor")
    row |= _rates(again, _LAST, seed)[0].entries("said_last")
    row["says_first"] = _answer(of_floor)
    return row | _repeated([(cut.key, cut.before, cut.rest) for cut in cuts if cut.rest], seed)


def _segment_links(completions: Completions, model: str, seed: int) -> Iterable[dict[str, object]]:
    rows = completions.of(model).filter(pl.col("segment_ends").list.len() > 0)
    parts: dict[int, list[tuple[_Key, str, str]]] = {}
    for idx, sample, document, text, ends in rows.select(
        "idx", "sample", "doc_id", "explanation", "segment_ends"
    ).iter_rows():
        bounds = [*sorted({end for end in ends if 0 < end < len(text)}), len(text)]
        for number, (start, end) in enumerate(pairwise(bounds), 1):
            segment = text[start:end].strip()
            if segment:
                key = _Key(idx, sample, document)
                parts.setdefault(number, []).append((key, text[:start].strip(), segment))
    for number, found in sorted(parts.items()):
        yield {
            "kind": SEPARATORS,
            "before": f"{model}, to segment {number}",
            "stage": f"{model}, segment {number + 1}",
            "texts": len(found),
            **_repeated(found, seed),
        }


def _cut(completions: Completions, before: str, stage: str) -> Iterable[_Cut]:
    """The successor's explanations, each cut where one of its predecessor's ends; failed ones are
    left out, and so are empty predecessors, of which nothing can be said again."""
    columns = ["idx", "sample", "doc_id", "explanation", "content_tokens"]
    own, other = (
        completions.of(name).filter(pl.col("explanation").is_not_null()).select(columns)
        for name in (stage, before)
    )
    texts: dict[int, dict[int, tuple[str, float | None]]] = {}
    for idx, sample, _, text, tokens in other.iter_rows():
        if text:
            texts.setdefault(idx, {})[sample] = (text, tokens)
    used: set[tuple[int, int]] = set()
    for idx, sample, document, text, tokens in own.iter_rows():
        partner = _another_sample(sorted(texts.get(idx, {})), sample)
        if partner is None or (idx, partner) in used:
            continue
        used.add((idx, partner))
        said, length = texts[idx][partner]
        own_length = tokens
        if length is None or own_length is None:  # counted by one rule for both
            length, own_length = float(piece_count(said)), float(piece_count(text))
        first, rest = _split(text, own_length, length)
        _, last = _split(text, own_length, own_length - length)
        key = _Key(idx, partner, document)
        yield _Cut(key, said, first, last, rest, own_length - length)


def _another_sample(samples: Sequence[int], sample: int) -> int | None:
    """The sample of the predecessor beside which one of the successor is read.

    Not the one of the same number, if there is another: models that draw with the same random
    numbers say the same where they differ little, which two samples of one model do not.
    """
    if not samples:
        return None
    if sample not in samples:
        return samples[0]
    return samples[(samples.index(sample) + 1) % len(samples)]


def _split(text: str, tokens: float, length: float) -> tuple[str, str]:
    """``text`` in two, at the word nearest to the end of its first ``length`` tokens.

    Only its ``tokens`` in all are known, which are spread over its words in proportion to an
    estimate.
    """
    if length >= tokens:
        return text, ""
    ends = [end for _, end in word_spans(text)]
    if length <= 0 or not ends:
        return "", text
    starts = [0, *ends[:-1]]
    pieces = [piece_count(text[start:end]) for start, end in zip(starts, ends, strict=True)]
    so_far = np.cumsum(pieces) * tokens / piece_count(text)
    nearest = int(np.abs(so_far - length).argmin())
    return text[: ends[nearest]], text[ends[nearest] :].strip(" .,;:\n")


def _all_samples(completions: Completions, model: str) -> list[tuple[_Key, str]]:
    rows = completions.of(model).filter(pl.col("explanation").fill_null("") != "")
    return [
        (_Key(idx, sample, document), text)
        for idx, sample, document, text in rows.select(
            "idx", "sample", "doc_id", "explanation"
        ).iter_rows()
    ]


def _read(
    reference: str,
    others: dict[str, list[tuple[_Key, str]]],
    reference_texts: list[tuple[_Key, str]],
    seed: int,
) -> tuple[Reading, pl.DataFrame]:
    """The texts of ``others`` beside those of the reference, and the document of each ``idx``."""
    rows = [
        (model, *key, text)
        for model, texts in {reference: reference_texts, **others}.items()
        for key, text in texts
    ]
    schema = {
        "model": pl.String,
        "idx": pl.Int64,
        "sample": pl.Int64,
        "doc_id": pl.String,
        "explanation": pl.String,
    }
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    table = from_frame(frame, reference=reference)
    documents = frame.select("idx", "doc_id").unique("idx").sort("idx")
    return read_afresh(table, seed=seed), documents


def _rates(read: tuple[Reading, pl.DataFrame], model: str, seed: int) -> tuple[Interval, float]:
    """Share of the reference's claims that ``model`` makes, and what it would be by chance; NaN
    where matches are not told from chance."""
    reading, documents = read
    fit = reading.reader.fits.get(model)
    if fit is None or not fit.measured or fit.sentences.mean < _LEAST_APART:
        return UNKNOWN, np.nan
    rows = _claims(reading.claims, model).join(documents, on="idx", maintain_order="left")
    if rows.height == 0:
        return UNKNOWN, np.nan
    by_chance = _claims(reading.chance, model)
    chance = float(column(by_chance, "kept").mean()) if by_chance.height else np.nan
    if chance > _MOST_CHANCE:
        return UNKNOWN, chance
    rate = resampler(rows, seed).share(column(rows, "kept")).widened(READING_ERROR, 0.0, 1.0)
    rate = rate.reaching(rate.value * reading.other_claims(model), 0.0, 0.0, 1.0)
    if model != RESAMPLING_FLOOR:
        rate = rate.reaching(0.0, rate.value * _OVERLOOKED / (1 - _OVERLOOKED), 0.0, 1.0)
    return rate, chance


def _claims(frame: pl.DataFrame, model: str) -> pl.DataFrame:
    return frame.filter(pl.col("model").cast(pl.String) == model)


def _of_floor(
    read: tuple[Reading, pl.DataFrame],
    said: tuple[float, float],
    floor: tuple[float, float],
    seed: int,
) -> Interval:
    """What is said first as a share of what a second sample says again, both beyond chance."""
    beyond = [float(chance_corrected(rate, chance)) for rate, chance in (said, floor)]
    if not np.isfinite(beyond).all() or beyond[1] < _LEAST_FLOOR:
        return UNKNOWN
    reading, documents = read
    sums = [
        _claims(reading.claims, model)
        .group_by("idx")
        .agg(pl.col("kept").sum().alias(f"kept{place}"), pl.len().alias(f"all{place}"))
        for place, model in enumerate((_FIRST, RESAMPLING_FLOOR))
    ]
    both = sums[0].join(sums[1], on="idx").join(documents, on="idx").sort("idx")
    # Replicates of ratios of sums: means of the parts over activations, divided.
    parts = ("kept0", "all0", "kept1", "all1")
    drawn = resampler(both, seed).mean_replicates(
        np.column_stack([column(both, name) for name in parts])
    )
    ratio = beyond[0] / beyond[1]
    if len(drawn) == 0:
        return replace(UNKNOWN, value=ratio, n=both.height)
    rates = [
        chance_corrected(drawn[:, 2 * place] / drawn[:, 2 * place + 1], chance)
        for place, (_, chance) in enumerate((said, floor))
    ]
    limits = percentile_limits(rates[0] / rates[1])
    # The reading's own error is in both rates.
    error = READING_ERROR * float(np.hypot(1, ratio)) / beyond[1]
    missed = ratio * _OVERLOOKED / (1 - _OVERLOOKED)
    return Interval(ratio, *limits, both.height).widened(error).reaching(0.0, missed)


def _answer(of_floor: Interval) -> str:
    if np.isnan(of_floor.low):
        return CANNOT_TELL
    if of_floor.low >= NEARLY_ALL:
        return ALL
    if of_floor.high <= HARDLY_ANY:
        return NONE
    if of_floor.low > HARDLY_ANY and of_floor.high < NEARLY_ALL:
        return SOME
    return CANNOT_TELL


def _repeated(parts: list[tuple[_Key, str, str]], seed: int) -> dict[str, object]:
    """Share of what a stage says of its own that was said before."""
    if len(parts) < _FEWEST_TEXTS:
        return {}
    read = _read(
        _STAGE,
        {_BEFORE: [(key, before) for key, before, _ in parts]},
        [(key, stage) for key, _, stage in parts],
        seed,
    )
    rate, chance = _rates(read, _BEFORE, seed)
    rate = rate.reaching(_SAME_SUBJECT_REPEATED, 0.0, 0.0, 1.0)
    return {**rate.entries("repeated"), "repeated_chance": or_none(chance)}
