"""Into another language, and back."""

from nla_audit.probes.transforming.cards import written
from nla_audit.probes.transforming.instructions import SAME

written(
    name="translate_back",
    summary="A translation into German, translated back into English.",
    instruction=f"Translate the German text into English, quoted words included. {SAME}",
    destroys=("wording", "layout", "quotes"),
    keeps=("script",),
    first="translate",
)
