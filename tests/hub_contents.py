"""What a Hub for tests holds and was asked, and what can go wrong there."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Literal

import polars as pl

TOKEN = "hf_of_the_owner"


@dataclass
class Repository:
    """Branches, and the files of every commit."""

    kind: str
    name: str
    access: Literal["public", "gated", "private"] = "public"
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], revision: str = "main") -> str:
        """Make ``files`` the content of a branch; returns the commit."""
        digest = hashlib.sha1(f"{revision} {len(self.commits)}".encode())
        for path in sorted(files):
            digest.update(path.encode() + b"\0" + files[path])
        commit = digest.hexdigest()
        self.commits[commit] = dict(files)
        self.branches[revision] = commit
        return commit

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Commit and files of a branch or commit, ``None`` if there is no such revision."""
        commit = self.branches.get(revision, revision)
        return (commit, self.commits[commit]) if commit in self.commits else None


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    range: str | None
    token: str | None
    body: bytes


class FakeHub:
    """Everything the server knows, for tests to set up and to look at."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[Request] = []
        #: Large objects by SHA-256, uploaded or not yet committed.
        self.objects: dict[str, bytes] = {}
        #: File path → how many more of its transfers break off midway.
        self.breaks: dict[str, int] = {}
        #: Namespaces in which :data:`TOKEN` may write.
        self.writable = {"lab"}
        #: Answer requests whose path matches with this status and message.
        self.failures: dict[str, tuple[int, str]] = {}
        #: SHA-256 → why the LFS batch refuses it.
        self.refused_objects: dict[str, str] = {}
        #: Answer like something else than the Hub.
        self.is_no_hub = False
        self.page_size = 1000
        self.port = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        kind: Literal["model", "dataset"] = "model",
        access: Literal["public", "gated", "private"] = "public",
        revision: str = "main",
    ) -> str:
        """Put files at a revision of a new or known repository; returns the commit."""
        repository = self.repositories.setdefault((kind, name), Repository(kind, name, access))
        return repository.commit(files, revision)

    def files(self, name: str, kind: str = "model", revision: str = "main") -> dict[str, bytes]:
        """The files of a repository at a revision."""
        found = self.repositories[kind, name].at(revision)
        assert found is not None
        return found[1]

    def asked(self, pattern: str, method: str | None = None) -> list[Request]:
        """The requests so far whose path matches."""
        return [
            request
            for request in self.requests
            if re.search(pattern, request.path) and method in (None, request.method)
        ]


def files_in(folder: Path) -> dict[str, bytes]:
    """The files below ``folder`` as a repository holds them."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def parquet_bytes(frame: pl.DataFrame) -> bytes:
    """A table as a repository holds it."""
    content = BytesIO()
    frame.write_parquet(content)
    return content.getvalue()
