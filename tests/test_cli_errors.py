"""Everything a user can get wrong ends in one line on standard error and exit code 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from nla_audit import cli, findings
from nla_audit.analyzers import registry
from nla_audit.commands.listing import analyzer_names
from nla_audit.errors import first_line
from nla_audit.findings import Finding, Metric, Option, analyzer
from nla_audit.table.completions import Completions


@pytest.fixture(autouse=True)
def probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers ``probe``, an analyzer that only counts, for the length of a test."""
    monkeypatch.setattr(findings, "_REGISTRY", dict(registry()))

    @analyzer(
        name="probe",
        question="How many explanations are there?",
        reads=("model", "idx", "explanation"),
        uses={"fve": "nothing"},
        unit="explanation",
        control="none",
        high_means="many",
        example="nla-audit probe t.parquet",
        metrics=(Metric("n", "count", "neither", "explanations", interval=False),),
        options=(
            Option("words", str, (), "Words to count.", multiple=True),
            Option("side", str, "left", "Which side.", choices=("left", "right")),
            Option("by_line", bool, False, "Count lines."),
        ),
    )
    def run(
        completions: Completions,
        *,
        words: tuple[str, ...] = (),
        side: str = "left",
        by_line: bool = False,
        seed: int = 0,
    ) -> Finding:
        return Finding(
            analyzer="probe",
            question="How many explanations are there?",
            reference=completions.reference,
            headline={m: {"n": float(completions.of(m).height)} for m in completions.models},
            verdict=f"{completions.rows.height} explanations.",
            caveats=list(completions.notes),
            parameters={"words": list(words), "side": side, "by_line": by_line, "seed": seed},
        )


