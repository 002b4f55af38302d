"""Tests of the pair run on one thread: the models are tiny, and threads would only wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.nla.hub_server import FakeHub, serving

torch.set_num_threads(1)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A server on this machine in the Hub's place, an empty local cache, and nobody logged in."""
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        # huggingface_hub reads its environment once, when it is first imported.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        # It waits before it tries again.
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        yield server
