"""Line by line in other words."""

from nla_audit.probes.instructions import PARAPHRASE
from nla_audit.probes.transform_cards import written

written(
    name="paraphrase_lines",
    summary="Each line in other words, the order of lines kept.",
    instruction=PARAPHRASE,
    destroys=("wording", "quotes"),
    keeps=("line count", "script"),
    by_line=True,
)
