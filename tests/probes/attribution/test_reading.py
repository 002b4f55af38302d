"""Attribution by an AR, loaded from disk, whose FVE of every text is known in closed form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nla_audit import cli
from nla_audit.commands.attribution import command
from nla_audit.errors import UserError
from nla_audit.nla.fve import measure_baselines
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.probes.attribution.card import DEFAULT_LIMIT
from nla_audit.probes.attribution.reading import AttributionSettings, attribute_with
from nla_audit.report.stored import read_report
from nla_audit.runs.activations import read_activations
from nla_audit.runs.score import read_unscored
from tests.pairs import planted_pair

N = 14
#: The words are tokens with the space before them: each stands inside of its line.
_LINES = (
    "It begins with a{} here.",
    "Then comes the{} as well.",
    'Last expects "quite some{} there".',
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planted AR, activations, and explanations by two models that name their keywords."""
    root = tmp_path_factory.mktemp("attributing")
    generator = np.random.default_rng(0)
    words = planted_pair.KEYWORDS
    rows, vectors = [], []
    for idx in range(N):
        chosen = generator.permutation(len(words))[:3]
        weights = np.zeros(len(words))
        weights[chosen] = generator.uniform(0.5, 2, 3)
        vectors.append(planted_pair.activation(weights))
        text = "\n".join(
            line.format(words[place]) for line, place in zip(_LINES, chosen, strict=True)
        )
        for model in ("p0.0", "p0.03"):
            short = text if model == "p0.0" else text.split("\n")[0]
            rows.append({"model": model, "idx": idx, "explanation": short, "extracted": True})
    rows[2] |= {"explanation": None, "extracted": False}
    rows[4] |= {"explanation": ""}
    planted_pair.save_study(root, rows, vectors)
    return root


@pytest.fixture(scope="module")
def reader(root: Path) -> Reconstructor:
    return planted_pair.load_planted_ar(root / "ar")


def _arguments(root: Path, *options: object) -> list[str]:
    given = [
        "attribution",
        "--ar",
        root / "ar",
        "--completions",
        root / "texts.parquet",
        "--activations",
        root / "activations.parquet",
        *options,
    ]
    return list(map(str, given))


def test_saliency_is_the_known_one(root: Path, reader: Reconstructor) -> None:
    activations = read_activations(root / "activations.parquet")
    baselines = measure_baselines(activations.vectors, reader.mse_scale)
    texts = read_unscored([str(root / "texts.parquet")])
    found = attribute_with(reader, texts, activations, AttributionSettings())
    whole = {
        (model, str(idx)): text
        for model, idx, text in texts.rows.select("model", "idx", "explanation").iter_rows()
    }
    checked = 0
    for row in found.scores.tokens.drop_nulls("saliency").iter_rows(named=True):
        text, vector = whole[row["model"], row["idx"]], activations.vectors[int(row["idx"])]
        known = 0.0
        if f" {row['text']}" in planted_pair.KEYWORDS:
            cut = text.replace(f" {row['text']}", "")
            known = planted_pair.known_fve(text, vector, baselines) - planted_pair.known_fve(
                cut, vector, baselines
            )
            checked += 1
        assert row["saliency"] == pytest.approx(known, abs=1e-4), row["text"]
    assert checked > 2 * N
    assert found.models == {"p0.0": N, "p0.03": N}
    assert found.left_out.rows() == [("p0.0", "1", "no explanation")]


def test_from_the_command_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, kept = tmp_path / "out", tmp_path / "words.parquet"
    assert cli.run(_arguments(root, "--json", "--out", out, "--keep-scores", kept)) == 0
    finding = json.loads(capsys.readouterr().out)
    assert finding["analyzer"] == "attribution"
    assert set(finding["headline"]) == {"p0.0", "p0.03"}
    first = finding["headline"]["p0.0"]
    assert (first["explanations"], first["left_out"]) == (N - 1, 1)
    assert first["token_saliency_low"] <= first["token_saliency"] <= first["token_saliency_high"]
    assert any("1 explanation left out: no explanation" in text for text in finding["caveats"])
    assert any("empty" in text for text in finding["caveats"])
    names = {path.name for path in out.rglob("*")}
    assert {
        "attribution.html",
        "attribution.json",
        "attribution.record.json",
        "attribution-prefixes.svg",
    } <= names
    assert read_report(out / "attribution.json").findings[0].to_dict() == finding
    assert not [name for name in names if "parts" in name]
    assert pl.read_parquet(kept)["saliency"].null_count() < pl.read_parquet(kept).height
    assert cli.run(_arguments(root, "--limit", 3)) == 0
    assert "no interval below" in capsys.readouterr().out


