"""Reading and validating completions: what comes out of the door, whatever came in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nla_audit.errors import UserError
from nla_audit.table.completions import Completions, from_frame, load
from nla_audit.table.model_names import default_reference, is_without_rl, length_penalty_of, ordered
from nla_audit.table.overhead import overhead_tokens


def same(first: Completions, second: Completions) -> bool:
    """Equal in everything that does not say where the table came from."""
    return (
        first.rows.equals(second.rows)
        and first.models == second.models
        and first.length_penalties == second.length_penalties
        and first.reference == second.reference
        and first.notes == second.notes
        and first.overhead_tokens == second.overhead_tokens
        and first.columns == second.columns
    )


class TestRealSweep:
    def test_means_of_every_model_are_the_published_ones(self, sweep_path: Path) -> None:
        completions = load(sweep_path)
        assert completions.models == (
            "base",
            "p0.0",
            "p0.001",
            "p0.002",
            "p0.006",
            "p0.015",
            "p0.03",
        )
        assert completions.reference == "p0.0"
        means = {
            model: (rows["n_tokens"].mean(), rows["fve"].mean(), rows.height)
            for model in completions.models
            for rows in [completions.of(model)]
        }
        # Means of the 600 rows a model has in this file, as issue 2 gives them.
        assert means["p0.0"] == (
            pytest.approx(126.46, abs=0.01),
            pytest.approx(0.587, abs=5e-4),
            600,
        )
        assert means["p0.001"] == (
            pytest.approx(91.63, abs=0.01),
            pytest.approx(0.595, abs=5e-4),
            600,
        )
        assert means["p0.03"] == (
            pytest.approx(14.15, abs=0.01),
            pytest.approx(0.215, abs=5e-4),
            600,
        )

    def test_overhead_is_what_the_six_empty_explanations_cost(self, sweep_path: Path) -> None:
        completions = load(sweep_path)
        assert completions.overhead_tokens == 11
        assert any("6 empty explanations" in note for note in completions.notes)

    def test_overhead_estimated_without_the_empty_ones_is_within_a_token(
        self, sweep_path: Path
    ) -> None:
        frame = pl.read_parquet(sweep_path).filter(pl.col("explanation").fill_null("-") != "")
        completions = from_frame(frame)
        assert completions.overhead_tokens == pytest.approx(11, abs=1)
        assert any("estimated" in note for note in completions.notes)

    def test_failed_and_empty_are_kept_apart(self, sweep_path: Path) -> None:
        rows = load(sweep_path).rows
        assert rows["explanation"].null_count() == 15
        assert (rows["explanation"] == "").sum() == 6
        assert rows.filter(~pl.col("extracted"))["fve"].null_count() == 15


class TestOverhead:
    def test_content_and_overhead_sum_to_all_tokens_and_empty_has_no_content(
        self, table: pl.DataFrame
    ) -> None:
        rows = from_frame(table, overhead_tokens=5).rows
        with_text = rows.filter(pl.col("explanation").is_not_null())
        total = with_text["content_tokens"] + with_text["fixed_tokens"]
        assert (total == with_text["n_tokens"]).all()
        empty = rows.filter(pl.col("explanation") == "")
        assert empty.select("content_tokens", "fixed_tokens").rows() == [(0.0, 11.0)]
        failed = rows.filter(pl.col("explanation").is_null())
        assert failed.select("content_tokens", "fixed_tokens").rows() == [(None, None)]

    def test_the_given_column_wins(self, table: pl.DataFrame) -> None:
        completions = from_frame(table.with_columns(content_tokens=pl.col("n_tokens") - 4.0))
        assert completions.rows["fixed_tokens"].drop_nulls().unique().to_list() == [4.0]
        assert completions.overhead_tokens == 4

    def test_without_n_tokens_nothing_is_made_up(self, table: pl.DataFrame) -> None:
        completions = from_frame(table.drop("n_tokens"))
        assert completions.rows["content_tokens"].null_count() == completions.rows.height
        assert completions.overhead_tokens is None
        assert any('"n_tokens"' in note for note in completions.notes)
        with pytest.raises(UserError, match='frontier needs the column "n_tokens"'):
            completions.require("n_tokens", for_="frontier")

    @given(
        overhead=st.integers(0, 20),
        lengths=st.lists(st.integers(1, 12), min_size=40, max_size=80),
    )
    @settings(max_examples=30, deadline=None)
    def test_estimate_finds_a_planted_overhead(self, overhead: int, lengths: list[int]) -> None:
        rows = pl.DataFrame(
            {
                "explanation": [" ".join(["word"] * length) for length in lengths],
                "n_tokens": [overhead + length for length in lengths],
            }
        )
        assert overhead_tokens(rows)[0] == overhead


class TestModelNames:
    @pytest.mark.parametrize(
        ("name", "penalty"),
        [
            ("p0.006", 0.006),
            ("p0.0", 0.0),
            ("p0", 0.0),
            ("p1e-3", 0.001),
            ("lp0.006", 0.006),
            ("lambda=0.006", 0.006),
            ("λ0.006", 0.006),
            ("λ=1", 1.0),
            ("len_penalty_1e-3", 0.001),
            ("length_penalty=.03", 0.03),
            ("qwen_lp0.006_seed1", 0.006),
            ("p0.006-cotrained", 0.006),
            ("p1", None),
            ("step250", None),
            ("gpt4", None),
            ("top_p0.9", None),
            ("p0.001.5", None),
            ("p0.006_lp0.01", None),
            ("base", None),
        ],
    )
    def test_length_penalty_in_a_name(self, name: str, penalty: float | None) -> None:
        assert length_penalty_of(name) == penalty

    @pytest.mark.parametrize(
        "name", ["base", "SFT", "warm_start", "warmstart", "Warm Start", "av_sft"]
    )
    def test_names_of_the_warm_start(self, name: str) -> None:
        assert is_without_rl(name)

    @pytest.mark.parametrize("name", ["p0.0", "baseline_rl", "database", "sft_p0.01"])
    def test_names_of_other_models(self, name: str) -> None:
        assert not is_without_rl(name)

    def test_order_and_reference(self) -> None:
        penalties = {"zeta": None, "p0.03": 0.03, "alpha": None, "sft": None, "p0.01": 0.01}
        assert ordered(penalties) == ("sft", "p0.01", "p0.03", "alpha", "zeta")
        assert default_reference(ordered(penalties), penalties) == "p0.01"
        assert default_reference(("b", "c"), {"b": None, "c": None}) == "b"


class TestVariants:
    def test_tag_for_model_and_penalty_from_the_name(self, table: pl.DataFrame) -> None:
        plain = from_frame(table)
        variant = from_frame(table.rename({"model": "tag"}).drop("length_penalty"))
        assert variant.length_penalties == {"base": None, "p0.0": 0.0, "p0.03": 0.03}
        assert variant.rows.equals(plain.rows)

    def test_the_warm_start_has_no_penalty_whatever_the_column_says(
        self, table: pl.DataFrame
    ) -> None:
        filled = table.with_columns(pl.col("length_penalty").fill_null(0.0))
        completions = from_frame(filled)
        assert completions.length_penalties["base"] is None
        assert completions.reference == "p0.0"

    def test_without_extracted_a_missing_text_is_a_failure(self, table: pl.DataFrame) -> None:
        completions = from_frame(table.drop("extracted"))
        assert (
            completions.rows["extracted"].to_list() == from_frame(table).rows["extracted"].to_list()
        )
        assert not completions.has("extracted")
        assert any('"extracted"' in note for note in completions.notes)

    def test_blank_text_is_empty_and_nan_on_a_failed_row_is_missing(
        self, table: pl.DataFrame
    ) -> None:
        frame = table.with_columns(
            explanation=pl.when(pl.col("explanation") == "")
            .then(pl.lit(" \n"))
            .otherwise("explanation"),
            fve=pl.col("fve").fill_null(float("nan")),
        )
        assert same(from_frame(frame), from_frame(table))

    def test_text_of_a_failed_row_is_not_used(self, table: pl.DataFrame) -> None:
        frame = table.with_columns(
            explanation=pl.when("extracted").then("explanation").otherwise(pl.lit("cut off he"))
        )
        assert same(from_frame(frame), from_frame(table))

    def test_text_ids_become_stable_integers(self, table: pl.DataFrame) -> None:
        named = table.with_columns(idx=pl.lit("doc-") + pl.col("idx").cast(pl.String).str.zfill(2))
        rows = from_frame(named).rows
        assert rows["idx"].to_list() == from_frame(table).rows["idx"].to_list()
        assert rows["activation_id"][0] == "doc-00"
        assert rows["activation_id"].n_unique() == 12

    def test_integers_written_as_text_are_integers(self, table: pl.DataFrame) -> None:
        as_text = table.with_columns(pl.col("idx", "n_tokens", "fve").cast(pl.String))
        assert same(from_frame(as_text), from_frame(table))

    def test_leading_zeros_are_names(self, table: pl.DataFrame) -> None:
        frame = table.with_columns(idx=pl.col("idx").cast(pl.String).str.zfill(3))
        assert from_frame(frame).rows["activation_id"][0] == "000"

    def test_several_samples(self, table: pl.DataFrame) -> None:
        twice = pl.concat([table.with_columns(sample=pl.lit(number)) for number in (1, 0)])
        completions = from_frame(twice)
        assert completions.has("sample")
        assert completions.rows["sample"][:4].to_list() == [0, 1, 0, 1]
        assert not from_frame(table).has("sample")

    def test_ruler_is_chosen_and_unscored_rows_stay(self, table: pl.DataFrame) -> None:
        own = table.with_columns(ar=pl.lit("own"), fve=pl.col("fve") + 0.1)
        scored = pl.col("extracted")
        both = pl.concat([table.filter(scored), own.filter(scored), table.filter(~scored)])
        both = both.with_columns(ar=pl.when("extracted").then("ar"))
        with pytest.raises(UserError, match=r"2 rulers \(own, warm-start\)"):
            from_frame(both)
        completions = from_frame(both, ar="own")
        assert completions.ar == "own"
        assert completions.rows.height == table.height

    def test_models_that_the_ruler_never_read_are_left_out_with_a_note(
        self, table: pl.DataFrame
    ) -> None:
        own = pl.when("extracted").then(pl.lit("own"))  # the failed row was never scored
        frame = table.with_columns(ar=pl.when(pl.col("model") == "p0.03").then(own).otherwise("ar"))
        completions = from_frame(frame, ar="warm-start")
        assert completions.models == ("base", "p0.0")
        assert completions.rows.height == 24
        assert "p0.03" in completions.notes[0]

    def test_types_that_other_tools_write(self, table: pl.DataFrame) -> None:
        frame = table.with_columns(
            pl.col("model").cast(pl.Categorical),
            pl.col("idx", "n_tokens").cast(pl.Float64),  # what pandas makes of gaps
            pl.col("extracted").cast(pl.Int8),
            pl.col("fve").cast(pl.Float32),
        )
        rows = from_frame(frame).rows
        plain = from_frame(table).rows
        assert rows.schema == plain.schema
        assert rows.drop("fve").equals(plain.drop("fve"))
        assert rows["extracted"].to_list() == plain["extracted"].to_list()

    def test_only_common_activations_are_compared(self, table: pl.DataFrame) -> None:
        gap = (pl.col("model") == "p0.03") & (pl.col("idx") > 8)
        completions = from_frame(table.filter(~gap))
        assert completions.rows.height == 3 * 9
        assert "9 activations that every model explains" in completions.notes[0]
        assert "base 3, p0.0 3, p0.03 0" in completions.notes[0]

    def test_million_character_explanation_and_control_characters_stay(
        self, table: pl.DataFrame
    ) -> None:
        text = "\x1b[31m<script>\x07" + "word " * 200_000 + "end"
        frame = table.with_columns(
            explanation=pl.when((pl.col("idx") == 3) & (pl.col("model") == "p0.0"))
            .then(pl.lit(text))
            .otherwise("explanation")
        )
        assert from_frame(frame).of("p0.0")["explanation"][3] == text


class TestInterface:
    def test_reference_can_be_changed_and_must_exist(self, table: pl.DataFrame) -> None:
        completions = from_frame(table)
        assert completions.with_reference("base").reference == "base"
        with pytest.raises(UserError, match=r'no model "p0\.3".*did you mean "p0\.03"'):
            completions.with_reference("p0.3")
        with pytest.raises(UserError, match="no model"):
            completions.of("p9")

    def test_models_can_be_chosen(self, table: pl.DataFrame, tmp_path: Path) -> None:
        table.write_parquet(tmp_path / "t.parquet")
        completions = load([tmp_path / "t.parquet"], models=["p0.03", "base"])
        assert completions.models == ("base", "p0.03")
        with pytest.raises(UserError, match="did you mean"):
            load([tmp_path / "t.parquet"], models=["p0.033"])

    @given(seed=st.integers(0, 10_000))
    @settings(max_examples=20, deadline=None)
    def test_the_order_of_rows_does_not_matter(self, seed: int) -> None:
        frame = pl.DataFrame(
            {
                "model": ["base", "p0.01", "other"] * 6,
                "idx": [f"a{number // 3}" for number in range(18)],
                "explanation": [f"text {number}" for number in range(18)],
                "n_tokens": [13 + number % 4 for number in range(18)],
            }
        )
        plain = from_frame(frame)
        shuffled = from_frame(frame.sample(fraction=1, shuffle=True, seed=seed))
        assert same(plain, shuffled)
        assert plain.sources == shuffled.sources

    def test_two_hash_seeds_give_the_same_bytes(self, table: pl.DataFrame, tmp_path: Path) -> None:
        table.write_parquet(tmp_path / "t.parquet")
        program = (
            "import sys; from nla_audit.table.completions import load; c = load([sys.argv[1]]); "
            "print(c.rows.write_json(), c.models, c.notes, c.length_penalties, sorted(c.columns))"
        )
        outputs = [
            subprocess.run(
                [sys.executable, "-c", program, str(tmp_path / "t.parquet")],
                env={**os.environ, "PYTHONHASHSEED": seed},
                cwd=Path(__file__).parents[2],
                capture_output=True,
                check=True,
            ).stdout
            for seed in ("1", "2")
        ]
        assert outputs[0] == outputs[1] != b""


class TestReaders:
    @pytest.mark.parametrize("name", ["t.parquet", "t.jsonl", "t.ndjson", "t.csv", "t.tsv"])
    def test_every_format_gives_the_same_table(
        self, table: pl.DataFrame, tmp_path: Path, name: str
    ) -> None:
        write(table, tmp_path / name)
        assert same(load([tmp_path / name]), from_frame(table))

    @pytest.mark.parametrize("name", ["t.parquet", "t.jsonl", "t.csv"])
    def test_unknown_suffix_is_told_by_content(
        self, table: pl.DataFrame, tmp_path: Path, name: str
    ) -> None:
        write(table, tmp_path / name)
        (tmp_path / name).rename(tmp_path / "completions.out")
        assert same(load([tmp_path / "completions.out"]), from_frame(table))

    def test_a_folder_is_one_table(self, table: pl.DataFrame, tmp_path: Path) -> None:
        for number, (_, part) in enumerate(table.group_by("model", maintain_order=True)):
            write(part, tmp_path / f"{number}{('.parquet', '.jsonl', '.csv')[number]}")
        (tmp_path / "notes.txt").write_text("not a table")
        completions = load([tmp_path])
        assert same(completions, from_frame(table))
        assert [Path(source.path).name for source in completions.sources] == [
            "0.parquet",
            "1.jsonl",
            "2.csv",
        ]
        assert [source.rows for source in completions.sources] == [12, 12, 12]

    def test_nan_literals_of_python_json_are_read(
        self, table: pl.DataFrame, tmp_path: Path
    ) -> None:
        lines = [
            json.dumps(row | ({} if row["extracted"] else {"fve": float("nan")}))
            for row in table.to_dicts()
        ]
        assert sum("NaN" in line for line in lines) == 1
        (tmp_path / "t.jsonl").write_text("\n".join(lines))
        assert same(load([tmp_path / "t.jsonl"]), from_frame(table))

    def test_bare_csv_field_of_an_extracted_row_is_an_empty_explanation(
        self, table: pl.DataFrame, tmp_path: Path
    ) -> None:
        table.write_csv(tmp_path / "t.csv")
        text = (tmp_path / "t.csv").read_text()
        assert ',"",' in text
        (tmp_path / "t.csv").write_text(text.replace(',"",', ",,"))
        assert same(load([tmp_path / "t.csv"]), from_frame(table))

    def test_a_key_that_first_appears_on_the_last_line_is_read(self, tmp_path: Path) -> None:
        rows = [{"model": "a", "idx": number, "explanation": "x"} for number in range(2000)]
        rows[-1]["n_tokens"] = 7
        (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
        assert load([tmp_path / "t.jsonl"]).rows["n_tokens"][-1] == 7

    def test_sources_carry_the_hash_of_the_bytes(self, table: pl.DataFrame, tmp_path: Path) -> None:
        (tmp_path / "t.jsonl").write_text('{"model":"a","idx":0,"explanation":"x"}\n')
        source = load([tmp_path / "t.jsonl"]).sources[0]
        # sha256sum of the line above
        assert source.sha256 == EXPECTED_SHA256
        assert source.rows == 1


#: printf '{"model":"a","idx":0,"explanation":"x"}\n' | sha256sum
EXPECTED_SHA256 = "8df8954d802559858fcad9bf663f3e4aad7a8abe15fc02cf8cb9ebccabac2abc"


def write(frame: pl.DataFrame, path: Path) -> None:
    """Write ``frame`` in the format that the suffix of ``path`` names."""
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix in (".jsonl", ".ndjson"):
        frame.write_ndjson(path)
    else:
        frame.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
