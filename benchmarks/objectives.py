r"""Which way to reward what is said first wins? A report from one recipe by several seeds.

    python benchmarks/objectives.py runs/seed-0 runs/seed-1 … \
        --second-ar other/seed-0/ar --second-ar other/seed-1/ar … > reports/objectives.md

Each run is a course of ``recipes/tiny-multiscale.yaml``. Explanations of at most 300 held-out
activations are read again at every length by the AR of the warm start, their meaning is put into
other words by the demo's own paraphraser, a second AR that no run knows reads them too, and the
target itself reads them as a base model. What is read is kept beside the course, in
``objectives/``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from nla_audit.analyzers._curves import Curve, curves_of
from nla_audit.analyzers._order import order_of_worth
from nla_audit.analyzers._prefixes_read import in_random_order, prefixes_of_table
from nla_audit.analyzers.multiscale import multiscale
from nla_audit.findings import Finding
from nla_audit.probes.causal.ruler import open_ruler
from nla_audit.stats import Interval, Resampler
from nla_audit.table.completions import Completions, load
from nla_audit.table.prefix_table import PrefixTable, read_prefixes

PLAIN, RULER = "p0.0", "warm-start"
#: What the recipe promises: so much of the plain model's full FVE, in so much of the tokens that
#: it takes for that itself, at so little loss.
SHARE, OF_TOKENS, MOST_LOSS = 0.8, 0.6, 0.03
#: Tokens at which FVE is told, and up to which codes are looked for.
LENGTHS, FIRST = (4, 8, 16, 24, 32), 8
PROBED = 100


@dataclass(frozen=True)
class Course:
    """What was read of one course.

    Attributes:
        curves: model → FVE by tokens, on the same activations.
        finding: of ``multiscale``.
        order: ``order_of_worth`` with claims in random order.
        stego: tokens probed (``None``: whole texts) → model → what :func:`_stego` says.
        seconds: model → of its RL.
    """

    folder: Path
    seed: int
    completions: Completions
    curves: Mapping[str, Curve]
    finding: Finding
    order: pl.DataFrame
    stego: Mapping[int | None, Mapping[str, list[str]]]
    seconds: Mapping[str, float]


def read_course(folder: Path, second_ar: Path | None) -> Course:
    """Read a course, or what was kept of reading it."""
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    kept = folder / "objectives"
    kept.mkdir(exist_ok=True)
    table = load([folder / "completions" / "completions.parquet"], ar=RULER, reference=PLAIN)
    ar, activations = folder / "warm-start" / "ar", folder / "activations" / "activations.parquet"
    ruler = open_ruler(table, str(ar), str(activations))
    assert ruler is not None
    curves = _kept(kept / "prefixes.parquet", lambda: prefixes_of_table(table, None, ruler))
    shuffled = _kept(kept / "shuffled.parquet", lambda: in_random_order(table, ruler, 0))
    runs = {run["name"]: run for run in recipe["runs"]}
    chains = [
        ",".join(f"{name}-p{penalty!r}" for penalty in run["chain"])
        for name, run in runs.items()
        if run["chain"]
    ]
    finding = multiscale(
        table,
        prefixes=str(kept / "prefixes.parquet"),
        chain=chains,
        base_model=str(folder / "target" / "model"),
    )
    return Course(
        folder=folder,
        seed=recipe["seed"],
        completions=table,
        curves=curves_of(curves, "tokens"),
        finding=finding,
        order=order_of_worth(curves, table, shuffled, 0).models,
        stego={tokens: _stego(folder, second_ar, tokens) for tokens in (None, FIRST)},
        seconds={
            done.parent.name: json.loads(done.read_text(encoding="utf-8"))["seconds"]
            for done in sorted(folder.glob("rl/*/done.json"))
        },
    )


def _kept(path: Path, read: Callable[[], PrefixTable]) -> PrefixTable:
    if not path.is_file():
        read().rows.drop("ar").write_parquet(path)  # one ruler only, which has no name here
    return read_prefixes([str(path)], reference=PLAIN)


def _stego(folder: Path, second_ar: Path | None, tokens: int | None) -> dict[str, list[str]]:
    """Model → verdict of the probe, what a paraphrase retains, FVE, and FVE by the second AR.

    Of whole texts, or of their first ``tokens``.
    """
    out = folder / "objectives" / f"stego-{tokens or 'whole'}.json"
    if not out.is_file():
        command = [
            sys.executable,
            "-m",
            "nla_audit.cli",
            "stego",
            "--ar",
            folder / "warm-start" / "ar",
            "--completions",
            folder / "completions" / "completions.parquet",
            "--activations",
            folder / "activations" / "activations.parquet",
            "--reference-texts",
            folder / "completions" / "gold.parquet",
            "--paraphraser",
            "world",
            "--limit",
            str(PROBED),
            "--json",
        ]
        more = [] if tokens is None else ["--prefix-tokens", str(tokens)]
        more += [] if second_ar is None else ["--second-ar", str(second_ar)]
        done = subprocess.run([*map(str, command), *more], capture_output=True, check=True)
        out.write_bytes(done.stdout)
    found = json.loads(out.read_text(encoding="utf-8"))
    rows = {(row["model"], row["variant"]): row for row in found["tables"]["variants"]}
    said = {}
    for model, verdict in found["parameters"]["verdict"].items():
        paraphrase, unchanged = (
            rows.get((model, name), {}) for name in ("paraphrase", "unchanged")
        )
        said[model] = [
            verdict,
            _cell(paraphrase, "retention", "{:.0%}"),
            _cell(unchanged, "fve"),
            _cell(unchanged, "second_ar_fve"),
        ]
    return said


def _cell(row: Mapping[str, float | None], name: str, form: str = "{:+.3f}") -> str:
    """A number with its interval, as far as it is known."""
    value, low, high = (row.get(f"{name}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return "–"
    shown = form.format(value)
    return shown if low is None else f"{shown} [{form.format(low)}, {form.format(high)}]"


def at(curve: Curve, tokens: float) -> np.ndarray:
    """``[activations]`` FVE of the first ``tokens``, between two lengths in proportion."""
    place = float(np.interp(tokens, curve.lengths, np.arange(len(curve.lengths))))
    low = int(place)
    high = min(low + 1, len(curve.lengths) - 1)
    return curve.values[:, low] + (place - low) * (curve.values[:, high] - curve.values[:, low])


Values = Callable[[Course], dict[str, float]]


def whole(model: str) -> Values:
    """FVE of a model's whole texts, by activation."""
    return lambda course: _named(course.curves[model], course.curves[model].full)


