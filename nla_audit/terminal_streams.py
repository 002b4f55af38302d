"""Standard output and error that take any text, and say in one line when they take none."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys

_ERRORS = "nla-audit-escape"
#: Ways of encoding that fail on a sign the encoding lacks; the second is that of the C locale.
_FAILING = ("strict", "surrogateescape")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """What a stream cannot encode, as JSON escapes it, so that JSON stays JSON."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def hold_closed() -> None:
    """Open what the process was started without (``<&-``) on nothing, before anything else.

    The next file to be opened would take its number, and be read as standard input or written
    into as standard error.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # It takes the lowest number that is free; processes that are started have it too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def take_any_text() -> None:
    """Escape what the terminal's encoding lacks (``λ`` in ASCII) rather than fail on it."""
    codecs.register_error(_ERRORS, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in _FAILING:
            stream.reconfigure(errors=_ERRORS)


def flush() -> None:
    """Write out what standard output still holds.

    Raises:
        OSError: it cannot be written.
    """
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def drop_output() -> None:
    """Let go of what cannot be written, which Python would try again, and report, as it ends."""
    try:
        flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
