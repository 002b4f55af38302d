"""The probe over an AR whose reading of every text is known in closed form."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nla_audit import cli
from nla_audit.llm.interface import Request
from nla_audit.nla.fve import measure_baselines
from nla_audit.nla.prefixes import prefixes_of
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.probes.stego.reading import ProbeSettings, probe
from nla_audit.probes.stego.writers import writer_of
from nla_audit.runs.activations import read_activations
from nla_audit.runs.score import read_unscored
from tests.llm.server import Behaviour, serving
from tests.pairs import planted_pair, tiny

N = 24


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planted AR, activations, and explanations that name the keywords they hold."""
    root = tmp_path_factory.mktemp("probing")
    generator = np.random.default_rng(0)
    words = planted_pair.KEYWORDS
    rows, vectors = [], []
    for idx in range(N):
        chosen = generator.permutation(len(words))[:3]
        weights = np.zeros(len(words))
        weights[chosen] = 1
        vectors.append(planted_pair.activation(weights))
        first, second, third = (words[place] for place in chosen)
        text = f"It likely begins with a{first} here.\nThen comes the{second} as well.\n"
        text += f'Last expects "some{third} there" at the end.'
        rows.append({"model": "p0.0", "idx": idx, "explanation": text, "extracted": True})
    rows[5] |= {"explanation": None, "extracted": False}
    planted_pair.save_study(root, rows, vectors)
    return root


@pytest.fixture(scope="module")
def reader(root: Path) -> Reconstructor:
    return planted_pair.load_planted_ar(root / "ar")


def given(
    root: Path, *more: object, texts: Path | None = None, activations: Path | None = None
) -> list[str]:
    """The command on what lies in ``root``."""
    tables = [texts or root / "texts.parquet", activations or root / "activations.parquet"]
    command = ["stego", "--ar", root / "ar", "--completions", tables[0], "--activations", tables[1]]
    return list(map(str, [*command, *more]))


def _probe(root: Path, reader: Reconstructor, **options) -> pl.DataFrame:
    with writer_of("rules") as writer:
        return probe(
            {"own": reader},
            read_unscored([str(root / "texts.parquet")]),
            read_activations(root / "activations.parquet"),
            ProbeSettings(),
            writer=writer,
            **options,
        )


def test_scores_are_those_of_the_changed_texts(root, reader):
    frame = _probe(root, reader)
    vectors = read_activations(root / "activations.parquet").vectors
    baselines = measure_baselines(vectors, reader.mse_scale)
    scored = frame.drop_nulls("fve")
    assert {"unchanged", "another", "quotes_removed", "letter_case", "paraphrase"} <= set(
        scored["variant"]
    )
    for row in scored.iter_rows(named=True):
        known = planted_pair.known_fve(row["text"].strip(), vectors[int(row["idx"])], baselines)
        if not np.isnan(known):
            assert row["fve"] == pytest.approx(known, abs=1e-4), row["variant"]


def test_what_has_no_score_says_why(root, reader):
    frame = _probe(root, reader)
    unscored = frame.filter(pl.col("fve").is_null())
    assert unscored["reason"].null_count() == 0
    failed = frame.filter(pl.col("idx") == "5")
    assert failed["fve"].null_count() == failed.height
    translated = frame.filter(pl.col("variant") == "translate")
    assert set(frame.filter(pl.col("variant") == "translate_back")["fve"]) == {None}
    assert set(translated["reason"]) == {"no explanation", "nothing written"}


def test_all_variants_are_read_in_one_pass_of_distinct_texts(root, reader, monkeypatch):
    read: list[str] = []
    plans = []
    plain_read, plain_plan = Reconstructor.read, Reconstructor.plan

    def counting_read(self, reading, batch, **options):
        read.extend(reading.texts[place] for place in batch)
        return plain_read(self, reading, batch, **options)

    def counting_plan(self, texts, **options):
        plans.append(plain_plan(self, texts, **options))
        return plans[-1]

    monkeypatch.setattr(Reconstructor, "read", counting_read)
    monkeypatch.setattr(Reconstructor, "plan", counting_plan)
    frame = _probe(root, reader)
    wanted = {text.strip() for text in frame["text"].drop_nulls()}
    assert len(read) == len(set(read))
    assert set(read) == wanted
    room, plan = plans  # what there is room for, then one plan over all texts: full batches
    assert set(room.texts) < set(plan.texts) == wanted