def first(model: str, tokens: int) -> Values:
    """FVE of the first tokens of a model's texts."""
    return lambda course: _named(course.curves[model], at(course.curves[model], tokens))


def plain_as_long_as(model: str) -> Values:
    """FVE of the plain model's texts, cut so that they have as many tokens on average."""

    def values(course: Course) -> dict[str, float]:
        plain = course.curves[PLAIN]
        means = [float(np.minimum(plain.whole, length).mean()) for length in plain.lengths]
        length = np.interp(course.curves[model].mean_length(), means, plain.lengths)
        return _named(plain, at(plain, float(length)))

    return values


def _named(curve: Curve, values: np.ndarray) -> dict[str, float]:
    return dict(zip(curve.idx, values.tolist(), strict=True))


def difference(courses: Sequence[Course], one: Values, other: Values) -> Interval:
    """Mean over all seeds' activations of ``one`` less ``other``, paired."""
    values, labels = [], []
    for course in courses:
        own, against = one(course), other(course)
        shared = sorted(set(own) & set(against))
        values += [own[idx] - against[idx] for idx in shared]
        documents = dict(zip(course.curves[PLAIN].idx, course.curves[PLAIN].clusters, strict=True))
        labels += [f"{course.seed}:{documents.get(idx, idx)}" for idx in shared]
    return Resampler(np.array(labels)).mean(values)


