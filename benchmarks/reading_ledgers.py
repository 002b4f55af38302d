"""Is what a shorter explanation leaves out and adds read rightly? On explanations with a ledger.

    python benchmarks/reading_ledgers.py [--similarity MODEL] [FILES] > table.md

Each file of LEDGERS holds explanations of invented documents, one a row: `idx, original, shorter,
spans, added`. Another writer's shorter explanation is not parallel to the original; `spans` cuts
the original and tells of each part whether the shorter one keeps, drops or changes it, `added`
quotes what only the shorter one says. An LLM wrote and marked them that did not know of this
program. Where wordings are exchanged or deleted by line (reading_wordings.py) the truth is exact
and the form is not natural; here it is the other way round.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.metrics import roc_auc_score

from nla_audit.analyzers.drop_analysis import drop_analysis
from nla_audit.analyzers.rewording import rewording
from nla_audit.table.completions import Completions, from_frame
from nla_audit.text.reading import read
from nla_audit.text.words import piece_count

LEDGERS = Path(__file__).parent / "ledgers"
REFERENCE, SHORTER = "original", "shorter"
#: Claims of a kind whose share is compared, and how much of a claim is kept for it to be kept.
FEWEST, DROPPED, KEPT = 20, 0.1, 0.9


@dataclass(frozen=True)
class Ledger:
    """Explanations in a table, and what was marked of them.

    Attributes:
        table: the originals beside the shorter explanations.
        left_out: idx → share of the original's tokens that is dropped or changed.
        added: idx → tokens of what only the shorter explanation says.
        spans: idx → text and fate of each part of the original.
    """

    table: Completions
    left_out: dict[int, float]
    added: dict[int, float]
    spans: dict[int, list[tuple[str, str]]]


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("files", nargs="*", default=sorted(LEDGERS.glob("*.jsonl")))
    arguments.add_argument("--similarity")
    given = arguments.parse_args()
    files = {Path(file).stem: ledger(Path(file)) for file in given.files}
    for section in (totals(files, given.similarity), quarters(files, given.similarity)):
        print("\n".join(section), end="\n\n", flush=True)
    print("\n".join(kinds(files, given.similarity)))


def ledger(file: Path) -> Ledger:
    """One file's table and truth."""
    rows, left_out, added, spans = [], {}, {}, {}
    for row in pl.read_ndjson(file).sort("idx").iter_rows(named=True):
        idx = row["idx"]
        for model, penalty in ((REFERENCE, 0.0), (SHORTER, 0.1)):
            rows.append(
                {
                    "model": model,
                    "length_penalty": penalty,
                    "idx": idx,
                    "explanation": row[model],
                }
            )
        spans[idx] = [(span["text"], span["fate"]) for span in row["spans"]]
        costs = np.array([piece_count(text) for text, _ in spans[idx]], dtype=np.float64)
        kept = np.array([fate == "kept" for _, fate in spans[idx]])
        left_out[idx] = float(costs[~kept].sum() / costs.sum())
        added[idx] = float(sum(map(piece_count, row["added"])))
    table = from_frame(pl.DataFrame(rows), reference=REFERENCE)
    return Ledger(table, left_out, added, spans)


def totals(files: dict[str, Ledger], similarity: str | None) -> Iterator[str]:
    """Tokens left out and newly said, and what is concluded."""
    yield (
        "| explanations | tokens | shorter | left out, true | left out | newly said, true | "
        "newly said | net omission, true | net omission | claims kept, true | claims kept | kept "
        "told from dropped (AUC) | verdict |"
    )
    yield "|" + "---|" * 13
    for name, one in files.items():
        found = read(one.table, similarity=similarity).explanations
        own = found.filter(pl.col("model") == SHORTER).sort("idx")
        tokens = own["tokens_reference"].to_numpy()
        truth = np.array([one.left_out[idx] for idx in own["idx"]])
        split = rewording(one.table, similarity=similarity)
        parts = split.headline[SHORTER]
        claims = drop_analysis(one.table, similarity=similarity).headline[SHORTER]
        marked = claims_of(one, similarity)
        yield (
            f"| {name} ({own.height}) | {tokens.mean():.1f} | {own['tokens_model'].mean():.1f} | "
            f"{(truth * tokens).mean():.1f} | {_three(parts, 'omission_tokens')} | "
            f"{np.mean(list(one.added.values())):.1f} | {_three(parts, 'addition_tokens', -1)} | "
            f"{net_omission(one, own):.1f} | {_three(parts, 'net_omission_tokens')} | "
            f"{marked['true'].mean():.0%} | {_three(claims, 'claims_retained', 100)} % | "
            f"{told_apart(marked):.2f} | {split.verdict} |"
        )


