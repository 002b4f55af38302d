"""``nla-audit score``: any text, read by any AR."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from nla_audit import cli
from nla_audit.checkpoint.load import Placement, load
from nla_audit.nla.fve import measure_baselines
from nla_audit.nla.prefixes import prefixes_of
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.runs.activations import Activations, read_activations
from nla_audit.shards import Shards
from nla_audit.table import completions
from tests.pairs import talking, tiny

FLOAT32 = Placement(dtype="float32", device="cpu")
TEXTS = ["a story about a fair", "", "noun", "formal register; the final “token” opens a phrase é"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs of one base, activations, and a table of texts that nobody scored."""
    root = tmp_path_factory.mktemp("score")
    talking.save_pair(root / "one")
    talking.save_pair(root / "other", seed=1)
    vectors = np.random.default_rng(0).normal(size=(20, tiny.D_MODEL)).astype(np.float32)
    pl.DataFrame(
        {
            "idx": range(20),
            "doc_id": [f"d{row}" for row in range(20)],
            "activation_vector": vectors.tolist(),
        }
    ).write_parquet(root / "activations.parquet")
    rows = [
        {
            "model": model,
            "idx": idx,
            "explanation": None if idx == 3 else TEXTS[(idx + shift) % len(TEXTS)],
            "extracted": idx != 3,
            "n_tokens": 20,
        }
        for shift, (model, given) in enumerate({"base": range(12), "p0.01": range(2, 14)}.items())
        for idx in given
    ]
    pl.DataFrame(rows).write_parquet(root / "texts.parquet")
    return root


@pytest.fixture(scope="module")
def reconstructor(root: Path) -> Reconstructor:
    loaded = load(ar=root / "one" / "ar", placement=FLOAT32).reconstructor
    assert loaded is not None
    return loaded


@pytest.fixture(scope="module")
def given(root: Path) -> Activations:
    return read_activations(root / "activations.parquet")


def run(root: Path, out: Path, *options: object, texts: object = None, ar: str = "one/ar") -> int:
    arguments = ["score", texts or root / "texts.parquet", "--ar", root / ar]
    activations = (
        () if "--activations" in options else ("--activations", root / "activations.parquet")
    )
    return cli.run([*map(str, (*arguments, *activations, "--out", out, *options))])


