"""Tables on the Hugging Face Hub: ``hf://datasets/owner/name[@revision]/path``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from nla_audit.errors import UserError
from nla_audit.strangers import is_inside, shown

PREFIX = "hf://"
_ADDRESS = re.compile(
    r"hf://datasets/(?P<owner>[^/@]+)/(?P<name>[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.*))?"
)
#: A folder of a partitioned table: ``column=value``.
PARTITION = re.compile(r"([^=/]+)=([^/]*)")
#: Each is asked for by itself.
_MOST_LISTED = 10_000
#: Names of the HTTP library's errors that say that no connection came about at all. Its classes
#: differ between releases of huggingface_hub (requests, httpx, httpx2), so names must do.
_NOT_CONNECTED = (
    "ConnectError",
    "ConnectTimeout",
    "ConnectionError",
    "ProxyError",
    "SSLError",
    "UnsupportedProtocol",
    "InvalidURL",
    "MissingSchema",
)
_BROKE_OFF = "the connection broke off: run the same command again; whole files are kept"


@dataclass(frozen=True)
class HubFile:
    """One file of a data set.

    Attributes:
        address: as the user would write it, for messages and records.
        repository: ``owner/name``.
        revision: branch, tag or commit; ``None`` is the main branch.
        path: path within the repository.
    """

    address: str
    repository: str
    revision: str | None
    path: str

    def download(self) -> Path:
        """The file in the local Hub cache, fetched if need be.

        Raises:
            UserError: no access, no such file, no connection.
        """
        with explained(self.address, "data set"):
            return Path(
                api().hf_hub_download(
                    self.repository, self.path, revision=self.revision, repo_type="dataset"
                )
            )


def download_tables(address: str, suffixes: tuple[str, ...]) -> list[tuple[str, Path]]:
    """Fetch the table or the folder of tables at ``address`` into the local Hub cache.

    Returns:
        ``(address of the file, local path)``, sorted by address.

    Raises:
        UserError: malformed address, no access, nothing there, or no connection.
    """
    return [(file.address, file.download()) for file in find_files(address, suffixes)]


def find_files(
    address: str, suffixes: tuple[str, ...], *, pin_commit: bool = False
) -> list[HubFile]:
    """The file at ``address``, or the files in the folder there, without fetching them.

    Those directly in the folder, and in folders below it that are named ``column=value``.

    ``HF_ENDPOINT`` and the user's login are honoured by huggingface_hub. A slash within a
    revision is written ``%2F``, as elsewhere on the Hub.

    Args:
        suffixes: which files of a folder count; an address with one of them is a file.
        pin_commit: replace the revision by the commit it stands for now, so that files fetched
            later are of the same commit. Needs a connection.

    Raises:
        UserError: malformed address, no access, nothing there, or no connection.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UserError(f"{address}: not a data set address: write hf://datasets/owner/name/path")
    repository = f"{match['owner']}/{match['name']}"
    revision = unquote(match["revision"]) if match["revision"] else None
    folder = (match["path"] or "").strip("/")
    root = address[: match.start("path")].rstrip("/") if match["path"] else address.rstrip("/")
    with explained(address, "data set"):
        if pin_commit:
            revision = api().dataset_info(repository, revision=revision).sha
        paths = [folder]
        if not folder.lower().endswith(suffixes):
            paths = _in_folder(repository, revision, folder, suffixes)
    return [HubFile(f"{root}/{path}", repository, revision, path) for path in paths]


def _in_folder(
    repository: str, revision: str | None, folder: str, suffixes: tuple[str, ...]
) -> list[str]:
    from huggingface_hub.hf_api import RepoFile

    found: list[str] = []
    folders = [folder]
    while folders:
        if len(found) + len(folders) > _MOST_LISTED:
            raise UserError(
                f"hf://datasets/{repository}: more than {_MOST_LISTED:,} folders and tables: add "
                "the subfolder or file to the address"
            )
        tree = api().list_repo_tree(
            repository, folders.pop() or None, revision=revision, repo_type="dataset"
        )
        for entry in tree:
            name = entry.path
            if isinstance(entry, RepoFile):
                found += [name] if name.lower().endswith(suffixes) else []
            elif PARTITION.fullmatch(name.rpartition("/")[2]):
                folders.append(name)
    found.sort()
    if not found:
        raise UserError(
            f'hf://datasets/{repository}: no table in folder "{folder or "/"}" '
            f"({', '.join(suffixes)}): add the subfolder or file to the address"
        )
    check_names(f"hf://datasets/{repository}", found)
    return found


def check_names(name: str, files: Iterable[str]) -> None:
    """Refuse a repository whose list of files names one outside of it: it would be written there.

    Args:
        name: what the user wrote, for the message.
        files: paths in the repository.

    Raises:
        UserError: a path is absolute, climbs with ``..``, or is none on some system.
    """
    for file in files:
        if not is_inside(file):
            raise UserError(
                f"{name}: the repository lists a file {shown(file)}, which is not inside it: "
                "nothing was fetched; use another repository"
            )


