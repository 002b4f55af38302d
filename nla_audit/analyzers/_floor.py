"""What shows how much two texts of the reference leave out of each other: the resampling floor."""

from __future__ import annotations

from collections.abc import Container

from nla_audit.table.completions import Completions
from nla_audit.table.pairing import equally_long
from nla_audit.text.reading import RESAMPLING_FLOOR


def floor_of(completions: Completions, read: Container[str]) -> tuple[str, str]:
    """The floor by the name that it is read under, and in words; empty where there is none.

    A second sample of the reference shows it; an equally long model leaves out no less than one
    would.

    Args:
        completions: the table.
        read: the models of which something was read.
    """
    if RESAMPLING_FLOOR in read:
        return RESAMPLING_FLOOR, f"a second sample of {completions.reference}"
    twin = equally_long(completions) or ""
    return (twin, f"the equally long {twin}") if twin in read else ("", "")
