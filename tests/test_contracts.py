"""What every analyzer keeps to, whatever its question: found by the registry, tested alike."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from polars.testing import assert_frame_equal

from nla_audit import cli
from nla_audit.analyzers import registry
from nla_audit.commands.analyze import command_for
from nla_audit.commands.listing import analyzer_names
from nla_audit.commands.seed_option import SEED
from nla_audit.errors import UserError
from nla_audit.findings import Finding
from nla_audit.report.audit import run_audit
from nla_audit.report.contents import of_one_finding, ready, report_json
from nla_audit.report.drawing import with_reasons
from nla_audit.report.stored import read_report
from nla_audit.stats import MIN_CLUSTERS
from nla_audit.table.completions import from_frame
from nla_audit.world.sweep.planted import PlantedModel, plant
from tests.declared import absent, undeclared

#: Of whom a finding speaks, where not of each model.
SUBJECTS = {"calibrate": "two samples of p0.0"}
ANALYZERS = sorted(analyzer_names())
MODELS = (
    PlantedModel("base", None, omit=0.1, spurious=0.2, filler=0.3),
    PlantedModel("p0.0", 0.0, spurious=0.2, fail=0.05),
    PlantedModel("p0.03", 0.03, omit=0.7, reword=0.8, tail_copy=0.3, empty=0.1),
)
#: Analyzers that answer nothing from less than they need, and the line with which they say so.
REFUSALS = {"calibrate": "calibrating needs 20|no twin to try the reading on"}
each_analyzer = pytest.mark.parametrize("name", ANALYZERS)


@cache
def sweep_for(name: str | None) -> pl.DataFrame:
    """Three models × twelve activations, or as many as ``name`` needs, × two samples."""
    activations = 24 if name in REFUSALS else 12
    planted = plant(MODELS, activations=activations, seed=8, samples=2, reference="p0.0")
    return planted.completions


@pytest.fixture
def sweep(request: pytest.FixtureRequest) -> pl.DataFrame:
    """The sweep for the analyzer that the test is about."""
    of_test = getattr(request.node, "callspec", None)
    return sweep_for(of_test.params.get("name") if of_test else None)


@pytest.fixture(scope="module")
def whole() -> dict[str, Finding]:
    """Every analyzer's finding on the whole sweep."""
    return {name: run(name, sweep_for(name)) for name in ANALYZERS}


def run(name: str, table: pl.DataFrame, seed: int = 0) -> Finding:
    return registry()[name].run(from_frame(table), seed=seed)


def run_on_little(name: str, table: pl.DataFrame) -> Finding | None:
    """The finding on less than some need; ``None`` where that is refused, as it must be then."""
    if name not in REFUSALS:
        return run(name, table)
    with pytest.raises(UserError, match=REFUSALS[name]) as error:
        run(name, table)
    assert "\n" not in str(error.value)
    return None


def plain(finding: Finding) -> dict:
    """The finding as a stranger's program reads it: through strict JSON."""
    parsed: dict = json.loads(finding.to_json())
    return parsed


def check_shape(finding: Finding, name: str) -> None:
    """What holds for any finding, however little the table allows to say."""
    data = plain(finding)
    assert data["analyzer"] == name
    assert data["question"].endswith("?")
    assert data["verdict"].strip()
    for caveat in data["caveats"]:
        assert caveat.strip()
    for figure in finding.figures:
        used = (figure.x, figure.y, figure.low, figure.high, figure.group, figure.label)
        columns = set(finding.tables[figure.table].columns)
        if finding.tables[figure.table].height:
            assert {column for column in used if column} <= columns, figure.name
    assert finding.private_tables <= set(finding.tables)
    for summary in data["headline"].values():
        for metric, value in summary.items():
            assert value is None or math.isfinite(value)
            if value is not None and f"{metric}_low" in summary:
                low, high = summary[f"{metric}_low"], summary[f"{metric}_high"]
                assert (low is None) == (high is None)
                assert low is None or low <= high, metric