class TestTable:
    def test_scores(
        self, root: Path, tmp_path: Path, reconstructor: Reconstructor, given: Activations
    ) -> None:
        out = tmp_path / "scored.parquet"
        assert run(root, out) == 0
        table = pl.read_parquet(out)
        assert table["ar"].unique().to_list() == ["one/ar"]
        baselines = measure_baselines(given.vectors, reconstructor.mse_scale)
        wanted = reconstructor.score(
            table["explanation"].to_list(), given.vectors[table["idx"]], baselines=baselines
        )
        np.testing.assert_allclose(table["mse"].to_numpy(), wanted.mse, atol=1e-6)
        np.testing.assert_allclose(table["fve"].to_numpy(), wanted.fve, atol=1e-6)
        recorded = completions.load(out).baseline
        assert (recorded.name, recorded.is_recorded) == ("raw_variance", True)
        assert recorded.value == pytest.approx(baselines.raw_variance)
        failed = table.filter(pl.col("idx") == 3)
        assert failed["fve"].null_count() == failed.height == 2
        assert failed["reason"].unique().to_list() == ["no explanation"]

    def test_all_models_are_kept_whole(self, root: Path, tmp_path: Path) -> None:
        assert run(root, tmp_path / "scored.parquet") == 0
        table = pl.read_parquet(tmp_path / "scored.parquet")
        assert table.height == 24
        assert set(table.filter(pl.col("model") == "p0.01")["idx"]) == set(range(2, 14))
        assert table["doc_id"].to_list() == [f"d{idx}" for idx in table["idx"]]
        assert completions.load(tmp_path / "scored.parquet").ar == "one/ar"

    def test_another_ruler(self, root: Path, tmp_path: Path) -> None:
        assert run(root, tmp_path / "a.parquet") == 0
        assert run(root, tmp_path / "b.parquet", "--ruler", "frozen", ar="other/ar") == 0
        a, b = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in "ab")
        assert b["ar"].unique().to_list() == ["frozen"]
        assert a["mse"].drop_nulls().to_list() != b["mse"].drop_nulls().to_list()
        # A table of two rulers holds each text twice; reading it again, each is one row.
        pl.concat([b, a]).write_parquet(tmp_path / "both.parquet")
        assert run(root, tmp_path / "c.parquet", texts=tmp_path / "both.parquet") == 0
        c = pl.read_parquet(tmp_path / "c.parquet")
        assert c.select("model", "idx", "mse").equals(a.select("model", "idx", "mse"))

    def test_distinct_texts_are_read_once(self, root: Path, tmp_path: Path) -> None:
        assert run(root, tmp_path / "scored.parquet") == 0
        record = json.loads((tmp_path / "scored.parquet.record.json").read_text())
        assert record["counts"] == {
            "rows": 24,
            "scored": 22,
            "without_activation": 0,
            "distinct_texts_read": len(TEXTS),
        }

    def test_ids_that_are_text(self, root: Path, tmp_path: Path) -> None:
        for name in ("activations", "texts"):
            table = pl.read_parquet(root / f"{name}.parquet")
            named = table.with_columns(idx=pl.format("a{}", "idx"))
            named.write_parquet(tmp_path / f"{name}.parquet")
        assert run(root, tmp_path / "wanted.parquet") == 0
        options = ("--activations", tmp_path / "activations.parquet")
        assert run(root, tmp_path / "n.parquet", *options, texts=tmp_path / "texts.parquet") == 0
        wanted = pl.read_parquet(tmp_path / "wanted.parquet")
        named = pl.read_parquet(tmp_path / "n.parquet")
        both = named.with_columns(pl.col("idx").str.slice(1).cast(pl.Int64)).join(
            wanted, on=["model", "idx"], how="inner"
        )
        assert both.height == wanted.height
        assert both["mse"].equals(both["mse_right"].alias("mse"), null_equal=True)

    def test_rows_without_activation(
        self, root: Path, tmp_path: Path, given: Activations, capsys: pytest.CaptureFixture[str]
    ) -> None:
        table = pl.read_parquet(root / "activations.parquet")
        table.filter(pl.col("idx") != 5).write_parquet(tmp_path / "a.parquet")
        out = tmp_path / "scored.parquet"
        assert run(root, out, "--activations", tmp_path / "a.parquet") == 0
        assert "no activation for 2 rows, left unscored" in capsys.readouterr().err
        rows = pl.read_parquet(out).filter(pl.col("idx") == 5)
        assert rows["fve"].null_count() == 2
        assert rows["reason"].unique().to_list() == ["no activation of this idx"]
        assert rows["explanation"].null_count() == 0


