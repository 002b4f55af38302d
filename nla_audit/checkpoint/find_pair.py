"""From what a user calls a pair to the two halves of it.

Releases keep the halves apart (``…-av`` and ``…-ar`` on the Hub), side by side in one folder
(``av/`` and ``ar/``), or among several stages of training (``av_sft_lora/``,
``rl_critic_step100/`` …): docs/formats.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from nla_audit.checkpoint.fetch import local_folder
from nla_audit.checkpoint.formats import Checkpoint, format_in, recognise
from nla_audit.errors import UserError

#: Folder names that say nothing about whose checkpoint it is.
_GENERIC = frozenset({"av", "ar", "actor", "critic", "model", "checkpoint", "final"})

#: An AV whose name ends in ``av``: ``x-av``, ``x/av``, ``owner/x-av@v1``.
_AV_NAME = re.compile(r"(?P<before>(?:.*[-_/])?)av(?P<revision>(?:@[^/]+)?)")


@dataclass(frozen=True)
class Halves:
    """Where an AV and an AR are, as :func:`nla_audit.checkpoint.load.load` takes them."""

    av: str
    ar: str


def find_pair(pair: str, *, av: str | None = None, ar: str | None = None) -> Halves:
    """The halves of ``pair``.

    Args:
        pair: an AV, beside whose name there is an AR's (``av`` and ``ar``, ``x-av`` and
            ``x-ar``); or a folder that holds one AV and one AR.
        av: which AV, where the folder holds several: a name in it, or an AV elsewhere.
        ar: which AR, likewise.

    Raises:
        UserError: no such folder, or a half that is missing or not the only one.
    """
    if not Path(pair).expanduser().is_dir() and None not in (av, ar) and "/" not in f"{av}{ar}":
        # Two names in a repository on the Hub: the other checkpoints in it need not be fetched.
        return Halves(_inside(pair, str(av)), _inside(pair, str(ar)))
    folder = local_folder(pair)
    if is_checkpoint(folder):
        if av is not None:
            raise UserError(f"{pair}: is a checkpoint itself, so that --av has nothing to choose")
        if recognise(folder).role == "ar":
            raise UserError(f"{pair}: this is an AR; name its AV, or the folder that holds both")
        if ar is None:
            ar = _counterpart(pair)
        return Halves(pair, ar)
    inside = checkpoints_in(folder)
    if not inside and (av is None or ar is None):
        recognise(folder)  # which says why it is no checkpoint
    return Halves(
        _named(pair, folder, av) or _only(inside, "av", pair),
        _named(pair, folder, ar) or _only(inside, "ar", pair),
    )


def is_checkpoint(folder: Path) -> bool:
    """Whether ``folder`` itself holds a checkpoint, whole or not."""
    return format_in(folder) is not None


def checkpoints_in(folder: Path) -> list[Checkpoint]:
    """The checkpoints right below ``folder``, in order of name.

    Raises:
        UserError: one of them is damaged.
    """
    return [recognise(child) for child in checkpoint_folders(folder)]


def checkpoint_folders(folder: Path) -> list[Path]:
    """Where the checkpoints right below ``folder`` lie, in order of name; none is read."""
    return [child for child in sorted(folder.iterdir()) if child.is_dir() and is_checkpoint(child)]


def display_name(reference: str | Path) -> str:
    """A name for tables: the last part of a path, with its parent where that says nothing."""
    path = Path(reference).expanduser()
    if not path.is_dir():
        return str(reference)
    resolved = path.resolve()
    generic = resolved.name.lower() in _GENERIC and resolved.parent.name
    return f"{resolved.parent.name}/{resolved.name}" if generic else resolved.name


def _counterpart(av: str) -> str:
    """The AR whose name is that of ``av`` but for its ending; at the same revision."""
    match = _AV_NAME.fullmatch(av.rstrip("/"))
    if match is not None:
        ar = f"{match['before']}ar{match['revision']}"
        if not Path(av).is_dir() or Path(ar).is_dir():
            return ar
    raise UserError(f"{av}: an AV with no AR beside it; name one with --ar")


def _named(pair: str, folder: Path, name: str | None) -> str | None:
    # (folder / name) is `name` itself where that is an absolute path.
    if name is None or Path(name).is_absolute() or not (folder / name).is_dir():
        return name
    return _inside(pair, name)


def _inside(pair: str, name: str) -> str:
    """The checkpoint ``name`` of ``pair``, called as the pair was: a path, or a name on the Hub."""
    return f"{pair.rstrip('/')}/{name}"


def _only(inside: list[Checkpoint], role: str, pair: str) -> str:
    found = [checkpoint for checkpoint in inside if checkpoint.role == role]
    if len(found) == 1:
        return _inside(pair, found[0].path.name)
    names = ", ".join(checkpoint.path.name for checkpoint in found)
    problem = (
        f"holds {len(found)} {role.upper()}s ({names})" if found else f"holds no {role.upper()}"
    )
    raise UserError(f"{pair}: {problem}; choose one with --{role}")
