"""Is other wording, and terser wording, told from omission? On explanations written in three ways.

    python benchmarks/reading_wordings.py [--similarity MODEL] [--seeds 5] > table.md

Each file of WORDINGS holds the explanations of invented documents, a line a row: `idx, line,
original, paraphrase, terse`, written by an LLM that did not know of this program. A paraphrase says
all of its original in other words, a terse one in little more than half of the words. So nothing is
left out but what is deleted, or exchanged for another explanation's, here. FILES of the same form
may be given instead.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from nla_audit.analyzers.drop_analysis import drop_analysis
from nla_audit.analyzers.rewording import rewording
from nla_audit.table.completions import Completions, from_frame
from nla_audit.text.pairs import text_of
from nla_audit.text.reading import read

WORDINGS = Path(__file__).parent / "wordings"
VERSIONS = ("paraphrase", "terse")
SHARES = (0.0, 0.1, 0.3, 0.5, 0.7)
REFERENCE, CHANGED = "original", "changed"


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("files", nargs="*", default=sorted(WORDINGS.glob("*.jsonl")))
    arguments.add_argument("--similarity")
    arguments.add_argument("--seeds", type=int, default=5)
    given = arguments.parse_args()
    files = {Path(file).stem: pl.read_ndjson(file).sort("idx", "line") for file in given.files}
    for section in (errors(files, given.seeds, given.similarity), splits(files, given.similarity)):
        print("\n".join(section), end="\n\n", flush=True)


def errors(files: dict[str, pl.DataFrame], seeds: int, similarity: str | None) -> Iterator[str]:
    """Omission read, less the share of tokens whose lines were deleted or exchanged."""
    yield "| explanations | version | change | " + " | ".join(f"{s:.0%}" for s in SHARES) + " |"
    yield "|" + "---|" * (len(SHARES) + 3)
    for name, lines in files.items():
        for version in VERSIONS:
            for change in ("deleted", "exchanged"):
                cells = []
                for share in SHARES:
                    found = [
                        error(*changed(lines, version, share, change, seed), similarity=similarity)
                        for seed in range(seeds if share else 1)
                    ]
                    cells.append(f"{np.mean(found):+.3f} (worst {max(found, key=abs):+.3f})")
                idx = lines["idx"].n_unique()
                yield f"| {name} ({idx}) | {version} | {change} | {' | '.join(cells)} |"


def splits(files: dict[str, pl.DataFrame], similarity: str | None) -> Iterator[str]:
    """How the saving is split, and what is said of it."""
    yield (
        "| explanations | version | deleted | left out, true | left out | net omission "
        "| terser wording | verdicts |"
    )
    yield "|" + "---|" * 8
    for name, lines in files.items():
        for version in VERSIONS:
            for share in (0.0, 0.3, 0.5):
                table, true = changed(lines, version, share, "deleted", 0)
                split = rewording(table, similarity=similarity)
                own = split.headline[CHANGED]
                tokens = (
                    read(table, similarity=similarity)
                    .explanations.filter(pl.col("model") == CHANGED)["tokens_reference"]
                    .mean()
                )
                cells = [
                    "{:.1f} [{:.1f}, {:.1f}]".format(
                        *(own[f"{part}_tokens{end}"] for end in ("", "_low", "_high"))
                    )
                    for part in ("omission", "net_omission", "terser_wording")
                ]
                said = re.sub(r"^.*: ", "", split.verdict)
                dropped = drop_analysis(table, similarity=similarity).verdict
                yield (
                    f"| {name} | {version} | {share:.0%} | {true * tokens:.1f} | "
                    f"{' | '.join(cells)} | {said} {dropped} |"
                )


def changed(
    lines: pl.DataFrame, version: str, share: float, change: str, seed: int
) -> tuple[Completions, float]:
    """The originals beside a version of which a share of lines is deleted or exchanged.

    Returns:
        The table, and the share of the originals' tokens whose lines were.
    """
    generator = np.random.default_rng(seed)
    gone = generator.random(lines.height) < share
    idx, originals, said = (lines[name].to_list() for name in ("idx", REFERENCE, version))
    costs = np.array([text_of(text).content_tokens for text in originals])
    texts: dict[int, list[str]] = {key: [] for key in idx}
    for row, key in enumerate(idx):
        other = row
        if gone[row] and change == "deleted":
            continue
        while gone[row] and idx[other] == key:
            other = int(generator.integers(lines.height))
        texts[key].append(said[other])
    rows = [
        {"model": model, "length_penalty": penalty, "idx": key, "explanation": "\n".join(parts)}
        for model, penalty, by_idx in (
            (REFERENCE, 0.0, _joined(idx, originals)),
            (CHANGED, 0.1, texts),
        )
        for key, parts in by_idx.items()
    ]
    table = from_frame(pl.DataFrame(rows), reference=REFERENCE)
    return table, float(costs[gone].sum() / costs.sum())


def _joined(idx: list[int], lines: list[str]) -> dict[int, list[str]]:
    texts: dict[int, list[str]] = {}
    for key, line in zip(idx, lines, strict=True):
        texts.setdefault(key, []).append(line)
    return texts


def error(table: Completions, true: float, *, similarity: str | None = None) -> float:
    """The share of the reference's tokens that is read as left out, less what is true."""
    own = read(table, similarity=similarity).explanations.filter(pl.col("model") == CHANGED)
    return float(1 - own["kept_tokens"].sum() / own["tokens_reference"].sum() - true)


if __name__ == "__main__":
    main()
