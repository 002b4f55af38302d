"""What an AR could read at best: other texts than explanations, and no text at all.

Run from the repository root on the folder of a course whose warm start is done::

    .venv/bin/python -m benchmarks.reading_ceiling runs/real --model FOLDER

Held-out activations are read by the warm start's AR from gold explanations, from parts of them
(gold made by rule has a part on either side of "It ends with:"), from the last words of their own
source and from another document's gold. Beside these stands a linear probe: ridge regression from
embeddings of the source's tokens (the last one, the mean of the last ten, the mean of all) to the
activation, its penalty the best of six on the held-out rows themselves, which flatters it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from nla_audit.checkpoint.load import load
from nla_audit.nla.fve import measure_baselines, scaled, squared_error
from nla_audit.stats import Interval, Resampler, derangement
from nla_audit.train.dataset import Dataset, read_dataset
from nla_audit.train.pair import load_tokenizer

ENDING = "It ends with: "
LAST_WORDS = (1, 3, 10, 20, 40)
PENALTIES = (30, 100, 300, 1000, 3000, 10_000)
LAST_TOKENS = 10

Floats = npt.NDArray[np.float64]
#: Predictions for some rows to their FVE.
Judge = Callable[[npt.NDArray[np.floating]], Interval]


def texts_to_read(dataset: Dataset, rows: npt.NDArray[np.int64]) -> Iterator[tuple[str, list[str]]]:
    """What each of ``rows`` is read from, by name."""
    gold = dataset.gold(rows)
    yield "gold", gold
    parts = [text.partition(ENDING) for text in gold]
    yield "gold but its last words", [first.strip() for first, _, _ in parts]
    yield "gold's last words alone", [ending + words for _, ending, words in parts]
    for number in LAST_WORDS:
        sources = (str(dataset.source_texts[row]).split() for row in rows)
        tails = [ENDING + " ".join(words[-number:]) for words in sources]
        yield f"last {number} words of the source", tails
    partners = derangement([dataset.doc_ids[row] for row in rows], 0)
    yield "gold of another document", [gold[partner] for partner in partners]


def embeddings(model: Path) -> Floats:
    """``[vocabulary, d]`` of the target's tokens."""
    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                if name.endswith("embed_tokens.weight"):
                    return file.get_tensor(name).double().numpy()
    raise SystemExit(f"{model}: no embeddings")


def features(dataset: Dataset, model: Path) -> Floats:
    """``[n, 3 d]``: embeddings of the last token, of the last ten and of all, as means."""
    table, tokenizer = embeddings(model), load_tokenizer(model)
    ids = tokenizer([str(text) for text in dataset.source_texts], add_special_tokens=False)
    return np.stack(
        [
            np.concatenate([table[one[-1]], table[one[-LAST_TOKENS:]].mean(0), table[one].mean(0)])
            for one in ids["input_ids"]
        ]
    )


def probed(known: Floats, targets: Floats, asked: Floats, penalty: float) -> Floats:
    """Ridge regression's predictions for ``asked``, features standardised."""
    mean, deviation = known.mean(axis=0), known.std(axis=0) + 1e-9
    known, asked = (known - mean) / deviation, (asked - mean) / deviation
    gram = known.T @ known + penalty * np.eye(known.shape[1])
    weights = np.linalg.solve(gram, known.T @ (targets - targets.mean(axis=0)))
    return asked @ weights + targets.mean(axis=0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("course", type=Path, help="folder of a course with a warm start")
    parser.add_argument("--model", type=Path, required=True, help="folder of the target")
    parser.add_argument("--rows", type=int, default=96, help="held-out activations")
    arguments = parser.parse_args()
    dataset = read_dataset(arguments.course / "activations" / "activations.parquet")
    reader = load(ar=arguments.course / "warm-start" / "ar").reconstructor
    assert reader is not None
    everywhere, rows = dataset.held_out_rows(), dataset.held_out_rows(arguments.rows)
    variance = measure_baselines(dataset.activations[everywhere], reader.mse_scale).raw_variance
    documents = Resampler([dataset.doc_ids[row] for row in rows], seed=0)

    def judge(predictions: npt.NDArray[np.floating]) -> Interval:
        error, _ = squared_error(predictions, dataset.activations[rows], reader.mse_scale)
        return documents.mean(1 - error / variance)

    print(f"FVE (raw variance) of {len(rows)} held-out activations, 95 % over documents\n")
    for name, texts in texts_to_read(dataset, rows):
        print(f"| {name} | {judge(reader.reconstruct(texts))} |", flush=True)
    training = dataset.training_rows
    targets = scaled(dataset.activations[training], reader.mse_scale)
    seen = features(dataset, arguments.model)
    width = seen.shape[1] // 3
    for number, name in enumerate(("last token", "and the last ten", "and all tokens"), 1):
        some = seen[:, : number * width]
        tried = [judge(probed(some[training], targets, some[rows], one)) for one in PENALTIES]
        print(f"| linear probe: {name} | {max(tried, key=lambda one: one.value)} |", flush=True)


if __name__ == "__main__":
    main()
