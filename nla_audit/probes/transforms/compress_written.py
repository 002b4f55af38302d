"""The same in half as many words, by a language model."""

from nla_audit.probes.transforming.cards import written

written(
    name="compress_written",
    summary="The same in half as many words.",
    instruction="Say the same in about half as many words. Keep every claim.",
    destroys=("wording", "layout"),
    keeps=("script",),
)
