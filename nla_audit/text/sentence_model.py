"""A sentence-transformers model, by name or folder."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from nla_audit.errors import UserError


@lru_cache(maxsize=1)
def sentence_model(name: str) -> Any:
    """The model, loaded once however many readings ask for it.

    Raises:
        UserError: the library or the model is missing.
    """
    try:
        from sentence_transformers import SentenceTransformer  # imports torch
    except ImportError as error:
        raise UserError(
            "--similarity needs sentence-transformers: pip install 'nla-audit[embeddings]', "
            "or leave the option out to use the built-in similarity"
        ) from error
    try:
        return SentenceTransformer(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"cannot load the similarity model '{name}': {line}") from error
