"""All but the quoted spans in other words."""

from nla_audit.probes.instructions import PARAPHRASE, PLACEHOLDERS
from nla_audit.probes.transform_cards import written

written(
    name="paraphrase_unquoted",
    summary="Everything but the quoted spans in other words.",
    instruction=f"{PARAPHRASE} {PLACEHOLDERS}",
    destroys=("wording", "layout"),
    keeps=("quoted spans", "script"),
    spares_quotes=True,
)
