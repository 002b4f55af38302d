"""What goes wrong while training: said in one line, and nothing that was saved is lost."""

from __future__ import annotations

import resource
from contextlib import contextmanager

import polars as pl
import pytest
import yaml

from nla_audit.checkpoint.tokenizer_check import check_survives_saving, save_tokenizer
from nla_audit.cli import run
from nla_audit.errors import UserError
from nla_audit.train.dataset import read_dataset, write_dataset
from nla_audit.train.interruption import StopSignal
from nla_audit.train.pair import save_trained_ar, save_trained_av
from nla_audit.train.recipe_optimizer import Optimizer
from nla_audit.train.recipe_warm_start import Supervised, WarmStart
from nla_audit.train.state import METRICS_FILE, STATE_FILE
from nla_audit.train.warm_start import train_ar, train_av
from tests.train import miniature
from tests.train.test_resume import make_run, without_times


def leave_room(size: int) -> None:
    """As on a full disk, the kernel refuses to write beyond ``size`` bytes of a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


@contextmanager
def limits_restored(room: int | None = None):
    """Undo :func:`leave_room`, which may be called inside or, with ``room``, is at once."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if room is not None:
        leave_room(room)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("room", "file"), [(100, METRICS_FILE), (10_000, STATE_FILE)], ids=["log", "state"]
)
def test_a_full_disk_costs_the_steps_since_the_last_state(warm, tmp_path, room, file):
    # Fails with: errors of the log's file not caught in MetricsLog.write; the state written under
    # its own name at once.
    make_run(warm, tmp_path / "whole").run(StopSignal(), lambda _: None)
    folder = tmp_path / "full"

    def fill(step):
        if step == 3:  # the last state is that of step 2
            leave_room(room)

    with limits_restored(), pytest.raises(UserError, match=rf"{file}: cannot .*too large") as said:
        make_run(warm, folder).run(StopSignal(), fill)
    assert "\n" not in str(said.value)
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    assert files == [METRICS_FILE, STATE_FILE]
    steps = []
    make_run(warm, folder).run(StopSignal(), steps.append)
    assert steps == [3, 4, 5]
    assert without_times(folder) == without_times(tmp_path / "whole")


@pytest.mark.parametrize("role", ["av", "ar"])
def test_half_a_checkpoint_is_never_left(role, tmp_path):
    # Fails with: only OSError caught in save._whole_folder (safetensors raises its own).
    save = save_trained_av if role == "av" else save_trained_ar
    half = miniature.verbalizer() if role == "av" else miniature.reconstructor()
    too_large = pytest.raises(UserError, match=r"cannot write .*too large")
    with limits_restored(room=3000), too_large:
        save(half, tmp_path / role, {"stage": "rl"})
    assert not list(tmp_path.iterdir())
    save(half, tmp_path / role, {"stage": "rl"})


def test_a_table_that_does_not_fit_leaves_the_old_one(warm, tmp_path):
    # Fails with: only OSError caught in writing (polars raises its own).
    path = tmp_path / "activations.parquet"
    write_dataset(warm.dataset, path)
    too_large = pytest.raises(UserError, match=r"cannot write .*too large")
    with limits_restored(room=500), too_large:
        write_dataset(warm.dataset, path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert read_dataset(path).doc_ids == warm.dataset.doc_ids


def test_a_tokenizer_that_does_not_fit(tmp_path):
    # Fails with: only OSError caught in save_tokenizer (tokenizers raises a bare Exception).
    av = miniature.verbalizer()
    too_large = pytest.raises(UserError, match=r"cannot write .*too large.*TMPDIR")
    with limits_restored(room=3000), too_large:
        check_survives_saving(av.tokenizer, av.model.config, av.sidecar)
    with limits_restored(room=3000), pytest.raises(OSError, match="too large"):
        save_tokenizer(av.tokenizer, tmp_path)


@pytest.mark.parametrize("half", ["av", "ar"])
def test_a_warm_start_without_a_finite_loss_stops(half, warm, tmp_path):
    # Fails with: `in_a_row` never counted up in warm_start._run; the step taken although its loss
    # is not finite.
    optimizer = Optimizer(learning_rate=1e30, warmup_steps=0, schedule="constant")
    supervised = Supervised(steps=40, batch_size=4, optimizer=optimizer)
    options = {
        "seed": 0,
        "folder": tmp_path,
        "key": "k",
        "stop": StopSignal(),
        "tell": lambda _: None,
    }
    settings = WarmStart(av=supervised, ar=supervised)
    message = rf"{half.upper()}: 5 steps in a row without a finite loss, stopped at step \d+; lower"
    if half == "av":
        with pytest.raises(UserError, match=message):
            train_av(miniature.verbalizer(), warm.dataset, settings, reader=None, **options)
    else:
        with pytest.raises(UserError, match=message):
            train_ar(miniature.reconstructor(), warm.dataset, settings, **options)


def test_gold_that_is_missing_is_named_before_any_training(warm, tmp_path):
    # Fails with: only the training rows' gold looked at in train_ar.
    dataset = warm.dataset
    row = int(dataset.held_out_rows()[0])
    explanations = list(dataset.explanations)
    explanations[row] = " "
    broken = type(dataset)(**{**vars(dataset), "explanations": explanations})
    half = Supervised(steps=1, optimizer=Optimizer(learning_rate=1e-3))
    with pytest.raises(UserError, match=rf"no gold explanation .*idx {dataset.idx[row]}"):
        train_ar(
            miniature.reconstructor(),
            broken,
            WarmStart(av=half, ar=half),
            seed=0,
            folder=tmp_path / "ar",
            key="k",
            stop=StopSignal(),
            tell=lambda _: None,
        )
    assert not (tmp_path / "ar").exists()


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    folder = tmp_path_factory.mktemp("target")
    miniature.model().save_pretrained(folder)
    miniature.tokenizer().save_pretrained(folder)
    return folder


LONG = " ".join(["harbour scene at noon ."] * 8)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no document has more than 5 tokens"),
        (["harbour scene", "at noon", ""], "no document has more than 5 tokens"),
        ([LONG], "1 document(s): a split by document needs at least two"),
    ],
    ids=["none", "short", "one"],
)
def test_too_few_documents(texts, message, target, tmp_path, capsys):
    pl.DataFrame({"text": texts}, schema={"text": pl.String}).write_parquet(tmp_path / "t.parquet")
    recipe = {
        "name": "x",
        "threads": 1,
        "target": {"model": str(target), "layer_index": 1},
        "data": {"texts": "t.parquet", "first_position": 5},
    }
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    command = ["train", str(path), "--out", str(tmp_path / "o"), "--stage", "activations"]
    assert run(command) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