def endpoint() -> str:
    """The Hub's address: ``HF_ENDPOINT``, or the public one."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def api() -> Any:
    """huggingface_hub's client for :func:`endpoint`, as the environment has it now."""
    from huggingface_hub import HfApi  # slow to import, and seldom needed

    return HfApi(endpoint=endpoint())


@contextmanager
def explained(name: str, kind: str, *, bars: bool = False) -> Iterator[None]:
    """Turn what huggingface_hub raises inside the ``with`` into one line about ``name``.

    Its retry warnings are kept off the terminal.

    Args:
        name: what the user wrote: an address, ``owner/name``.
        kind: what it is, in words: ``"data set"``, ``"model"``.
        bars: let it show its progress bars.

    Raises:
        UserError: for whatever the user can mend; other errors pass.
    """
    try:
        with _quiet(bars):
            yield
    except UserError:
        raise
    except Exception as error:  # of libraries that differ between releases; the unknown go on
        message = _explain(error, kind)
        if message is None:
            raise
        raise UserError(f"{name}: {message}") from error


@contextmanager
def _quiet(bars: bool) -> Iterator[None]:
    from huggingface_hub import utils

    verbosity, had_no_bars = utils.logging.get_verbosity(), utils.are_progress_bars_disabled()
    utils.logging.set_verbosity_error()
    if not bars:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.logging.set_verbosity(verbosity)
        if not had_no_bars:
            utils.enable_progress_bars()


def _explain(error: Exception, kind: str) -> str | None:
    """What went wrong and what to do; ``None`` for an error that the user did not cause."""
    from huggingface_hub import errors

    unreachable = (
        f"{endpoint()} cannot be reached and the files are not in the local cache: check the "
        "connection, HF_ENDPOINT and HF_HUB_OFFLINE"
    )
    # Ordered: the first class that fits is the most specific one.
    messages: tuple[tuple[type[Exception], str], ...] = (
        (errors.GatedRepoError, "access is restricted: ask for it on its page, `hf auth login`"),
        (errors.RevisionNotFoundError, "no such revision: check what follows the @"),
        (errors.LocalEntryNotFoundError, unreachable),
        (errors.OfflineModeIsEnabled, unreachable),
        (errors.EntryNotFoundError, f"no such file or folder in this {kind}: check the path"),
        (
            errors.RepositoryNotFoundError,
            f"no such {kind}, or it is private: check the name, or run `hf auth login`",
        ),
        (errors.HFValidationError, f"not a valid {kind} name: check owner and name"),
        (errors.LocalTokenNotFoundError, "you are not logged in: run `hf auth login`"),
    )
    for class_, message in messages:
        if isinstance(error, class_):
            return message
    if isinstance(error, errors.HfHubHTTPError):
        return _explain_answer(error)
    if isinstance(error, RuntimeError | ValueError):
        return _explain_value(error, kind)
    if type(error).__module__.split(".")[0].startswith(("requests", "httpx", "httpcore")):
        connected = type(error).__name__ not in _NOT_CONNECTED
        return _BROKE_OFF if connected else unreachable
    if isinstance(error, ConnectionError | TimeoutError):
        return unreachable
    return _explain_disk(error) if isinstance(error, OSError) else None


def _explain_answer(error: Any) -> str:
    """An answer that is no success, with what the Hub says about it, if anything."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return "the Hub does not accept your login (401): run `hf auth login`"
    said = str(getattr(error, "server_message", None) or "").strip().split("\n", 1)[0]
    answer = f"({status}{': ' if said else ''}{said})"
    if status == 403:
        return f"the Hub refused {answer}: check the name and what your access token may do"
    if status is not None and status < 500 and status != 429:
        return f"the Hub refused {answer}"
    return f"the Hub answered with an error {answer}: try again later"


def _explain_value(error: RuntimeError | ValueError, kind: str) -> str | None:
    """Uploads wrap what went wrong; the Hub's refusal of a single file is a bare ``ValueError``."""
    if isinstance(error, json.JSONDecodeError):
        return f"{endpoint()} does not answer as the Hub does: check HF_ENDPOINT"
    if isinstance(error.__cause__, Exception):
        return _explain(error.__cause__, kind)
    text = str(error)
    if isinstance(error, ValueError) and not text.startswith("LFS batch"):
        return None
    return f"the transfer failed: {' '.join(text.split())}"


def _explain_disk(error: OSError) -> str:
    if error.errno is None:
        # Only huggingface_hub's own check of a downloaded file's size has no error number.
        return _BROKE_OFF
    return f"cannot write the local Hub cache ({error.strerror}): check HF_HOME and its disk"
