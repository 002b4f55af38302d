"""Tables on the Hugging Face Hub: ``hf://datasets/owner/name[@revision]/path``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from nla_audit.errors import UserError

PREFIX = "hf://"
_ADDRESS = re.compile(
    r"hf://datasets/(?P<owner>[^/@]+)/(?P<name>[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.*))?"
)


def download_tables(address: str, suffixes: tuple[str, ...]) -> list[tuple[str, Path]]:
    """Fetch the table or the folder of tables at ``address`` into the local Hub cache.

    ``HF_ENDPOINT`` and the user's login are honoured by huggingface_hub. A slash within a
    revision is written ``%2F``, as elsewhere on the Hub.

    Returns:
        ``(address of the file, local path)``, sorted by address.

    Raises:
        UserError: malformed address, no access, nothing there, or no connection.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UserError(f"{address}: not a data set address: write hf://datasets/owner/name/path")
    repository = f"{match['owner']}/{match['name']}"
    revision = unquote(match["revision"]) if match["revision"] else None
    path = (match["path"] or "").strip("/")
    root = address[: match.start("path")].rstrip("/") if match["path"] else address.rstrip("/")
    try:
        with _quiet():
            files = _download(repository, revision, path, suffixes)
        return [(f"{root}/{file}", local) for file, local in files]
    except UserError:
        raise
    except Exception as error:
        message = _explain(error)
        if message is None:
            raise
        raise UserError(f"{address}: {message}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep huggingface_hub's bars and retry warnings off a terminal that shows our own."""
    from huggingface_hub import utils  # noqa: PLC0415

    verbosity, had_no_bars = utils.logging.get_verbosity(), utils.are_progress_bars_disabled()
    utils.logging.set_verbosity_error()
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.logging.set_verbosity(verbosity)
        if not had_no_bars:
            utils.enable_progress_bars()


def _download(
    repository: str, revision: str | None, path: str, suffixes: tuple[str, ...]
) -> list[tuple[str, Path]]:
    import huggingface_hub  # noqa: PLC0415  (slow to import, and few tables lie on the Hub)
    from huggingface_hub.hf_api import RepoFile  # noqa: PLC0415

    api = huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    files = [path]
    if not path.lower().endswith(suffixes):
        tree = api.list_repo_tree(repository, path or None, revision=revision, repo_type="dataset")
        names = (entry.path for entry in tree if isinstance(entry, RepoFile))
        files = sorted(name for name in names if name.lower().endswith(suffixes))
    if not files:
        raise UserError(
            f'hf://datasets/{repository}: no table in folder "{path or "/"}" '
            f"({', '.join(suffixes)}): add the subfolder or file to the address"
        )
    return [
        (
            file,
            Path(api.hf_hub_download(repository, file, revision=revision, repo_type="dataset")),
        )
        for file in files
    ]


def _explain(error: Exception) -> str | None:
    """What went wrong and what to do; ``None`` for an error that the user did not cause."""
    from huggingface_hub import errors  # noqa: PLC0415

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    unreachable = (
        f"{endpoint} cannot be reached and the file is not in the local cache: check the "
        "connection, HF_ENDPOINT and HF_HUB_OFFLINE"
    )
    # Ordered: the first class that fits is the most specific one.
    messages: tuple[tuple[type[Exception], str], ...] = (
        (errors.GatedRepoError, "access is restricted: ask for it on its page, `hf auth login`"),
        (errors.RevisionNotFoundError, "no such revision: check what follows the @"),
        (errors.LocalEntryNotFoundError, unreachable),
        (errors.OfflineModeIsEnabled, unreachable),
        (errors.EntryNotFoundError, "no such file or folder in this data set: check the path"),
        (
            errors.RepositoryNotFoundError,
            "no such data set, or it is private: check the name, or run `hf auth login`",
        ),
        (errors.HFValidationError, "not a valid data set name: check owner and name"),
    )
    for kind, message in messages:
        if isinstance(error, kind):
            return message
    if isinstance(error, errors.HfHubHTTPError):
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            return f"the Hub refused access ({status}): run `hf auth login`"
        return f"the Hub answered with an error ({status}): try again later"
    # The HTTP library differs between releases of huggingface_hub, so that its connection errors
    # are known by their module and not by a class.
    module = type(error).__module__.split(".")[0]
    if isinstance(error, OSError) or module.startswith(("requests", "httpx", "httpcore")):
        return unreachable
    return None
