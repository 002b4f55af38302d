"""Runs whose models other processes hold: the same bytes, and refusals of what would not be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from nla_audit.checkpoint.load import Pair
from nla_audit.errors import UserError
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.probes.attribution.reading import AttributionSettings, attribute_with
from nla_audit.probes.stego.reading import ProbeSettings, probe
from nla_audit.probes.stego.writers import writer_of
from nla_audit.runs.activations import read_activations
from nla_audit.runs.documents import Documents
from nla_audit.runs.explain import ExplainSettings, explain
from nla_audit.runs.extract import extract
from nla_audit.runs.pool import Pool
from nla_audit.runs.remote import (
    HeldModel,
    Holder,
    RemotePair,
    WorkerAnswer,
    load_pair,
    load_target_in,
)
from nla_audit.runs.score import ScoreSettings, read_unscored, score
from nla_audit.runs.target import TargetModel
from tests.pairs import tiny
from tests.pairs.explaining import FLOAT32
from tests.runs.crews import HereCrew
from tests.runs.extracting import SAMPLING

SETTINGS = ExplainSettings("m", "r", max_new_tokens=20, batch_size=8, token_budget=100)


def remote(pair_path: Path, crew: HereCrew) -> RemotePair:
    pair = load_pair(
        Pool(crew, 2), pair_path / "av", pair_path / "ar", placement=FLOAT32, notice=print
    )
    assert isinstance(pair, RemotePair)
    return pair


def explained_by(pair: Pair | RemotePair, activations: Path, out: Path) -> bytes:
    explain(pair, read_activations(activations), out, SETTINGS, notice=lambda _: None)
    return out.read_bytes()


def test_explanations_and_scores(
    pair: Pair, pair_path: Path, activations: Path, tmp_path: Path
) -> None:
    """Every other worker dies of its third piece; the tables are those of one process."""
    crew = HereCrew(lambda worker, done: worker % 2 == 0 and done == 2)
    elsewhere = remote(pair_path, crew)
    one = explained_by(pair, activations, tmp_path / "one.parquet")
    assert explained_by(elsewhere, activations, tmp_path / "many.parquet") == one
    assert crew.started > 3
    texts = read_unscored([str(tmp_path / "one.parquet")])
    settings = ScoreSettings("r", prefix_tokens=(1, 3), prefixes=("claims",), token_budget=100)
    for name, half in (("here", pair), ("there", elsewhere)):
        assert half.reconstructor is not None
        score(
            half.reconstructor,
            texts,
            read_activations(activations),
            tmp_path / f"{name}.parquet",
            settings,
            notice=lambda _: None,
        )
    for ending in ("parquet", "prefixes.parquet", "prefix_fve.parquet"):
        here, there = (tmp_path / f"{name}.{ending}" for name in ("here", "there"))
        assert here.read_bytes() == there.read_bytes()


def test_probes(pair: Pair, pair_path: Path, explained: Path, activations: Path) -> None:
    texts, given = read_unscored([str(explained)]), read_activations(activations)
    elsewhere = remote(pair_path, HereCrew(lambda worker, done: worker == 0 and done == 3))
    tables = []
    for half in (pair, elsewhere):
        reader = half.reconstructor
        assert reader is not None
        taken_apart = attribute_with(reader, texts, given, AttributionSettings(limit=4))
        with writer_of("rules") as writer:
            changed = probe(
                {"own": reader},
                texts,
                given,
                ProbeSettings(limit=4, token_budget=200),
                writer=writer,
                notice=lambda _: None,
            )
        tables.append((taken_apart.scores.tokens, changed))
    for here, there in zip(*tables, strict=True):
        assert here.height > 0
        assert here.equals(there)


def test_extracted_activations(
    target: TargetModel, qwen: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nla_audit.runs.extract.DOCUMENTS_PER_SHARD", 4)
    crew = HereCrew(lambda worker, done: worker == 0 and done == 2)
    elsewhere = load_target_in(
        Pool(crew, 2), qwen, layer_index=tiny.LAYER, placement=FLOAT32, notice=print
    )
    told: list[tuple[int, int]] = []
    results = [
        extract(
            model,
            Documents([texts]),
            tmp_path / f"{name}.parquet",
            sampling=SAMPLING,
            progress=lambda stage, done, total: told.append((done, total)),
            notice=lambda _: None,
        )
        for name, model in (("here", target), ("there", elsewhere))
    ]
    assert results[0] == results[1]
    assert told[-1] == (23, 23)
    assert (tmp_path / "here.parquet").read_bytes() == (tmp_path / "there.parquet").read_bytes()


def test_a_run_that_was_stopped_goes_on_with_or_without_a_cluster(
    pair: Pair,
    pair_path: Path,
    activations: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = explained_by(pair, activations, tmp_path / "one.parquet")
    out = tmp_path / "two.parquet"
    # One worker describes both halves and explains three of eight batches.
    with pytest.raises(UserError, match="died of the same piece"):
        explained_by(remote(pair_path, HereCrew(_three_batches_at_most())), activations, out)
    assert len(list(tmp_path.glob(".two.parquet.parts-*/explained-*"))) == 3
    asked = []
    generate = Verbalizer.generate
    monkeypatch.setattr(
        Verbalizer,
        "generate",
        lambda self, vectors, **options: (
            asked.append(len(vectors)),
            generate(self, vectors, **options),
        )[1],
    )
    assert explained_by(pair, activations, out) == one
    assert len(asked) == 5


def _three_batches_at_most() -> Callable[[int, int], bool]:
    asked = 0

    def dies(worker: int, done: int) -> bool:
        nonlocal asked
        asked += 1
        return asked > 2 + 3

    return dies


def altered(change: Callable[[WorkerAnswer], WorkerAnswer], worker: int) -> type[HereCrew]:
    """A crew of which one worker's answers are ``change``\\ d."""

    class Odd(HereCrew):
        def result(self, ticket: Any) -> Any:
            answer = super().result(ticket)
            explains = isinstance(answer, WorkerAnswer) and isinstance(answer.result, pl.DataFrame)
            return change(answer) if explains and ticket[0] == worker else answer

    return Odd


