"""Transforms that a language model writes: paraphrases, translations, rewritings."""

from nla_audit.probes.registry import written

_SAME = "Keep every claim and every fact; add nothing."

written(
    name="paraphrase",
    summary="The whole explanation in other words, quoted spans included.",
    instruction=f"Paraphrase the text. Change the wording as much as you can. {_SAME}",
    destroys=("wording", "layout", "quotes"),
    keeps=("script",),
)
written(
    name="paraphrase_unquoted",
    summary="Everything but the quoted spans in other words.",
    instruction=f"Paraphrase the text. Change the wording as much as you can. {_SAME} Copy each "
    "placeholder like ⟦1⟧ exactly once.",
    destroys=("wording", "layout"),
    keeps=("quoted spans", "script"),
    spares_quotes=True,
)
written(
    name="paraphrase_lines",
    summary="Each line in other words, the order of lines kept.",
    instruction=f"Paraphrase the text. Change the wording as much as you can. {_SAME}",
    destroys=("wording", "quotes"),
    keeps=("line count", "script"),
    by_line=True,
)
written(
    name="translate",
    summary="A translation into German.",
    instruction=f"Translate the text into German, quoted words included. {_SAME}",
    destroys=("wording", "layout", "quotes"),
)
written(
    name="rewrite_fluently",
    summary="Fluent prose in place of notes.",
    instruction=f"Rewrite the text as fluent sentences. {_SAME} Copy each placeholder like ⟦1⟧ "
    "exactly once.",
    destroys=("wording", "layout"),
    keeps=("quoted spans", "script"),
    spares_quotes=True,
)
written(
    name="compress_written",
    summary="The same in half as many words.",
    instruction="Say the same in about half as many words. Keep every claim.",
    destroys=("wording", "layout"),
    keeps=("script",),
)