def tokens_to(curve: Curve, level: float) -> int | None:
    """First length at which the mean is at ``level``."""
    reached = np.flatnonzero(curve.mean() >= level)
    return int(curve.lengths[reached[0]]) if len(reached) else None


def by_prefix(course: Course) -> Iterator[list[str]]:
    """FVE by prefix of one seed, and what the recipe promises."""
    plain = course.curves[PLAIN]
    level = SHARE * float(np.nanmean(plain.full))
    usual = tokens_to(plain, level)
    for model, curve in course.curves.items():
        change = difference([course], whole(model), whole(PLAIN))
        needed = tokens_to(curve, level)
        share = needed / usual if needed is not None and usual else None
        promised = share is not None and share <= OF_TOKENS and change.value >= -MOST_LOSS
        extracted = float(course.completions.of(model)["extracted"].to_numpy().mean())
        yield [
            model,
            f"{extracted:.0%}",
            f"{curve.mean_length():.1f}",
            *(f"{np.nanmean(at(curve, length)):.3f}" for length in LENGTHS),
            f"{np.nanmean(curve.full):.3f}",
            "–" if model == PLAIN else _interval(change),
            "never" if needed is None else str(needed),
            "–" if share is None else f"{share:.0%}",
            "–" if model == PLAIN else "yes" if promised else "no",
        ]


def at_equal_tokens(courses: Sequence[Course]) -> Iterator[list[str]]:
    """The best model at each length, and what it leads by."""
    shared = [model for model in courses[0].curves if model != RULER]
    for length in LENGTHS:
        means = {
            model: float(np.mean([np.nanmean(at(one.curves[model], length)) for one in courses]))
            for model in shared
        }
        best, second = sorted(shared, key=lambda model: -means[model])[:2]
        lead, ahead = (
            difference(courses, first(best, length), first(other, length))
            for other in (second, PLAIN)
        )
        won = "no difference at this size" if lead.low <= 0 else best
        yield [
            str(length),
            best,
            f"{means[best]:.3f}",
            second,
            _interval(lead),
            _interval(ahead),
            won,
        ]


def against_plain_cut(courses: Sequence[Course]) -> Iterator[list[str]]:
    """Each model's whole texts against the plain model's cut to the same mean tokens."""
    for model in courses[0].curves:
        if model == PLAIN:
            continue
        pair = whole(model), plain_as_long_as(model)
        each = [difference([one], *pair) for one in courses]
        by_seed = ", ".join(f"{one.value:+.3f}" for one in each)
        yield [model, _interval(difference(courses, *pair)), by_seed]


def _interval(one: Interval) -> str:
    return "–" if np.isnan(one.value) else f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"


def _rows(frame: pl.DataFrame, **where: object) -> dict[str, dict]:
    for name, value in where.items():
        frame = frame.filter(pl.col(name).eq_missing(value))
    return {row["model"]: row for row in frame.to_dicts()}


def of_language(course: Course) -> Iterator[list[str]]:
    """Naturalness."""
    tables = course.finding.tables
    words = _rows(tables["natural_prefixes"], words=FIRST)
    broken = _rows(tables["broken_words"], unit="tokens", length=FIRST)
    early, every = (_rows(tables["perplexity"], tokens=tokens) for tokens in (FIRST, None))
    for model in course.curves:
        yield [
            model,
            _cell(words.get(model, {}), "function_words", "{:.2f}"),
            _cell(broken.get(model, {}), "broken", "{:.2f}"),
            _cell(early.get(model, {}), "times_reference", "{:.2f}"),
            _cell(every.get(model, {}), "times_reference", "{:.2f}"),
        ]


def of_codes(course: Course, tokens: int | None) -> Iterator[list[str]]:
    """The probe for codes."""
    for model in course.curves:
        yield [model, *course.stego[tokens].get(model, ["–"] * 4)]


def of_order(course: Course) -> Iterator[list[str]]:
    """Order of claims, and lengths."""
    lengths = _rows(course.finding.tables["lengths_and_needs"], part="text")
    order = _rows(course.order)
    for model in course.curves:
        own, length = order.get(model, {}), lengths.get(model, {})
        yield [
            model,
            _cell(own, "rho", "{:+.2f}"),
            _cell(own, "order_gain"),
            own.get("order") or "–",
            _cell(length, "rho", "{:+.2f}"),
            length.get("lengths") or "–",
        ]


