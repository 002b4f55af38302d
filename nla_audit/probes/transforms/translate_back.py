"""Into another language, and back."""

from nla_audit.probes.instructions import SAME
from nla_audit.probes.transform_cards import written

written(
    name="translate_back",
    summary="A translation into German, translated back into English.",
    instruction=f"Translate the German text into English, quoted words included. {SAME}",
    destroys=("wording", "layout", "quotes"),
    keeps=("script",),
    first="translate",
)
