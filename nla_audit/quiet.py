"""Warnings of libraries, kept from users: they are about our code, or about nothing a user can do.

Tests see them all (they call :func:`nla_audit.cli.run`, not :func:`nla_audit.cli.main`).
"""

from __future__ import annotations

import logging
import os
import sys
import warnings

_VERBOSITY = "TRANSFORMERS_VERBOSITY"
_FILTERS = "PYTHONWARNINGS"
_KINDS = (FutureWarning, DeprecationWarning, PendingDeprecationWarning)


def quiet_libraries() -> None:
    """Hide warnings of deprecation and transformers' notices, here and in processes we start.

    Whoever asks for them (``TRANSFORMERS_VERBOSITY``, ``PYTHONWARNINGS``, ``python -W``) gets them.
    """
    if _VERBOSITY not in os.environ:
        # Read when transformers is imported, which takes seconds and may never be needed.
        os.environ[_VERBOSITY] = "error"
        if "transformers" in sys.modules:
            logging.getLogger("transformers").setLevel(logging.ERROR)
    if not sys.warnoptions:
        for kind in _KINDS:
            warnings.simplefilter("ignore", kind)
        os.environ[_FILTERS] = ",".join(f"ignore::{kind.__name__}" for kind in _KINDS)
