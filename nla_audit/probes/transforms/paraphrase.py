"""The whole text in other words."""

from nla_audit.probes.instructions import PARAPHRASE
from nla_audit.probes.transform_cards import written

written(
    name="paraphrase",
    summary="The whole explanation in other words, quoted spans included.",
    instruction=PARAPHRASE,
    destroys=("wording", "layout", "quotes"),
    keeps=("script",),
)
