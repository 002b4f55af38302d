"""In another language."""

from nla_audit.probes.transforming.cards import written
from nla_audit.probes.transforming.instructions import SAME

written(
    name="translate",
    summary="A translation into German.",
    instruction=f"Translate the text into German, quoted words included. {SAME}",
    destroys=("wording", "layout", "quotes"),
    changes_language=True,
)
