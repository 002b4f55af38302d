"""Language models as reward terms: a local server, its faults, missing scores, resuming."""

from __future__ import annotations

import copy
import json
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from zlib import crc32

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from nla_audit.cli import run as command_line
from nla_audit.errors import UserError
from nla_audit.llm.checks import NotAnAnswer
from nla_audit.train.held_out import RULER, completions_of
from nla_audit.train.interruption import StopSignal
from nla_audit.train.judging import Judges, score_of
from nla_audit.train.keys import digest
from nla_audit.train.read_recipe import parse_recipe
from nla_audit.train.recipe import Evaluation
from nla_audit.train.recipe_rl import Judge, Rl
from nla_audit.train.rewards import Samples, check_terms, judged_scores
from nla_audit.train.rl import Arms, RlRun
from nla_audit.train.state import METRICS_FILE, STATE_FILE, read_metrics
from tests.train import miniature
from tests.train.children import exit_code
from tests.train.test_course import MINI
from tests.train.test_resume import SETTINGS

PROMPT = "Source: {source}\nHow clear is this, from 0 to 10?\n<text>{explanation}</text>"


def by_prompt(prompt):
    """A score that the text alone decides; one text in five gets none."""
    value = crc32(prompt.encode()) % 5
    return "I would rather not say." if value == 4 else f"A thought.\nScore: {2 * value}/10"


class Server:
    def __init__(self, answer):
        self.answer, self.asked, self.status = answer, [], 200
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][0]["content"]
                server.asked.append(prompt)
                reply = {
                    "choices": [{"message": {"content": server.answer(prompt)}}],
                    "usage": {"prompt_tokens": 30, "completion_tokens": 4},
                }
                data = json.dumps(reply).encode()
                self.send_response(server.status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments):
                pass

        self.running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.running.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.running.server_port}/v1"

    def judge(self, **more):
        return Judge(model="m", base_url=self.url, prompt=PROMPT, **more)


@pytest.fixture
def server():
    made = Server(by_prompt)
    yield made
    made.running.shutdown()
    made.running.server_close()


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("7", 0.7),
        ("Score: 7/10", 0.7),
        ("It says 3 things.\n\n**7 out of 10**\n", 0.7),
        ("7.5", 0.75),
        ("10/10", 1.0),
        ("0", 0.0),
        ("", None),
        ("none", None),
        ("7 or 8", None),
        ("11", None),
        ("-1", None),
        ("7/100", None),
        ("v2", None),
    ],
)
def test_the_score_is_the_one_number_on_the_last_line(answer, score):
    judge = Judge(model="m", prompt=PROMPT)
    if score is None:
        with pytest.raises(NotAnAnswer, match="not one number from 0 to 10"):
            score_of(answer, judge)
    else:
        assert score_of(answer, judge) == pytest.approx(score)


def test_a_scale_of_ones_own_becomes_0_to_1():
    judge = Judge(model="m", prompt=PROMPT, lowest=-2, highest=2)
    assert [score_of(one, judge) for one in ("−2", "-1", "2", "1/2")] == [0, 0.25, 1, 0.75]


def test_missing_is_the_mean_of_the_group_and_silence_never_pays():
    # Fails with: a missing score of 0; the mean of the step; failed ones counted into the mean; a
    # failed one at 0 where the weight makes 0 the best.
    nan = float("nan")
    texts = ["a", "b", "c", None, "d", "e", "", "f", "g", "h", "i", "j"]
    scores = np.array([0.2, nan, 0.6, nan, nan, 1.0, nan, nan, nan, nan, nan, nan])
    rows = len(texts)
    samples = Samples(
        texts,
        np.ones(rows),
        np.ones(rows, int),
        np.ones(rows, int),
        np.zeros(rows),
        scores={"j": scores},
    )
    found = judged_scores(samples, "j", 2.0, group=4)
    assert found.tolist() == pytest.approx([0.4, 0.8, 1.2, 0, 2, 2, 0, 2, 1.2, 1.2, 1.2, 1.2])
    lost = judged_scores(samples, "j", -1.0, group=4)
    assert lost[3] == lost[6] == lost.min() == -1.0
    assert (
        np.isnan(judged_scores(samples, "j", 1.0)).tolist()
        == (np.isnan(scores) & ~np.isin(np.arange(rows), [3, 6])).tolist()
    )