def other_weights(answer: WorkerAnswer) -> WorkerAnswer:
    record = answer.identity["record"]
    files = [
        {**one, "sha256": "0"} if one["file"].endswith("model.safetensors") else one
        for one in record["files"]
    ]
    identity = {**answer.identity, "record": {**record, "files": files}}
    return dataclasses.replace(answer, identity=identity)


def other_torch(answer: WorkerAnswer) -> WorkerAnswer:
    versions = {**answer.identity["versions"], "torch": "1.0"}
    return dataclasses.replace(answer, identity={**answer.identity, "versions": versions})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_weights, "model.safetensors is another on some worker"),
        (other_torch, r"a worker differs in torch \(1.0, not"),
    ],
)
def test_a_worker_unlike_the_first_is_refused(
    pair_path: Path,
    activations: Path,
    tmp_path: Path,
    change: Callable[[WorkerAnswer], WorkerAnswer],
    said: str,
) -> None:
    elsewhere = remote(pair_path, altered(change, worker=1)())
    with pytest.raises(UserError, match=said):
        explained_by(elsewhere, activations, tmp_path / "c.parquet")
    assert not (tmp_path / "c.parquet").exists()


def test_what_a_worker_cannot_do_is_one_line(pair_path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a worker says: .*nowhere"):
        remote(tmp_path / "nowhere", HereCrew())

    def too_large(loaded: Any, item: Any, notice: Any) -> None:
        raise MemoryError

    elsewhere = remote(pair_path, HereCrew())
    assert elsewhere.reconstructor is not None
    with pytest.raises(UserError, match="a worker says: out of memory"):
        list(elsewhere.reconstructor.each(too_large, [(0, None)], print))


def test_what_workers_tell_is_told_once(pair_path: Path) -> None:
    def tells(loaded: Any, item: Any, notice: Callable[[str], None]) -> int:
        notice("slow on this model")
        return item

    said: list[str] = []
    verbalizer = remote(pair_path, HereCrew()).verbalizer
    assert verbalizer is not None
    done = dict(verbalizer.each(tells, ((number, number) for number in range(9)), said.append))
    assert done == {number: number for number in range(9)}
    assert said == ["slow on this model"]


def test_a_worker_loads_anew_only_what_it_does_not_hold(
    pair_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    monkeypatch.setattr(
        "nla_audit.runs.remote.HeldModel.load",
        lambda self, notice: loaded.append(self.role),
    )
    monkeypatch.setattr("nla_audit.runs.remote.record_of", lambda model: {})
    elsewhere = Holder()
    for role in ("av", "av", "ar", "ar", "av"):
        elsewhere.answer(HeldModel(role, {}), lambda held, item, notice: item, pl.DataFrame())
    assert loaded == ["av", "ar", "av"]
