"""To the Hub and back, through huggingface_hub."""

from __future__ import annotations

import glob
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from nla_audit import hub
from nla_audit.errors import UserError
from nla_audit.files import must_be_new, resumable_folder, room
from nla_audit.publish.cards import MARK
from nla_audit.publish.contents import CARD, PUBLIC_SUFFIXES, Contents, RepositoryType

_ADDRESS = re.compile(
    r"(?:hf://)?(?P<datasets>datasets/)?(?P<repository>[\w.-]+/[\w.-]+)"
    r"(?:@(?P<revision>[^/]+))?(?:/(?P<folder>.+))?"
)
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_WORDS: dict[RepositoryType, str] = {"model": "model", "dataset": "data set"}
#: Files above a folder that say what is in it.
_SIDECAR = "nla_meta.yaml"


@dataclass(frozen=True)
class Pushed:
    """What became of a push: the commit's page, and whether the card there was left alone."""

    url: str
    card_kept: bool


def check_repository(repository: str) -> None:
    """Check that ``repository`` is ``owner/name``.

    Raises:
        UserError: it is not.
    """
    if _REPOSITORY.fullmatch(repository) is None:
        raise UserError(f"{repository}: not a name of a repository: write owner/name")


def push(
    contents: Contents,
    card: str,
    repository: str,
    *,
    private: bool = False,
    branch: str | None = None,
    message: str = "Upload with nla-audit",
) -> Pushed:
    """Put ``contents`` and their card into a repository, in one commit.

    The repository and the branch are made where they are not there. Files of the same name are
    replaced, others stay. A card that somebody wrote by hand is left alone.

    Raises:
        UserError: not logged in, no right to write, ``private`` where the repository is public,
            or no connection.
    """
    from huggingface_hub import CommitOperationAdd, get_token

    check_repository(repository)
    if get_token() is None:
        raise UserError(f"{repository}: you are not logged in: run `hf auth login` or set HF_TOKEN")
    type_ = contents.repository_type
    with hub.explained(repository, _WORDS[type_], bars=sys.stderr.isatty()):
        api = hub.api()
        api.create_repo(repository, repo_type=type_, private=private or None, exist_ok=True)
        if private and not api.repo_info(repository, repo_type=type_).private:
            raise UserError(
                f"{repository}: exists already and is public: make it private on its settings "
                "page, or name another"
            )
        if branch is not None:
            api.create_branch(repository, branch=branch, repo_type=type_, exist_ok=True)
        card_kept = _has_card_of_its_own(repository, type_, branch)
        operations = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(file))
            for name, file in contents.files.items()
        ]
        if not card_kept:
            operations.append(CommitOperationAdd(path_in_repo=CARD, path_or_fileobj=card.encode()))
        done = api.create_commit(
            repository,
            operations=operations,
            commit_message=message,
            repo_type=type_,
            revision=branch,
        )
    return Pushed(str(done.commit_url), card_kept)


def _has_card_of_its_own(repository: str, type_: RepositoryType, branch: str | None) -> bool:
    """Whether there is a card there that this package did not write."""
    from huggingface_hub.errors import EntryNotFoundError

    try:
        path = hub.api().hf_hub_download(repository, CARD, repo_type=type_, revision=branch)
    except EntryNotFoundError:
        return False
    return MARK not in Path(path).read_text(encoding="utf-8", errors="replace")


@dataclass(frozen=True)
class Address:
    """What to pull: a repository, its type, a revision, a folder or file in it."""

    repository: str
    type: RepositoryType
    revision: str | None
    folder: str


def parse_address(text: str) -> Address:
    """Read ``owner/name`` or ``datasets/owner/name``, with ``[@revision][/folder]``.

    ``hf://`` may stand before it; a slash within a revision is written ``%2F``.

    Raises:
        UserError: it is nothing of the kind.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or (match["repository"].startswith("datasets/")):
        raise UserError(
            f"{text}: not an address on the Hub: write owner/name for a pair, or "
            "datasets/owner/name for completions and reports, with @revision or /folder behind it"
        )
    return Address(
        repository=match["repository"],
        type="dataset" if match["datasets"] else "model",
        revision=unquote(match["revision"]) if match["revision"] else None,
        folder=(match["folder"] or "").strip("/"),
    )


@dataclass(frozen=True)
class Pulled:
    """What came: the commit, the files (relative, sorted) and what was left there."""

    commit: str
    files: tuple[str, ...]
    left_out: tuple[str, ...]


def pull(text: str, out: Path) -> Pulled:
    """Fetch a repository, or a folder of it, into ``out``, at the paths it has there.

    Only files that a pair, a table or a report consists of are fetched; pickles and code stay
    where they are. A pull that broke off goes on with the files it lacks.

    Raises:
        UserError: ``out`` is there, no such repository, folder or revision, no access, or no
            connection.
    """
    from huggingface_hub import snapshot_download

    address = parse_address(text)
    must_be_new(out)
    with hub.explained(_named(text, address), _WORDS[address.type], bars=sys.stderr.isatty()):
        info = hub.api().repo_info(
            address.repository, revision=address.revision, repo_type=address.type
        )
        commit = str(info.sha)
        names = hub.api().list_repo_files(
            address.repository, revision=commit, repo_type=address.type
        )
        hub.check_names(text, names)
        wanted, left_out = _chosen(text, address, names)
        with resumable_folder(out, f"{address}\0{commit}") as partial:
            with room(out):  # huggingface_hub writes there, not we
                snapshot_download(
                    address.repository,
                    repo_type=address.type,
                    revision=commit,
                    allow_patterns=[glob.escape(name) for name in wanted],
                    local_dir=partial,
                    endpoint=hub.endpoint(),
                )
            shutil.rmtree(partial / ".cache", ignore_errors=True)
    return Pulled(commit, tuple(wanted), tuple(left_out))


def _named(text: str, address: Address) -> str:
    """The address for messages, with a hint at what it would be as a data set."""
    if address.type == "dataset" or text.startswith(hub.PREFIX):
        return text
    return f"{text} (completions and reports: datasets/{text})"


def _chosen(text: str, address: Address, names: list[str]) -> tuple[list[str], list[str]]:
    """Which files to fetch, and which of those asked for to leave."""
    folder = address.folder
    inside = [
        name for name in names if not folder or name == folder or name.startswith(f"{folder}/")
    ]
    if not inside:
        raise UserError(f'{text}: no folder or file "{folder}" in the repository: check the path')
    above = (
        {str(parent / _SIDECAR) for parent in PurePosixPath(folder).parents} if folder else set()
    )
    wanted = {name for name in inside if name.lower().endswith(PUBLIC_SUFFIXES)}
    left_out = sorted(name for name in set(inside) - wanted if not name.startswith("."))
    if not wanted:
        raise UserError(f"{text}: holds nothing that belongs to a pair, a table or a report")
    return sorted(wanted | above.intersection(names)), left_out