def test_each_text_is_asked_about_once_and_answers_are_kept(server, tmp_path):
    # Fails with: equal texts asked twice; empty ones asked; that there was no score forgotten.
    texts = [f"text {number % 19}" for number in range(40)] + ["", None]
    sources = ["s"] * len(texts)
    found = []
    for _ in range(2):
        with Judges({"clear": server.judge()}, tmp_path / "judges.sqlite") as judges:
            found.append(judges.scores(texts, sources)["clear"])
            spent = judges.spent()["clear"]
    np.testing.assert_array_equal(found[0], found[1])
    assert set(server.asked) == {PROMPT.format(source="s", explanation=text) for text in texts[:19]}
    wanted = [by_prompt(PROMPT.format(source="s", explanation=text)) for text in texts[:40]]
    numbers = [int(one[18:].split("/")[0]) / 10 if "/" in one else np.nan for one in wanted]
    np.testing.assert_allclose(found[0][:40], numbers)
    assert 0 < np.isnan(found[0][:40]).sum() < 40
    assert np.isnan(found[0][40:]).all()
    assert spent == {
        "requests": 0,
        "cached": 19,
        "failures": 0,
        "input_tokens": 0,
        "output_tokens": 0,
    }
    # An answer that is no score is asked for three times.
    without = sum("/" not in by_prompt(prompt) for prompt in set(server.asked))
    assert len(server.asked) == 19 + 2 * without


def test_all_judges_are_asked_while_the_caller_does_something_else(server, tmp_path):
    # Fails with: one judge after the other; the caller held up until they have answered.
    together, reading = threading.Barrier(2, timeout=20), threading.Event()

    def answer(prompt):
        together.wait()  # both judges have asked
        assert reading.wait(20)
        return "5"

    server.answer = answer
    judges = {"clear": server.judge(), "true": server.judge()}
    with Judges(judges, tmp_path / "c") as both, both.asked(["a"], ["s"]) as scores:
        reading.set()
        assert {name: of.tolist() for name, of in scores().items()} == {
            "clear": [0.5],
            "true": [0.5],
        }


def test_ctrl_c_is_heard_while_judges_are_waited_for(server, tmp_path):
    # Fails with: a wait for as long as it takes, which a signal does not end.
    over = threading.Event()
    server.answer = lambda prompt: "5" if over.wait(20) else ""
    with Judges({"clear": server.judge()}, tmp_path / "c") as judges:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            judges.scores(["a"], ["s"])
        assert time.monotonic() - started < 10
        over.set()


def test_who_fails_meanwhile_asks_nobody_further_and_no_silence_is_kept(server, tmp_path):
    # Fails with: an error that waits for hundreds of answers; cancelled questions kept as silence.
    asked, failed = threading.Event(), threading.Event()

    def answer(prompt):
        asked.set()
        assert failed.wait(20)
        return "5"

    server.answer = answer
    texts = [f"text {number}" for number in range(300)]
    judge = server.judge(workers=2)

    def fail_meanwhile():
        with Judges({"clear": judge}, tmp_path / "c") as judges, judges.asked(texts, texts):
            assert asked.wait(20)
            threading.Timer(0.5, failed.set).start()
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail_meanwhile()
    assert len(server.asked) < 20
    server.answer = lambda prompt: "10"
    with Judges({"clear": judge}, tmp_path / "c") as judges:
        assert np.isfinite(judges.scores(texts, texts)["clear"]).all()


