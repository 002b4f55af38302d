"""A server on this machine that speaks the Hub's HTTP, as far as huggingface_hub uses it.

Reading: repository info, the tree with pages, ``resolve`` with ``ETag`` and ``X-Repo-Commit``,
small files behind a relative redirect, large ones behind a redirect to another host (LFS),
ranges, branches and commits, 404 and 401 with the Hub's error codes, and bodies that break off
midway. Writing: creating repositories and branches, preupload, LFS batch and verify, commits.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.hub_contents import TOKEN, FakeHub, Request

#: What the Hub keeps in LFS: by suffix here, by size and content there.
_LARGE = (".safetensors", ".parquet", ".bin", ".png")
_CREATED = "2026-01-01T00:00:00.000Z"


@contextmanager
def serving() -> Iterator[FakeHub]:
    """Serve a new :class:`FakeHub` for the length of the block."""
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        split = urlsplit(self.path)
        path = unquote(split.path)
        self.query = {key: values[0] for key, values in parse_qs(split.query).items()}
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        self.token = token if scheme == "Bearer" else None
        self.body = self._read_body()
        request = Request(self.command, path, self.headers.get("Range"), self.token, self.body)
        self.hub.requests.append(request)
        if self.hub.is_no_hub:
            return self._send(200, {"Content-Type": "text/html"}, b"<html>log in to the Wi-Fi")
        for pattern, (status, message) in self.hub.failures.items():
            if re.search(pattern, path):
                return self._json({"error": message} if message else {}, status=status)
        for method, pattern, action in _ROUTES:
            match = re.fullmatch(pattern, split.path)
            if match is not None and self.command in method:
                groups = {key: unquote(value or "") for key, value in match.groupdict().items()}
                return getattr(self, action)(**groups)
        return self._send(404, {"X-Error-Message": "no such page"})

    # Reading

    def info(self, kind: str, name: str, revision: str) -> None:
        found = self._find(kind, name, revision or "main")
        if found is None:
            return
        commit, files = found
        self._json(
            {
                "id": name,
                "sha": commit,
                "private": self.hub.repositories[kind, name].access == "private",
                "gated": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "createdAt": _CREATED,
                "siblings": [{"rfilename": path} for path in sorted(files)],
            }
        )

    def tree(self, kind: str, name: str, revision: str, folder: str) -> None:
        found = self._find(kind, name, revision)
        if found is None:
            return None
        files = found[1]
        start = f"{folder}/" if folder else ""
        inside = sorted(path for path in files if path.startswith(start))
        if not inside:
            return self._send(404, {"X-Error-Code": "EntryNotFound"})
        entries: list[dict[str, Any]] = []
        folders: set[str] = set()
        for path in inside:
            first, below, _ = path.removeprefix(start).partition("/")
            if below:
                folders.add(start + first)
            if not below or self.query.get("recursive", "").lower() == "true":
                entries.append(_entry(path, files[path]))
        entries = [
            *({"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders),
            *entries,
        ]
        begin = int(self.query.get("cursor", 0))
        end = begin + self.hub.page_size
        headers = {}
        if end < len(entries):
            query = f"recursive={self.query.get('recursive', 'false')}&cursor={end}"
            url = f"{self.hub.endpoint}{quote(urlsplit(self.path).path, safe='/%')}"
            headers["Link"] = f'<{url}?{query}>; rel="next"'
        return self._json(entries[begin:end], headers)

    def resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        found = self._find({"datasets/": "dataset"}.get(kind, "model"), name, revision)
        if found is None:
            return None
        commit, files = found
        if path not in files:
            return self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        data = files[path]
        if not path.endswith(_LARGE):
            place = f"/api/resolve-cache/{kind or 'models/'}{name}/{commit}/{quote(path)}"
            headers = {"ETag": f'"{_git_oid(data)}"', "X-Repo-Commit": commit, "Location": place}
            return self._send(307, headers)
        oid = hashlib.sha256(data).hexdigest()
        self.hub.objects[oid] = data
        headers = {
            "X-Repo-Commit": commit,
            "X-Linked-ETag": f'"{oid}"',
            "X-Linked-Size": str(len(data)),
            # Another host, as far as a client can tell.
            "Location": f"http://localhost:{self.hub.port}/cdn/{oid}?path={quote(path)}",
        }
        return self._send(302, headers)

    def small(self, kind: str, name: str, commit: str, path: str) -> None:
        found = self._find({"datasets/": "dataset"}.get(kind, "model"), name, commit)
        if found is not None:
            data = found[1][path]
            headers = {"ETag": f'"{_git_oid(data)}"', "X-Repo-Commit": commit}
            self._send_data(data, path, headers)

    def cdn(self, oid: str) -> None:
        self._send_data(self.hub.objects[oid], self.query["path"], {"ETag": f'"{oid}"'})

    def _find(self, kind: str, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        repository = self.hub.repositories.get((kind, name))
        known = self.token == TOKEN
        if repository is None or (repository.access == "private" and not known):
            # Whoever is not logged in is not told what exists.
            self._send(404 if known else 401, {"X-Error-Code": "RepoNotFound"})
        elif repository.access == "gated" and not known and "/api/" not in self.path:
            # Info and tree of a gated repository are public, its files are not.
            self._send(401, {"X-Error-Code": "GatedRepo"})
        else:
            found = repository.at(revision)
            if found is not None:
                return found
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
        return None

    # Writing

    def create_repository(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        kind = asked.get("type") or "model"
        if not self._may_write(name):
            return None
        prefix = {"model": ""}.get(kind, f"{kind}s/")
        answer = {"url": f"{self.hub.endpoint}/{prefix}{name}", "name": name}
        if (kind, name) in self.hub.repositories:
            return self._json(answer, status=409)
        access: Literal["public", "private"] = "public"
        if asked.get("visibility") == "private" or asked.get("private"):
            access = "private"
        self.hub.add(name, {".gitattributes": b""}, kind=kind, access=access)
        return self._json(answer)

    def create_branch(self, kind: str, name: str, branch: str) -> None:
        if not self._may_write(name):
            return None
        repository = self.hub.repositories[kind, name]
        if branch in repository.branches:
            return self._send(409)
        repository.branches[branch] = repository.branches["main"]
        return self._json({})

    def validate_yaml(self) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, kind: str, name: str, revision: str) -> None:
        if not self._may_write(name) or self._find(kind, name, revision) is None:
            return
        self._json(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(_LARGE) else "regular",
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for file in json.loads(self.body)["files"]
                ]
            }
        )

    def lfs_batch(self, kind: str, name: str) -> None:
        if not self._may_write(name):
            return
        objects = []
        for one in json.loads(self.body)["objects"]:
            answer: dict[str, Any] = {"oid": one["oid"], "size": one["size"]}
            refusal = self.hub.refused_objects.get(one["oid"])
            if refusal is not None:
                answer["error"] = {"code": 422, "message": refusal}
            elif one["oid"] not in self.hub.objects:
                url = f"{self.hub.endpoint}/lfs/{one['oid']}"
                answer["actions"] = {
                    "upload": {"href": url},
                    "verify": {"href": f"{self.hub.endpoint}/lfs-verify"},
                }
            objects.append(answer)
        self._json({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.objects[oid] = self.body
        self._send(200)

    def lfs_verify(self) -> None:
        asked = json.loads(self.body)
        known = len(self.hub.objects.get(asked["oid"], b"")) == asked["size"]
        self._send(200 if known else 404)

    def commit(self, kind: str, name: str, revision: str) -> None:
        if not self._may_write(name):
            return
        found = self._find(kind, name, revision)
        if found is None:
            return
        files = dict(found[1])
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        commit = self.hub.repositories[kind, name].commit(files, revision)
        self._json(
            {"commitUrl": f"{self.hub.endpoint}/{name}/commit/{commit}", "commitOid": commit}
        )

    def _may_write(self, name: str) -> bool:
        if self.token != TOKEN:
            self._send(401, {"X-Error-Message": "Invalid username or password."})
        elif name.partition("/")[0] not in self.hub.writable:
            self._send(403, {"X-Error-Message": f"You cannot write to {name}"})
        else:
            return True
        return False

    # Bytes

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _json(
        self, value: Any, headers: Mapping[str, str] | None = None, *, status: int = 200
    ) -> None:
        more = {"Content-Type": "application/json", **(headers or {})}
        self._send(status, more, json.dumps(value).encode())

    def _send_data(self, data: bytes, path: str, headers: Mapping[str, str]) -> None:
        """A file, or the range of it that was asked for; breaks off midway where it is to."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(asked[1]) if asked else 0
        headers = {**headers, "Accept-Ranges": "bytes"}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        sent = None
        if self.command == "GET" and self.hub.breaks.get(path, 0) > 0:
            self.hub.breaks[path] -= 1
            sent = len(body) // 2
        self._send(206 if asked else 200, headers, body, sent=sent)

    def _send(
        self,
        status: int,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        sent: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])


