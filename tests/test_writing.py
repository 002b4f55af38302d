"""Output is whole or not there, from one run at a time, whatever the disk does."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from nla_audit import cli
from nla_audit.analyzers import registry
from nla_audit.errors import UserError
from nla_audit.files import (
    only_run,
    temporary_name,
    whole_file,
    whole_folder,
    write_into,
    write_json,
    write_parquet,
)
from nla_audit.llm.cache import AnswerCache
from nla_audit.report import audit
from nla_audit.train.state import STATE_FILE
from tests import report_samples

SMALL = 20_000


@contextmanager
def small_disk(most=SMALL):
    """No file may become larger than ``most`` bytes, as on a disk that is nearly full."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, handler)


def _noise(n):
    return torch.rand(n, generator=torch.Generator().manual_seed(0))


def _sink(path):
    with whole_file(path) as partial:
        pl.LazyFrame({"x": _noise(100_000).numpy()}).sink_parquet(partial)


def _safetensors(path):
    with whole_file(path) as partial:
        save_file({"x": _noise(100_000)}, str(partial))


def _folder(path):
    with whole_folder(path) as partial:
        (partial / "small").write_text("x")
        (partial / "large").write_bytes(bytes(10 * SMALL))


WRITERS = {
    "parquet": lambda path: write_parquet(pl.DataFrame({"x": _noise(100_000).numpy()}), path),
    "sink": _sink,
    "json": lambda path: write_json({"x": "y" * 10 * SMALL}, path),
    "safetensors": _safetensors,
    "folder": _folder,
    "several": lambda path: write_into(path, {"a": b"x", "b/c": bytes(10 * SMALL), "d": b"x"}),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_one_line_and_leaves_nothing(kind, tmp_path):
    path = tmp_path / "out"
    with (
        small_disk(),
        pytest.raises(UserError, match=r"out: cannot write \(") as error,
    ):
        WRITERS[kind](path)
    assert str(error.value).isprintable()
    assert list(tmp_path.iterdir()) == []
    WRITERS[kind](path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind not in ("folder", "several")])
def test_a_full_disk_leaves_the_former_file(kind, tmp_path):
    path = tmp_path / "out"
    path.write_text("former")
    with small_disk(), pytest.raises(UserError):
        WRITERS[kind](path)
    assert path.read_text() == "former"


def test_a_full_disk_leaves_the_former_files_of_a_folder(tmp_path):
    write_into(tmp_path, {"a": b"1", "b": b"1"})
    with small_disk(), pytest.raises(UserError):
        write_into(tmp_path, {"a": b"2", "b": bytes(10 * SMALL)})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"1", "b": b"1"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_what_the_system_says_is_passed_on(number, tmp_path):
    with pytest.raises(UserError) as error, whole_file(tmp_path / "x"):
        raise OSError(number, os.strerror(number))
    assert os.strerror(number) in str(error.value)


def test_another_mistake_is_not_blamed_on_the_disk(tmp_path):
    with pytest.raises(KeyError), whole_file(tmp_path / "x"):
        raise KeyError("y")


