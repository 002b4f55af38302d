"""Every number in a verdict of faithfulness, counted again from the raw table."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nla_audit.analyzers.faithfulness import faithfulness
from nla_audit.table.completions import from_frame, load
from nla_audit.text.items import items
from tests.verdicts.recounting import NAME, assert_limits, bootstrap, plain_words, share

_ASSERTED = ("quote", "entity", "number")


def claims(text: str) -> dict[str, set[str]]:
    """Distinct quotations, names and numbers of a text; predictions are no claims."""
    found: dict[str, set[str]] = {kind: set() for kind in _ASSERTED}
    for item in items(text):
        if item.kind in found and not item.predicted:
            found[item.kind].add(item.text)
    return found


#: Countries that these texts speak of, and their peoples.
PEOPLES = {"china": "chinese", "canada": "canadian"}


def stands_in(span: str, source: str) -> bool:
    """Whether the words stand in the source, owners and peoples too, or what they abbreviate."""
    own, other = (
        " ".join(
            PEOPLES.get(word, word)
            for word in (re.sub("['’]s$", "", word) for word in plain_words(text))
        )
        for text in (span, source)
    )
    if span.isupper() and len(own) >= 3 and own in "".join(word[0] for word in other.split()):
        return True
    return f" {own} " in f" {other} "


def recount_claims(verdict: str, raw: pl.DataFrame, reference: str = "p0.0") -> set[str]:
    """Check the sentences "Per … X makes fewer/more claims …"; which units there were."""
    table = [row for row in raw.to_dicts() if row["source_text"] and row["explanation"] is not None]
    counted: dict[str, dict[int, tuple[int, float]]] = {}
    for row in table:
        absent = sum(
            not stands_in(span, row["source_text"])
            for spans in claims(row["explanation"]).values()
            for span in spans
        )
        own = counted.setdefault(row["model"], {})
        own[row["idx"]] = absent, len(plain_words(row["explanation"])) / 100
    pattern = re.compile(
        rf"Per (?P<unit>explanation|100 words) {NAME} makes (?P<word>fewer|more) claims that the "
        r"source does not show than [\w.]+: (?P<own>[\d.]+) \(chance [\d.]+\) against "
        r"(?P<ref>[\d.]+) \(chance [\d.]+\), (?P<value>[+-][\d.]+) \[(?P<low>[+-][\d.]+), "
        r"(?P<high>[+-][\d.]+)\]"
    )
    seen = set()
    for found in pattern.finditer(verdict):
        model = found["model"]
        keys = sorted(set(counted[model]) & set(counted[reference]))

        own, other = (np.array([counted[one][idx] for idx in keys]) for one in (model, reference))
        if found["unit"] == "explanation":
            own[:, 1] = other[:, 1] = 1.0
        assert float(found["own"]) == pytest.approx(share(own), abs=0.006)
        assert float(found["ref"]) == pytest.approx(share(other), abs=0.006)
        assert float(found["value"]) == pytest.approx(share(own) - share(other), abs=0.006)
        limits = bootstrap(
            lambda rows, own=own, other=other: share(own[rows]) - share(other[rows]), len(keys)
        )
        printed = float(found["low"]), float(found["high"])
        assert_limits(printed, limits, rounding=0.006)
        assert printed[1] < 0 if found["word"] == "fewer" else printed[0] > 0
        seen.add(found["unit"])
    return seen


def planted_claims(
    mix: dict[str, tuple[int, int]], wrong: dict[str, tuple[float, float]], n: int = 150
) -> pl.DataFrame:
    """Explanations of models with so many (names, numbers), of which shares are not in the source.

    Sources are long, so that they do not look cut.
    """
    generator = random.Random(7)
    syllables = ["Bar", "Dok", "Fel", "Gim", "Nor", "Sul", "Tav", "Wem"]
    names = [a + b.lower() + c.lower() for a in syllables for b in syllables for c in syllables]
    rows = []
    for idx in range(n):
        drawn = generator.sample(names, 20)
        figures = generator.sample(range(1000, 9999), 20)
        known = "the meeting of " + " and then of ".join(drawn[:10])
        source = f"{known} with {' or '.join(map(str, figures[:10]))} {'in the far hills ' * 20}"
        for model, (n_names, n_numbers) in mix.items():
            shares = wrong[model]
            said = []
            for k in range(n_names):
                is_wrong = generator.random() < shares[0]
                said.append(f"it is about {drawn[k + 10 * is_wrong]} too")
            for k in range(n_numbers):
                is_wrong = generator.random() < shares[1]
                said.append(f"it counts {figures[k + 10 * is_wrong]} of")
            rows.append(
                {
                    "model": model,
                    "idx": idx,
                    "source_text": source,
                    "explanation": "here " + ", ".join(said),
                }
            )
    return pl.DataFrame(rows)


def test_what_is_composition_is_not_called_more_often_right() -> None:
    """Both are wrong in half of their names and none of their numbers; one makes fewer names."""
    wrong = {"p0.0": (0.5, 0.0), "p0.01": (0.5, 0.0)}
    raw = planted_claims({"p0.0": (3, 1), "p0.01": (1, 3)}, wrong)
    finding = faithfulness(from_frame(raw, reference="p0.0"))
    (row,) = finding.tables["paired_changes"].to_dicts()
    assert row["unsupported_rate_change_high"] < -0.15  # of all claims, far fewer are wrong
    assert row["same_mix_change_low"] < 0 < row["same_mix_change_high"]
    total = row["same_mix_change"] + row["mix_change"]
    assert total == pytest.approx(row["unsupported_rate_change"], abs=1e-9)
    assert (
        "At p0.0's mix of kinds no model's claims are more often right or wrong" in finding.verdict
    )
    assert recount_claims(finding.verdict, raw) == {"explanation", "100 words"}


def test_a_true_change_within_kinds_is_told_with_its_numbers() -> None:
    wrong = {"p0.0": (0.2, 0.1), "p0.01": (0.5, 0.3)}
    raw = planted_claims({"p0.0": (2, 2), "p0.01": (2, 1)}, wrong)
    finding = faithfulness(from_frame(raw, reference="p0.0"))
    found = re.search(
        r"mix of names, numbers p0.01's claims are more often wrong: (\d+)% of them are absent "
        r"from the source \(chance (\d+)%\), (\d+)% of p0.0's \(([+-]\d+) points",
        finding.verdict,
    )
    assert found is not None, finding.verdict
    rates = {}
    for model in ("p0.0", "p0.01"):
        for kind in ("entity", "number"):
            spans = [
                stands_in(span, row["source_text"])
                for row in raw.to_dicts()
                if row["model"] == model
                for span in claims(row["explanation"])[kind]
            ]
            rates[model, kind] = 1 - sum(spans) / len(spans)
    # The reference makes as many names as numbers.
    same = {
        model: (rates[model, "entity"] + rates[model, "number"]) / 2 for model in ("p0.0", "p0.01")
    }
    assert int(found[1]) == pytest.approx(100 * same["p0.01"], abs=0.6)
    assert int(found[3]) == pytest.approx(100 * same["p0.0"], abs=0.6)
    assert int(found[4]) == pytest.approx(100 * (same["p0.01"] - same["p0.0"]), abs=0.6)
    assert int(found[2]) > 95


def test_few_claims_carry_no_sentence_about_being_right() -> None:
    wrong = {"p0.0": (0.1, 0.0), "p0.01": (0.9, 0.9)}
    raw = planted_claims({"p0.0": (1, 1), "p0.01": (1, 1)}, wrong, n=60)
    verdict = faithfulness(from_frame(raw, reference="p0.0")).verdict
    assert "Whether a claim is more often right cannot be told" in verdict
    assert "at most 0 quotations, 60 names, 60 numbers" in verdict


def test_cut_sources_carry_no_sentence_about_being_right() -> None:
    wrong = {"p0.0": (0.1, 0.0), "p0.01": (0.9, 0.9)}
    raw = planted_claims({"p0.0": (2, 1), "p0.01": (2, 1)}, wrong)
    raw = raw.with_columns(pl.col("source_text").str.tail(75))
    verdict = faithfulness(from_frame(raw, reference="p0.0")).verdict
    assert "cannot be told: no source is longer than 75 characters" in verdict


def test_the_verdict_on_the_published_sweep(sweep_path: Path) -> None:
    said = faithfulness(load(sweep_path)).verdict
    assert recount_claims(said, pl.read_parquet(sweep_path)) == {"explanation", "100 words"}
    assert "cannot be told: no source is longer than 75 characters" in said
