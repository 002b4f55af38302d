"""Every number in a verdict of frontier, tail and faithfulness, counted again from the raw table.

The counting here is plain code of its own: loops over rows, a bootstrap by hand. Only what an
explanation quotes and names is read with the package (:func:`nla_audit.text.items.items`), since
that is a rule of reading and not of counting.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nla_audit import cli
from nla_audit.analyzers.faithfulness import faithfulness
from nla_audit.analyzers.frontier import MARGIN, frontier
from nla_audit.analyzers.tail import tail
from nla_audit.completions import from_frame, load
from nla_audit.text.items import items

_NAME = r"(?P<model>[\w.]+)"
_TRIPLE = r"\((?P<value>[+-][\d.]+) \[(?P<low>[+-][\d.]+), (?P<high>[+-][\d.]+)\]\)"


def bootstrap(statistic: Callable[[np.ndarray], float], n: int) -> tuple[float, float]:
    """Limits of 95 % of ``statistic(rows drawn)`` over ``n`` rows drawn with replacement."""
    generator = np.random.default_rng(99)
    drawn = [statistic(generator.integers(0, n, n)) for _ in range(2000)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def assert_limits(
    printed: Sequence[float], counted: Sequence[float], *, rounding: float, slack: float = 0.12
) -> None:
    """Limits agree to within their rounding and the noise of two bootstraps."""
    width = counted[1] - counted[0]
    for one, other in zip(printed, counted, strict=True):
        assert abs(one - other) <= rounding + slack * width, (printed, counted)


# -- frontier -------------------------------------------------------------------------------------


def of_models(rows: dict[str, tuple[list[float], list[int]]]) -> pl.DataFrame:
    """A table from each model's FVE and tokens per activation."""
    return pl.DataFrame(
        [
            {
                "model": model,
                "idx": idx,
                "explanation": "a word",
                "extracted": True,
                "n_tokens": n_tokens,
                "content_tokens": float(n_tokens - 5),
                "fve": fve,
                "ar": "one",
            }
            for model, (fves, tokens) in rows.items()
            for idx, (fve, n_tokens) in enumerate(zip(fves, tokens, strict=True))
        ]
    )


def with_change(mean: float, spread: float, n: int, *, tokens: int = 90) -> pl.DataFrame:
    """Two models that differ by ``mean`` with a standard deviation of ``spread``, exactly."""
    generator = np.random.default_rng(n)
    base = generator.normal(0.5, 0.1, n)
    noise = generator.normal(0.0, 1.0, n)
    noise = (noise - noise.mean()) / noise.std() * spread
    lengths = [100 + int(step) for step in generator.integers(-3, 4, n)]
    return of_models(
        {
            "p0.0": (base.tolist(), lengths),
            "p0.01": ((base + mean + noise).tolist(), [tokens] * n),
        }
    )


def recount_frontier(verdict: str, raw: pl.DataFrame, margin: float = MARGIN) -> list[str]:
    """Check every "X saves …" of a verdict against the raw table; the models that were judged."""
    by_model = {
        model: {row["idx"]: row for row in raw.to_dicts() if row["model"] == model}
        for model in raw["model"].unique()
    }
    reference = by_model["p0.0"]
    pattern = re.compile(
        rf"(?:Whether )?{_NAME},?(?: which)? saves (?P<saving>\d+)%(?P<between>[^%]*?)(?:{_TRIPLE}"
        rf"|for (?P<v>[+-][\d.]+) \[(?P<l>[+-][\d.]+), (?P<h>[+-][\d.]+)\])(?P<after>[^.;]*[.;])"
    )
    judged = []
    for found in pattern.finditer(verdict):
        own = by_model[found["model"]]
        saved = sum(reference[idx]["n_tokens"] - row["n_tokens"] for idx, row in own.items())
        whole = sum(row["n_tokens"] for row in reference.values())
        assert round(100 * saved / whole) == int(found["saving"])
        changes = np.array(
            [
                row["fve"] - reference[idx]["fve"]
                for idx, row in sorted(own.items())
                if row["fve"] is not None and reference[idx]["fve"] is not None
            ]
        )
        value, low, high = (
            float(found[long] or found[short])
            for long, short in (("value", "v"), ("low", "l"), ("high", "h"))
        )
        assert value == pytest.approx(changes.mean(), abs=6e-4)
        counted = bootstrap(lambda rows, changes=changes: changes[rows].mean(), len(changes))
        assert_limits((low, high), counted, rounding=1e-3)
        said = found["between"]
        if "cannot be told" in said:
            assert low < -margin
            assert high >= 0
            assert f"at most {-low:.3f}" in said
            needed = len(changes) * ((high - low) / margin) ** 2
            tail_of_it = verdict[found.start() :]
            number = re.search(r"about ([\d,]+) activations would tell \((\d+) here\)", tail_of_it)
            assert number is not None
            assert int(number[2]) == len(changes)
            assert int(number[1].replace(",", "")) == pytest.approx(needed, rel=0.12)
        elif "loses at most" in said:
            assert -margin <= low <= 0 <= high
            assert f"at most {-low:.3f}" in said
        elif "gains FVE" in said:
            assert low > 0
        else:
            assert high < 0
        judged.append(found["model"])
    return judged


