"""The type of every ``--seed``: any whole number."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import click

#: Libraries take seeds of 32 bits; any other number is hashed down to as many.
_BITS = 32
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,1000}\s*")


class _Seed(click.ParamType):
    """Whole numbers of any size and sign; those of 32 bits are themselves."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The seed as 32 bits; the same number always gives the same ones."""
        if not _WHOLE.fullmatch(str(value)):
            self.fail(f"{value!r} is not a whole number.", param, ctx)
        number = int(value)
        if 0 <= number < 1 << _BITS:
            return number
        return int.from_bytes(hashlib.sha256(str(number).encode()).digest()[: _BITS // 8], "big")


SEED = _Seed()
