"""``nla-audit sensitivity`` from the command line, on the tiny pair of the suite."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from transformers import AutoTokenizer

from nla_audit import cli
from nla_audit.checkpoint import in_vllm
from nla_audit.nla.verbalizer import Explanations, Verbalizer
from nla_audit.probes.sensitivity.controls import KINDS
from tests.checkpoint.faults import make_adapter
from tests.llm.server import Behaviour, serving
from tests.pairs import tiny
from tests.pairs.engines import VllmStandIn
from tests.pairs.explaining import table_of
from tests.pairs.fixtures import activations, pair_path, vectors
from tests.runs.extracting import save_target

__all__ = ["activations", "pair_path", "vectors"]

ROWS = 14
STRENGTHS = (0.5, 1.0, 4.0)
OPTIONS = (
    "--max-new-tokens",
    "20",
    "--strengths",
    "0.5,1,4",
    "--limit",
    str(ROWS),
    "--batch-size",
    "64",
    "--device",
    "cpu",
)


def run(*arguments: object) -> int:
    return cli.run(["sensitivity", *map(str, arguments)])


@pytest.fixture(scope="module")
def direction(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("direction") / "w.npy"
    np.save(path, np.random.default_rng(5).normal(size=(2, tiny.D_MODEL)))
    return path


@pytest.fixture(scope="module")
def given(activations: Path, direction: Path) -> tuple[object, ...]:
    """What is planted, and what names it."""
    return (
        "--activations",
        activations,
        "--direction",
        f"{direction}:1",
        "--words",
        "register=register|noun phrase",
        *OPTIONS,
    )


@pytest.fixture(scope="module")
def asked(
    pair_path: Path, given: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder that an uninterrupted run over two models wrote."""
    out = tmp_path_factory.mktemp("asked") / "out"
    assert run(f"p0.0={pair_path}", f"p0.01={pair_path}", *given, "--out", out) == 0
    return out


class TestTable:
    def test_every_activation_is_asked_at_every_strength(self, asked: Path) -> None:
        table = pl.read_parquet(asked / "sensitivity.parquet")
        kinds = set(KINDS) - {"other"}
        assert set(table["kind"]) == kinds
        assert table.height == 2 * ROWS * len(kinds) * (1 + len(STRENGTHS))
        assert table["model"].unique().sort().to_list() == ["p0.0", "p0.01"]
        penalties = dict(table.select("model", "length_penalty").unique().iter_rows())
        assert penalties == {"p0.0": 0.0, "p0.01": 0.01}
        assert not set(table["idx"]) & {"107", "111"}  # which cannot be explained

    def test_what_is_planted_shows(self, asked: Path) -> None:
        table = pl.read_parquet(asked / "sensitivity.parquet")
        planted = table.filter(pl.col("strength") > 0)
        assert (planted["planted"] > 0).all()
        assert (planted["planted"] + planted["projection"] <= 1 + 1e-9).all()
        unplanted = table.filter(pl.col("strength") == 0)
        assert unplanted["planted"].abs().max() < 1e-12
        # One text of an unplanted activation, whatever will be planted.
        texts = unplanted.group_by("model", "idx").agg(pl.col("explanation").n_unique())
        assert (texts["explanation"] == 1).all()

    def test_mentions_are_found_where_they_stand(self, asked: Path, pair_path: Path) -> None:
        table = pl.read_parquet(asked / "sensitivity.parquet")
        tokenizer = AutoTokenizer.from_pretrained(pair_path / "av")
        named = table.filter("named")
        assert named.height > 0
        for row in named.iter_rows(named=True):
            text = row["explanation"]
            places = [
                place for word in ("register", "noun phrase") if (place := text.find(word)) >= 0
            ]
            cut = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            ends = [end for _, end in cut["offset_mapping"]]
            assert row["first_token"] == sum(end <= min(places) for end in ends)
            assert row["first_claim"] == 0
        silent = table.filter(~pl.col("named"))
        assert not silent["explanation"].str.contains("register").any()

    def test_two_names_of_one_pair_say_the_same(self, asked: Path) -> None:
        table = pl.read_parquet(asked / "sensitivity.parquet")
        one, other = (
            table.filter(pl.col("model") == model).drop("model", "length_penalty")
            for model in ("p0.0", "p0.01")
        )
        assert one.equals(other)