def test_too_many_without_a_score_stop_the_run_and_are_asked_again(server, tmp_path):
    # Fails with: that there was no score kept before the run is known to go on.
    server.answer = lambda prompt: "no"
    with (
        Judges({"clear": server.judge()}, tmp_path / "c") as judges,
        pytest.raises(UserError, match=r"rl\.judges\.clear: no score for 2 of 2 .*not one number"),
    ):
        judges.scores(["a", "b"], ["", ""])
    server.answer = lambda prompt: "5"
    with Judges({"clear": server.judge()}, tmp_path / "c") as judges:
        assert judges.scores(["a", "b"], ["", ""])["clear"].tolist() == [0.5, 0.5]
        assert judges.spent()["clear"]["input_tokens"] == 60
        assert "60 tokens in, 8 out" in judges.accounts["clear"].describe()
    server.status = 401
    with (
        Judges({"clear": server.judge()}, tmp_path / "c") as judges,
        pytest.raises(UserError, match="status 401 for model m"),
    ):
        judges.scores(["new"], [""])


def judged_run(warm, folder, judge, *, cache=None, **more):
    # Which texts are drawn, and so how many get no score, rests on how the processor rounds.
    patient = judge.model_copy(update={"most_missing": 0.9})
    update = {
        "rewards": {"negative_mse": 1.0, "clear": 2.0},
        "judges": {"clear": patient},
        "max_new_tokens": 9,
        **more,
    }
    settings = SETTINGS.model_copy(update=update)
    cache = cache or folder.with_suffix(".sqlite")
    return RlRun(
        warm.fresh(),
        Arms(miniature.reconstructor(), miniature.reconstructor()),
        warm.dataset,
        settings,
        length_penalty=0.01,
        seed=7,
        folder=folder,
        key="k",
        judges=Judges(settings.judges, cache),
    )


def without_costs(folder):
    timed = ("time", "seconds", "judge_cost")
    records = read_metrics(folder / METRICS_FILE)
    return [{name: value for name, value in one.items() if name not in timed} for one in records]