@pytest.mark.parametrize(
    ("mean", "spread", "n", "words"),
    [
        (-0.072, 0.27, 50, "loses FVE cannot be told: at most 0.1"),  # [-0.147, +0.003]
        (-0.001, 0.27, 50, "loses FVE cannot be told: at most 0.0"),
        (-0.004, 0.05, 80, "loses at most 0.0"),
        (0.002, 0.03, 80, "loses at most 0.0"),
        (0.05, 0.08, 80, "gains FVE (+0.050"),
        (-0.15, 0.2, 80, "does cost FVE (-0.150"),
        (-0.015, 0.03, 80, "though less than the margin"),
    ],
)
def test_a_loss_is_excluded_shown_or_not_told(
    mean: float, spread: float, n: int, words: str
) -> None:
    raw = with_change(mean, spread, n)
    verdict = frontier(from_frame(raw, reference="p0.0")).verdict
    assert words in verdict
    assert recount_frontier(verdict, raw) == ["p0.01"]


def test_as_many_activations_as_are_named_do_tell() -> None:
    verdict = frontier(from_frame(with_change(-0.01, 0.27, 50), reference="p0.0")).verdict
    number = re.search(r"about ([\d,]+) activations would tell", verdict)
    assert number is not None
    more = with_change(-0.01, 0.27, int(number[1].replace(",", "")))
    assert "cannot be told" not in frontier(from_frame(more, reference="p0.0")).verdict


def test_the_margin_is_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = with_change(-0.004, 0.05, 80)
    raw.write_parquet(tmp_path / "t.parquet")
    path = str(tmp_path / "t.parquet")
    assert cli.run(["frontier", path, "--reference", "p0.0", "--margin", "0.005"]) == 0
    assert "cannot be told" in " ".join(capsys.readouterr().out.split())
    strict = frontier(from_frame(raw, reference="p0.0"), margin=0.005)
    assert recount_frontier(strict.verdict, raw, margin=0.005) == ["p0.01"]
    assert strict.parameters["margin"] == 0.005
    assert cli.run(["frontier", path, "--margin", "0"]) == 2
    assert "--margin 0: give the FVE that may be lost" in capsys.readouterr().err


def four_on_a_front(first: float, second: float, spread: float, n: int = 80) -> pl.DataFrame:
    """A front from (10 tokens, FVE 0) to (110, 1) with inner members at 40 and 70 tokens."""
    generator = np.random.default_rng(5)
    common = generator.normal(0.0, 0.1, n)
    members = {"p0.3": (10, 0.0), "p0.2": (40, first), "p0.1": (70, second), "p0.0": (110, 1.0)}
    rows = {}
    for model, (tokens, fve) in members.items():
        noise = generator.normal(0.0, spread, n)
        rows[model] = ((common + fve + noise - noise.mean()).tolist(), [tokens] * n)
    return of_models(rows)


def recount_knee(verdict: str, raw: pl.DataFrame) -> None:
    """Heights above the chord and their difference, from the raw table."""
    wide = {
        model: np.array([row["fve"] for row in raw.sort("idx").to_dicts() if row["model"] == model])
        for model in raw["model"].unique()
    }
    tokens = {model: raw.filter(pl.col("model") == model)["n_tokens"].mean() for model in wide}
    ends = min(tokens, key=lambda name: tokens[name]), max(tokens, key=lambda name: tokens[name])

    def height(model: str, rows: np.ndarray) -> float:
        low, high = (wide[end][rows].mean() for end in ends)
        share = (tokens[model] - tokens[ends[0]]) / (tokens[ends[1]] - tokens[ends[0]])
        return float(wide[model][rows].mean() - low - share * (high - low))

    everything = np.arange(len(wide["p0.0"]))
    sentence = verdict[verdict.index("The knee") :]
    if "tie of" not in sentence:
        found = re.search(rf"The knee of the front is {_NAME} \((?P<height>[\d.]+) FVE", sentence)
        assert found is not None
        assert float(found["height"]) == pytest.approx(height(found["model"], everything), abs=6e-4)
        return
    found = re.search(
        r"tie of ([\w.]+) and ([\w.]+) \(([\d.]+), ([\d.]+) FVE above its chord; \1 and \2 differ "
        r"by ([\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\], and (?:about|not even) ([\d,]+) activations",
        sentence,
    )
    assert found is not None, sentence
    one, other = found[1], found[2]
    assert float(found[3]) == pytest.approx(height(one, everything), abs=6e-4)
    assert float(found[4]) == pytest.approx(height(other, everything), abs=6e-4)
    difference = height(one, everything) - height(other, everything)
    assert float(found[5]) == pytest.approx(difference, abs=6e-5)
    limits = bootstrap(lambda rows: height(one, rows) - height(other, rows), len(everything))
    assert_limits((float(found[6]), float(found[7])), limits, rounding=1e-3)
    assert limits[0] <= 0 <= limits[1]


