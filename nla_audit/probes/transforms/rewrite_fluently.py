"""Prose in place of notes."""

from nla_audit.probes.transforming.cards import written
from nla_audit.probes.transforming.instructions import PLACEHOLDERS, SAME

written(
    name="rewrite_fluently",
    summary="Fluent prose in place of notes.",
    instruction=f"Rewrite the text as fluent sentences. {SAME} {PLACEHOLDERS}",
    destroys=("wording", "layout"),
    keeps=("quoted spans", "script"),
    spares_quotes=True,
)
