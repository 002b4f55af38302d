"""Activations extracted from texts: right ones, and the same ones however the work is divided."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from nla_audit import cli
from nla_audit.checkpoint.load import Placement
from nla_audit.nla.architecture import decoder_of, final_norm_name
from nla_audit.nla.injection import Injection
from nla_audit.runs import extract as extraction
from nla_audit.runs.activations import read_activations
from nla_audit.runs.documents import Documents
from nla_audit.runs.extract import Sampling, extract
from nla_audit.runs.target import TargetModel, load_target
from nla_audit.shards import Shards
from tests.pairs import tiny

FLOAT32 = Placement(dtype="float32", device="cpu")
SAMPLING = Sampling(positions_per_document=3, minimum_position=4, max_tokens=60, seed=0)
KEYS = ("idx", "doc_id", "position", "n_raw_tokens", "detokenized_text_truncated")
WORDS = "a quoted word in the story about a fair formal register opens the final phrase".split()


def save_target(folder: Path, architecture: str, *, seed: int = 0) -> Path:
    tokenizer = tiny.make_tokenizer(bos=tiny.has_bos(architecture))
    tiny.random_model(tiny.make_config(architecture, len(tokenizer)), seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_target(tmp_path_factory.mktemp("target") / "model", "qwen3")


@pytest.fixture(scope="module")
def target(qwen: Path) -> TargetModel:
    return load_target(qwen, layer_index=tiny.LAYER, placement=FLOAT32)


def random_texts(n: int) -> list[str]:
    """Texts of 3 to 40 words, so that batches are padded and one or two are too short."""
    draw = np.random.default_rng(7)
    return [" ".join(draw.choice(WORDS, size=draw.integers(3, 40))) for _ in range(n)]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    rows = [{"doc_id": f"d{number}", "text": text} for number, text in enumerate(random_texts(23))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(target: TargetModel, texts: Path | list[Path], out: Path, **options: Any) -> pl.DataFrame:
    paths = texts if isinstance(texts, list) else [texts]
    extract(target, Documents(paths), out, sampling=SAMPLING, **options)
    return pl.read_parquet(out)


def vectors(table: pl.DataFrame) -> np.ndarray:
    return table["activation_vector"].to_numpy()


class TestAgainstTransformers:
    @pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama", "gemma3", "wrapper"])
    def test_output_of_block_k(self, architecture: str, tmp_path: Path, texts: Path) -> None:
        """The whole model, one document at a time, without padding."""
        folder = save_target(tmp_path / "model", architecture)
        target = load_target(folder, layer_index=tiny.LAYER, placement=FLOAT32)
        table = run(target, texts, tmp_path / "a.parquet")
        model: Any = AutoModelForCausalLM.from_pretrained(folder).float().eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        source = {row["doc_id"]: row["text"] for row in pl.read_ndjson(texts).to_dicts()}
        assert table.height > 40
        states: dict[str, Any] = {}
        for row in table.iter_rows(named=True):
            if row["doc_id"] not in states:
                ids = tokenizer(source[row["doc_id"]], return_tensors="pt")["input_ids"]
                with torch.no_grad():
                    out = model(input_ids=ids[:, : SAMPLING.max_tokens], output_hidden_states=True)
                states[row["doc_id"]] = out.hidden_states
            wanted = states[row["doc_id"]][tiny.LAYER + 1][0, row["position"]].numpy()
            np.testing.assert_allclose(row["activation_vector"], wanted, atol=1e-4, rtol=1e-4)
            # The input of block K, which an index off by one would give, is something else.
            wrong = states[row["doc_id"]][tiny.LAYER][0, row["position"]].numpy()
            assert np.abs(np.array(row["activation_vector"]) - wrong).max() > 0.1

    def test_last_block_is_read_before_the_final_norm(self, qwen: Path) -> None:
        last = tiny.BLOCKS - 1
        target = load_target(qwen, layer_index=last, placement=FLOAT32)
        model: Any = AutoModelForCausalLM.from_pretrained(qwen).float().eval()
        ids = target.token_ids(["a story about the final fair"], 60)
        got = torch.tensor(target.activations(ids, [range(len(ids[0]))]))
        with torch.no_grad():
            states = model(input_ids=torch.tensor(ids), output_hidden_states=True).hidden_states
        normed = states[last + 1][0]
        norm = getattr(decoder_of(model), final_norm_name(decoder_of(model)))
        assert (got - normed).abs().max() > 0.1
        torch.testing.assert_close(norm(got).detach(), normed, atol=1e-4, rtol=1e-4)

    def test_only_the_blocks_that_are_needed_are_loaded(self, target: TargetModel) -> None:
        assert len(target.decoder.layers) == tiny.LAYER + 1


class TestTable:
    def test_columns(self, target: TargetModel, texts: Path, tmp_path: Path) -> None:
        table = run(target, texts, tmp_path / "a.parquet")
        assert table.schema == {
            "idx": pl.Int64,
            "doc_id": pl.String,
            "position": pl.Int64,
            "activation_layer": pl.Int64,
            "n_raw_tokens": pl.Int64,
            "detokenized_text_truncated": pl.String,
            "activation_vector": pl.Array(pl.Float32, tiny.D_MODEL),
        }
        assert table["activation_layer"].unique().to_list() == [tiny.LAYER]
        assert (table["n_raw_tokens"] == table["position"] + 1).all()
        assert table["idx"].is_unique().all()
        assert table["idx"].is_sorted()

    def test_explain_and_score_can_read_it(
        self, target: TargetModel, texts: Path, tmp_path: Path
    ) -> None:
        table = run(target, texts, tmp_path / "a.parquet")
        read = read_activations(tmp_path / "a.parquet")
        np.testing.assert_array_equal(read.vectors, vectors(table))
        assert read.keys["position"].to_list() == table["position"].to_list()
        assert read.layer == tiny.LAYER
        assert read.problems == {}

    def test_source_text_ends_with_the_token_that_was_read(
        self, target: TargetModel, texts: Path, tmp_path: Path
    ) -> None:
        table = run(target, texts, tmp_path / "a.parquet")
        source = {row["doc_id"]: row["text"] for row in pl.read_ndjson(texts).to_dicts()}
        for row in table.iter_rows(named=True):
            ids = target.token_ids([source[row["doc_id"]]], 60)[0]
            text = row["detokenized_text_truncated"]
            assert source[row["doc_id"]].startswith(text)
            assert text.endswith(target.tokenizer.decode([ids[row["position"]]]))

    def test_special_tokens_are_never_read(self, tmp_path: Path, texts: Path) -> None:
        target = load_target(save_target(tmp_path / "m", "llama"), layer_index=1, placement=FLOAT32)
        everything = Sampling(positions_per_document=1000, minimum_position=0, max_tokens=60)
        extract(target, Documents([texts]), tmp_path / "a.parquet", sampling=everything)
        table = pl.read_parquet(tmp_path / "a.parquet")
        assert table["position"].min() == 1  # BOS lies at 0
        assert table.filter(pl.col("position") == 1)["n_raw_tokens"].unique().to_list() == [2]
        assert not table["detokenized_text_truncated"].str.contains("<bos>").any()

    def test_minimum_number_and_cut(self, target: TargetModel, texts: Path, tmp_path: Path) -> None:
        done = extract(
            target,
            Documents([texts]),
            tmp_path / "a.parquet",
            sampling=Sampling(positions_per_document=2, minimum_position=20, max_tokens=30),
        )
        table = pl.read_parquet(tmp_path / "a.parquet")
        assert table["position"].min() >= 20
        assert table["position"].max() < 30
        assert table.group_by("doc_id").len()["len"].max() == 2
        assert table.select("doc_id", "position").is_unique().all()
        assert done.documents == 23
        assert done.too_short == 23 - table["doc_id"].n_unique() > 0

    def test_texts_longer_than_the_model_reads_are_cut(
        self, target: TargetModel, tmp_path: Path
    ) -> None:
        path = tmp_path / "long.txt"
        path.write_text(" ".join(WORDS * 100))
        everything = Sampling(positions_per_document=10_000, minimum_position=0)
        extract(target, Documents([path]), tmp_path / "a.parquet", sampling=everything)
        longest = pl.read_parquet(tmp_path / "a.parquet")["n_raw_tokens"].max()
        assert longest == target.model.config.max_position_embeddings

    def test_positions_spread_over_the_document(self) -> None:
        sampling = Sampling(positions_per_document=1)
        drawn = [sampling.draw(f"d{number}", range(100))[0] for number in range(400)]
        assert 40 < np.mean(drawn) < 60
        assert len(set(drawn)) > 80

    def test_another_seed_draws_other_positions(self) -> None:
        draws = {tuple(Sampling(seed=seed).draw("d", range(1000))) for seed in range(5)}
        assert len(draws) == 5


class TestDivision:
    """Batches, parts and order of the documents change nothing but the last digits."""

    @pytest.fixture
    def whole(self, target: TargetModel, texts: Path, tmp_path: Path) -> pl.DataFrame:
        return run(target, texts, tmp_path / "whole.parquet")

    @pytest.mark.parametrize("budget", [1, 64, 500])
    def test_batch_size(
        self,
        budget: int,
        target: TargetModel,
        texts: Path,
        whole: pl.DataFrame,
        tmp_path: Path,
    ) -> None:
        table = run(target, texts, tmp_path / "a.parquet", token_budget=budget)
        assert table.select(KEYS).equals(whole.select(KEYS))
        np.testing.assert_allclose(vectors(table), vectors(whole), atol=1e-5, rtol=1e-5)

    def test_parts(
        self, target: TargetModel, texts: Path, whole: pl.DataFrame, tmp_path: Path
    ) -> None:
        tables = [
            run(target, texts, tmp_path / f"{part}.parquet", part=part, parts=3)
            for part in range(3)
        ]
        assert min(table.height for table in tables) > 0
        together = pl.concat(tables).sort("idx")
        assert together.select(KEYS).equals(whole.select(KEYS))
        np.testing.assert_allclose(vectors(together), vectors(whole), atol=1e-5, rtol=1e-5)

    def test_order_of_the_documents(
        self, target: TargetModel, texts: Path, whole: pl.DataFrame, tmp_path: Path
    ) -> None:
        backwards = tmp_path / "backwards.parquet"
        pl.read_ndjson(texts).reverse().write_parquet(backwards)
        table = run(target, backwards, tmp_path / "a.parquet")
        key = ["doc_id", "position"]
        table, whole = table.sort(key), whole.sort(key)
        assert table.select(key).equals(whole.select(key))
        np.testing.assert_allclose(vectors(table), vectors(whole), atol=1e-5, rtol=1e-5)

    def test_same_command_same_bytes(
        self, target: TargetModel, texts: Path, whole: pl.DataFrame, tmp_path: Path
    ) -> None:
        run(target, texts, tmp_path / "again.parquet")
        first, second = tmp_path / "whole.parquet", tmp_path / "again.parquet"
        assert first.read_bytes() == second.read_bytes()

    def test_out_of_memory_halves_the_batch_and_says_so(
        self,
        target: TargetModel,
        texts: Path,
        whole: pl.DataFrame,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        original = TargetModel.activations

        def small(self: TargetModel, ids: Sequence[Any], positions: Any) -> Any:
            if len(ids) > 3:
                raise torch.OutOfMemoryError
            return original(self, ids, positions)

        monkeypatch.setattr(TargetModel, "activations", small)
        said: list[str] = []
        table = run(target, texts, tmp_path / "a.parquet", token_budget=4096, notice=said.append)
        # A batch of another size sums in another order: rounding is a share of the vector's size.
        found, expected = vectors(table), vectors(whole)
        size = np.linalg.norm(expected, axis=-1, keepdims=True)
        np.testing.assert_allclose(found / size, expected / size, atol=1e-5, rtol=0)
        assert said[0] == "out of memory with 22 rows in a batch; going on with 11"


#: Small enough that the documents make several shards of several batches.
SHARD_DOCUMENTS, BATCH_TOKENS = 8, 100


def run_and_die(model: Path, texts: Path, out: Path, pieces: int) -> None:
    """Extract in this process until SIGKILL strikes while piece number ``pieces`` is written."""
    torch.set_num_threads(1)
    put = Shards.put

    def put_and_die(self: Shards, stage: str, number: int, piece: pl.DataFrame) -> None:
        nonlocal pieces
        if pieces == 0:
            # Half a piece, as a kill in the middle of writing leaves it.
            (self.folder / f".{stage}-{number:06d}.parquet.writing-0123abcd").write_bytes(b"PAR1")
            os.kill(os.getpid(), signal.SIGKILL)
        pieces -= 1
        put(self, stage, number, piece)

    Shards.put = put_and_die
    extraction.DOCUMENTS_PER_SHARD = SHARD_DOCUMENTS
    target = load_target(model, layer_index=tiny.LAYER, placement=FLOAT32)
    run(target, texts, out, token_budget=BATCH_TOKENS)


class TestResume:
    """A run that is killed loses at most one batch, and ends in the same bytes."""

    @pytest.fixture(autouse=True)
    def small_shards(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(extraction, "DOCUMENTS_PER_SHARD", SHARD_DOCUMENTS)

    def counted(
        self,
        target: TargetModel,
        texts: Path,
        out: Path,
        monkeypatch: pytest.MonkeyPatch,
        **options: Any,
    ) -> int:
        """Run to the end; how many batches the model read."""
        batches = 0
        original = TargetModel.activations

        def count(self: TargetModel, ids: Any, positions: Any) -> Any:
            nonlocal batches
            batches += 1
            return original(self, ids, positions)

        with monkeypatch.context() as patch:
            patch.setattr(TargetModel, "activations", count)
            run(target, texts, out, token_budget=BATCH_TOKENS, **options)
        return batches

    def check_resumed(
        self, target: TargetModel, texts: Path, pieces: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Resume a run that was stopped after ``pieces`` pieces; compare with a whole one."""
        folder, out = texts.parent, texts.parent / "stopped.parquet"
        all_batches = self.counted(target, texts, folder / "whole.parquet", monkeypatch)
        assert not out.exists()
        shards = len(list(folder.rglob("shard-*.parquet")))
        again = self.counted(target, texts, out, monkeypatch)
        assert again == all_batches - (pieces - shards)
        assert out.read_bytes() == (folder / "whole.parquet").read_bytes()
        assert sorted(path.name for path in folder.iterdir()) == [
            "stopped.parquet",
            "stopped.parquet.record.json",
            "texts.jsonl",
            "whole.parquet",
            "whole.parquet.record.json",
        ]

    @pytest.mark.slow
    def test_kill(
        self, qwen: Path, target: TargetModel, texts: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Spawned, not forked: the threads of polars and torch do not survive a fork.
        process = multiprocessing.get_context("spawn").Process(
            target=run_and_die, args=(qwen, texts, texts.parent / "stopped.parquet", 9)
        )
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
        self.check_resumed(target, texts, 9, monkeypatch)

    @pytest.mark.parametrize("pieces", range(9))
    def test_stop_anywhere(
        self, pieces: int, target: TargetModel, texts: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original, left = Shards.put, pieces

        def stop(self: Shards, stage: str, number: int, piece: pl.DataFrame) -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            original(self, stage, number, piece)

        with monkeypatch.context() as patch:
            patch.setattr(Shards, "put", stop)
            with pytest.raises(KeyboardInterrupt):
                run(target, texts, texts.parent / "stopped.parquet", token_budget=BATCH_TOKENS)
        self.check_resumed(target, texts, pieces, monkeypatch)

    def test_progress_goes_up_with_every_batch(self, target: TargetModel, texts: Path) -> None:
        told: list[tuple[str, int, int]] = []
        run(
            target,
            texts,
            texts.parent / "a.parquet",
            token_budget=BATCH_TOKENS,
            progress=lambda *step: told.append(step),
        )
        assert told.pop(0) == ("hashing the model and the texts", 0, 0)
        done = [step[1] for step in told]
        assert done == sorted(done)
        assert (done[0], done[-1]) == (0, 23)
        assert len(set(done)) > 23 / SHARD_DOCUMENTS + 2
        assert {(stage, total) for stage, _, total in told} == {("documents", 23)}

    def test_another_setting_starts_afresh(
        self, target: TargetModel, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = Shards.put

        def stop(self: Shards, stage: str, number: int, piece: pl.DataFrame) -> None:
            if number == 2:
                raise KeyboardInterrupt
            original(self, stage, number, piece)

        with monkeypatch.context() as patch:
            patch.setattr(Shards, "put", stop)
            with pytest.raises(KeyboardInterrupt):
                run(target, texts, tmp_path / "a.parquet", token_budget=BATCH_TOKENS)
        assert list(tmp_path.rglob("*.parquet"))
        said: list[str] = []
        texts.write_text(texts.read_text().replace("fair", "word"))
        changed = self.counted(
            target, texts, tmp_path / "a.parquet", monkeypatch, notice=said.append
        )
        assert "parts of an unfinished run with other settings; not used" in said[0]
        assert changed == self.counted(target, texts, tmp_path / "b.parquet", monkeypatch)
        assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


class TestDocuments:
    def test_formats_give_the_same_documents(self, tmp_path: Path) -> None:
        rows = [{"id": n, "text": text} for n, text in enumerate(["one", "two", "three"])]
        pl.DataFrame(rows).write_parquet(tmp_path / "t.parquet")
        pl.DataFrame(rows).write_ndjson(tmp_path / "t.jsonl")
        found = [
            [(d.number, d.doc_id, d.text) for d in Documents([tmp_path / name])]
            for name in ("t.parquet", "t.jsonl")
        ]
        assert found[0] == found[1] == [(0, "0", "one"), (1, "1", "two"), (2, "2", "three")]

    def test_ids_are_file_and_row_where_there_is_no_column(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "b.jsonl").write_text('{"text":"x"}\n\n{"text":""}\n{"text":"y"}\n')
        (tmp_path / "a.txt").write_text("first line\nsecond line\n")
        found = [(d.number, d.doc_id, d.text) for d in Documents([tmp_path])]
        assert found == [
            (0, "a.txt", "first line\nsecond line"),
            (1, "sub/b.jsonl:0", "x"),
            (3, "sub/b.jsonl:2", "y"),
        ]
        assert Documents([tmp_path]).expected() == 4

    def test_row_ids_where_the_id_column_repeats(self, tmp_path: Path) -> None:
        (tmp_path / "t.jsonl").write_text('{"id": 1, "text": "x"}\n' * 2)
        documents = Documents([tmp_path / "t.jsonl"], row_ids=True)
        assert [d.doc_id for d in documents] == ["t.jsonl:0", "t.jsonl:1"]

    def test_lines(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("first line\n\nthird line\n")
        found = [(d.number, d.doc_id, d.text) for d in Documents([tmp_path], lines=True)]
        assert found == [(0, "a.txt:0", "first line"), (2, "a.txt:2", "third line")]
        assert Documents([tmp_path], lines=True).expected() == 3

    def test_parquet_is_read_in_pieces(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("nla_audit.runs.documents._PARQUET_ROWS", 3)
        pl.DataFrame({"body": list("abcdefg")}).write_parquet(tmp_path / "t.parquet")
        documents = Documents([tmp_path / "t.parquet"], text_column="body")
        assert [d.text for d in documents] == list("abcdefg")
        assert [d.text for d in documents] == list("abcdefg")
        assert documents.expected() == 7

    def test_limit(self, tmp_path: Path) -> None:
        pl.DataFrame({"text": list("abcdefg")}).write_parquet(tmp_path / "t.parquet")
        documents = Documents([tmp_path / "t.parquet"], limit=2)
        assert [d.text for d in documents] == ["a", "b"]
        assert documents.expected() == 2


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err
    return captured.err


class TestCommand:
    OPTIONS = ("--layer", str(tiny.LAYER), "--minimum-position", "4", "--max-tokens", "60")

    def test_writes_a_table_and_a_record(
        self, qwen: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "a.parquet"
        arguments = ["extract", str(qwen), str(texts), *self.OPTIONS, "--out", str(out)]
        assert cli.run([*arguments, "--positions-per-document", "3"]) == 0
        rows = pl.read_parquet(out).height
        assert one_line(capsys).startswith(f"{out}: {rows} activations of width {tiny.D_MODEL}")
        record = json.loads((tmp_path / "a.parquet.record.json").read_text())
        assert record["result"]["rows"] == rows
        assert record["written_by"] == "nla-audit extract"
        assert record["arguments"]["seed"] == 0
        assert record["settings"]["layer"] == tiny.LAYER
        assert record["settings"]["dtype"] == "torch.float32"
        assert record["settings"]["texts"][0]["name"] == "texts.jsonl"
        assert {entry["file"] for entry in record["settings"]["model"]} >= {
            "model/config.json",
            "model/model.safetensors",
            "model/tokenizer.json",
        }
        assert record["versions"]["torch"] == torch.__version__

    def test_a_finished_run_is_not_repeated(
        self, target: TargetModel, texts: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = texts.parent / "a.parquet"
        first = extract(target, Documents([texts]), out, sampling=SAMPLING)
        written = out.stat().st_mtime_ns
        monkeypatch.setattr(TargetModel, "activations", None)
        assert extract(target, Documents([texts]), out, sampling=SAMPLING) == first
        assert out.stat().st_mtime_ns == written

    def test_part_counts_from_one(self, qwen: Path, texts: Path, tmp_path: Path) -> None:
        ids: set[str] = set()
        for part in ("1/2", "2/2"):
            out = tmp_path / f"{part[0]}.parquet"
            arguments = ["extract", str(qwen), str(texts), *self.OPTIONS, "--out", str(out)]
            assert cli.run([*arguments, "--part", part]) == 0
            found = set(pl.read_parquet(out)["doc_id"])
            assert not ids & found
            ids |= found
        assert len(ids) > 15

    def test_help_has_an_example(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["extract", "--help"]) == 0
        assert "nla-audit extract Qwen/Qwen3-8B texts.jsonl --layer 24" in capsys.readouterr().out

    BAD: ClassVar[dict[str, tuple[Callable[[Path], object], list[str], str]]] = {
        "no such text": (lambda root: None, ["absent.jsonl"], "no such file or folder"),
        "unknown format": (
            lambda root: (root / "t.docx").write_text("x"),
            ["t.docx"],
            "not a known format of texts",
        ),
        "empty folder": (lambda root: (root / "f").mkdir(), ["f"], "no texts in this folder"),
        "no such column": (
            lambda root: (root / "t.jsonl").write_text('{"txet": "x"}\n'),
            ["t.jsonl"],
            't.jsonl: row 0 (line 1): no column "text": name "txet" with --text-column',
        ),
        "no such column in Parquet": (
            lambda root: pl.DataFrame({"body": ["x"]}).write_parquet(root / "t.parquet"),
            ["t.parquet"],
            'no column "text": name one of body with --text-column',
        ),
        "no such id column": (
            lambda root: (root / "t.jsonl").write_text('{"text": "x"}\n'),
            ["t.jsonl", "--id-column", "key"],
            'no column "key"',
        ),
        "column of numbers": (
            lambda root: (root / "t.jsonl").write_text('{"text": "x"}\n{"text": 3}\n'),
            ["t.jsonl"],
            't.jsonl: row 1 (line 2): column "text" holds 3, not text',
        ),
        "repeated id": (
            lambda root: (root / "t.jsonl").write_text('{"id": 1, "text": "x"}\n' * 2),
            ["t.jsonl"],
            't.jsonl: row 1: document id "1" occurs twice: name a column without repeats',
        ),
        "id of the wrong type": (
            lambda root: (root / "t.jsonl").write_text('{"id": null, "text": "x"}\n'),
            ["t.jsonl"],
            'column "id" holds None, not a document id',
        ),
        "half of a surrogate pair": (
            lambda root: (root / "t.jsonl").write_text('{"text": "ab\\ud83d"}\n'),
            ["t.jsonl"],
            "holds half of a surrogate pair (character 3)",
        ),
        "broken JSON": (
            lambda root: (root / "t.jsonl").write_text('{"text": "x"}\n{"text": \n'),
            ["t.jsonl"],
            "t.jsonl: row 1 (line 2) is not JSON",
        ),
        "no object": (
            lambda root: (root / "t.jsonl").write_text("[1]\n"),
            ["t.jsonl"],
            "is not a JSON object",
        ),
        "not UTF-8": (
            lambda root: (root / "t.txt").write_bytes(b"fine\n\xff\n"),
            ["t.txt"],
            "t.txt: line 2, byte 1 is not UTF-8",
        ),
        "truncated Parquet": (
            lambda root: (root / "t.parquet").write_bytes(b"PAR1 and no more"),
            ["t.parquet"],
            "not a whole Parquet file",
        ),
        "same name twice": (
            lambda root: (
                (root / "sub").mkdir(),
                (root / "sub" / "texts.jsonl").write_text('{"text": "x"}\n'),
            ),
            ["texts.jsonl", "sub/texts.jsonl"],
            "sub/texts.jsonl: given twice, or called like texts.jsonl",
        ),
        "only short texts": (
            lambda root: (root / "t.txt").write_text("a"),
            ["t.txt"],
            "no position to read in 1 document: none has a token at position 4 or later",
        ),
        "no such layer": (
            lambda root: None,
            ["texts.jsonl", "--layer", "9"],
            "no layer 9: its layers are 0 to 3",
        ),
        "part beyond the last": (
            lambda root: None,
            ["texts.jsonl", "--part", "5/4"],
            '--part "5/4": write which of how many, from 1/4 on',
        ),
        "output is there": (
            lambda root: (root / "a.parquet").write_text("precious"),
            ["texts.jsonl"],
            "a.parquet: exists already, made by another run; name another --out",
        ),
        "output of another format": (
            lambda root: None,
            ["texts.jsonl", "--out", "a.csv"],
            "end the name in .parquet",
        ),
        "output in a file": (
            lambda root: (root / "file").write_text(""),
            ["texts.jsonl", "--out", "file/a.parquet"],
            "file",
        ),
    }

    @pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
    def test_bad_input(
        self,
        case: tuple[Callable[[Path], object], list[str], str],
        qwen: Path,
        texts: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        tmp_path = texts.parent
        prepare, arguments, message = case
        monkeypatch.chdir(tmp_path)
        prepare(tmp_path)
        before = sorted(path.name for path in tmp_path.iterdir())
        command = ["extract", str(qwen), *self.OPTIONS, "--out", "a.parquet", *arguments]
        assert cli.run(command) == 2
        assert message in one_line(capsys)
        after = {path.name for path in tmp_path.iterdir() if ".parts-" not in path.name}
        assert sorted(after) == before

    def test_not_a_target(
        self, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        root = tiny.save_pair(tmp_path / "pair", "qwen3", Injection("add", block=1))
        capsys.readouterr()  # transformers' bars of saving
        out = tmp_path / "a.parquet"
        rest = [str(texts), *self.OPTIONS, "--out", str(out)]
        for half in ("av", "ar"):
            assert cli.run(["extract", str(root / half), *rest]) == 2
            assert f"this is an {half.upper()}; activations come from" in one_line(capsys)
        for folder, message in (
            (root, "no checkpoint itself, but holds ar, av, base"),
            (tmp_path / "absent", "no such folder"),
        ):
            assert cli.run(["extract", str(folder), *rest]) == 2
            assert message in one_line(capsys)
        assert cli.run(["extract", str(root / "av"), *rest, "--force"]) == 0

    def test_a_pickle_is_refused(
        self, qwen: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = shutil.copytree(qwen, tmp_path / "model")
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        out = tmp_path / "a.parquet"
        assert cli.run(["extract", str(folder), str(texts), *self.OPTIONS, "--out", str(out)]) == 2
        assert "a pickle that can run code" in one_line(capsys)


class TestNotFinite:
    def save_broken(self, folder: Path, *, tokens: Sequence[int] | slice) -> Path:
        save_target(folder, "qwen3")
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            model.get_input_embeddings().weight[tokens] = float("nan")
        model.save_pretrained(folder)
        return folder

    def test_left_out_and_said(self, texts: Path, tmp_path: Path) -> None:
        tokenizer = tiny.make_tokenizer(bos=False)
        poison = tokenizer(" quoted", add_special_tokens=False)["input_ids"][-1:]
        target = load_target(
            self.save_broken(tmp_path / "model", tokens=poison), layer_index=1, placement=FLOAT32
        )
        said: list[str] = []
        out = tmp_path / "a.parquet"
        done = extract(target, Documents([texts]), out, sampling=SAMPLING, notice=said.append)
        table = pl.read_parquet(out)
        assert np.isfinite(vectors(table)).all()
        assert done.unusable > 0
        assert done.rows == table.height > 0
        assert "left out, zero or not finite; the first is document d" in said[0]

    def test_all_of_them(
        self, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = self.save_broken(tmp_path / "model", tokens=slice(None))
        out = tmp_path / "a.parquet"
        options = [*TestCommand.OPTIONS, "--out", str(out)]
        assert cli.run(["extract", str(folder), str(texts), *options]) == 2
        assert "is finite in torch.float32" in capsys.readouterr().err
        assert not out.exists()
