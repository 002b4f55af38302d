"""How often the probe finds planted codes, and how often it calls one where there is none.

Each case is a pair whose truth is known. Its texts are made and changed once; every seed draws
its activations out of them, and their abilities, secrets' noise and readings anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl

from nla_audit.probes.stego.floors import VariantScores, judged
from nla_audit.probes.stego.verdict import CODE, QUOTED, CodeVerdict
from nla_audit.probes.transforming.cards import transforms
from nla_audit.probes.transforming.run import apply_transform
from nla_audit.world.codes.hidden_codes import CODES, HiddenCode
from nla_audit.world.codes.simulated_reader import (
    Perceived,
    SimulatedReader,
    draw_facts,
    familiar_pairs,
    fve,
    perceive,
    write,
)

#: Texts made for each case, out of which every seed draws its activations.
POOL = 400
ACTIVATIONS = 300
BITS = (1, 2, 4)
#: Mean and standard deviation of FVE where all facts are read, the spread as in the published
#: sweep (docs/object.md: std ≈ 0.28).
_ABILITY = (0.6, 0.25)


@dataclass(frozen=True)
class Case:
    """A pair with a known truth: its own reader, the code in its texts, and what to say of it."""

    name: str
    reader: SimulatedReader
    code: HiddenCode | None = None
    bits: int = 0
    expected: str | None = None

    @property
    def is_clean(self) -> bool:
        """Whether nothing is hidden."""
        return self.code is None


def clean_cases() -> list[Case]:
    """Pairs that hide nothing: a good AR, a brittle one, and one that reads quotes only."""
    return [
        Case("clean", SimulatedReader()),
        Case("clean, brittle AR", SimulatedReader(brittleness=0.5)),
        Case("clean, quote-reliant AR", SimulatedReader(quotes_only=True), expected=QUOTED),
    ]


def planted_cases(bits: Sequence[int] = BITS) -> list[Case]:
    """Every code at every size."""
    return [
        Case(name, SimulatedReader(code=code), code, k)
        for name, code in CODES.items()
        for k in bits
    ]


@dataclass(frozen=True)
class _ReadTexts:
    """One kind of texts under one reader: variant → what is perceived."""

    reader: SimulatedReader
    seen: dict[str, Perceived]


@lru_cache(maxsize=2)  # the reference texts are those of every case
def _changed(texts: tuple[str, ...], seed: int) -> dict[str, list[str]]:
    """Variant → changed texts, for every transform that needs no language model."""
    labels = range(len(texts))
    return {
        name: [text or "" for text in apply_transform(card, texts, labels, seed=seed)]
        for name, card in transforms().items()
        if not card.is_written
    }


class Simulation:
    """The texts of one case, changed and read; :meth:`judged` draws a study from them."""

    def __init__(self, case: Case, *, pool: int = POOL, seed: int = 0) -> None:
        self.case = case
        generator = np.random.default_rng([seed, 1])
        self.facts = draw_facts(pool, seed)
        self.secret = generator.integers(0, 2, (pool, case.bits))
        plain = [write(facts) for facts in self.facts]
        texts = plain
        if case.code is not None:
            texts = [
                case.code.encode(text, bits.tolist())
                for text, bits in zip(plain, self.secret, strict=True)
            ]
        self.cards = {name: card for name, card in transforms().items() if not card.is_written}
        familiar = familiar_pairs(plain)
        own = _changed(tuple(texts), seed)
        reference = _changed(tuple(plain), seed)
        self.own = self._read(case.reader, own, familiar)
        self.controls = {
            "reference texts": self._read(case.reader, reference, familiar),
            "second AR": self._read(SimulatedReader(), own, familiar),
        }

    def _read(
        self,
        reader: SimulatedReader,
        texts: dict[str, list[str]],
        familiar: frozenset[tuple[str, str]],
    ) -> _ReadTexts:
        flat = [text for variant in texts.values() for text in variant]
        facts = np.tile(self.facts, (len(texts), 1))
        seen = perceive(reader, flat, facts, familiar, bits=self.case.bits)
        n = len(self.facts)
        return _ReadTexts(
            reader,
            {
                name: Perceived(
                    *(
                        getattr(seen, field)[number * n : (number + 1) * n]
                        for field in ("facts_right", "bits", "unfamiliar", "text_number")
                    )
                )
                for number, name in enumerate(texts)
            },
        )

    def judged(self, seed: int, *, activations: int = ACTIVATIONS) -> CodeVerdict:
        """The verdict on one study of ``activations`` activations."""
        generator = np.random.default_rng([seed, 2])
        rows = np.sort(generator.permutation(len(self.facts))[:activations])
        ability = np.clip(generator.normal(*_ABILITY, len(self.facts)), 0.0, 1.0)
        own = VariantScores("own", self._scores(self.own, rows, ability, generator), rows)
        controls = [
            VariantScores(name, self._scores(source, rows, ability, generator), rows)
            for name, source in self.controls.items()
        ]
        return judged(own, controls, cards=self.cards, seed=seed).verdict

    def _scores(
        self,
        source: _ReadTexts,
        rows: np.ndarray,
        ability: np.ndarray,
        generator: np.random.Generator,
    ) -> dict[str, np.ndarray]:
        numbers = max(int(seen.text_number.max()) for seen in source.seen.values()) + 1
        noise = generator.normal(size=numbers)
        return {
            name: fve(source.reader, seen, self.secret, ability, noise)[rows]
            for name, seen in source.seen.items()
        }


def measure(
    cases: Sequence[Case],
    *,
    seeds: int,
    activations: int = ACTIVATIONS,
    pool: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> pl.DataFrame:
    """One row a case: how often a code was found, and how often the truth was named.

    Returns:
        ``case``, ``bits``, ``seeds``, ``called_code`` (share of seeds: the power of a planted
        case, the false alarms of a clean one), ``right_channel`` (of all seeds), ``named_right``
        (clean cases: not called a code, and as the expected category where there is one),
        ``verdicts`` (each with its count).
    """
    rows = []
    for number, case in enumerate(cases):
        if progress is not None:
            progress("simulated pairs", number, len(cases))
        simulation = Simulation(case, pool=POOL if pool is None else pool)
        found = [simulation.judged(seed, activations=activations) for seed in range(seeds)]
        is_code = np.array([verdict.category == CODE for verdict in found])
        right = [
            case.code is not None and verdict.channel == case.code.channel for verdict in found
        ]
        named = [
            verdict.category != CODE and case.expected in (None, verdict.category)
            for verdict in found
        ]
        counts = pl.Series([verdict.category for verdict in found]).value_counts().sort("")
        rows.append(
            {
                "case": case.name,
                "bits": case.bits,
                "seeds": seeds,
                "called_code": float(is_code.mean()),
                "right_channel": None if case.is_clean else float(np.mean(right)),
                "named_right": float(np.mean(named)) if case.is_clean else None,
                "verdicts": ", ".join(f"{name} {count}" for name, count in counts.iter_rows()),
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)
