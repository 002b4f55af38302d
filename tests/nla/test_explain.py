"""``nla-audit explain``: from the command line to a table that analyzers read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from nla_audit import cli, completions
from nla_audit.errors import UserError
from nla_audit.nla import generation
from nla_audit.nla import verbalizer as verbalizer_module
from nla_audit.nla.activations import read_activations
from nla_audit.nla.explain import ExplainSettings, explain, sampling_key
from nla_audit.nla.fve import measure_baselines
from nla_audit.nla.load import Pair, Placement, load
from nla_audit.nla.prompts import content_tokens
from nla_audit.nla.shards import Shards
from nla_audit.nla.verbalizer import Verbalizer
from tests.nla import talking, tiny

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT.parent / "shared" / "golden"
ROWS = 60
NAN_ROW, ZERO_ROW = 7, 11
OPTIONS = ("--max-new-tokens", "20", "--batch-size", "16", "--token-budget", "150")
FLOAT32 = Placement(dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def pair_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking.save_pair(tmp_path_factory.mktemp("talking") / "tiny-pair")


@pytest.fixture(scope="module")
def pair(pair_path: Path) -> Pair:
    return load(av=pair_path / "av", ar=pair_path / "ar", placement=FLOAT32)


def table_of(vectors: np.ndarray, **columns: Any) -> pl.DataFrame:
    rows = len(vectors)
    return pl.DataFrame(
        {
            "idx": range(100, 100 + rows),
            "doc_id": [f"d{row // 3}" for row in range(rows)],
            "n_raw_tokens": range(50, 50 + rows),
            "detokenized_text_truncated": [f"text up to token {row}" for row in range(rows)],
            "activation_layer": [2] * rows,
            "activation_vector": vectors.tolist(),
        }
    ).with_columns(**columns)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, tiny.D_MODEL)).astype(np.float32)


@pytest.fixture(scope="module")
def activations(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spoiled = vectors.copy()
    spoiled[NAN_ROW, 3] = np.nan
    spoiled[ZERO_ROW] = 0
    path = tmp_path_factory.mktemp("activations") / "activations.parquet"
    table_of(spoiled).write_parquet(path)
    return path


def run(*arguments: object) -> int:
    return cli.run(["explain", *map(str, arguments)])


@pytest.fixture(scope="module")
def explained(pair_path: Path, activations: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table that an uninterrupted run wrote."""
    out = tmp_path_factory.mktemp("explained") / "completions.parquet"
    assert run(pair_path, activations, "--out", out, *OPTIONS) == 0
    return out


