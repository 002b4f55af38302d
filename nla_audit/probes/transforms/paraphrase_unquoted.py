"""All but the quoted spans in other words."""

from nla_audit.probes.transforming.cards import written
from nla_audit.probes.transforming.instructions import PARAPHRASE, PLACEHOLDERS

written(
    name="paraphrase_unquoted",
    summary="Everything but the quoted spans in other words.",
    instruction=f"{PARAPHRASE} {PLACEHOLDERS}",
    destroys=("wording", "layout"),
    keeps=("quoted spans", "script"),
    spares_quotes=True,
)