class TestReport:
    def test_files(self, asked: Path) -> None:
        names = {path.name for path in asked.rglob("*") if path.is_file()}
        assert {
            "sensitivity.parquet",
            "sensitivity.parquet.record.json",
            "sensitivity.html",
            "sensitivity.md",
            "sensitivity.json",
            "sensitivity.record.json",
            "sensitivity-curves.png",
            "sensitivity-components.svg",
        } <= names
        record = json.loads((asked / "sensitivity.parquet.record.json").read_text())
        assert record["settings"]["strengths"] == list(STRENGTHS)
        assert set(record["models"]) == {"p0.0", "p0.01"}
        assert "Said against carried" in (asked / "sensitivity.html").read_text()

    def test_the_table_alone_gives_the_same_numbers(
        self, asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(asked / "sensitivity.parquet", "--json", "--out", tmp_path) == 0
        again = json.loads(capsys.readouterr().out)
        first = json.loads((asked / "sensitivity.json").read_text())
        finding = first["findings"][0] if "findings" in first else first
        for part in ("headline", "verdict", "tables"):
            assert again[part] == finding[part]
        assert (tmp_path / "sensitivity.html").is_file()


def test_an_interrupted_run_goes_on_and_writes_the_same(
    *,
    asked: Path,
    pair_path: Path,
    given: tuple[object, ...],
    direction: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generate, calls = Verbalizer.generate, list[np.ndarray]()

    def dying(self: Verbalizer, given: np.ndarray, **options: Any) -> Explanations:
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return generate(self, given, **options)

    monkeypatch.setattr(Verbalizer, "generate", dying)
    arguments = (f"p0.0={pair_path}", f"p0.01={pair_path}", *given, "--out", tmp_path / "out")
    assert run(*arguments) == 130
    assert not (tmp_path / "out" / "sensitivity.parquet").exists()
    assert run(*arguments) == 0
    # Fourteen activations of ten texts each, six at once: three batches for each of two models, of
    # which two were kept; and the call that was interrupted.
    assert len(calls) == 2 * 3 + 1
    whole = pl.read_parquet(asked / "sensitivity.parquet")
    assert pl.read_parquet(tmp_path / "out" / "sensitivity.parquet").equals(whole)
    assert not list((tmp_path / "out").glob(".*parts*"))
    # Of each activation the first four texts are the unplanted one and the concept's.
    asked_for = calls[0].reshape(-1, 1 + 3 * len(STRENGTHS), tiny.D_MODEL)[:, : 1 + len(STRENGTHS)]
    weight = np.load(direction)[1]
    cosines = asked_for @ weight / np.linalg.norm(weight) / np.linalg.norm(asked_for, axis=2)
    first = whole.filter((pl.col("model") == "p0.0") & (pl.col("kind") == "concept"))
    np.testing.assert_allclose(
        cosines.ravel(), (first["projection"] + first["planted"])[: cosines.size], atol=1e-6
    )


def test_another_engine_asks_the_adapters_of_a_base(
    pair_path: Path,
    given: tuple[object, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(in_vllm, "VllmEngine", VllmStandIn)
    monkeypatch.setattr(VllmStandIn, "started", [])
    monkeypatch.setattr(VllmStandIn, "running", [])
    monkeypatch.setattr("nla_audit.nla.vllm_settings.find_spec", lambda name: object())
    av, strong = pair_path / "av", {"lora_alpha": 64}  # no two words are as good as tied
    adapters = [
        make_adapter(av, tmp_path / str(seed), ["down_proj"], seed, **strong) for seed in (1, 2)
    ]
    pairs = [f"p0.{number}={path}" for number, path in enumerate(adapters)]
    less = ("--temperature", 0, "--limit", 2, "--strengths", "1", "--max-new-tokens", 9)
    command = (*pairs, "--ar", pair_path / "ar", *given, *less)
    tables = []
    for name, how in (("own", ()), ("vllm", ("--engine", "vllm"))):
        assert run(*command, *how, "--out", tmp_path / name) == 0
        tables.append(pl.read_parquet(tmp_path / name / "sensitivity.parquet"))
    assert tables[0].select("model", "explanation").equals(tables[1].select("model", "explanation"))
    assert VllmStandIn.started == [2]
    assert VllmStandIn.running == []
    record = json.loads((tmp_path / "vllm" / "sensitivity.parquet.record.json").read_text())
    assert record["models"]["p0.1"]["av"]["engine"]["adapters"] == "by request"
    for asked in (("--engine", "vllm"), ("--engine-option", "enable_lora=false")):
        capsys.readouterr()
        assert run(tmp_path / "vllm" / "sensitivity.parquet", *asked) == 2
        assert "--engine generates when a table is made" in capsys.readouterr().err


class Finds(Behaviour):
    """A server whose model finds “register” in what it is asked about, once it works."""

    is_working = True

    def answer(self, lines: list[str]) -> str:
        if not self.is_working:
            return "As you wish."
        is_named = "register" in lines[0]
        return json.dumps({"named": is_named, "quote": "register" if is_named else ""})


class TestLanguageModel:
    def test_pairs_and_a_table_are_asked_about_alike(
        self,
        *,
        asked: Path,
        pair_path: Path,
        given: tuple[object, ...],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        model = Finds()
        with serving(model) as url:
            llm = ("--llm", f"openai:m@{url}", "--detector", "llm")
            pairs = (f"p0.0={pair_path}", *given, *llm, "--out", tmp_path / "pairs")
            model.is_working = False
            assert run(*pairs) == 2
            error = capsys.readouterr().err.splitlines()[-1]
            assert error.startswith("error: openai:m: of ")
            assert "none has an answer that can be used (no JSON object, …)" in error
            # What the pair said was kept: it is not asked again.
            model.is_working = True
            with monkeypatch.context() as patched:
                patched.setattr(Verbalizer, "generate", None)
                assert run(*pairs) == 0
            words = ("--words", "register=register|noun phrase")
            table = asked / "sensitivity.parquet"
            assert run(table, *llm, *words, "--out", tmp_path / "table") == 0
        own = pl.read_parquet(tmp_path / "pairs" / "sensitivity.parquet")
        added = pl.read_parquet(tmp_path / "table" / "sensitivity.parquet")
        said = own.filter("llm_named")
        assert 0 < said.height < own.filter("named").height  # “noun phrase” is for words alone
        only = said.filter(pl.col("explanation").str.contains("noun phrase").not_())
        assert only["llm_first_token"].equals(only["first_token"].alias("llm_first_token"))
        told = ["llm_named", "llm_first_claim", "llm_first_segment", "llm_reason"]
        assert added.filter(pl.col("model") == "p0.0").select(told).equals(own.select(told))
        assert (tmp_path / "pairs" / "answers.sqlite").is_file()
        report = json.loads((tmp_path / "table" / "sensitivity.json").read_text())
        assert "language model: 0 requests sent" not in json.dumps(report)
        # Judged again from the table with the answers, with nobody to ask.
        assert run(tmp_path / "table" / "sensitivity.parquet", "--detector", "llm") == 0

    def test_bad_input_is_one_line(
        self, asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        table = asked / "sensitivity.parquet"

        def fails(*arguments: object) -> str:
            assert run(table, *arguments) == 2
            last = capsys.readouterr().err.splitlines()[-1]
            assert last.startswith("error: ")
            return last

        out = ("--words", "register", "--out", tmp_path / "out")
        secret = "https://me:hidden@host/v1"
        assert "hidden" not in (told := fails("--llm", f"openai:m@{secret}", *out))
        assert "NLA_AUDIT_API_KEY" in told
        assert "write openai:MODEL@URL" in fails("--llm", "a-model", *out)
        assert "--out DIR" in fails("--llm", "openai:m@http://localhost:1", *out[:2])
        assert "--words" in fails("--llm", "openai:m@http://localhost:1", *out[2:])
        other = ("--words", "tone=cheerful", *out[2:])
        assert "is about register" in fails("--llm", "openai:m@http://localhost:1", *other)
        assert "--llm MODEL" in fails("--detector", "llm")
        assert "--llm-temperature" in fails(
            "--llm", "openai:m@http://localhost:1", "--llm-temperature", "hot", *out
        )
        assert not (tmp_path / "out" / "sensitivity.parquet").exists()


def _contrast_set(path: Path, pairs: int) -> Path:
    words = "a quoted word in the story about a fair formal register".split()
    texts = [
        [f"{words[number % 7]} {number} register", f"{words[number % 5]} {number} story"]
        for number in range(pairs)
    ]
    path.write_text(
        yaml.safe_dump(
            {
                "name": "register",
                "what": "it is about a register",
                "made": "here",
                "confounds": "all",
                "words": ["register"],
                "pairs": texts,
            }
        )
    )
    return path


def test_a_concept_that_a_target_reads(
    pair_path: Path, activations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = save_target(tmp_path / "target", "qwen3")
    concept = _contrast_set(tmp_path / "c.yaml", 12)
    out = tmp_path / "out"
    assert (
        run(
            pair_path,
            "--activations",
            activations,
            "--concept",
            concept,
            "--other",
            "sentiment",
            "--target",
            target,
            *OPTIONS,
            "--out",
            out,
        )
        == 0
    )
    table = pl.read_parquet(out / "sensitivity.parquet")
    assert set(table["kind"]) == set(KINDS)
    assert set(table["concept"]) == {"register"}
    told = " ".join(capsys.readouterr().out.split())
    assert "difference of means over 12 pairs of texts" in told
    assert "of 50 held-out pairs apart" in told


def test_one_activation_is_asked_without_a_warning(
    pair_path: Path, given: Sequence[object], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """None is without the concept; the mean of none of them is not known."""
    assert run(pair_path, *given, "--limit", 1, "--out", tmp_path / "out") == 0
    assert [str(one.message) for one in recwarn if one.category is RuntimeWarning] == []
    said = " ".join((tmp_path / "out" / "sensitivity.md").read_text().split())
    assert "1 activation with an explanation is too few for an interval" in said


class TestBadInput:
    @pytest.fixture
    def fails(
        self,
        pair_path: Path,
        activations: Path,
        direction: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> Any:
        usual = {
            "--activations": activations,
            "--direction": f"{direction}:1",
            "--words": "register",
            "--out": tmp_path / "out",
        }

        def run_it(*subjects: object, **changed: object) -> str:
            options = usual | {f"--{name}": value for name, value in changed.items()}
            given = [
                part
                for name, value in options.items()
                if value is not None
                for part in (name, value)
            ]
            assert run(*(subjects or (pair_path,)), *given, *OPTIONS) == 2
            lines = capsys.readouterr().err.splitlines()
            assert lines[-1].startswith("error: ")
            assert not (tmp_path / "out" / "sensitivity.parquet").exists()
            return lines[-1]

        return run_it

    def test_what_is_missing_is_named(self, fails: Any, pair_path: Path) -> None:
        assert "--activations" in fails(activations=None)
        assert "--out DIR" in fails(out=None)
        assert "--target MODEL" in fails(direction=None)
        assert "--words" in fails(words=None)
        assert "--similarity" in fails(detector="similarity")
        assert "--llm" in fails(detector="llm")
        assert "--words '|'" in fails(words="|")
        assert "--target" in fails(other="sentiment")
        itself = {"concept": "blue", "other": "blue", "words": None, "direction": None}
        assert "is the concept itself" in fails(**itself, target="none")
        assert "none of the pairs, p0.0" in fails(f"p0.0={pair_path}", reference="p0")
        assert run() == 2

    @pytest.mark.parametrize(
        ("vector", "why"),
        [
            (np.zeros(tiny.D_MODEL), "length zero"),
            (np.ones(tiny.D_MODEL - 1), "wide"),
            (np.full(tiny.D_MODEL, np.inf), "not finite"),
            (np.full(tiny.D_MODEL, 1 + 1j), "no vector of real numbers"),
        ],
    )
    def test_what_is_no_direction(
        self, fails: Any, tmp_path: Path, vector: np.ndarray, why: str
    ) -> None:
        np.save(tmp_path / "bad.npy", vector)
        assert why in fails(direction=tmp_path / "bad.npy")

    def test_a_direction_that_is_the_mean(self, fails: Any, tmp_path: Path) -> None:
        generator = np.random.default_rng(0)
        rows = 9 + generator.normal(size=(30, tiny.D_MODEL)).astype(np.float32)
        table_of(rows).write_parquet(tmp_path / "a.parquet")
        np.save(tmp_path / "mean.npy", rows.mean(axis=0))
        error = fails(activations=tmp_path / "a.parquet", direction=tmp_path / "mean.npy")
        assert "mean activation" in error

    def test_contrast_sets_of_five_texts(self, fails: Any, tmp_path: Path) -> None:
        concept = _contrast_set(tmp_path / "five.yaml", 5)
        target = save_target(tmp_path / "target", "qwen3")
        error = fails(direction=None, words=None, concept=concept, target=target)
        assert "5 pairs" in error

    def test_names_and_tables(self, fails: Any, pair_path: Path, tmp_path: Path) -> None:
        assert "two pairs are called" in fails(f"a={pair_path}", f"a={pair_path}")
        (tmp_path / "t.parquet").write_bytes(b"PAR1")
        assert "TABLE" in fails(tmp_path / "t.parquet", pair_path)
        assert "not a whole Parquet file" in fails(tmp_path / "t.parquet")

    def test_a_table_that_is_there_is_not_written_over(
        self,
        asked: Path,
        pair_path: Path,
        given: Sequence[object],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        shutil.copytree(asked, tmp_path / "out")
        assert run(pair_path, *given, "--out", tmp_path / "out") == 2
        assert "exists already" in capsys.readouterr().err