def net_omission(ledger: Ledger, own: pl.DataFrame) -> float:
    """Tokens left out less those newly said, in the original's wording, by what was marked.

    Args:
        own: what was read of the shorter explanations, for their lengths.
    """
    tokens = own["tokens_reference"].to_numpy()
    kept = tokens * (1 - np.array([ledger.left_out[idx] for idx in own["idx"]]))
    length, new = float(own["tokens_model"].mean()), float(np.mean(list(ledger.added.values())))
    return float(tokens.mean() - length * kept.mean() / (length - new))


def quarters(files: dict[str, Ledger], similarity: str | None) -> Iterator[str]:
    """The share left out in the explanations that truly leave out least, …, most."""
    yield "| explanations | least: true, read | second | third | most |"
    yield "|" + "---|" * 5
    for name, one in files.items():
        own = read(one.table, similarity=similarity).explanations.filter(pl.col("model") == SHORTER)
        truth = np.array([one.left_out[idx] for idx in own["idx"]])
        tokens = own["tokens_reference"].to_numpy()
        kept = own["kept_tokens"].to_numpy()
        cells = [
            f"{np.average(truth[part], weights=tokens[part]):.2f}, "
            f"{1 - kept[part].sum() / tokens[part].sum():.2f}"
            for part in np.array_split(np.argsort(truth), 4)
        ]
        yield f"| {name} | {' | '.join(cells)} |"


def kinds(files: dict[str, Ledger], similarity: str | None) -> Iterator[str]:
    """Share of claims kept by kind, of kinds with several claims."""
    yield "| explanations | kind | claims | kept, true | kept |"
    yield "|---|---|---|---|---|"
    for name, one in files.items():
        for kind, count, true, kept in by_kind(claims_of(one, similarity)).iter_rows():
            yield f"| {name} | {kind} | {count} | {true:.0%} | {kept:.0%} |"


def claims_of(one: Ledger, similarity: str | None = None) -> pl.DataFrame:
    """The originals' claims: `idx, kind, true, kept`, both shares of the claim."""
    claims = read(one.table, similarity=similarity).claims.filter(pl.col("model") == SHORTER)
    true = [
        _share_kept(one.spans[idx], start, end)
        for idx, start, end in claims.select("idx", "start", "end").iter_rows()
    ]
    return claims.select("idx", pl.col("kind").cast(pl.String), "kept").with_columns(
        true=pl.Series(true, dtype=pl.Float64)
    )


def by_kind(claims: pl.DataFrame) -> pl.DataFrame:
    """`kind, claims, true, kept` of the kinds with at least :data:`FEWEST` claims."""
    found = claims.group_by("kind").agg(pl.len().alias("claims"), pl.col("true", "kept").mean())
    return found.filter(pl.col("claims") >= FEWEST).sort("kind")


def told_apart(claims: pl.DataFrame) -> float:
    """AUC of claims that are kept against those that are dropped; parts of claims are left out."""
    whole = claims.filter(~pl.col("true").is_between(DROPPED, KEPT))
    return float(roc_auc_score(whole["true"] > 0.5, whole["kept"]))


def _share_kept(spans: list[tuple[str, str]], start: int, end: int) -> float:
    place, kept = 0, 0
    for text, fate in spans:
        if fate == "kept":
            kept += max(0, min(place + len(text), end) - max(place, start))
        place += len(text)
    return kept / (end - start)


def _three(headline: dict[str, float | None], name: str, factor: float = 1) -> str:
    value, *ends = (factor * (headline[name + end] or 0.0) for end in ("", "_low", "_high"))
    return f"{value:.1f} [{min(ends):.1f}, {max(ends):.1f}]"


if __name__ == "__main__":
    main()