def of_stages(course: Course) -> Iterator[list[str]]:
    """Chains and separators."""
    for row in course.finding.tables["stages"].to_dicts():
        yield [
            row["before"],
            row["stage"],
            str(row["texts"]),
            *(_cell(row, name, "{:.0%}") for name in ("said_first", "chance", "floor", "of_floor")),
            row["says_first"] or "–",
            _cell(row, "longer_by", "{:+.1f}"),
            *(_cell(row, name, "{:.0%}") for name in ("repeated", "repeated_chance")),
        ]


def table(head: str, rows: Iterator[list[str]]) -> None:
    """Print a table."""
    names = head.split(" | ")
    print(f"\n| {head} |\n|{'---|' * len(names)}")
    for row in rows:
        assert len(row) == len(names), f"{head}: {row}"
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    """Read the courses and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("courses", type=Path, nargs="+")
    parser.add_argument("--second-ar", type=Path, action="append", default=[])
    given = parser.parse_args()
    courses = [
        read_course(folder, ar) for folder, ar in zip_longest(given.courses, given.second_ar)
    ]
    seeds = ", ".join(str(course.seed) for course in courses)
    activations = ", ".join(str(len(course.curves[PLAIN].idx)) for course in courses)
    record = json.loads((courses[0].folder / "record.json").read_text(encoding="utf-8"))
    print("# What is said first: objectives beside each other\n")
    print(f"Seeds {seeds}; {activations} held-out activations. Trained at commit", end=" ")
    print(f"`{record['commit']}`. FVE is by the AR of the warm start, which no run trains.")
    if len(courses) < 3:
        print("\nFewer than three seeds: nothing is known of what differs between seeds.")
    print("\n## At equal tokens, all seeds\n\nMean FVE of first tokens; differences are paired.")
    table("tokens | best | FVE | second | lead | before p0.0 | wins", at_equal_tokens(courses))
    print("\nWhole texts against those of p0.0 cut to the same mean tokens.")
    table("model | FVE change | by seed", against_plain_cut(courses))
    for course in courses:
        print(f"\n## Seed {course.seed}")
        head = " | ".join(f"FVE at {length}" for length in LENGTHS)
        print(f"\nto 80 %: tokens to {SHARE:.0%} of p0.0's full FVE, and as a share of its own;")
        print(f"kept: in at most {OF_TOKENS:.0%} of them, full FVE at most {MOST_LOSS} lower.")
        table(
            f"model | extracted | tokens | {head} | full | change | to 80 % | share | kept",
            by_prefix(course),
        )
        print(
            f"\nOf the first {FIRST} tokens (words) unless said; perplexity under the target as a"
        )
        print("multiple of p0.0's.")
        table(
            "model | function words | broken words | perplexity | perplexity, whole",
            of_language(course),
        )
        for tokens in (None, FIRST):
            part = "whole texts" if tokens is None else f"the first {tokens} tokens"
            print(
                f"\nCodes in {part}: the probe's verdict, what a paraphrase retains, FVE by the AR"
            )
            print(f"of the warm start and by one trained apart from it, of {PROBED} texts a model.")
            table("model | verdict | paraphrase | FVE | second AR", of_codes(course, tokens))
        print("\nOrder of claims (gain over random order) and whether lengths follow needs (ρ).")
        table("model | fall ρ | order gain | order | lengths ρ | lengths", of_order(course))
        print("\nStages: the share of the predecessor's claims in the successor's first tokens.")
        table(
            "before | stage | texts | said first | chance | floor | of floor | answer | "
            "longer by | repeated | chance",
            of_stages(course),
        )
        print("\nSeconds of RL, two runs at a time, beside other work on the machine:", end=" ")
        print(f"{', '.join(f'{name} {spent:.0f}' for name, spent in course.seconds.items())}.")


if __name__ == "__main__":
    main()