_KIND = r"/api/(?P<kind>model|dataset)s"
_NAME = r"(?P<name>[^/]+/[^/]+)"
_ROUTES = [
    (("GET",), rf"{_KIND}/{_NAME}(?:/revision/(?P<revision>[^/]+))?", "info"),
    (("GET",), rf"{_KIND}/{_NAME}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.*))?", "tree"),
    (
        ("GET", "HEAD"),
        rf"/(?P<kind>datasets/)?{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        "resolve",
    ),
    (
        ("GET", "HEAD"),
        rf"/api/resolve-cache/(?P<kind>models/|datasets/){_NAME}/(?P<commit>[^/]+)/(?P<path>.+)",
        "small",
    ),
    (("GET", "HEAD"), r"/cdn/(?P<oid>\w+)", "cdn"),
    (("POST",), r"/api/repos/create", "create_repository"),
    (("POST",), r"/api/validate-yaml", "validate_yaml"),
    (("POST",), rf"{_KIND}/{_NAME}/branch/(?P<branch>[^/]+)", "create_branch"),
    (("POST",), rf"{_KIND}/{_NAME}/preupload/(?P<revision>[^/]+)", "preupload"),
    (("POST",), rf"{_KIND}/{_NAME}/commit/(?P<revision>[^/]+)", "commit"),
    (("POST",), rf"/(?P<kind>datasets/)?{_NAME}\.git/info/lfs/objects/batch", "lfs_batch"),
    (("PUT",), r"/lfs/(?P<oid>\w+)", "lfs_upload"),
    (("POST",), r"/lfs-verify", "lfs_verify"),
]


def _entry(path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data)}
    if path.endswith(_LARGE):
        digest = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 130}
    return {**entry, "oid": _git_oid(data)}


def _git_oid(data: bytes) -> str:
    """The id git gives a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
