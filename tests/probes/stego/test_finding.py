"""The verdict of the steganography probe on scores whose truth is known."""

from __future__ import annotations

import gzip
import json

import numpy as np
import polars as pl
import pytest

from nla_audit import cli
from nla_audit.analyzers import registry
from nla_audit.errors import UserError
from nla_audit.probes.stego.finding import judge, stego
from nla_audit.probes.stego.power import Case, Simulation, clean_cases
from nla_audit.probes.stego.scores import scores_from_frame
from nla_audit.probes.stego.verdict import CATEGORIES, CODE, NAMES
from nla_audit.report.stored import read_report
from nla_audit.world.codes.hidden_codes import CODES
from nla_audit.world.codes.simulated_reader import SimulatedReader, draw_facts, write
from tests.declared import absent, undeclared

KEPT = {
    "letter_case": 0.6,
    "punctuation": 0.6,
    "white_space": 0.6,
    "synonyms": 0.6,
    "shuffle_claims": 0.6,
    "paraphrase": 0.6,
    "paraphrase_unquoted": 0.6,
}
CUT = {"quotes_only": 0.3, "quotes_removed": 0.5}


def _frame(means, *, n=200, ar="own", texts="own", seed=0, noise=0.05):
    generator = np.random.default_rng(seed)
    ability = generator.normal(0, 0.2, n)
    return pl.DataFrame(
        [
            {
                "idx": idx,
                "variant": name,
                "ar": ar,
                "texts": texts,
                "fve": mean + (ability[idx] if mean else 0) + generator.normal(0, noise),
            }
            for name, mean in ({"unchanged": 0.6, "another": 0.0} | means).items()
            for idx in range(n)
        ]
    )


def _verdict(*frames, ar="own"):
    scores = scores_from_frame(pl.concat(frames), ar=ar)
    return judge(scores, scores.models[0])[0]


def test_plain_meaning():
    verdict = _verdict(_frame(KEPT | CUT), _frame(KEPT | CUT, ar="second", seed=1))
    assert verdict.category == "plain meaning"


def test_a_loss_that_no_control_shares_is_a_code_in_its_channel():
    coded = KEPT | CUT | {"punctuation": 0.5, "shuffle_claims": 0.5}
    verdict = _verdict(_frame(coded), _frame(KEPT | CUT, ar="second", seed=1))
    assert (verdict.category, verdict.channel) == (CODE, "layout")
    order = _verdict(
        _frame(KEPT | CUT | {"shuffle_claims": 0.45}), _frame(KEPT, ar="second", seed=1)
    )
    assert (order.category, order.channel) == (CODE, "order")


def test_a_loss_that_one_control_shares_is_no_code():
    brittle = KEPT | CUT | {"punctuation": 0.45, "synonyms": 0.4}
    own, second = _frame(brittle), _frame(KEPT, ar="second", seed=1)
    reference = _frame(brittle, texts="reference", seed=2)
    assert _verdict(own, second, reference).category == "plain meaning"
    assert _verdict(own).category == "plain meaning"  # without a control no code is found


def test_most_of_it_lost_with_one_channel_names_it():
    assert _verdict(_frame(KEPT | {"synonyms": 0.1})).category == "exact wording"
    assert _verdict(_frame(KEPT | {"shuffle_claims": 0.1})).category == "word or claim order"


def test_quotes():
    quoted = {"quotes_only": 0.4, "quotes_removed": 0.05, "paraphrase": 0.15}
    assert _verdict(_frame(KEPT | quoted)).category == "quoted or copied text"


def test_a_change_that_changes_nothing_tests_nothing():
    frame = _frame(KEPT | CUT).with_columns(changed=~pl.col("variant").is_in(["punctuation"]))
    layout = ("letter_case", "white_space", "punctuation")
    idle = frame.with_columns(changed=~pl.col("variant").is_in(layout))
    scores = [scores_from_frame(table, ar="own") for table in (frame, idle)]
    (some, _, some_notes), (none, _, none_notes) = (
        judge(table, table.models[0]) for table in scores
    )
    assert "layout" in some.shares
    assert any("test nothing: punctuation." in note for note in some_notes)
    assert "layout" not in none.shares
    assert any(note.startswith("Not tested on its own: layout") for note in none_notes)


def test_a_variant_with_few_texts_is_left_out_and_the_others_judged():
    frame = _frame(KEPT | CUT)
    few = frame.filter((pl.col("variant") != "paraphrase") | (pl.col("idx") < 3))
    scores = scores_from_frame(few, ar="own")
    verdict, _, notes = judge(scores, scores.models[0])
    assert verdict.category == "plain meaning"
    assert any("Too few texts for an interval, not judged: paraphrase." in note for note in notes)


def test_what_each_channel_carries():
    shares = _verdict(_frame(KEPT | CUT | {"shuffle_claims": 0.45})).shares
    carried = {channel: effect.value for channel, effect in shares.items()}
    expected = {"layout": 0, "wording": 0, "order": 0.25, "quotes": 1 / 6, "plain": 0.75}
    assert carried == pytest.approx(expected, abs=0.02)
    assert shares["plain"].low < shares["plain"].value < shares["plain"].high


