"""Checkpoints by name: a local folder, or ``owner/name[@revision][/subfolder]`` on the Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

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
    """Read ``owner/name[@revision][/subfolder]``; ``None`` if ``text`` is nothing of the kind."""
    match = _REFERENCE.fullmatch(text.removeprefix("hf://"))
    if match is None or text.startswith(("/", ".", "~")):
        return None
    return HubReference(match["repository"], match["revision"], match["subfolder"])


def local_folder(reference: str | Path) -> Path:
    """The folder of a checkpoint, fetched from the Hub if it is not one here.

    Raises:
        UserError: neither a folder nor a name on the Hub, or it cannot be fetched.
    """
    path = Path(reference).expanduser()
    if path.is_dir():
        return path
    found = parse_reference(str(reference))
    if found is None:
        raise UserError(f"{reference}: no such folder")
    raise UserError(f"{reference}: no such folder")