def intervals(finding: Finding) -> list[str]:
    """Names of the interval ends that the headline gives."""
    return [
        f"{model}: {metric}"
        for model, summary in finding.headline.items()
        for metric, value in summary.items()
        if metric.endswith(("_low", "_high")) and value is not None
    ]


def test_every_listed_analyzer_is_registered_under_its_name() -> None:
    assert sorted(set(registry()) & set(ANALYZERS)) == ANALYZERS


@each_analyzer
def test_card_says_everything(name: str) -> None:
    card = registry()[name]
    assert card.question.endswith("?")
    assert card.example.startswith(f"nla-audit {name} ")
    for text in (card.unit, card.control, card.high_means):
        assert text.strip()
    assert {"model", "idx", "explanation"} <= set(card.reads)
    assert all(lost.strip() for lost in card.uses.values())
    assert all(option.help.strip() for option in card.options)


@each_analyzer
def test_whole_table(name: str, whole: dict[str, Finding]) -> None:
    check_shape(whole[name], name)
    assert SUBJECTS.get(name, "p0.03") in whole[name].headline
    if name == "calibrate":  # its errors are counted over trials, each with its interval
        low, high = (whole[name].tables["trials"][f"retained_{end}"] for end in ("low", "high"))
        assert low.null_count() == high.null_count() == 0
        assert (low < high).any()
    else:
        assert intervals(whole[name]), "12 activations are enough for intervals"


@each_analyzer
def test_a_number_is_in_the_headline_if_and_only_if_the_card_declares_it(
    name: str, whole: dict[str, Finding]
) -> None:
    card, finding = registry()[name], whole[name]
    assert finding.metrics == card.metrics
    assert undeclared(finding) == []
    assert absent(finding, [metric for metric in card.metrics if not metric.needs]) == []
    columns = {column for table in finding.tables.values() for column in table.columns}
    assert set(card.columns) - columns == set()
    bare = replace(card, metrics=card.metrics[1:])
    with pytest.raises(ValueError, match="not declared on the card: "):
        bare.sign(finding)


@each_analyzer
def test_a_finding_is_read_again_from_its_json_as_it_was(
    name: str, whole: dict[str, Finding], tmp_path: Path
) -> None:
    finding = ready(whole[name])
    record = {"arguments": {}, "seed": 0, "versions": {}, "commit": None, "tables": []}
    report = of_one_finding(finding, length_penalties={"p0.0": 0.0}, record=record, what={})
    (tmp_path / "f.json").write_text(report_json(report))
    again = read_report(tmp_path / "f.json")
    (read,) = again.findings
    for field in fields(finding):
        if field.name != "tables":
            assert getattr(read, field.name) == getattr(finding, field.name), field.name
    assert list(read.tables) == list(finding.tables)
    for table, frame in finding.tables.items():
        assert_frame_equal(read.tables[table], frame)
    assert report_json(again) == report_json(report)


@each_analyzer
def test_help_says_what_every_number_is(name: str) -> None:
    card = registry()[name]
    text = " ".join(CliRunner().invoke(command_for(card), ["--help"]).output.split())
    for metric in card.metrics:
        assert f"{metric.name}: {metric.meaning} ({metric.unit}" in text
        assert not metric.meaning.endswith(".")


def test_retention_is_given_by_kind_and_by_item(whole: dict[str, Finding]) -> None:
    summary = plain(whole["drop-analysis"])["headline"]["p0.03"]
    for kind in ("genre", "final_token", "entity", "named_entities", "numbers", "quotes"):
        assert f"retained.{kind}" in summary


@each_analyzer
def test_neither_order_of_rows_nor_global_random_state_matter(
    name: str, sweep: pl.DataFrame, whole: dict[str, Finding]
) -> None:
    shuffled = sweep.sample(fraction=1.0, shuffle=True, seed=3)
    assert not shuffled.equals(sweep)
    np.random.seed(1)
    random.seed(1)
    before, before_python = np.random.get_state()[1].tolist(), random.getstate()
    assert run(name, shuffled).to_json() == whole[name].to_json()
    assert np.random.get_state()[1].tolist() == before
    assert random.getstate() == before_python


