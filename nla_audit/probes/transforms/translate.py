"""In another language."""

from nla_audit.probes.instructions import SAME
from nla_audit.probes.transform_cards import written

written(
    name="translate",
    summary="A translation into German.",
    instruction=f"Translate the text into German, quoted words included. {SAME}",
    destroys=("wording", "layout", "quotes"),
    changes_language=True,
)