@pytest.fixture(scope="module")
def completions(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "completions.parquet"
    report_samples.completions(models=report_samples.MODELS[:3]).rows.write_parquet(path)
    return path


@pytest.mark.parametrize(
    "command", ["frontier", pytest.param("audit", marks=pytest.mark.slow), "tail"]
)
def test_a_command_on_a_full_disk(command, completions, tmp_path, capsys):
    work = tmp_path / "work"
    work.mkdir()
    arguments = [command, str(completions), "--out", str(work / "out")]
    with small_disk(3000):
        assert cli.run(arguments) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("error: ")
    assert "cannot write" in told
    assert list(work.iterdir()) == []
    assert cli.run(arguments) == 0


@pytest.mark.parametrize("command", ["frontier", "audit", "tail"])
def test_a_link_is_written_through(command, completions, tmp_path, monkeypatch):
    # An audit of one analyzer writes its folder as one of all does.
    monkeypatch.setattr(audit, "registry", lambda: {"frontier": registry()["frontier"]})
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to("real")
    assert cli.run([command, str(completions), "--out", str(link)]) == 0
    assert link.is_symlink()
    assert any((tmp_path / "real").iterdir())


@pytest.mark.parametrize("kind", ["parquet", "json", "safetensors"])
def test_a_file_is_written_through_its_link(kind, tmp_path):
    (tmp_path / "there").mkdir()
    link = tmp_path / "out"
    link.symlink_to("there/real")
    WRITERS[kind](link)
    assert link.is_symlink()
    assert (tmp_path / "there/real").stat().st_size > 0
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["real"]


HOLD = """
import sys, time
from pathlib import Path
from nla_audit.files import only_run, temporary_name
out = Path(sys.argv[1])
with only_run(out):
    temporary_name(out).write_text("half")
    print("in", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_and_a_killed_one_leaves_neither_lock_nor_rest(
    completions, tmp_path, capsys
):
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True
    ) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "in\n"
            link = tmp_path / "link"
            link.symlink_to(out)
            for name in (out, link, tmp_path / "x/../out"):
                assert cli.run(["frontier", str(completions), "--out", str(name)]) == 2
                assert "another run writes there" in capsys.readouterr().err
            assert cli.run(["frontier", str(completions), "--out", str(tmp_path / "other")]) == 0
        finally:
            first.kill()
    link.unlink()
    assert len(list(tmp_path.glob(".out.writing-*"))) == 1
    assert cli.run(["frontier", str(completions), "--out", str(out)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_leftovers_are_cleaned_and_what_is_not_ours_stays(tmp_path):
    out = tmp_path / "run"
    deep = out / "rl/p0.01/av"
    deep.mkdir(parents=True)
    temporary_name(deep / "model").mkdir()
    temporary_name(out / STATE_FILE).write_text("half")
    temporary_name(out).mkdir()
    keep = [out / ".hidden", out / "x.writing-12345678", tmp_path / ".runs.writing-12345678"]
    for path in keep:
        path.write_text("mine")
    with only_run(out):
        pass
    left = [path for path in tmp_path.rglob("*") if path.is_file() or path.name.startswith(".")]
    assert sorted(left) == sorted(keep)


def test_what_a_killed_run_moved_away_comes_back(tmp_path):
    out = tmp_path / "report"
    out.mkdir()
    (out / "mine").write_text("x")
    out.rename(tmp_path / ".report.former-0123abcd")
    with only_run(out):
        assert (out / "mine").read_text() == "x"


def test_a_run_that_wrote_nothing_leaves_no_folder(tmp_path):
    with pytest.raises(KeyError), only_run(tmp_path / "a/b/out"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_nobody_can_write_there(completions, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert cli.run(["frontier", str(completions), "--out", str(tmp_path / "file/out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


INTERRUPTED = """
import sys, time
import polars as pl
from nla_audit import cli
pl.DataFrame({"a": [1]}).lazy().collect()  # takes the signal away from a main thread that waits
WAIT = {
    "socket": "from nla_audit.llm.endpoint import Endpoint; "
    "from nla_audit.llm.interface import Request; "
    "print('in', flush=True); "
    "Endpoint('m', sys.argv[2]).write([Request('p', '', ('a line',))])",
    "labeler": "from nla_audit.train.labeler import labeler_of; "
    "from nla_audit.train.recipe_data import Labeler; "
    "print('in', flush=True); labeler_of(Labeler(model='m', base_url=sys.argv[2]))('x')",
    "lock": "import threading; print('in', flush=True); "
    "held = threading.Lock(); held.acquire(); held.acquire()",
    "thread": "from concurrent.futures import ThreadPoolExecutor, wait; "
    "print('in', flush=True); wait([ThreadPoolExecutor().submit(time.sleep, 60)])",
    # As with torch, whose modules take seconds to take apart while no other thread may run.
    "goodbye": "Slow = type('Slow', (), {'__del__': lambda _, sleep=time.sleep: sleep(20)}); "
    "sys.slow = Slow(); print('in', flush=True); time.sleep(60)",
}
def run(arguments=None):
    try:
        exec(WAIT[sys.argv[1]])
    except KeyboardInterrupt:  # as the real one does
        return 130
cli.run = run
cli.main([])
"""


@pytest.mark.parametrize("waiting", ["socket", "labeler", "lock", "thread", "goodbye"])
def test_ctrl_c_ends_whatever_waits_within_two_seconds(waiting):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        with subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, waiting, url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "in\n"
                time.sleep(0.5)
                began = time.monotonic()
                process.send_signal(signal.SIGINT)
                process.wait(10)
                took = time.monotonic() - began
            finally:
                process.kill()
    assert process.returncode == 130
    assert took < 2.0


def test_answers_on_a_full_disk_are_kept_and_the_rest_follows(tmp_path):
    path = tmp_path / "answers.db"
    cache, kept = AnswerCache(path), 0

    def fill():
        nonlocal kept
        for kept in range(100):
            cache.put(str(kept), ["x" * 2000])

    with small_disk(60_000), pytest.raises(UserError, match=r"answers\.db: cannot write") as said:
        fill()
    assert "\n" not in str(said.value)
    assert kept > 2
    again = AnswerCache(path)
    assert all(again.get(str(place)) == ("x" * 2000,) for place in range(kept))
    assert again.get(str(kept)) is None
    again.put(str(kept), ["y"])
    assert again.get(str(kept)) == ("y",)