@pytest.fixture(scope="module")
def by_other_hash_seed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every analyzer's JSON, from a fresh Python under another hash seed than this one's."""
    folder = tmp_path_factory.mktemp("hash")
    for name in ANALYZERS:
        sweep_for(name).write_parquet(folder / f"{name}.parquet")
    code = (
        "import json, sys; from nla_audit.table.completions import load; "
        "from nla_audit.analyzers import registry; "
        "tables = {n: load(f'{sys.argv[1]}/{n}.parquet') for n in registry()}; "
        "made = {n: c.run(tables[n], seed=0).to_json() for n, c in registry().items()}; "
        "print(json.dumps(made))"
    )
    # This Python's own is 31337 only if it was started with it; a random one is not.
    other = "0" if os.environ.get("PYTHONHASHSEED") == "31337" else "31337"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env={**os.environ, "PYTHONHASHSEED": other},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


@each_analyzer
def test_bytes_do_not_depend_on_the_hash_seed(
    name: str, by_other_hash_seed: dict[str, str], whole: dict[str, Finding]
) -> None:
    assert by_other_hash_seed[name] == whole[name].to_json()


@each_analyzer
def test_empty_table_is_one_line(
    name: str, sweep: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.head(0).write_parquet(tmp_path / "empty.parquet")
    assert cli.run([name, str(tmp_path / "empty.parquet")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "no rows" in captured.err


@each_analyzer
def test_one_row_gives_no_interval(name: str, sweep: pl.DataFrame) -> None:
    finding = run_on_little(name, sweep.filter(pl.col("explanation") != "").head(1))
    if finding is not None:
        check_shape(finding, name)
        assert intervals(finding) == []


@each_analyzer
def test_no_interval_below_the_stated_number_of_activations(name: str, sweep: pl.DataFrame) -> None:
    few = sweep.filter(pl.col("idx") < MIN_CLUSTERS - 1)
    finding = run_on_little(name, few)
    if finding is not None:
        check_shape(finding, name)
        assert intervals(finding) == []


def failed(rows: pl.DataFrame, condition: pl.Expr) -> pl.DataFrame:
    """``rows`` with the explanations failed that meet ``condition``."""
    return rows.with_columns(
        pl.when(condition).then(None).otherwise(pl.col("explanation")).alias("explanation"),
        pl.when(condition).then(None).otherwise(pl.col("fve")).alias("fve"),
        (pl.col("extracted") & ~condition).alias("extracted"),
    )


@pytest.mark.parametrize("name", ANALYZERS)
def test_a_model_whose_explanations_all_failed_has_no_rates(name: str, sweep: pl.DataFrame) -> None:
    finding = run(name, failed(sweep, pl.col("model") == "p0.03"))
    check_shape(finding, name)
    summary = finding.headline.get("p0.03", {})
    # What can be said of failed explanations: how many there are and how long they were.
    of_text = {
        "fve_mean",
        "fve_change",
        "empty_rate",
        "claims_retained",
        "omission_share",
        "holds_tail_rate",
        "tail_word_share",
        "self_repetition_rate",
        "quotes_per_explanation",
        "verbatim_quote_rate",
        "unsupported_name_rate",
    }
    assert {metric: summary[metric] for metric in of_text & set(summary)} == dict.fromkeys(
        of_text & set(summary)
    )


@each_analyzer
def test_all_failed_is_a_finding_without_rates_or_one_line(name: str, sweep: pl.DataFrame) -> None:
    everything = failed(sweep, pl.lit(True))
    if name in REFUSALS:
        assert run_on_little(name, everything) is None
    elif from_frame(everything).has("fve") or "fve" not in registry()[name].reads:
        check_shape(run(name, everything), name)
    else:
        with pytest.raises(UserError, match='column "fve"'):
            run(name, everything)


@each_analyzer
def test_all_empty_explanations(name: str, sweep: pl.DataFrame) -> None:
    empty = sweep.with_columns(
        pl.lit("").alias("explanation"),
        pl.lit(11).alias("n_tokens"),
        pl.lit(True).alias("extracted"),
    )
    check_shape(run(name, empty), name)


@each_analyzer
def test_one_length_penalty_beside_the_base(name: str, sweep: pl.DataFrame) -> None:
    finding = run(name, sweep.filter(pl.col("model") != "p0.03"))
    check_shape(finding, name)
    assert finding.reference == "p0.0"


@each_analyzer
def test_one_model_only(name: str, sweep: pl.DataFrame) -> None:
    one = sweep.filter((pl.col("model") == "p0.03") & (pl.col("sample") == 0))
    finding = run_on_little(name, one)
    if finding is not None:
        check_shape(finding, name)
        assert finding.reference == "p0.03"


@each_analyzer
def test_required_columns_alone(name: str, sweep: pl.DataFrame) -> None:
    """Without the optional columns an analyzer says what it lacks, or answers what it can."""
    bare = sweep.filter(pl.col("sample") == 0).select("model", "idx", "explanation")
    missing = set(registry()[name].reads) - set(bare.columns)
    if missing:
        with pytest.raises(UserError, match=next(iter(sorted(missing)))):
            run(name, bare)
    else:
        check_shape(run(name, bare), name)


@each_analyzer
def test_json_prints_only_json(
    name: str, sweep: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.parquet"
    (sweep if name in REFUSALS else sweep.filter(pl.col("idx") < 3)).write_parquet(path)
    assert cli.run([name, str(path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    keys = {"analyzer", "question", "reference", "headline", "verdict", "caveats", "tables"}
    assert keys <= set(printed)
    assert printed["reference"] == "p0.0"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda t: t.head(1), id="one row"),
        pytest.param(lambda t: t.with_columns(explanation=pl.lit("")), id="all empty"),
        pytest.param(lambda t: t.with_columns(explanation=pl.lit("... !?")), id="punctuation"),
    ],
)
def test_a_degenerate_table_still_has_a_report(
    sweep: pl.DataFrame, tmp_path: Path, change: Callable[[pl.DataFrame], pl.DataFrame]
) -> None:
    frame = change(sweep.filter(pl.col("extracted")))
    done = run_audit(from_frame(frame), tmp_path / "report", seed=0)
    assert (tmp_path / "report" / "report.html").exists()
    assert "figure" not in " ".join(done.left_out.values())
    drawn = {path.name for path in done.files}
    for finding in done.findings:
        for figure in finding.figures:
            assert f"{finding.analyzer}-{figure.name}.svg" in drawn


def test_a_figure_of_nothing_is_left_out_with_its_reason(sweep: pl.DataFrame) -> None:
    finding = with_reasons(run("frontier", sweep.filter(pl.col("extracted")).head(1)))
    assert "changes" not in {figure.name for figure in finding.figures}
    assert any("there is nothing to compare" in caveat for caveat in finding.caveats)


@pytest.mark.parametrize("seed", ["99999999999", "-1", str(2**128), "1.5", "9" * 5000])
def test_seeds_of_any_size_are_taken_or_refused(
    sweep: pl.DataFrame, tmp_path: Path, seed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.write_parquet(tmp_path / "t.parquet")
    code = cli.run(["tail", str(tmp_path / "t.parquet"), "--json", "--seed", seed])
    output = capsys.readouterr()
    if seed.lstrip("-").isdigit() and len(seed) < 1000:
        assert code == 0
        assert 0 <= SEED.convert(seed, None, None) < 2**32
        assert SEED.convert(seed, None, None) == SEED.convert(int(seed), None, None)
    else:
        assert (code, output.err.count("\n")) == (2, 1)


def test_seeds_of_32_bits_are_themselves() -> None:
    for seed in (0, 1, 2**32 - 1):
        assert SEED.convert(str(seed), None, None) == seed