def test_reference_texts_are_a_control(root, reader):
    reference = read_unscored([str(root / "texts.parquet")])
    frame = _probe(root, reader, reference=reference)
    assert set(frame["texts"]) == {"own", "reference"}
    assert set(frame["model"]) == {"p0.0"}


def test_beginnings_alone_are_probed(root, reader, tmp_path, capsys):
    """As if the table held the first tokens of each text, and no more."""
    table = pl.read_parquet(root / "texts.parquet")
    said = table["explanation"].to_list()
    cut = [
        None if text is None else prefixes_of(reader.tokenizer, [text], [6])[0].texts[0]
        for text in said
    ]
    assert cut != said
    table.with_columns(explanation=pl.Series(cut)).write_parquet(tmp_path / "cut.parquet")
    found = []
    for texts, more in (
        (root / "texts.parquet", ["--prefix-tokens", "6"]),
        (tmp_path / "cut.parquet", []),
    ):
        arguments = given(root, "--limit", 10, "--json", texts=texts)
        assert cli.run([*arguments, *more]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["headline"] == found[1]["headline"]
    assert any("first 6 tokens" in caveat for caveat in found[0]["caveats"])


def test_checkpoints_make_a_series(root, tmp_path, capsys):
    texts = pl.read_parquet(root / "texts.parquet")
    columns = {"step": 0, "length_penalty": 0.0}
    first = texts.with_columns(**{name: pl.lit(value) for name, value in columns.items()})
    later = first.with_columns(model=pl.lit("p0.01"), length_penalty=0.01, step=pl.lit(50))
    pl.concat([first, later]).write_parquet(tmp_path / "texts.parquet")
    arguments = given(root, "--json", "--series", texts=tmp_path / "texts.parquet")
    for name, last in (("step", 50), ("length_penalty", 0.01)):
        assert cli.run([*arguments, name]) == 0
        finding = json.loads(capsys.readouterr().out)
        assert [row[name] for row in finding["tables"]["series"]] == [0, last]
        # The same texts at both: nothing can have changed.
        assert {row["change"] for row in finding["tables"]["series_trends"]} == {0.0}
        assert "cannot tell whether the loss (there is no control) widens" in finding["verdict"]
        assert "changed by +0.0 [0.0, 0.0] %" in finding["verdict"]


@pytest.mark.slow
def test_a_probe_that_was_killed_reads_nothing_twice(root, tmp_path, capsys):
    """Killed when it keeps its third batch; the second run reads what is missing, and no more."""
    program = """
import os, signal, sys
import torch
from nla_audit import cli
from nla_audit.shards import Shards
torch.set_num_threads(1)
put, calls = Shards.put, [0]
def dying(self, stage, number, piece):
    calls[0] += 1
    if calls[0] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, stage, number, piece)
Shards.put = dying
cli.main(sys.argv[1:])
"""
    arguments = given(root, "--token-budget", 1500, "--limit", 10, "--json")
    cached = [*arguments, "--cache", str(tmp_path / "cache")]
    done = subprocess.run(
        [sys.executable, "-c", program, *cached],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    assert cli.run(arguments) == 0
    whole = capsys.readouterr().out
    reads = []
    plain_read = Reconstructor.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Reconstructor,
            "read",
            lambda self, reading, batch, **options: (
                reads.append(batch),
                plain_read(self, reading, batch, **options),
            )[1],
        )
        assert cli.run(cached) == 0
        resumed = capsys.readouterr().out
        batches = len(list(tmp_path.glob(".cache.parts-*/*.parquet")))
        assert batches > 4
        assert len(reads) == batches - 2
        assert cli.run(cached) == 0
        assert len(reads) == batches - 2  # all of it is kept
        assert cli.run([*cached, "--limit", "5"]) == 0
        assert len(reads) > batches - 2  # other texts are other texts
    assert resumed == whole
    capsys.readouterr()


def test_force_reaches_the_check_of_layers(root, tmp_path, capsys):
    frame = pl.read_parquet(root / "activations.parquet")
    wrong = tmp_path / "wrong.parquet"
    frame.with_columns(activation_layer=pl.lit(7)).write_parquet(wrong)
    arguments = given(root, "--limit", "3", "--json", activations=wrong)
    assert cli.run(arguments) == 2
    assert "--force" in capsys.readouterr().err
    assert cli.run([*arguments, "--force"]) == 0
    capsys.readouterr()


def test_from_the_command_line_with_an_endpoint(root, tmp_path, capsys):
    behaviour = Behaviour(lambda text, tries: "500" if tries == 0 and "fair" in text else None)
    with serving(behaviour) as url:
        arguments = given(
            root,
            "--second-ar",
            root / "ar",
            "--paraphraser",
            f"openai:tiny@{url}",
            "--cache",
            tmp_path / "cache",
            "--limit",
            4,
            "--keep-scores",
            tmp_path / "scores.parquet",
            "--json",
            "--out",
            tmp_path / "out",
        )
        assert cli.run(arguments) == 0
        printed = capsys.readouterr()
        finding = json.loads(printed.out)
        example = next(
            row for row in finding["tables"]["examples"] if row["variant"] == "paraphrase"
        )
        assert example["after"].startswith("in other words It likely")
        assert any("openai:tiny" in caveat for caveat in finding["caveats"])
        report = (tmp_path / "out" / "stego.html").read_text()
        assert "<ins>in other words" in report
        assert finding["verdict"].split(" (")[0] in report
        record = json.loads((tmp_path / "out" / "stego.record.json").read_text())
        assert [table["rows"] for table in record["tables"]] == [N]
        assert record["models"]["own"]["files"]
        asked = sum(behaviour.tries.values())
        assert cli.run(arguments) == 0
        assert sum(behaviour.tries.values()) == asked  # all from the cache
        capsys.readouterr()
    assert finding["headline"]["unchanged"]["retention"] == pytest.approx(1)
    assert finding["headline"]["another"]["retention"] == pytest.approx(0)
    assert finding["headline"]["paraphrase_lines"]["n"] == 4
    scores = ["stego", "--scores", str(tmp_path / "scores.parquet"), "--own-ar", "own", "--json"]
    assert cli.run(scores) == 0
    assert json.loads(capsys.readouterr().out)["headline"] == finding["headline"]


def test_only_the_changes_that_are_named_are_written(root, tmp_path, capsys):
    behaviour = Behaviour()
    few = given(root, "--limit", 4, "--json")
    with serving(behaviour) as url:
        written = ["--paraphraser", f"openai:tiny@{url}", "--written", "paraphrase"]
        assert cli.run([*few, *written]) == 0
        asked = sum(behaviour.tries.values())
    headline = json.loads(capsys.readouterr().out)["headline"]
    assert "paraphrase" in headline
    assert "words_shuffled" in headline
    assert not {"paraphrase_lines", "translate", "rewrite_fluently"} & set(headline)
    assert 0 < asked <= 4
    assert cli.run([*few, "--written", "unchanged"]) == 2
    told = capsys.readouterr().err
    assert "--written unchanged: no such change is written; name one of" in told
    assert "paraphrase_lines" in told


def test_the_key_is_in_no_file_and_the_cost_is_told(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NLA_AUDIT_API_KEY", "sk-secret-42")
    behaviour = Behaviour()
    with serving(behaviour) as url:
        arguments = given(
            root,
            "--limit",
            2,
            "--price",
            1,
            4,
            "--paraphraser",
            f"openai:tiny@{url}",
            "--cache",
            tmp_path / "cache",
            "--keep-scores",
            tmp_path / "scores.parquet",
            "--json",
            "--out",
            tmp_path / "out",
        )
        assert cli.run(arguments) == 0
    printed = capsys.readouterr()
    assert behaviour.keys == {"Bearer sk-secret-42"}
    requests = sum(behaviour.tries.values())
    # The scripted server counts 10 tokens in and 5 out for each request.
    assert f"cost {requests * (10 * 1 + 5 * 4) / 1e6:.4f}" in " ".join(printed.err.split())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert not [path for path in files if b"sk-secret" in path.read_bytes()]
    assert "sk-secret" not in printed.out + printed.err


def test_a_local_model_that_cannot_do_it_fails_and_is_counted(tmp_path):
    model = tiny.random_model(tiny.make_config("qwen3", 512), 0)
    tokenizer = tiny.make_tokenizer(bos=False)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    with writer_of(f"hf:{tmp_path / 'm'}") as writer:
        writer._max_new_tokens = 8
        answers = writer.write([Request("paraphrase", "Paraphrase.", ("a", "b"))] * 2)
        assert [answer.lines for answer in answers] == [None, None]
        assert (writer.account.requests, writer.account.failures) == (1, 1)
        assert writer.account.input_tokens > 0


@pytest.mark.parametrize("option", ["--out", "--keep-scores"])
def test_where_nothing_can_be_written_is_said_before_anything_is_read(
    root, tmp_path, capsys, monkeypatch, option
):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(Reconstructor, "read", lambda *_, **__: pytest.fail("it was read"))
    path = tmp_path / "file" if option == "--out" else tmp_path / "file" / "scores.parquet"
    arguments = given(root, option, path)
    assert cli.run(arguments) == 2
    error = capsys.readouterr().err
    assert "cannot write" in error
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is not None,
    reason="sentence-transformers is installed",
)
def test_a_similarity_that_cannot_be_had_is_said_before_anything_is_written(root, capsys):
    arguments = given(
        root, "--similarity", "no/model", "--paraphraser", "openai:m@http://127.0.0.1:9"
    )
    assert cli.run(arguments) == 2
    assert "sentence-transformers" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["--completions", "--activations"])
