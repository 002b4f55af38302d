"""The whole text in other words."""

from nla_audit.probes.transforming.cards import written
from nla_audit.probes.transforming.instructions import PARAPHRASE

written(
    name="paraphrase",
    summary="The whole explanation in other words, quoted spans included.",
    instruction=PARAPHRASE,
    destroys=("wording", "layout", "quotes"),
    keeps=("script",),
)