@pytest.mark.slow
def test_an_interrupted_reading_goes_on_where_it_stopped(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = Reconstructor.read
    batches = []

    def stopping(self, reading, batch, **options):
        if len(batches) == 5:
            raise KeyboardInterrupt
        batches.append(batch)
        return plain(self, reading, batch, **options)

    def counting(self, reading, batch, **options):
        batches.append(batch)
        return plain(self, reading, batch, **options)

    small = ("--token-budget", 128, "--json")
    monkeypatch.setattr(Reconstructor, "read", counting)
    assert cli.run(_arguments(root, *small)) == 0
    whole, total = capsys.readouterr().out, len(batches)
    batches.clear()
    monkeypatch.setattr(Reconstructor, "read", stopping)
    assert cli.run(_arguments(root, *small, "--out", tmp_path / "out")) == 130
    monkeypatch.setattr(Reconstructor, "read", counting)
    assert cli.run(_arguments(root, *small, "--out", tmp_path / "out")) == 0
    capsys_out = capsys.readouterr().out
    assert len(batches) == total  # nothing was read twice
    assert json.loads(capsys_out)["headline"] == json.loads(whole)["headline"]


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        ("--ar", "give --pair PAIR or --ar AR"),
        ("--completions", "--completions as well"),
        ("--activations", "--activations as well"),
    ],
)
def test_what_is_not_given_is_said(
    root: Path, drop: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _arguments(root)
    place = arguments.index(drop)
    del arguments[place : place + 2]
    assert cli.run(arguments) == 2
    assert message in capsys.readouterr().err


def test_what_cannot_be_written_is_said_before_reading(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for option, path in (("--out", "file"), ("--keep-scores", "none/words.parquet")):
        assert cli.run(_arguments(root, option, tmp_path / path)) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1


def test_texts_that_cannot_be_read_are_one_line(root: Path, tmp_path: Path, reader) -> None:
    activations = read_activations(root / "activations.parquet")
    rows = {"model": ["p0.0"] * 2, "extracted": [False] * 2, "explanation": [None] * 2}
    schema = {"explanation": pl.String}
    for idx, message in (([0, 1], "can be read"), ([77, 78], "none of its idx")):
        pl.DataFrame({**rows, "idx": idx}, schema_overrides=schema).write_parquet(
            tmp_path / "t.parquet"
        )
        with pytest.raises(UserError, match=message) as error:
            attribute_with(
                reader,
                read_unscored([str(tmp_path / "t.parquet")]),
                activations,
                AttributionSettings(),
            )
        assert "\n" not in str(error.value)


def test_the_default_of_the_command_is_that_of_the_function() -> None:
    (limit,) = (option for option in command.params if option.name == "limit")
    assert limit.default == DEFAULT_LIMIT == AttributionSettings().limit


def test_a_text_that_the_ar_has_no_room_for_is_not_taken_apart(root: Path, tmp_path: Path, reader):
    """It would make as many texts as it has words, none of which can be compared with it."""
    table = pl.read_parquet(root / "texts.parquet")
    longer = pl.when(pl.col("idx") == 3).then(pl.lit("a ribbon. " * 300)).otherwise("explanation")
    table.with_columns(explanation=longer).write_parquet(tmp_path / "long.parquet")
    found = attribute_with(
        reader,
        read_unscored([str(tmp_path / "long.parquet")]),
        read_activations(root / "activations.parquet"),
        AttributionSettings(),
    )
    left_out = {(model, idx): reason for model, idx, reason in found.left_out.iter_rows()}
    assert left_out["p0.0", "3"] == left_out["p0.03", "3"] == "too long for the AR"
    assert "3" not in found.scores.tokens["idx"]
