"""``nla-audit explain``: from the command line to a table that analyzers read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nla_audit import cli
from nla_audit.checkpoint.load import Pair
from nla_audit.nla import verbalizer as verbalizer_module
from nla_audit.nla.fve import measure_baselines
from nla_audit.nla.prompts import AnswerDecoder, cjk_share, content_tokens, read_explanation
from nla_audit.runs.activations import read_activations
from nla_audit.runs.explain import ExplainSettings, explain, sampling_key
from nla_audit.table import completions
from tests.pairs import tiny
from tests.pairs.explaining import NAN_ROW, OPTIONS, ROWS, ZERO_ROW, run, table_of
from tests.pairs.golden import GOLDEN

ROOT = Path(__file__).parents[2]


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
        recorded = completions.load(explained).baseline
        assert (recorded.name, recorded.is_recorded) == ("raw_variance", True)
        assert recorded.value == pytest.approx(baselines.raw_variance)

    def test_ids_that_are_text(self, pair: Pair, vectors: np.ndarray, tmp_path: Path) -> None:
        table = table_of(vectors[:9]).with_columns(idx=pl.format("a{}", "idx"))
        table.write_parquet(tmp_path / "a.parquet")
        settings = ExplainSettings("m", "r", max_new_tokens=20)
        explain(pair, read_activations(tmp_path / "a.parquet"), tmp_path / "c.parquet", settings)
        rows = completions.load(tmp_path / "c.parquet").rows
        assert rows["activation_id"].to_list() == [f"a{100 + row}" for row in range(9)]

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

    def test_prefixes_end_with_the_whole_text(
        self, pair: Pair, vectors: np.ndarray, tmp_path: Path
    ) -> None:
        table_of(vectors[:12]).write_parquet(tmp_path / "a.parquet")
        settings = ExplainSettings("m", "r", max_new_tokens=20, prefixes=("tokens", "claims"))
        out = tmp_path / "c.parquet"
        table = explain(pair, read_activations(tmp_path / "a.parquet"), out, settings)
        curves = pl.read_parquet(tmp_path / "c.prefix_fve.parquet")
        assert set(curves["ar"]) == {"r"}
        keys = ["idx", "sample"]
        last = curves.sort("length").group_by(*keys, "unit").last().join(table, on=keys)
        assert last.height == 2 * int(table["extracted"].sum())
        np.testing.assert_allclose(last["fve"].to_numpy(), last["fve_right"].to_numpy(), atol=1e-5)

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


CONTENT_CASES = [
    f"{before}<explanation>{between}{text}{between}</explanation>{after}"
    for text in ("a story", "fair", "x", "a <b> story, with </tags", "“Grüße” 你好")
    for between in ("", "\n", "  ")
    for before, after in (("", ""), ("Well: ", "\n"), ("</explanation> ", " or </explanation>"))
]


@pytest.mark.parametrize("response", CONTENT_CASES)
def test_content_tokens_ignore_tags_and_white_space(response: str) -> None:
    tokenizer = tiny.make_tokenizer(bos=False)
    text = read_explanation(response, ended=True)
    assert text
    encoded = tokenizer(response, add_special_tokens=False, return_offsets_mapping=True)
    start = response.index(text, response.index("<explanation>"))
    inside = [low < start + len(text) and high > start for low, high in encoded["offset_mapping"]]
    assert content_tokens(AnswerDecoder(tokenizer), [*encoded["input_ids"], 4], text) == sum(inside)


@pytest.mark.parametrize(
    ("text", "share"), [("", 0), ("plain", 0), ("“Grüße”", 0), ("你好", 1), ("a㈎你b", 0.5)]
)
def test_cjk_share(text: str, share: float) -> None:
    assert cjk_share(text) == share


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
        recorded = completions.load(out).baseline
        assert (recorded.name, recorded.value) == ("mean_normalized", 0.6704)
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