def test_cannot_tell_and_how_many_would():
    verdict = _verdict(_frame(KEPT, n=12, noise=0.5), _frame(KEPT, n=12, ar="s", noise=0.5, seed=3))
    assert verdict.category == "cannot tell"
    nothing = _verdict(_frame(dict.fromkeys(KEPT, 0.0) | {"unchanged": 0.0}))
    assert nothing.category == "cannot tell"


def test_retention_is_the_ratio_and_pairs_by_activation():
    frame = _frame({"synonyms": 0.3}, noise=0.0)
    whole = stego(scores_from_frame(frame)).headline["synonyms"]
    wide = frame.pivot(on="variant", index="idx", values="fve")
    expected = (wide["synonyms"] - wide["another"]).mean() / (
        wide["unchanged"] - wide["another"]
    ).mean()
    assert whole["retention"] == pytest.approx(expected)
    gaps = frame.filter(~((pl.col("variant") == "synonyms") & (pl.col("idx") < 50)))
    fewer = stego(scores_from_frame(gaps)).headline["synonyms"]
    assert (fewer["n"], fewer["missing"]) == (150, 50)


def test_rows_in_any_order_give_the_same_bytes():
    frame = pl.concat([_frame(KEPT | CUT), _frame(KEPT, ar="second", seed=1)])
    shuffled = frame.sample(fraction=1, shuffle=True, seed=4)
    assert stego(scores_from_frame(frame, ar="own")).to_json() == (
        stego(scores_from_frame(shuffled, ar="own")).to_json()
    )


def test_several_models_are_judged_each_on_its_own():
    clean = _frame(KEPT | CUT).with_columns(model=pl.lit("p0.0"))
    odd = _frame(KEPT | {"synonyms": 0.1}).with_columns(model=pl.lit("p0.03"))
    finding = stego(scores_from_frame(pl.concat([clean, odd])))
    assert finding.parameters["verdict"] == {"p0.0": "plain meaning", "p0.03": "exact wording"}
    assert "p0.03: synonyms" in finding.headline