def test_a_tie_is_called_a_tie() -> None:
    raw = four_on_a_front(0.601, 0.9, 0.3)  # 0.301 and 0.300 above the chord
    verdict = frontier(from_frame(raw, reference="p0.0")).verdict
    assert "a tie of p0.2 and p0.1" in verdict
    recount_knee(verdict, raw)


def test_a_knee_that_stands_out_is_the_knee() -> None:
    raw = four_on_a_front(0.75, 0.85, 0.1)
    finding = frontier(from_frame(raw, reference="p0.0"))
    assert "The knee of the front is p0.2" in finding.verdict
    recount_knee(finding.verdict, raw)
    assert finding.tables["knee"]["is_tied"].to_list() == [False, False]


def test_a_straight_front_has_no_knee() -> None:
    raw = four_on_a_front(0.3, 0.6, 0.3)
    verdict = frontier(from_frame(raw, reference="p0.0")).verdict
    assert "no knee can be told" in verdict


# -- tail -----------------------------------------------------------------------------------------

_WORD = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)*")


@cache
def plain_words(text: str) -> list[str]:
    found = _WORD.findall(unicodedata.normalize("NFKC", text))
    return [word.lower().replace("’", "'") for word in found]


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


def share(pairs: np.ndarray) -> float:
    """Σ part / Σ whole of `[n, 2]` pairs."""
    return float(pairs[:, 0].sum() / pairs[:, 1].sum())


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
        "words": rf"Of {_NAME}'s words (?P<own>\d+)% \(chance (?P<chance>\d+)%\) are among the "
        r"input's last 10, of [\w.]+'s (?P<ref>\d+)% \(chance (?P<ref_chance>\d+)%\): a difference "
        r"of (?P<points>[+-]\d+) points \[(?P<low>[+-]\d+), (?P<high>[+-]\d+)\]",
        **{
            said: rf"(?P<own>\d+)% \(chance (?P<chance>\d+)%, (?P<strict>\d+)% to the letter\) of "
            rf"{_NAME}'s explanations {said}, of [\w.]+'s (?P<ref>\d+)% \(chance "
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


# -- faithfulness ---------------------------------------------------------------------------------

_ASSERTED = ("quote", "entity", "number")


def claims(text: str) -> dict[str, set[str]]:
    """Distinct quotations, names and numbers of a text; predictions are no claims."""
    found: dict[str, set[str]] = {kind: set() for kind in _ASSERTED}
    for item in items(text):
        if item.kind in found and not item.predicted:
            found[item.kind].add(item.text)
    return found


def stands_in(span: str, source: str) -> bool:
    return f" {' '.join(plain_words(span))} " in f" {' '.join(plain_words(source))} "


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
        rf"Per (?P<unit>explanation|100 words) {_NAME} makes (?P<word>fewer|more) claims that the "
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


# -- the published sweep --------------------------------------------------------------------------


def test_verdicts_on_the_published_sweep(sweep_path: Path) -> None:
    raw = pl.read_parquet(sweep_path)
    completions = load(sweep_path)
    said = frontier(completions).verdict
    assert set(recount_frontier(said, raw)) == {"p0.002", "p0.006", "p0.03"}
    assert "a tie of p0.015 and p0.006" in said
    said = tail(completions).verdict
    assert recount_tail(said, raw) == {
        "words",
        "are nothing but the tail of their input",
        "end with the input's last 2 words",
    }
    assert said.startswith("Of p0.03's words ")
    said = faithfulness(completions).verdict
    assert recount_claims(said, raw) == {"explanation", "100 words"}
    assert "cannot be told: no source is longer than 75 characters" in said
    assert completions.baseline.value == pytest.approx(0.6704, abs=5e-5)