class TestTable:
    def test_every_analyzer_reads_it(
        self, explained: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        table = completions.load(explained)
        assert table.models == ("tiny-pair/av",)
        assert table.ar == "tiny-pair/ar"
        assert table.rows["idx"].to_list() == [
            100 + row for row in range(ROWS) if row not in (NAN_ROW, ZERO_ROW)
        ]
        assert cli.run(["frontier", str(explained), "--json"]) == 0
        finding = json.loads(capsys.readouterr().out)
        headline = finding["headline"]["tiny-pair/av"]
        scored = pl.read_parquet(explained)["fve"].drop_nulls()
        assert headline["fve_mean"] == pytest.approx(scored.mean())

    def test_keys_are_carried_over(self, explained: Path) -> None:
        row = pl.read_parquet(explained).row(by_predicate=pl.col("idx") == 104, named=True)
        assert row["doc_id"] == "d1"
        assert row["position"] == 53  # the last of n_raw_tokens = 54, counted from 0
        assert row["source_text"] == "text up to token 4"
        assert row["length_penalty"] is None

    def test_empty_failed_and_cut_off_are_told_apart(self, explained: Path) -> None:
        table = pl.read_parquet(explained)
        empty = table.filter(pl.col("explanation") == "")
        lost = table.filter(pl.col("reason") == "no explanation between tags")
        cut = table.filter(pl.col("reason") == "no end token before the cap")
        assert min(empty.height, lost.height, cut.height) > 0
        assert empty["extracted"].all()
        assert empty["fve"].null_count() == 0
        assert (empty["content_tokens"] == 0).all()
        for failed in (lost, cut):
            assert not failed["extracted"].any()
            assert failed["explanation"].null_count() == failed.height
            assert failed["fve"].null_count() == failed.height
            np.testing.assert_allclose(failed["reward"], -2)
        assert (cut["n_tokens"] == 20).all()
        scored = table.filter(pl.col("reason").is_null())
        assert scored.height + lost.height + cut.height == table.height

    def test_lengths_are_true_and_split(self, explained: Path) -> None:
        table = pl.read_parquet(explained).filter(pl.col("extracted"))
        # Every word of the vocabulary is one token; two tags and the end token come on top.
        words = table["explanation"].str.count_matches(r"\w+").cast(pl.Int64)
        assert table["content_tokens"].to_list() == words.to_list()
        assert (table["n_tokens"] - words == 3).all()

    def test_scores_are_those_of_the_reconstructor(
        self, explained: Path, activations: Path, pair: Pair
    ) -> None:
        assert pair.reconstructor is not None
        table = pl.read_parquet(explained)
        given = read_activations(activations)
        rows = (table["idx"] - 100).to_list()
        baselines = measure_baselines(given.vectors, pair.reconstructor.mse_scale)
        wanted = pair.reconstructor.score(
            table["explanation"].to_list(), given.vectors[rows], baselines=baselines
        )
        np.testing.assert_allclose(table["mse"].to_numpy(), wanted.mse, atol=1e-5)
        np.testing.assert_allclose(table["cosine"].to_numpy(), wanted.cosine, atol=1e-5)
        for name in ("raw_variance", "mean_normalized"):
            fve = 1 - wanted.mse / getattr(baselines, name)
            np.testing.assert_allclose(table[f"fve_{name}"].to_numpy(), fve, atol=1e-5)
        assert table["fve"].equals(table["fve_raw_variance"].alias("fve"))
        assert table["fve_baseline"].unique().to_list() == ["raw_variance"]

    def test_record(self, explained: Path, activations: Path) -> None:
        record = json.loads((explained.parent / f"{explained.name}.record.json").read_text())
        assert record["arguments"]["max_new_tokens"] == 20
        assert record["settings"]["ruler"] == "tiny-pair/ar"
        assert record["activations"]["left_out"] == [
            {"row": NAN_ROW, "idx": 107, "reason": "not finite"},
            {"row": ZERO_ROW, "idx": 111, "reason": "zero vector"},
        ]
        files = {entry["file"] for entry in record["av"]["files"]}
        assert {"av/model.safetensors", "av/tokenizer.json", "av/nla_meta.yaml"} <= files
        assert record["ar"]["trained_in_rl"] is False
        assert record["av"]["injection"] == "replace:20"
        assert "transformers" in record["versions"]
        assert record["baselines"]["raw_variance"]["from"] == "58 activations of this table"

    def test_nothing_else_is_left_behind(self, explained: Path) -> None:
        names = sorted(entry.name for entry in explained.parent.iterdir())
        assert names == [explained.name, f"{explained.name}.record.json"]


class TestIndependence:
    def test_of_batches_and_order(self, pair: Pair, vectors: np.ndarray, tmp_path: Path) -> None:
        table = table_of(vectors)
        table.write_parquet(tmp_path / "a.parquet")
        table.reverse().filter(pl.col("idx") % 2 == 0).write_parquet(tmp_path / "b.parquet")
        texts = []
        for name, batch in (("a", 64), ("a", 7), ("b", 5)):
            settings = ExplainSettings("m", "r", samples=2, max_new_tokens=20, batch_size=batch)
            done = explain(
                pair,
                read_activations(tmp_path / f"{name}.parquet"),
                tmp_path / f"{name}{batch}.parquet",
                settings,
            )
            texts.append(
                dict(
                    zip(
                        zip(done["idx"], done["sample"], strict=True),
                        done["explanation"],
                        strict=True,
                    )
                )
            )
        assert texts[0] == texts[1]
        assert texts[2] == {key: texts[0][key] for key in texts[2]}
        assert len(set(texts[0].values())) > ROWS  # samples differ

    def test_of_the_type_of_idx(self) -> None:
        assert sampling_key(3, 0) == sampling_key("3", 0)
        assert len({sampling_key(3, 0), sampling_key(3, 1), sampling_key(30, 1)}) == 3

    def test_greedy(self, pair: Pair, activations: Path, tmp_path: Path) -> None:
        given = read_activations(activations)
        runs = [
            explain(
                pair,
                given,
                tmp_path / f"{seed}.parquet",
                ExplainSettings("m", "r", temperature=0, seed=seed, max_new_tokens=20),
                notice=lambda _: None,
            )
            for seed in (0, 1)
        ]
        assert runs[0].equals(runs[1])


def test_content_tokens_ignore_tags_and_white_space() -> None:
    tokenizer = tiny.make_tokenizer(bos=False)
    for text in ("a story", "fair", "x", "a <b> story, with </tags"):
        for between in ("", "\n", "  "):
            response = f"<explanation>{between}{text}{between}</explanation>"
            ids = tokenizer.encode(response, add_special_tokens=False)
            offsets = tokenizer(response, return_offsets_mapping=True)["offset_mapping"]
            start = response.index(text)
            inside = [
                1 for low, high in offsets
                if low < start + len(text) and high > start
            ]  # fmt: skip
            assert content_tokens(tokenizer, [*ids, 4], text) == len(inside)


def test_cjk_raises_an_alarm(
    pair: Pair, activations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbalizer_module, "cjk_share", lambda text: 0.5)
    said: list[str] = []
    settings = ExplainSettings("m", "r", max_new_tokens=20)
    explain(
        pair, read_activations(activations), tmp_path / "c.parquet", settings, notice=said.append
    )
    assert any("50% of what the AV wrote is CJK" in sentence for sentence in said)


class TestBaselines:
    def test_chosen_and_given(self, pair_path: Path, activations: Path, tmp_path: Path) -> None:
        out = tmp_path / "c.parquet"
        options = ("--baseline", "mean_normalized", "--baseline-value", "mean_normalized=0.6704")
        assert run(pair_path, activations, "--out", out, *OPTIONS, *options) == 0
        table = pl.read_parquet(out).drop_nulls("fve")
        assert table["fve_baseline"].unique().to_list() == ["mean_normalized"]
        np.testing.assert_allclose(table["fve"], 1 - table["mse"] / 0.6704)
        np.testing.assert_allclose(table["nmse"], table["mse"] / 0.6704)
        record = json.loads((tmp_path / "c.parquet.record.json").read_text())
        assert record["baselines"]["mean_normalized"] == {"value": 0.6704, "from": "given"}

    def test_one_activation_needs_given_ones(
        self, pair_path: Path, vectors: np.ndarray, tmp_path: Path
    ) -> None:
        table_of(vectors[:1]).write_parquet(tmp_path / "one.parquet")
        arguments = (pair_path, tmp_path / "one.parquet", "--out", tmp_path / "c.parquet")
        assert run(*arguments) == 2
        values = ("--baseline-value", "raw_variance=0.7", "--baseline-value", "mean_normalized=0.9")
        assert run(*arguments, *values) == 0


class TestResume:
    def killed(self, put: int, half_written: bool, *arguments: object) -> None:
        """Run the command in a process that is killed when it keeps its ``put``-th batch."""
        program = """
import os, signal, sys
import torch
from nla_audit import cli
from nla_audit.nla.shards import Shards
torch.set_num_threads(1)
put, calls, limit, half = Shards.put, [0], int(sys.argv[1]), sys.argv[2] == "half"
def dying(self, stage, number, piece):
    calls[0] += 1
    if calls[0] == limit:
        if half:
            (self.folder / f"{stage}-{number:06d}.parquet.partial-1").write_bytes(b"PAR1")
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, stage, number, piece)
Shards.put = dying
cli.main(sys.argv[3:])
"""
        command = [sys.executable, "-c", program, str(put), "half" if half_written else "no"]
        done = subprocess.run(
            [*command, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == -9, done.stderr

    def test_kill_loses_one_batch_and_changes_nothing(
        self,
        pair_path: Path,
        activations: Path,
        explained: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        out = tmp_path / "completions.parquet"
        arguments = ("explain", pair_path, activations, "--out", out, *OPTIONS)
        # 58 rows in batches of 16: the first kill hits the third of four batches of the AV, the
        # second one the second batch of the AR (two of the AV and one of the AR later).
        self.killed(3, True, *arguments)
        (folder,) = tmp_path.glob(".completions.parquet.parts-*")
        assert len(list(folder.glob("explained-*.parquet"))) == 2
        assert not out.exists()
        self.killed(4, False, *arguments)
        assert len(list(folder.glob("explained-*.parquet"))) == 4
        assert len(list(folder.glob("read-*.parquet"))) == 1

        kept: list[str] = []
        put = Shards.put
        monkeypatch.setattr(
            Shards,
            "put",
            lambda self, stage, number, piece: (
                kept.append(stage),
                put(self, stage, number, piece),
            ),
        )
        monkeypatch.setattr(Verbalizer, "generate", None)  # nothing may be explained again
        assert cli.run(list(map(str, arguments))) == 0
        assert kept
        assert set(kept) == {"read"}
        assert out.read_bytes() == explained.read_bytes()
        assert not folder.exists()

    def test_other_settings_start_afresh(
        self, pair: Pair, activations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = read_activations(activations)
        out = tmp_path / "c.parquet"

        def stopped(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("nla_audit.nla.explain.score_rows", stopped)
            with pytest.raises(KeyboardInterrupt):
                explain(pair, given, out, ExplainSettings("m", "r"), notice=lambda _: None)
        said: list[str] = []
        explain(pair, given, out, ExplainSettings("m", "r", seed=1), notice=said.append)
        assert any("other settings; not used" in sentence for sentence in said)
        assert len(list(tmp_path.glob(".c.parquet.parts-*"))) == 1  # the stopped run's, kept

    def test_damaged_piece_is_done_again(
        self, pair: Pair, activations: Path, explained: Path, tmp_path: Path
    ) -> None:
        shards = Shards(tmp_path / "x.parquet", "0" * 64)
        shards.put("read", 0, pl.DataFrame({"row": [1]}))
        assert shards.get("read", 0) is not None
        (shards.folder / "read-000000.parquet").write_bytes(b"")
        assert shards.get("read", 0) is None

    def test_finished_run_is_not_repeated(
        self,
        pair_path: Path,
        activations: Path,
        explained: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(Verbalizer, "generate", None)
        before = explained.read_bytes()
        assert run(pair_path, activations, "--out", explained, *OPTIONS) == 0
        assert "already finished" in capsys.readouterr().err
        assert run(pair_path, activations, "--out", explained, *OPTIONS, "--seed", "5") == 2
        assert "made by another run" in capsys.readouterr().err
        assert explained.read_bytes() == before


class TestBadInput:
    @pytest.fixture
    def fails(self, pair_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
        def run_it(table: Path | pl.DataFrame, *options: object) -> str:
            if isinstance(table, pl.DataFrame):
                table.write_parquet(tmp_path / "in.parquet")
                table = tmp_path / "in.parquet"
            pair = () if "--pair" in options else (pair_path,)
            assert run(*pair, table, "--out", tmp_path / "out.parquet", *options) == 2
            error = capsys.readouterr().err.splitlines()[-1]
            assert error.startswith("error: ")
            assert not (tmp_path / "out.parquet").exists()
            return error

        return run_it

    def test_bad_rows_are_named(
        self, pair_path: Path, activations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(pair_path, activations, "--out", tmp_path / "o.parquet", *OPTIONS) == 0
        error = capsys.readouterr().err
        assert "row 7 (idx 107): not finite; row 11 (idx 111): zero vector" in error

    def test_wrong_width(self, fails: Any, vectors: np.ndarray) -> None:
        assert "are 31 wide, the AV av needs 32" in fails(table_of(vectors[:, :31]))

    def test_column_missing(self, fails: Any, vectors: np.ndarray) -> None:
        table = table_of(vectors)
        error = fails(table.rename({"activation_vector": "activations_vector"}))
        assert 'column "activation_vector" is missing: rename "activations_vector"' in error
        assert "is missing: the columns there are: a" in fails(pl.DataFrame({"a": [1]}))

    def test_vectors_of_different_widths(self, fails: Any) -> None:
        table = pl.DataFrame({"activation_vector": [[1.0] * 32, [1.0] * 31]})
        assert "row 1 holds 31 numbers where others hold 32" in fails(table)

    def test_no_vectors(self, fails: Any) -> None:
        assert "holds String" in fails(pl.DataFrame({"activation_vector": ["x"]}))
        assert "no rows" in fails(table_of(np.ones((3, 32))).clear())
        assert "no usable activation in 3" in fails(table_of(np.zeros((3, 32))))

    def test_repeated_and_missing_idx(self, fails: Any, vectors: np.ndarray) -> None:
        table = table_of(vectors)
        assert 'row 1: column "idx" repeats 5' in fails(table.with_columns(idx=pl.lit(5)))
        gap = table.with_columns(idx=pl.when(pl.col("idx") != 104).then("idx"))
        assert 'row 4: column "idx" is empty' in fails(gap)

    def test_another_layer(self, fails: Any, vectors: np.ndarray, tmp_path: Path) -> None:
        table = table_of(vectors, activation_layer=pl.lit(3))
        assert "activations of layer 3, the pair is for layer 2" in fails(table)
        mixed = table.with_columns(activation_layer=pl.col("idx") % 2)
        assert "several layers (0, 1)" in fails(mixed)

    def test_layers_may_be_forced(
        self, pair_path: Path, vectors: np.ndarray, tmp_path: Path
    ) -> None:
        table_of(vectors, activation_layer=pl.lit(3)).write_parquet(tmp_path / "a.parquet")
        arguments = (pair_path, tmp_path / "a.parquet", "--out", tmp_path / "o.parquet", *OPTIONS)
        assert run(*arguments, "--force") == 0

    def test_halves_of_different_pairs(self, fails: Any, activations: Path, tmp_path: Path) -> None:
        other = talking.save_pair(tmp_path / "other", layer=1)
        error = fails(activations, "--ar", other / "ar")
        assert "the AV was trained on layer 2, the AR predicts layer 1" in error

    def test_not_parquet(self, fails: Any, tmp_path: Path) -> None:
        path = tmp_path / "broken.parquet"
        path.write_bytes(b"PAR1 and no more")
        assert "not a whole Parquet file" in fails(path)
        assert "no such file" in fails(tmp_path / "none.parquet")

    def test_options_that_cannot_be(self, fails: Any, activations: Path) -> None:
        assert "would all be the same" in fails(activations, "--greedy", "--samples", 2)
        assert "expected replace:SCALE" in fails(activations, "--injection", "replace:x")
        assert "--baseline-value" in fails(activations, "--baseline-value", "mean=1")
        assert "must be a positive number" in fails(
            activations, "--baseline-value", "raw_variance=-1"
        )

    @pytest.fixture
    def tight_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No room for more than eight rows."""
        generate = generation.generate

        def tight(model: Any, prompt: Any, injection: Any, rows: Any, **options: Any) -> Any:
            if len(rows) > 8:
                raise torch.OutOfMemoryError("no room")
            return generate(model, prompt, injection, rows, **options)

        monkeypatch.setattr(generation, "generate", tight)

    @pytest.mark.usefixtures("tight_memory")
    def test_out_of_memory_halves_the_batch(
        self,
        pair_path: Path,
        activations: Path,
        explained: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        out = tmp_path / "o.parquet"
        assert run(pair_path, activations, "--out", out, *OPTIONS) == 0
        assert "out of memory with 16 rows in a batch; going on with 8" in capsys.readouterr().err
        wanted = pl.read_parquet(explained)
        assert pl.read_parquet(out)["explanation"].equals(wanted["explanation"])


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no ../shared/golden beside the clone")
class TestPublishedPairs:
    @pytest.mark.parametrize(
        ("folder", "options", "model"),
        [
            ("released_qwen2", (), "released_qwen2/av"),
            ("nano_qwen3", (), "nano_qwen3/av"),
            ("nano_qwen3", ("--adapter", GOLDEN / "nano_qwen3/rl-lora/p0.006"), "p0.006"),
            ("nano_lora", ("--ar", "ar_lora"), "av_sft_lora"),
        ],
    )
    def test_every_format(
        self, folder: str, options: tuple[object, ...], model: str, tmp_path: Path
    ) -> None:
        path, out = GOLDEN / folder, tmp_path / "o.parquet"
        cap = ("--max-new-tokens", 4, "--greedy")
        assert run(path, path / "activations.parquet", "--out", out, *cap, *options) == 0
        table = completions.load(out)
        assert table.models == (model,)
        assert table.rows.height == 16
        assert table.length_penalties == {model: 0.006 if model == "p0.006" else None}


class TestFindPair:
    def test_halves_by_name(self, pair_path: Path, activations: Path, tmp_path: Path) -> None:
        link = tmp_path / "pair"
        link.mkdir()
        os.symlink(pair_path / "av", link / "x-av")
        os.symlink(pair_path / "ar", link / "x-ar")
        assert run(link / "x-av", activations, "--out", tmp_path / "a.parquet", *OPTIONS) == 0
        assert run(link, activations, "--out", tmp_path / "b.parquet", *OPTIONS) == 0
        tables = [pl.read_parquet(tmp_path / f"{name}.parquet") for name in "ab"]
        assert tables[0]["fve"].equals(tables[1]["fve"])

    def test_several_halves_must_be_chosen(
        self,
        pair_path: Path,
        activations: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        folder = tmp_path / "pair"
        folder.mkdir()
        for name, half in (("av_sft", "av"), ("av_rl", "av"), ("critic", "ar")):
            os.symlink(pair_path / half, folder / name)
        arguments = (folder, activations, "--out", tmp_path / "o.parquet", *OPTIONS)
        assert run(*arguments) == 2
        assert "holds 2 AVs (av_rl, av_sft); choose one with --av" in capsys.readouterr().err
        assert run(*arguments, "--av", "av_rl") == 0

    def test_no_pair(
        self, pair_path: Path, activations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = ("--out", tmp_path / "o.parquet")
        os.symlink(pair_path / "av", tmp_path / "alone")
        for pair, words in (
            (activations.parent, "no checkpoint here"),
            (tmp_path / "none", "no such folder"),
            (pair_path / "ar", "this is an AR; name its AV"),
            (tmp_path / "alone", "an AV with no AR beside it"),
        ):
            assert run(pair, activations, *out) == 2
            assert words in capsys.readouterr().err


def test_half_a_pair_is_refused(pair: Pair, activations: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs both halves"):
        explain(
            Pair(pair.verbalizer, None),
            read_activations(activations),
            tmp_path / "o.parquet",
            ExplainSettings("m", "r"),
        )
