"""What happens where a check finds that something cannot be right.

Loading refuses; with ``--force`` it says so and goes on; ``inspect`` writes it down. The checks
are the same, and are handed one of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from nla_audit.errors import UserError
from nla_audit.nla.batching import Notice

#: Told what cannot be right, as one line that says what to do.
Refuse = Callable[[str], None]


def refuse_wrong(problem: str) -> NoReturn:
    """Refuse.

    Raises:
        UserError: always.
    """
    raise UserError(f"{problem} (--force to go on)")


def refusing(*, force: bool, notice: Notice) -> Refuse:
    """:func:`refuse_wrong`, or, where the user insists, telling and going on."""
    if not force:
        return refuse_wrong
    return lambda problem: notice(f"forced: {problem}")
