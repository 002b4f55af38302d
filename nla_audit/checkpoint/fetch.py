"""Checkpoints by name: a local folder, or ``owner/name[@revision][/subfolder]`` on the Hub.

Of a repository only what a checkpoint needs is fetched: no pickles, no optimizer states, no
other checkpoints beside the one that is named, but the base that an adapter sits on, where that
lies in the same repository. A file once fetched stays in the local Hub cache, so that a download
that broke off goes on with the files it lacks.
"""

from __future__ import annotations

import glob
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from nla_audit import hub
from nla_audit.checkpoint import suffixes
from nla_audit.checkpoint.formats import (
    LEVELS_UP,
    MARKS,
    format_in,
    refuse_pickles,
)
from nla_audit.checkpoint.read_sidecar import SIDECAR_NAME
from nla_audit.errors import UserError

_REFERENCE = re.compile(
    r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?(?:/(?P<subfolder>.+))?"
)


@dataclass(frozen=True)
class HubReference:
    """A repository on the Hub, at a revision, and a folder in it."""

    repository: str
    revision: str | None
    subfolder: str | None


def parse_reference(text: str) -> HubReference | None:
    """Read ``owner/name[@revision][/subfolder]``; ``None`` if ``text`` is nothing of the kind.

    A slash within a revision is written ``%2F``. ``hf://`` may stand before it.
    """
    match = _REFERENCE.fullmatch(text.removeprefix(hub.PREFIX).rstrip("/"))
    if match is None or text.startswith(("/", ".", "~")):
        return None
    revision = unquote(match["revision"]) if match["revision"] else None
    return HubReference(match["repository"], revision, match["subfolder"])


def local_folder(reference: str | Path) -> Path:
    """The folder of a checkpoint, fetched from the Hub if it is not one here.

    Without a connection, what a former call fetched is used.

    Raises:
        UserError: neither a folder nor a name on the Hub, or it cannot be fetched.
    """
    path = Path(reference).expanduser()
    if path.is_dir():
        return path
    text = str(reference)
    found = parse_reference(text)
    if found is None:
        raise UserError(f"{text}: no such folder")
    # Most such names are misspelt paths, so both readings are in the message.
    name = text if text.startswith(hub.PREFIX) else f"{text}: no folder here; on the Hub"
    with hub.explained(name, "model", bars=sys.stderr.isatty()):
        return _fetched(found, name)


def _fetched(reference: HubReference, name: str) -> Path:
    from huggingface_hub import errors  # slow to import, and seldom needed

    try:
        files = hub.api().list_repo_files(reference.repository, revision=reference.revision)
    except (
        errors.HFValidationError,
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
    ):
        raise
    except Exception:  # whatever keeps us from the Hub; the cache may do without it
        cached = _cached(reference)
        if cached is None:
            raise
        return cached
    hub.check_names(name, files)
    folder = reference.subfolder or ""
    root = _download(reference, _needed(files, folder, name))
    fetched = {folder}
    # An adapter may sit on another adapter, and that one on a base.
    while True:
        bases = {base for own in fetched for base in _bases(root, own, files)} - fetched
        if not bases:
            return root / folder
        _download(reference, [path for base in bases for path in _needed(files, base, name)])
        fetched |= bases


def _cached(reference: HubReference) -> Path | None:
    """The folder as a former call left it in the cache."""
    from huggingface_hub import errors, snapshot_download

    try:
        root = snapshot_download(
            reference.repository,
            revision=reference.revision,
            allow_patterns=[],
            local_files_only=True,
        )
    except errors.LocalEntryNotFoundError:
        return None
    folder = Path(root) / (reference.subfolder or "")
    return folder if folder.is_dir() else None


def _needed(files: Sequence[str], folder: str, name: str) -> list[str]:
    """Which of a repository's ``files`` the checkpoint (or the checkpoints) in ``folder`` needs.

    Raises:
        UserError: no such folder, or its weights are pickles only.
    """
    below = [path for path in files if not folder or path.startswith(f"{folder}/")]
    if not below:
        folders = sorted({path.partition("/")[0] for path in files if "/" in path})
        holds = f"it holds {', '.join(folders[:8])}" if folders else "it has no folders"
        raise UserError(f'{name}: no folder "{folder}" in the repository: {holds}')
    direct = [path for path in below if str(PurePosixPath(path).parent) in (folder, folder or ".")]
    names = {PurePosixPath(path).name for path in direct}
    if names.intersection(MARKS):
        below = direct
        if not any(path.endswith(".safetensors") for path in direct):
            refuse_pickles(name, names)
    parents = list(PurePosixPath(folder).parents)[:LEVELS_UP] if folder else []
    sidecars = {str(parent / SIDECAR_NAME) for parent in parents}
    return [path for path in below if path.endswith(suffixes.ALL)] + sorted(
        sidecars.intersection(files)
    )


def _bases(root: Path, folder: str, files: Sequence[str]) -> set[str]:
    """Folders of the repository that the adapters in ``folder`` sit on."""
    found = set()
    for place in (root / folder, *(root / folder).rglob("*")):
        form = format_in(place)
        base = form.neighbour_named(place) if form is not None else None
        if base is None:
            continue
        own = PurePosixPath(place.relative_to(root).as_posix())
        # As formats.neighbour looks for it: beside the checkpoint, or beside a folder above.
        for above in list(own.parents)[: LEVELS_UP + 1]:
            candidate = str(above / PurePosixPath(base).name)
            if any(f"{candidate}/{mark}" in files for mark in MARKS):
                found.add(candidate)
                break
    return found


def _download(reference: HubReference, paths: Sequence[str]) -> Path:
    """Fetch some files; returns the root of the repository in the cache."""
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            reference.repository,
            revision=reference.revision,
            allow_patterns=[glob.escape(path) for path in paths],
            endpoint=hub.endpoint(),
        )
    )