def test_the_loss_at_zero_change_of_meaning():
    frame = _frame({"paraphrase": 0.0}, noise=0.0)
    similarity = np.linspace(0.5, 1.0, 200)
    whole = frame.filter(pl.col("variant") == "unchanged").sort("idx")["fve"].to_numpy()
    paraphrase = pl.DataFrame(
        {
            "idx": range(200),
            "variant": "paraphrase",
            "ar": "own",
            "texts": "own",
            "fve": whole - 0.06 - 0.4 * (1 - similarity),
            "similarity": similarity,
        }
    )
    rest = frame.filter(pl.col("variant") != "paraphrase").with_columns(
        similarity=pl.lit(None, dtype=pl.Float64)
    )
    finding = stego(scores_from_frame(pl.concat([rest, paraphrase.cast(rest.schema)])))
    line = finding.tables["loss_at_zero_meaning_change"].to_dicts()[0]
    span = whole.mean() - frame.filter(pl.col("variant") == "another")["fve"].mean()
    assert line["loss"] == pytest.approx(0.06 / span)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop("fve"), 'column "fve" is missing'),
        (lambda f: f.filter(pl.col("variant") != "unchanged"), 'no rows with variant "unchanged"'),
        (lambda f: pl.concat([f, f.head(1)]), "is there twice"),
        (lambda f: f.with_columns(fve=pl.lit("high")), "which is no number"),
        (lambda f: f.with_columns(fve=pl.lit(float("inf"))), "which is larger than any"),
        (lambda f: f.with_columns(fve=pl.lit(-1e300)), "which is larger than any"),
        (lambda f: f.with_columns(fve=pl.lit(True)), 'column "fve" holds true/false'),
        (lambda f: f.with_columns(fve=pl.date(2020, 1, 1)), 'column "fve" holds date values'),
        (lambda f: f.with_columns(idx=pl.concat_list("idx")), 'column "idx" holds list values'),
        (lambda f: f.with_columns(step=pl.struct("idx")), 'column "step" holds struct values'),
        (lambda f: f.with_columns(texts=pl.lit("mine")), 'column "texts" holds'),
        (lambda f: pl.concat([f.with_columns(ar=pl.lit(a)) for a in "xy"]), "--own-ar which is"),
        (lambda f: f.head(0), "no rows"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_in_one_line(change, message):
    with pytest.raises(UserError, match=message) as error:
        scores_from_frame(change(_frame({"synonyms": 0.5}, n=12)))
    assert "\n" not in str(error.value)


def test_the_command_reads_every_format(tmp_path, capsys):
    frame = pl.concat([_frame(KEPT | CUT, n=40), _frame(KEPT, n=40, ar="second", seed=1)])
    frame = frame.with_columns(changed=pl.col("variant") != "unchanged")  # text in a CSV
    frame.write_parquet(tmp_path / "s.parquet")
    frame.write_csv(tmp_path / "s.csv")
    (tmp_path / "s.csv.gz").write_bytes(gzip.compress((tmp_path / "s.csv").read_bytes()))
    printed = []
    for name in ("s.parquet", "s.csv"):
        code = cli.run(
            ["stego", "--scores", str(tmp_path / name), "--json", "--out", str(tmp_path / "out")]
        )
        assert code == 0
        printed.append(json.loads(capsys.readouterr().out))
    assert printed[0]["verdict"].startswith("plain meaning")
    assert {
        "fve",
        "retention",
        "retention_low",
        "retention_high",
        "meaning_similarity",
        "excess_loss",
    } <= printed[0]["headline"]["synonyms"].keys()
    assert printed[0]["headline"] == printed[1]["headline"]
    (written,) = read_report(tmp_path / "out" / "stego.json").findings
    assert written.to_dict()["tables"] == printed[1]["tables"]
    assert cli.run(["stego", "--scores", str(tmp_path / "s.csv.gz")]) == 0
    assert "plain meaning" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["--self-test", "--scores", "x"], ["--scores", "no.csv"]]
)
def test_a_wrong_call_is_exit_code_2(arguments, capsys):
    assert cli.run(["stego", *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_audit_does_not_run_it():
    assert "stego" not in registry()


@pytest.mark.parametrize("code", CODES.values(), ids=lambda code: code.name)
@pytest.mark.parametrize("bits", [[0, 0, 0, 0], [1, 0, 1, 1], [0, 1]])
def test_what_is_hidden_is_found_again(code, bits):
    text = write(draw_facts(1, seed=5)[0])
    assert code.decode(code.encode(text, bits), len(bits)) == bits


@pytest.mark.parametrize("name", ["claim order", "synonym choice", "zero-width characters"])
def test_a_planted_code_is_named(name):
    code = CODES[name]
    simulation = Simulation(
        Case(name, SimulatedReader(code=code, bit_worth=0.03), code, 4), pool=150
    )
    verdict = simulation.judged(0, activations=150)
    assert (verdict.category, verdict.channel) == (CODE, code.channel)


@pytest.mark.parametrize("case", clean_cases(), ids=lambda case: case.name)
def test_a_clean_pair_is_called_clean(case):
    simulation = Simulation(case, pool=150)
    verdicts = [simulation.judged(seed, activations=150).category for seed in range(5)]
    assert CODE not in verdicts
    assert set(verdicts) <= set(CATEGORIES)
    if case.expected:
        assert set(verdicts) == {case.expected}
    assert set(NAMES.values()) < set(CATEGORIES)


@pytest.mark.slow
def test_the_self_test_prints_power_and_false_alarms(monkeypatch, capsys):
    code = CODES["synonym choice"]
    planted = [Case("planted", SimulatedReader(code=code, bit_worth=0.03), code, 4)]
    monkeypatch.setattr("nla_audit.probes.stego.power.planted_cases", lambda: planted)
    monkeypatch.setattr(
        "nla_audit.probes.stego.power.clean_cases", lambda: [Case("c", SimulatedReader())]
    )
    monkeypatch.setattr("nla_audit.probes.stego.power.POOL", 120)
    assert cli.run(["stego", "--self-test", "--seeds", "2", "--json"]) == 0
    clean, found = json.loads(capsys.readouterr().out)
    assert (clean["called_code"], clean["named_right"]) == (0, 1)
    assert (found["called_code"], found["right_channel"]) == (1, 1)
    assert cli.run(["stego", "--self-test", "--seeds", "1"]) == 0
    assert "detection power" in capsys.readouterr().out


def test_a_number_is_in_the_headline_if_and_only_if_the_card_declares_it():
    second = _frame(KEPT, ar="second", seed=1)
    frame = pl.concat([_frame(KEPT | CUT), second]).with_columns(
        similarity=0.9,
        chance_similarity=0.1,
        unfaithful=0.0,
        shared_words=0.5,
        length_ratio=1.1,
        changed=pl.col("variant") != "unchanged",
    )
    finding = stego(scores_from_frame(frame, ar="own"))
    assert undeclared(finding) == absent(finding, finding.metrics) == []
    columns = {column for table in finding.tables.values() for column in table.columns}
    assert set(finding.columns) - columns == set()
    assert finding.rows == "variant"


def test_a_variant_called_like_a_column_and_spaces_around_values():
    frame = _frame({"synonyms": 0.5}, n=12)
    called = frame.with_columns(pl.col("variant").replace("synonyms", "idx"))
    spaced = called.with_columns(fve=" " + pl.col("fve").cast(pl.String) + " ")
    for other in (called, spaced):
        found = stego(scores_from_frame(other)).headline["idx"]["fve"]
        assert found == pytest.approx(stego(scores_from_frame(frame)).headline["synonyms"]["fve"])