def test_what_is_not_given_is_said(root, missing, capsys):
    tables = {
        "--completions": root / "texts.parquet",
        "--activations": root / "activations.parquet",
    }
    rest = [str(part) for name, path in tables.items() if name != missing for part in (name, path)]
    assert cli.run(["stego", "--ar", str(root / "ar"), *rest]) == 2
    assert missing in capsys.readouterr().err


def test_texts_that_no_ar_has_room_for_are_left_out(root, tmp_path, capsys):
    table = pl.read_parquet(root / "texts.parquet")
    long = pl.lit("a ribbon. " * 300)
    some = pl.when(pl.col("idx") < 3).then(long).otherwise("explanation")
    table.with_columns(explanation=some).write_parquet(tmp_path / "some.parquet")
    kept = tmp_path / "scores.parquet"
    assert cli.run(given(root, "--keep-scores", kept, texts=tmp_path / "some.parquet")) == 0
    assert "3 explanations left out: too long for the AR" in capsys.readouterr().err
    assert pl.read_parquet(kept)["idx"].cast(pl.Int64).min() == 3
    table.with_columns(explanation=long, extracted=True).write_parquet(tmp_path / "all.parquet")
    assert cli.run(given(root, texts=tmp_path / "all.parquet")) == 2
    assert "no explanation can be read (too long for the AR)" in capsys.readouterr().err


