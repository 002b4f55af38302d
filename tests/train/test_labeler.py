"""Gold explanations from an OpenAI-compatible endpoint and from a local model."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from nla_audit.errors import UserError
from nla_audit.train.labeler import cached, labeler_of
from nla_audit.train.recipe_data import Labeler
from tests.train import miniature


@pytest.fixture
def server():
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body, self.headers.get("Authorization")))
            if body["model"] == "broken":
                self.send_error(500)
                return
            answer = {"choices": [{"message": {"content": f" said {len(asked)} "}}]}
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/v1", asked
    running.shutdown()
    running.server_close()


def test_an_endpoint_is_asked_once_for_each_prompt(server, tmp_path, monkeypatch):
    url, asked = server
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    settings = Labeler(model="m", base_url=url, max_new_tokens=7)
    for _ in range(2):
        ask = cached(labeler_of(settings), settings, tmp_path)
        assert [ask("one"), ask("two")] == ["said 1", "said 2"]
    assert [(path, body["messages"][0]["content"]) for path, body, _ in asked] == [
        ("/v1/chat/completions", "one"),
        ("/v1/chat/completions", "two"),
    ]
    assert asked[0][1]["max_tokens"] == 7
    assert asked[0][2] == "Bearer secret"
    assert not any("secret" in path.read_text() for path in tmp_path.iterdir())
    # Another model is another question.
    other = settings.model_copy(update={"model": "n"})
    assert cached(labeler_of(other), other, tmp_path)("one") == "said 3"


def test_an_endpoint_that_fails_is_named(server):
    url, asked = server
    with pytest.raises(UserError, match=r"no answer after 3 attempts .*500"):
        labeler_of(Labeler(model="broken", base_url=url))("x")
    assert len(asked) == 3


def test_a_local_model_writes(tmp_path):
    miniature.model().save_pretrained(tmp_path)
    miniature.tokenizer().save_pretrained(tmp_path)
    settings = Labeler(kind="transformers", model=str(tmp_path), max_new_tokens=5)
    write = labeler_of(settings)
    assert write("harbour scene") == write("harbour scene")
    assert 0 < len(write("harbour scene").split()) <= 5
