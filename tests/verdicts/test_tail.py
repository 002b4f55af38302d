"""Every number in a verdict of tail, counted again from the raw table."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nla_audit.analyzers.faithfulness import faithfulness
from nla_audit.analyzers.tail import tail
from nla_audit.table.completions import from_frame, load
from tests.verdicts.recounting import NAME, assert_limits, bootstrap, plain_words, share


def is_tail(text: str, source: str) -> bool:
    """The words of ``text`` are the last of ``source``; a last word of three letters may be cut."""
    said, end = plain_words(text), plain_words(source)
    end = end[len(end) - len(said) :]
    if not said or len(end) != len(said) or said[:-1] != end[:-1]:
        return False
    if said[-1] == end[-1]:
        return True
    short, long = sorted((said[-1], end[-1]), key=len)
    return long.startswith(short) and len(short) >= 3


def ends_with_tail(text: str, source: str) -> bool:
    last = plain_words(text)[-2:]
    return len(last) == 2 and is_tail(" ".join(last), source)


def recount_tail(verdict: str, raw: pl.DataFrame, reference: str = "p0.0") -> set[str]:
    """Check the first sentences of a verdict of tail; which of them there were."""
    table = [row for row in raw.to_dicts() if row["source_text"] and row["explanation"] is not None]
    by_model: dict[str, dict[int, dict]] = {}
    for row in table:
        by_model.setdefault(row["model"], {})[row["idx"]] = row
    sources = {row["idx"]: row["source_text"] for row in table}

    def recent(row: dict, idx: int) -> tuple[int, int]:
        last, said = set(plain_words(sources[idx])[-10:]), plain_words(row["explanation"])
        cut = said and said[-1] not in last and is_tail(said[-1], sources[idx])
        return sum(word in last for word in said) + bool(cut), len(said)

    def chance(count: Callable[[dict, int], tuple[int, int]], model: str, keys: list[int]) -> float:
        pairs = [
            count(by_model[model][idx], other) for idx in keys for other in sources if other != idx
        ]
        return sum(part for part, _ in pairs) / sum(whole for _, whole in pairs)

    counts: dict[str, Callable[[dict, int], tuple[int, int]]] = {
        "words": recent,
        "are nothing but the tail of their input": lambda row, idx: (
            int(is_tail(row["explanation"], sources[idx])),
            1,
        ),
        "end with the input's last 2 words": lambda row, idx: (
            int(ends_with_tail(row["explanation"], sources[idx])),
            1,
        ),
    }
    patterns = {
        "words": rf"Of {NAME}'s words (?P<own>\d+)% \(chance (?P<chance>\d+)%\) are among the "
        r"input's last 10, of [\w.]+'s (?P<ref>\d+)% \(chance (?P<ref_chance>\d+)%\): a difference "
        r"of (?P<points>[+-]\d+) points \[(?P<low>[+-]\d+), (?P<high>[+-]\d+)\]",
        **{
            said: rf"(?P<own>\d+)% \(chance (?P<chance>\d+)%, (?P<strict>\d+)% to the letter\) of "
            rf"{NAME}'s explanations {said}, of [\w.]+'s (?P<ref>\d+)% \(chance "
            r"(?P<ref_chance>\d+)%\): (?P<points>[+-]\d+) points \[(?P<low>[+-]\d+), "
            r"(?P<high>[+-]\d+)\]"
            for said in list(counts)[1:]
        },
    }
    seen = set()
    for name, pattern in patterns.items():
        found = re.search(pattern, verdict)
        if found is None:
            continue
        seen.add(name)
        model, count = found["model"], counts[name]
        keys = sorted(set(by_model[model]) & set(by_model[reference]))
        own, other = (
            np.array([count(by_model[one][idx], idx) for idx in keys], dtype=float)
            for one in (model, reference)
        )
        assert int(found["own"]) == pytest.approx(100 * share(own), abs=0.51)
        assert int(found["ref"]) == pytest.approx(100 * share(other), abs=0.51)
        assert int(found["points"]) == pytest.approx(100 * (share(own) - share(other)), abs=0.51)
        # Five other inputs are drawn for the chance level; here all are asked.
        assert int(found["chance"]) == pytest.approx(100 * chance(count, model, keys), abs=4)
        limits = bootstrap(
            lambda rows, own=own, other=other: share(own[rows]) - share(other[rows]), len(keys)
        )
        printed = tuple(float(found[end]) / 100 for end in ("low", "high"))
        assert_limits(printed, limits, rounding=0.006, slack=0.2)
        assert printed[0] * printed[1] > 0
        if "strict" in found.groupdict():
            letters = [
                " ".join(sources[idx].split()).endswith(
                    " ".join(by_model[model][idx]["explanation"].split())
                )
                and bool(plain_words(by_model[model][idx]["explanation"]))
                for idx in keys
            ]
            if name.startswith("are nothing"):
                assert int(found["strict"]) == pytest.approx(100 * np.mean(letters), abs=2.1)
    return seen


def planted_tails(n: int = 60) -> pl.DataFrame:
    """p0.03 is the tail in half of its explanations, in one of four writings; p0.0 never."""
    generator = random.Random(4)
    vocabulary = [a + b for a in ("bar", "dok", "fel", "gim", "nor", "sul") for b in ("ena", "ito")]
    rows = []
    for idx in range(n):
        source = " ".join(generator.choices(vocabulary, k=20))
        end = " ".join(source.split()[-3:])
        written = (end, f'"{end}"', end.title() + ".", end[:-1])[idx // 2 % 4]
        filler = " ".join(generator.choices(["quux", "wibble", "xyst"], k=3))
        held = end if idx % 3 else "wibble"
        long = f"{filler} {held} {' '.join(generator.choices(['quux', 'xyst'], k=25))}"
        for model, text in (("p0.0", long), ("p0.03", written if idx % 2 else filler)):
            rows.append({"model": model, "idx": idx, "source_text": source, "explanation": text})
    return pl.DataFrame(rows)


def test_tail_says_the_largest_difference_first_and_counts_right() -> None:
    raw = planted_tails()
    finding = tail(from_frame(raw, reference="p0.0"))
    assert recount_tail(finding.verdict, raw) == {
        "words",
        "are nothing but the tail of their input",
        "end with the input's last 2 words",
    }
    differences = finding.tables["paired_differences"]
    printed = [abs(int(points)) for points in re.findall(r"([+-]\d+) points \[", finding.verdict)]
    assert printed[:3] == sorted(printed[:3], reverse=True)
    assert printed[0] == round(100 * max(abs(value) for value in differences["difference"]))
    summary = finding.headline["p0.03"]
    assert summary["is_nothing_but_tail_rate"] == pytest.approx(0.5)
    assert summary["is_nothing_but_tail_strict_rate"] == pytest.approx(0.5 / 4, abs=0.02)
    assert finding.headline["p0.0"]["holds_tail_rate"] == pytest.approx(2 / 3)
    assert finding.headline["p0.0"]["ends_with_tail_rate"] == 0.0


def test_an_overlapping_difference_is_no_difference() -> None:
    raw = planted_tails().filter(pl.col("model") == "p0.0")
    twin = raw.with_columns(
        model=pl.lit("p0.01"),
        explanation=pl.when(pl.col("idx") < 3)
        .then(pl.lit("quux wibble xyst"))
        .otherwise(pl.col("explanation")),
    )
    verdict = tail(from_frame(pl.concat([raw, twin]), reference="p0.0")).verdict
    assert "No model differs from p0.0 in how many hold the input's last 2 words" in verdict
    assert "p0.01: 63% and 67%, -3 points" in verdict


@pytest.mark.parametrize(
    ("of_source", "of_text"), [("NFD", "NFC"), ("NFC", "NFD"), ("NFC", "NFKC")]
)
def test_the_encoding_of_a_character_changes_nothing(of_source: str, of_text: str) -> None:
    source, said = "in the Café Zürich, by Élodie Çelik", 'Final token "by Élodie Çelik"'
    rows = [
        {
            "model": "p0.0",
            "idx": idx,
            "source_text": unicodedata.normalize(of_source, f"{idx} {source}"),
            "explanation": unicodedata.normalize(of_text, said),
        }
        for idx in range(12)
    ]
    completions = from_frame(pl.DataFrame(rows))
    assert tail(completions).headline["p0.0"]["holds_tail_rate"] == 1.0
    assert faithfulness(completions).headline["p0.0"]["verbatim_quote_rate"] == 1.0


def test_the_verdict_on_the_published_sweep(sweep_path: Path) -> None:
    said = tail(load(sweep_path)).verdict
    assert recount_tail(said, pl.read_parquet(sweep_path)) == {
        "words",
        "are nothing but the tail of their input",
        "end with the input's last 2 words",
    }
    assert said.startswith("Of p0.03's words ")