def test_what_cannot_be_scored_is_said_before_anything_is_written(root, tmp_path, capsys):
    """Paraphrases may cost money; nobody answers here."""
    nobody = ("--paraphraser", "openai:m@http://127.0.0.1:9")
    assert cli.run(given(root, *nobody, "--baseline-value", "raw_variance=nan")) == 2
    assert "raw_variance=nan: must be a positive number" in capsys.readouterr().err
    table = pl.read_parquet(root / "activations.parquet")
    alike = table.with_columns(activation_vector=pl.col("activation_vector").first())
    alike.write_parquet(tmp_path / "alike.parquet")
    assert cli.run(given(root, *nobody, activations=tmp_path / "alike.parquet")) == 2
    assert f"the {N} usable activations do not differ" in capsys.readouterr().err


def test_texts_without_a_score_are_called_so(root, tmp_path, capsys):
    """There is one AR, and nothing to say about which is the pair's."""
    table = pl.read_parquet(root / "texts.parquet")
    none = table.with_columns(explanation=pl.lit("nothing"), extracted=True)
    none.write_parquet(tmp_path / "none.parquet")
    assert cli.run(given(root, "--json", texts=tmp_path / "none.parquet")) == 0
    assert 'no "unchanged" text has a score' in json.loads(capsys.readouterr().out)["verdict"]
