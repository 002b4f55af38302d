"""Names that say nothing or another thing, numbers beyond use, rows that contradict others."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from nla_audit import cli
from nla_audit.analyzers import registry
from nla_audit.analyzers._twins import paraphrased
from nla_audit.commands.table_options import chosen
from nla_audit.errors import UserError
from nla_audit.table.completions import from_frame, load
from nla_audit.table.pairing import resampler
from nla_audit.table.prefix_table import prefixes_from_frame
from nla_audit.text.reading import read_afresh


class TestNames:
    """White space around a name is none of it, and a blank name is no name."""

    @pytest.mark.parametrize("blank", ["", " ", "\u00a0"])
    def test_a_blank_label_is_none(self, table: pl.DataFrame, blank: str) -> None:
        named = table.with_columns(ar=pl.lit(blank), doc_id=pl.lit(blank))
        completions = from_frame(named)
        assert completions.ar is None
        assert not completions.has("doc_id")
        assert completions.rows["doc_id"].null_count() == completions.rows.height

    def test_a_name_with_a_comma_is_chosen_in_quotes(
        self, table: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        named = table.with_columns(pl.col("model").replace({"p0.03": "short, p0.03"}))
        named.write_parquet(tmp_path / "t.parquet")
        command = ["tail", str(tmp_path / "t.parquet"), "--json", "--models"]
        assert cli.run([*command, 'p0.0, "short, p0.03"']) == 0
        assert list(json.loads(capsys.readouterr().out)["headline"]) == ["p0.0", "short, p0.03"]
        assert cli.run([*command, "short, p0.03"]) == 2
        assert '(3 models: base, p0.0, "short, p0.03")' in capsys.readouterr().err
        assert cli.run([*command, '"short']) == 2
        assert "in double quotes" in capsys.readouterr().err

    @pytest.mark.parametrize("column", ["model", "idx"])
    def test_a_blank_name_that_is_needed_is_refused(self, table: pl.DataFrame, column: str) -> None:
        with pytest.raises(UserError, match=f'row 0 .*column "{column}" is empty'):
            from_frame(table.with_columns(pl.lit(" ").alias(column)))

    def test_spaces_around_names(self, table: pl.DataFrame) -> None:
        padded = table.with_columns(
            model=pl.when(pl.col("idx") % 2 == 0)
            .then(" " + pl.col("model") + "\t")
            .otherwise("model")
        )
        assert from_frame(padded).rows.equals(from_frame(table).rows)

    def test_a_decomposed_name_on_the_command_line(self) -> None:
        given = {"models": "e\u0301, b", "reference": "e\u0301", "ar": None}
        assert chosen(given) == {"models": ["é", "b"], "reference": "é", "ar": None}

    def test_what_reports_call_a_second_sample(self, table: pl.DataFrame) -> None:
        called = table.with_columns(pl.col("model").replace("p0.03", "resampling floor"))
        with pytest.raises(UserError, match="another name"):
            from_frame(called)

    @pytest.mark.parametrize("name", ["idx", "model", "fve", "at", "value"])
    def test_a_model_called_like_a_column(self, table: pl.DataFrame, name: str) -> None:
        frontier = registry()["frontier"]
        called = table.with_columns(pl.col("model").replace("p0.03", name))
        renamed, plain = frontier.run(from_frame(called)), frontier.run(from_frame(table))
        assert renamed.headline[name] == plain.headline["p0.03"]


class TestLimits:
    """What cannot be averaged, drawn or counted is refused with its row."""

    @pytest.mark.parametrize("value", [-1e300, 1.7e308, -3e38])
    def test_numbers_too_large(self, table: pl.DataFrame, value: float) -> None:
        large = table.with_columns(fve=pl.when(pl.col("idx") == 2).then(value).otherwise("fve"))
        with pytest.raises(UserError, match=r'row 2 .*"fve" holds .* larger than any measurement'):
            from_frame(large)
        prefixes = pl.DataFrame(
            {"model": "a", "idx": [0, 1], "unit": "tokens", "length": 1, "fve": [0.5, value]}
        )
        with pytest.raises(UserError, match=r"row 1 .*larger than any measurement"):
            prefixes_from_frame(prefixes)

    def test_a_missing_number_is_not_large(self, table: pl.DataFrame) -> None:
        """As pandas writes it where a row was not scored."""
        assert not from_frame(table.with_columns(mse=pl.lit(float("nan")))).rows.is_empty()

    def test_a_hole_in_a_list_of_ends(self, table: pl.DataFrame) -> None:
        holes = table.with_columns(segment_ends=pl.lit([None, 3], dtype=pl.List(pl.Int64)))
        with pytest.raises(UserError, match=r"holds \[None, 3\], which are no ascending places"):
            from_frame(holes)

    def test_a_column_that_is_called_as_ours(self, table: pl.DataFrame, tmp_path: Path) -> None:
        path = tmp_path / "t.parquet"
        table.with_columns(_row=pl.lit(7), _file=pl.lit("x")).write_parquet(path)
        assert load(path, at_most_activations=5).rows["idx"].n_unique() == 5
        table.with_columns(_row=pl.lit(7), fve=float("nan")).write_parquet(path)
        with pytest.raises(UserError, match=r"row [0-6] "):
            load(path, at_most_activations=7)


class TestAgreement:
    """Rows of one activation that speak of different inputs are told of."""

    def test_texts_that_have_nothing_in_common(self, table: pl.DataFrame) -> None:
        drawn_anew = table.with_columns(
            source_text=pl.when(pl.col("model") == "base")
            .then(pl.col("source_text").reverse().over("model"))
            .otherwise("source_text")
        )
        assert any(
            "Rows give 12 activations source texts" in n for n in from_frame(drawn_anew).notes
        )

    def test_a_tail_is_the_same_text(self, table: pl.DataFrame) -> None:
        cut = table.with_columns(
            source_text=pl.when(pl.col("model") == "base")
            .then(pl.col("source_text").str.tail(8) + " ")
            .otherwise("source_text")
        )
        assert not any("idx" in note for note in from_frame(cut).notes)

    def test_documents(self, table: pl.DataFrame) -> None:
        notes = from_frame(table.with_columns(doc_id=pl.col("model"))).notes
        assert any("Rows place 12 activations in more than one document" in note for note in notes)


def test_claims_are_resampled_by_document(table: pl.DataFrame) -> None:
    """Activations of one document are not independent: of a single one no interval is known."""
    one = from_frame(table.with_columns(doc_id=pl.lit("a")))
    # What one model's rows say of an activation holds for it.
    by_one_model = pl.when(pl.col("model") == "p0.03").then(pl.lit("a"))
    told_once = from_frame(table.with_columns(doc_id=by_one_model))
    for completions, is_known in ((from_frame(table), True), (one, False), (told_once, False)):
        reading = read_afresh(completions, with_chance=False)
        for frame in (reading.claims, reading.explanations):
            interval = resampler(frame, 0).mean([1.0] * frame.height)
            assert (interval.low == interval.low) == is_known


@pytest.mark.parametrize("analyzer", ["frontier", "faithfulness"])
def test_too_few_activations_show_nothing(table: pl.DataFrame, analyzer: str) -> None:
    quoting = table.with_columns(explanation='"' + pl.col("explanation") + '"')
    few = from_frame(quoting.filter(pl.col("idx").is_between(2, 6)))
    verdict = registry()[analyzer].run(few).verdict
    assert "cannot be told" in verdict.split(".")[0] + verdict.split(".")[1]
    assert "an interval takes" in verdict
    assert "o model is shorter" not in verdict
    assert "o model makes" not in verdict


def test_paraphrases_are_read_in_one_order(tmp_path: Path) -> None:
    """Whatever the order of activations, the form of the file and that of its letters."""
    lines = pl.DataFrame(
        [
            {"idx": idx, "original": f"Café {idx}, line {line}", "paraphrase": f"{line} of {idx}"}
            for idx in range(25)
            for line in range(2)
        ]
    )
    lines.write_parquet(tmp_path / "a.parquet")
    decomposed = lines.with_columns(pl.col("original").str.normalize("NFD"))
    last_first = pl.concat([decomposed.filter(idx=idx) for idx in reversed(range(25))])
    last_first.rename(str.upper).write_csv(tmp_path / "b.csv")
    one, other = (paraphrased(str(tmp_path / name)) for name in ("a.parquet", "b.csv"))
    assert (one.first, one.second, one.parts) == (other.first, other.second, other.parts)
    assert one.first[2] == "Café 2, line 0\nCafé 2, line 1"
    # As pandas writes text of which much is the same.
    lines.with_columns(pl.col("original").cast(pl.Categorical)).write_parquet(
        tmp_path / "d.parquet"
    )
    assert paraphrased(str(tmp_path / "d.parquet")).first == one.first
    lines.with_columns(original=pl.lit(5)).write_parquet(tmp_path / "c.parquet")
    with pytest.raises(UserError, match='"original" holds no text'):
        paraphrased(str(tmp_path / "c.parquet"))