class TestPrefixes:
    def test_fve_by_prefix_length(
        self, root: Path, tmp_path: Path, reconstructor: Reconstructor, given: Activations
    ) -> None:
        out = tmp_path / "scored.parquet"
        assert run(root, out, "--prefix-tokens", "0,2,5,500", "--token-budget", "200") == 0
        table = pl.read_parquet(out)
        prefixes = pl.read_parquet(tmp_path / "scored.prefixes.parquet")
        assert prefixes.height == 22 * 4
        wanted = reconstructor.score(prefixes["text"].to_list(), given.vectors[prefixes["idx"]])
        np.testing.assert_allclose(prefixes["mse"].to_numpy(), wanted.mse, atol=1e-5)
        whole = prefixes.filter(pl.col("prefix_tokens") == 500).join(table, on=["model", "idx"])
        assert whole["text"].equals(whole["explanation"].alias("text"))
        np.testing.assert_array_equal(whole["mse"].to_numpy(), whole["mse_right"].to_numpy())
        assert prefixes.filter(pl.col("prefix_tokens") == 0)["text"].unique().to_list() == [""]

    def test_prefixes_are_parts_of_the_text(self) -> None:
        tokenizer = tiny.make_tokenizer(bos=True)
        lengths = range(30)
        for text, cut in zip(TEXTS, prefixes_of(tokenizer, TEXTS, lengths), strict=True):
            ids = tokenizer.encode(text, add_special_tokens=False)
            assert cut.tokens == len(ids)
            for length, prefix in zip(lengths, cut.texts, strict=True):
                assert text.startswith(prefix)
                decoded = tokenizer.decode(ids[:length]).strip()
                if "\ufffd" not in decoded:
                    assert prefix == decoded
            assert cut.texts[-1] == text

    def test_summary_is_by_length(
        self, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(root, tmp_path / "s.parquet", "--prefix-tokens", "1,4") == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert [line[:3] for line in lines if line[:1] == ["base"]] == [
            ["base", "11", "1"],
            ["base", "1", "11"],
            ["base", "4", "11"],
        ]


def test_stopped_run_goes_on(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--prefix-tokens", "1,2,4,8", "--token-budget", "60")
    assert run(root, tmp_path / "wanted.parquet", *options) == 0
    out = tmp_path / "scored.parquet"
    put, calls = Shards.put, []

    def stopping(self: Shards, stage: str, number: int, piece: Any) -> None:
        calls.append(number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        put(self, stage, number, piece)

    with monkeypatch.context() as patch:
        patch.setattr(Shards, "put", stopping)
        assert run(root, out, *options) == 130
    (folder,) = tmp_path.glob(".scored.parquet.parts-*")
    assert len(list(folder.iterdir())) == 2
    read = Reconstructor.read
    again: list[int] = []

    def counting(self: Reconstructor, reading: Any, batch: Any, **kwargs: Any) -> Any:
        again.append(len(batch))
        return read(self, reading, batch, **kwargs)

    monkeypatch.setattr(Reconstructor, "read", counting)
    assert run(root, out, *options) == 0
    assert out.read_bytes() == (tmp_path / "wanted.parquet").read_bytes()
    prefixes = (tmp_path / "scored.prefixes.parquet", tmp_path / "wanted.prefixes.parquet")
    assert prefixes[0].read_bytes() == prefixes[1].read_bytes()
    calls_before = len(again)
    assert run(root, tmp_path / "whole.parquet", *options) == 0
    assert len(again) - calls_before == calls_before + 2


def test_out_of_memory_halves_the_batch(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(root, tmp_path / "wanted.parquet") == 0
    forward = Reconstructor._forward

    def tight(self: Reconstructor, prefix: Any, shared: int, rests: Any) -> Any:
        if len(rests) > 1:
            raise torch.OutOfMemoryError("no room")
        return forward(self, prefix, shared, rests)

    monkeypatch.setattr(Reconstructor, "_forward", tight)
    assert run(root, tmp_path / "scored.parquet") == 0
    assert "out of memory with 4 rows in a batch; going on with 2" in capsys.readouterr().err
    wanted, got = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("wanted", "scored"))
    np.testing.assert_allclose(got["mse"].to_numpy(), wanted["mse"].to_numpy(), atol=1e-5)

    def none(self: Reconstructor, prefix: Any, shared: int, rests: Any) -> Any:
        raise torch.OutOfMemoryError("no room at all")

    monkeypatch.setattr(Reconstructor, "_forward", none)
    assert run(root, tmp_path / "none.parquet") == 2
    assert "error: out of memory on a single row" in capsys.readouterr().err


class TestBadInput:
    @pytest.fixture
    def fails(self, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
        def run_it(*options: object, **others: Any) -> str:
            assert run(root, tmp_path / "out.parquet", *options, **others) == 2
            assert not list(tmp_path.glob("out*"))
            return capsys.readouterr().err.splitlines()[-1]

        return run_it

    def test_av_given_as_ar(self, fails: Any) -> None:
        assert "this is an AV, given as the AR; swap the two" in fails(ar="one/av")

    def test_options(self, fails: Any) -> None:
        assert "expected whole numbers with commas" in fails("--prefix-tokens", "1,x")
        assert "no text is longer than" in fails("--prefix-tokens", f"1,{10**20}")
        assert "raw_variance is given twice" in fails(
            *("--baseline-value", "raw_variance=1", "--baseline-value", "raw_variance=2")
        )

    def test_other_activations(self, fails: Any, root: Path, tmp_path: Path) -> None:
        table = pl.read_parquet(root / "activations.parquet")
        path = tmp_path / "a.parquet"
        table.with_columns(pl.col("idx") + 1000).write_parquet(path)
        assert "none of its idx is among those of" in fails("--activations", path)
        table.with_columns(activation_layer=3).write_parquet(path)
        assert "activations of layer 3, the pair is for layer 2" in fails("--activations", path)
        table.with_columns(pl.col("activation_vector").list.head(7)).write_parquet(path)
        assert "are 7 wide, the AR ar needs 32" in fails("--activations", path)

    def test_tables(self, fails: Any, root: Path, tmp_path: Path) -> None:
        path = tmp_path / "t.parquet"
        table = pl.read_parquet(root / "texts.parquet")
        table.drop("explanation").write_parquet(path)
        assert 'column "explanation" is missing' in fails(texts=path)
        pl.concat([table, table.with_columns(pl.col("explanation") + "!")]).write_parquet(path)
        assert "same model, idx and sample" in fails(texts=path)
        table.with_columns(model=pl.lit(None, dtype=pl.String)).write_parquet(path)
        assert 'column "model" is empty' in fails(texts=path)


def test_a_finished_run_whose_prefixes_have_gone(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (root, tmp_path / "s.parquet", "--prefix-tokens", "1,2", "--prefixes", "tokens")
    assert run(*asked) == 0
    for name in ("s.prefixes.parquet", "s.prefix_fve.parquet"):
        there = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(there[:100])
        assert run(*asked) == 2
        assert f"{name}: not a whole Parquet file" in capsys.readouterr().err
        (tmp_path / name).unlink()
        assert run(*asked) == 2
        assert f"{name}: not there, though its run finished" in capsys.readouterr().err
        (tmp_path / name).write_bytes(there)
    assert run(*asked) == 0


def test_beginnings_that_the_ar_has_no_room_for_are_not_written_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text of thousands of claims is as many texts, most of them too long: gigabytes of them."""
    plain, asked = Reconstructor.plan, list[set[str]]()

    def plan(self: Reconstructor, texts: Any, **options: Any) -> Any:
        asked.append({text for text in texts if text is not None})
        return plain(self, texts, **options)

    monkeypatch.setattr(Reconstructor, "plan", plan)
    table = pl.read_parquet(root / "texts.parquet").head(2)
    long = pl.when(pl.col("idx") == 0).then(pl.lit("It opens a noun. " * 400))
    table.with_columns(explanation=long.otherwise("explanation")).write_parquet(
        tmp_path / "t.parquet"
    )
    out = tmp_path / "s.parquet"
    assert run(root, out, "--prefixes", "claims", texts=tmp_path / "t.parquet") == 0
    curve = pl.read_parquet(tmp_path / "s.prefix_fve.parquet").filter(pl.col("idx") == 0)
    assert curve["length"].to_list() == list(range(1, 401))
    scored = curve["fve"].is_not_null()
    assert scored.any()
    assert scored.to_list() == sorted(scored, reverse=True)
    assert set(curve.filter(~scored)["reason"]) == {"too long for the AR"}
    assert max(map(len, asked[-1])) < 200 * len("It opens a noun. ")


def test_fve_by_prefix_in_the_long_form(
    root: Path, tmp_path: Path, reconstructor: Reconstructor
) -> None:
    out = tmp_path / "scored.parquet"
    assert run(root, out, "--prefixes", "tokens,claims") == 0
    curves, table = pl.read_parquet(tmp_path / "scored.prefix_fve.parquet"), pl.read_parquet(out)
    assert curves.columns[:2] == ["model", "length_penalty"]
    keys = ["model", "idx", "sample"]
    last = curves.sort("length").group_by(*keys, "unit").last().join(table, on=keys)
    assert set(last["unit"]) == {"tokens", "claims"}
    np.testing.assert_allclose(last["fve"].to_numpy(), last["fve_right"].to_numpy(), atol=1e-5)
    assert (last["tokens"] == last["text_tokens"]).all()


def test_segments_and_a_run_stopped_while_it_reads_prefixes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = tmp_path / "texts.parquet"
    table = pl.read_parquet(root / "texts.parquet")
    ends = [[5, len(text)] if text and len(text) > 5 else None for text in table["explanation"]]
    table.with_columns(segment_ends=pl.Series(ends, dtype=pl.List(pl.Int64))).write_parquet(texts)
    options = ("--prefixes", "segments", "--token-budget", "60")
    assert run(root, tmp_path / "wanted.parquet", *options, texts=texts) == 0
    wanted = tmp_path / "wanted.prefix_fve.parquet"
    lengths = pl.read_parquet(wanted).group_by("model", "idx", "sample").agg("length")["length"]
    assert lengths.list.sort().unique().to_list() == [[1, 2]]

    put, kept = Shards.put, []

    def stopping(self: Shards, stage: str, number: int, piece: Any) -> None:
        if stage == "prefixes-segments" and number == 1:
            raise KeyboardInterrupt
        kept.append(stage)
        put(self, stage, number, piece)

    out = tmp_path / "scored.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(Shards, "put", stopping)
        assert run(root, out, *options, texts=texts) == 130
    assert kept.count("prefixes-segments") == 1
    assert not out.exists()
    assert run(root, out, *options, texts=texts) == 0
    assert (tmp_path / "scored.prefix_fve.parquet").read_bytes() == wanted.read_bytes()