Failing = Callable[..., str]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Failing:
    """Run the command line, which must fail as it should, and return its one line."""

    def run(*arguments: object) -> str:
        assert cli.run([str(argument) for argument in arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1, captured.err
        assert captured.err.endswith("\n")
        return captured.err

    return run


def changed(table: pl.DataFrame, row: int, **values: object) -> pl.DataFrame:
    """``table`` with other values in one row."""
    rows = table.to_dicts()
    rows[row] |= values
    return pl.DataFrame(rows, infer_schema_length=None, strict=False)


class TestFiles:
    def test_missing_file_suggests_its_neighbour(
        self, fails: Failing, table: pl.DataFrame, tmp_path: Path
    ) -> None:
        table.write_parquet(tmp_path / "completions.parquet")
        error = fails("probe", tmp_path / "completion.parquet")
        assert "no such file" in error
        assert f'did you mean "{tmp_path / "completions.parquet"}"' in error

    def test_folder_without_tables(self, fails: Failing, tmp_path: Path) -> None:
        (tmp_path / "inner").mkdir()
        (tmp_path / "inner" / "t.csv").write_text("model,idx,explanation\n")
        error = fails("probe", tmp_path)
        assert "no table in this folder" in error
        assert str(tmp_path / "inner") in error

    def test_truncated_parquet(self, fails: Failing, table: pl.DataFrame, tmp_path: Path) -> None:
        path = tmp_path / "t.parquet"
        table.write_parquet(path)
        data = path.read_bytes()
        for kept in (3, 100, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:kept])
            assert f"{path}: not a whole Parquet file" in fails("probe", path)

    def test_damaged_parquet_pages(
        self, fails: Failing, table: pl.DataFrame, tmp_path: Path
    ) -> None:
        path = tmp_path / "t.parquet"
        table.write_parquet(path)
        data = bytearray(path.read_bytes())
        data[4:400] = b"\xff" * 396
        path.write_bytes(data)
        assert "not a whole Parquet file" in fails("probe", path)

    @pytest.mark.parametrize("name", ["t.parquet", "t.jsonl", "t.csv"])
    def test_empty_file(self, fails: Failing, tmp_path: Path, name: str) -> None:
        (tmp_path / name).touch()
        assert f"{tmp_path / name}: the file is empty" in fails("probe", tmp_path / name)

    def test_no_rows(self, fails: Failing, table: pl.DataFrame, tmp_path: Path) -> None:
        table.head(0).write_parquet(tmp_path / "t.parquet")
        table.head(0).write_csv(tmp_path / "t.csv")
        (tmp_path / "t.jsonl").write_text("\n\n")
        for name in ("t.parquet", "t.csv", "t.jsonl"):
            assert "no rows" in fails("probe", tmp_path / name)

    def test_unknown_format(self, fails: Failing, tmp_path: Path) -> None:
        (tmp_path / "t.bin").write_bytes(b"\x00\x01\x02")
        assert "not a table of a known format" in fails("probe", tmp_path / "t.bin")

    def test_broken_json_line_is_named(
        self, fails: Failing, table: pl.DataFrame, tmp_path: Path
    ) -> None:
        path = tmp_path / "t.jsonl"
        lines = table.write_ndjson().splitlines()
        path.write_text("\n".join([*lines[:3], lines[3][:40], *lines[4:]]))
        assert "row 3 (line 4) is not JSON" in fails("probe", path)
        path.write_text("\n".join([*lines[:3], "[1, 2]", *lines[4:]]))
        assert "row 3 (line 4) is not a JSON object" in fails("probe", path)

    @pytest.mark.parametrize("name", ["t.jsonl", "t.csv"])
    def test_bytes_that_are_not_utf8(
        self, fails: Failing, table: pl.DataFrame, tmp_path: Path, name: str
    ) -> None:
        path = tmp_path / name
        if name == "t.csv":
            table.write_csv(path)
        else:
            table.write_ndjson(path)
        path.write_bytes(path.read_bytes().replace(b"town 2", b"t\xf6wn 2", 1))
        line = 4 if name == "t.csv" else 3
        error = fails("probe", path)
        assert f"line {line}, byte" in error
        assert "is not UTF-8 (0xf6)" in error

    def test_csv_with_too_many_fields(self, fails: Failing, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text("model,idx,explanation\na,0,x\na,1,one, two\n")
        assert "row 1 (line 3) has 4 fields where the header has 3" in fails("probe", path)

    def test_csv_with_an_open_quote(self, fails: Failing, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text('model,idx,explanation\na,0,x\na,1,"one\na,2,y\n')
        assert f"{path}: " in fails("probe", path)


class TestValues:
    """Each case: a change of the table, and what the line must say."""

    @pytest.fixture
    def rejected(self, fails: Failing, tmp_path: Path) -> Callable[[pl.DataFrame], str]:
        def run(frame: pl.DataFrame) -> str:
            path = tmp_path / "t.parquet"
            frame.write_parquet(path)
            error = fails("probe", path)
            assert str(path) in error
            return error

        return run

    def test_missing_column(
        self, rejected: Callable[[pl.DataFrame], str], table: pl.DataFrame
    ) -> None:
        error = rejected(table.rename({"explanation": "explanations"}))
        assert 'column "explanation" is missing: rename "explanations"' in error
        assert 'column "idx" is missing' in rejected(table.drop("idx"))

    def test_two_spellings_of_a_column_name(
        self, rejected: Callable[[pl.DataFrame], str], table: pl.DataFrame
    ) -> None:
        frame = table.rename({"model": "Model"}).with_columns(MODEL=pl.lit("x"))
        assert 'column "Model" occurs twice, the second time as "MODEL"' in rejected(frame)

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ({"model": None}, ['column "model" is empty']),
            ({"idx": None}, ['column "idx" is empty']),
            ({"idx": 0}, ["same model, idx and sample (0) as", "1 repeated row"]),
            ({"fve": float("nan")}, ['column "fve" holds nan', "no measurement"]),
            ({"fve": float("inf")}, ['column "fve" holds inf', "not finite"]),
            ({"n_tokens": -3}, ['column "n_tokens" holds -3', "negative"]),
            ({"length_penalty": float("nan")}, ["row 17", "holds nan", "no length penalty"]),
            ({"length_penalty": float("inf")}, ["row 17", "holds inf", "not finite"]),
            ({"length_penalty": 0.1}, ['column "length_penalty"', "is not the"]),
            ({"explanation": None}, ['"extracted" is true']),
            ({"ar": "own"}, ["2 rulers (own, warm-start)", "--ar"]),
        ],
    )
    def test_one_bad_row_is_named(
        self,
        rejected: Callable[[pl.DataFrame], str],
        table: pl.DataFrame,
        values: dict[str, object],
        words: list[str],
    ) -> None:
        error = rejected(changed(table, 17, **values))  # p0.0, idx 5
        for word in words:
            assert word in error
        if "ar" not in values:
            assert "row 17" in error or ("length_penalty" in values and "row 1" in error)

    @pytest.mark.parametrize(
        ("column", "value", "words"),
        [
            ("n_tokens", "many", 'holds "many", which is not a whole number (1 such row)'),
            ("n_tokens", "12.5", "is not a whole number"),
            ("fve", "high", 'holds "high", which is not a number'),
            ("extracted", "perhaps", "is not true or false"),
        ],
    )
    def test_text_that_is_no_number(
        self,
        rejected: Callable[[pl.DataFrame], str],
        table: pl.DataFrame,
        column: str,
        value: str,
        words: str,
    ) -> None:
        error = rejected(changed(table.cast({column: pl.String}), 17, **{column: value}))
        assert f'row 17 (model "p0.0", idx 5): column "{column}"' in error
        assert words in error

    @pytest.mark.parametrize(
        ("column", "values"),
        [
            ("explanation", pl.lit(3)),
            ("explanation", pl.concat_list(pl.lit("a"), pl.lit("b"))),
            ("fve", pl.concat_list(pl.lit(0.5))),
            ("idx", pl.lit(True)),
            ("idx", pl.lit(1.5)),
            ("model", pl.lit(b"x")),
        ],
    )
    def test_columns_of_a_wrong_type(
        self,
        rejected: Callable[[pl.DataFrame], str],
        table: pl.DataFrame,
        column: str,
        values: pl.Expr,
    ) -> None:
        assert f'column "{column}" holds' in rejected(table.with_columns(values.alias(column)))

    def test_no_activation_in_common(
        self, rejected: Callable[[pl.DataFrame], str], table: pl.DataFrame
    ) -> None:
        numbers = {"base": 0, "p0.0": 100, "p0.03": 200}
        shift = pl.col("model").replace_strict(numbers, return_dtype=pl.Int64)
        error = rejected(table.with_columns(idx=pl.col("idx") + shift))
        assert "no activation" in error
        assert "base 12, p0.0 12, p0.03 12" in error

    def test_control_characters_do_not_reach_the_terminal(
        self, rejected: Callable[[pl.DataFrame], str], table: pl.DataFrame
    ) -> None:
        frame = changed(table.cast({"fve": pl.String}), 17, fve="\x1b[31mred\nline\x07")
        error = rejected(frame)
        assert "\x1b" not in error
        assert "\x07" not in error

    def test_row_is_counted_within_its_own_file(
        self, fails: Failing, table: pl.DataFrame, tmp_path: Path
    ) -> None:
        table.filter(pl.col("model") != "p0.03").write_parquet(tmp_path / "a.parquet")
        last = changed(table.filter(pl.col("model") == "p0.03"), 7, n_tokens=-1)
        last.write_parquet(tmp_path / "b.parquet")
        assert f"{tmp_path / 'b.parquet'}: row 7 (model" in fails("probe", tmp_path)


class TestCommands:
    @pytest.fixture
    def path(self, table: pl.DataFrame, tmp_path: Path) -> Path:
        table.write_parquet(tmp_path / "t.parquet")
        return tmp_path / "t.parquet"

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--reference", "p0.3"], 'no model "p0.3" (3 models: base, p0.0, p0.03)'),
            (["--models", "base,p9"], 'no model "p9"'),
            (["--ar", "other"], 'no ruler "other" in column "ar" (warm-start)'),
            (["--overhead-tokens", "-1"], "--overhead-tokens"),
            (["--overhead-tokens", "nan"], "overhead of nan tokens"),
            (["--seed", "one"], "--seed"),
            (["--side", "up"], "--side"),
            (["--sidee", "left"], "--sidee"),
        ],
    )
    def test_options_that_cannot_be(
        self, fails: Failing, path: Path, arguments: list[str], words: str
    ) -> None:
        assert words in fails("probe", path, *arguments)

    @pytest.mark.parametrize("empty", ["", " "])
    def test_what_is_given_empty_is_no_default(
        self,
        fails: Failing,
        path: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        empty: str,
    ) -> None:
        """A variable that a script left empty; as a path it would be the current folder."""
        monkeypatch.chdir(tmp_path)
        for option in ("--out", "--models", "--reference", "--words"):
            assert f"'{option}' is empty: give a value" in fails("probe", path, f"{option}={empty}")
        assert "'TABLE...' is empty" in fails("probe", path, empty)
        assert "'RECIPE' is empty" in fails("train", empty)
        assert [entry.name for entry in tmp_path.iterdir()] == ["t.parquet"]

    def test_no_table(self, fails: Failing) -> None:
        assert "TABLE" in fails("probe")

    def test_unknown_command(self, fails: Failing) -> None:
        assert 'did you mean "frontier"' in fails("fronteir")

    @pytest.mark.parametrize("command", ["probe", "audit"])
    def test_unwritable_output(
        self, fails: Failing, path: Path, tmp_path: Path, command: str
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        assert str(tmp_path / "file") in fails(command, path, "--out", tmp_path / "file" / "out")
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "t.parquet"]

    def test_json_is_all_that_is_printed(
        self, path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        options = ["--words", "a", "--words", "b", "--side", "right", "--by-line", "--seed", "3"]
        assert cli.run(["probe", str(path), "--json", *options]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        finding = json.loads(captured.out)
        assert finding["headline"]["p0.03"] == {"n": 12.0}
        assert finding["parameters"] == {
            "words": ["a", "b"],
            "side": "right",
            "by_line": True,
            "seed": 3,
        }

    def test_finding_is_printed_and_written(
        self, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.run(["probe", str(path), "--out", str(tmp_path / "out")]) == 0
        assert "36 explanations." in capsys.readouterr().out
        names = sorted(entry.name for entry in (tmp_path / "out").iterdir())
        assert names == ["probe.html", "probe.json", "probe.md", "probe.record.json"]

    def test_card_is_the_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["probe", "--help"]) == 0
        text = capsys.readouterr().out
        for words in ("How many explanations", "Control: none", "nla-audit probe t.parquet"):
            assert words in text
        assert "--by-line / --no-by-line" in text

    def test_list_holds_every_registered_analyzer(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert set(analyzer_names()) == set(registry()) - {"probe"}
        assert all(analyzer_names().values())
        assert cli.run(["--help"]) == 0
        text = capsys.readouterr().out
        assert all(name in text for name in [*analyzer_names(), "audit"])

    def test_a_bug_keeps_its_traceback(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(completions: Completions, **options: object) -> Finding:
            raise ZeroDivisionError("a bug")

        card = replace(registry()["probe"], run=broken)
        monkeypatch.setitem(findings._REGISTRY, "probe", card)
        with pytest.raises(ZeroDivisionError):
            cli.run(["probe", str(path)])


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("weights differ\nat layer 3", "weights differ"),
        ("Error(s) in loading:\n\tsize mismatch for lm_head", "Error(s) in loading: size mismatch"),
        ("lm_head", "KeyError"),
    ],
)
def test_the_first_line_of_a_librarys_error_says_what_it_is(said: str, line: str) -> None:
    found = first_line(KeyError(said) if said == "lm_head" else ValueError(said))
    assert line in found
    assert "\n" not in found
