"""What every part of a recipe is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from nla_audit.errors import UserError
from nla_audit.llm.address import address_of

#: More of anything than a run has ever had; what is larger is a slip, and would fill the memory.
Positive = Annotated[int, Field(gt=0, le=10**9)]
NonNegative = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
Penalty = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RecipeSection(BaseModel):
    """A part of a recipe; it takes no key that is not declared."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def check_address(url: str, place: str) -> None:
    """A recipe is written down, so no address in it may hold a key.

    Raises:
        ValueError: as pydantic wants it, with the ``place`` in the recipe.
    """
    try:
        address_of(url)
    except UserError as error:
        raise ValueError(f"{place}.base_url: {error}") from None