@pytest.mark.slow
def test_a_run_learns_logs_and_after_kill_9_goes_on_from_the_cache(warm, tmp_path, server):
    # Fails with: scores in another order than the texts; failures asked anew after the kill.
    judged_run(warm, tmp_path / "whole", server.judge()).run(StopSignal(), lambda _: None)
    asked = list(server.asked)
    steps = [one for one in read_metrics(tmp_path / "whole" / METRICS_FILE) if "loss" in one]
    assert all(0 <= one["judge_scores"]["clear"] <= 1 for one in steps)
    assert sum(one["judge_missing"]["clear"] for one in steps) > 0
    assert sum(one["judge_cost"]["clear_requests"] for one in steps) == len(asked)
    assert sum(one["judge_cost"]["clear_input_tokens"] for one in steps) == 30 * len(asked)
    assert steps[0]["terms"].keys() == {"negative_mse", "clear", "length"}
    sources = {f"Source: source {row}" for row in warm.dataset.training_rows}
    assert {prompt.splitlines()[0] for prompt in asked} <= sources

    def die(step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    judge = server.judge()
    ended = exit_code(lambda: judged_run(warm, tmp_path / "parts", judge).run(StopSignal(), die))
    assert ended == -signal.SIGKILL
    before = len(server.asked)
    judged_run(warm, tmp_path / "parts", server.judge()).run(StopSignal(), lambda _: None)
    assert len(server.asked) - before < len(asked)
    assert not set(server.asked[before:]) & set(server.asked[len(asked) : before])
    assert without_costs(tmp_path / "parts") == without_costs(tmp_path / "whole")
    ours, theirs = (load_file(tmp_path / one / STATE_FILE) for one in ("parts", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_what_a_judge_likes_is_said_more(warm, tmp_path, server):
    server.answer = lambda prompt: "10" if "baker" in prompt else "0"
    settings = {
        "rewards": {"clear": 1.0},
        "steps": 12,
        "train_ar": False,
        "lora": None,
        "kl": 0.0,
        "max_new_tokens": 16,
        "prompts": 4,
        "samples": 6,
        "updates_per_step": 1,
    }
    judged_run(warm, tmp_path / "run", server.judge(), **settings).run(StopSignal(), lambda _: None)
    steps = [one for one in read_metrics(tmp_path / "run" / METRICS_FILE) if "loss" in one]
    scores = [one["judge_scores"]["clear"] for one in steps]
    assert np.mean(scores[-3:]) > np.mean(scores[:3]) + 0.2


@pytest.mark.slow
def test_the_best_by_reward_counts_the_judge(warm, tmp_path, server):
    judged_run(warm, tmp_path / "run", server.judge(), keep="best_reward").run(
        StopSignal(), lambda _: None
    )
    held_out = [one for one in read_metrics(tmp_path / "run" / METRICS_FILE) if "rows" in one]
    assert all(np.isfinite(one["reward"]) for one in held_out)


def test_completions_have_no_reward_where_the_score_is_missing(warm, tmp_path, server):
    run = judged_run(warm, tmp_path / "run", server.judge())
    frame = completions_of(
        warm.fresh(),
        {RULER: miniature.reconstructor()},
        warm.dataset,
        Evaluation(activations=8, samples=2),
        model="m",
        length_penalty=0.0,
        step=0,
        reward=run.settings,
        seed=0,
        judges=run.judges,
    )
    for row in frame.iter_rows(named=True):
        prompt = PROMPT.format(source=row["source_text"], explanation=row["explanation"])
        if not row["explanation"]:
            assert row["reward"] is not None
            continue
        said = by_prompt(prompt)
        is_missing = "/" not in said
        assert (row["reward"] is None) == is_missing
        if not is_missing:
            score = 2 * int(said[18:].split("/")[0]) / 10
            assert row["reward"] == pytest.approx(score - row["mse"])
    assert 0 < frame["reward"].null_count() < len(frame)


def test_what_cannot_be_is_told_in_a_line(tmp_path, capsys, warm):
    judge = {"model": "m", "prompt": PROMPT}
    for rl, message in (
        ({"judges": {"j": {**judge, "prompt": "?"}}}, "the prompt has no {explanation}"),
        ({"judges": {"j": judge}}, "rl.judges.j has no weight in rl.rewards"),
        ({"judges": {"j": {**judge, "lowest": 5, "highest": 1}}}, "lowest 5 is not below highest"),
        ({"judges": {"j": {**judge, "base_url": "http://key@host/v1"}}}, "rl.judges.base_url"),
        ({"judges": {"j": {**judge, "modell": "n"}}}, "unknown key rl.judges.j.modell"),
    ):
        raw = copy.deepcopy(MINI)
        raw["rl"] |= {"rewards": {"negative_mse": 1.0}, **rl}
        with pytest.raises(UserError) as caught:
            parse_recipe(raw, "x")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="there is a reward term of this name"):
        check_terms({"cjk": 1.0}, {"cjk": None})
    with pytest.raises(UserError, match="no reward term cleer; did you mean clear"):
        check_terms({"cleer": 1.0}, ["clear"])
    with pytest.raises(UserError, match=r"rl\.judges\.j: its prompt shows the source text"):
        Judges({"j": Judge(**judge)}, None).check_sources(["a", None])
    raw = copy.deepcopy(MINI)
    raw["rl"] |= {"rewards": {"negative_mse": 1.0, "j": 0.5}, "judges": {"j": judge}}
    path = tmp_path / "mini.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    assert command_line(["train", str(path), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "# judges: run p0.01 asks j at most 24 times each, and 20 times for its" in told


def test_keys_have_what_changes_a_judge_and_nothing_else():
    # Fails with: judges hashed as plain data, defaults of later settings among it.
    def key(**more):
        return digest(Rl(rewards={"j": 1.0}, judges={"j": Judge(model="m", prompt=PROMPT, **more)}))

    assert key() == key(workers=3, most_missing=0.1)
    assert len({key(), key(highest=5), key(temperature=0.5), digest(Rl(rewards={"j": 1.0}))}) == 4
    assert digest(Rl(judges={})) == digest(Rl())
