"""Line by line in other words."""

from nla_audit.probes.transforming.cards import written
from nla_audit.probes.transforming.instructions import PARAPHRASE

written(
    name="paraphrase_lines",
    summary="Each line in other words, the order of lines kept.",
    instruction=PARAPHRASE,
    destroys=("wording", "quotes"),
    keeps=("line count", "script"),
    by_line=True,
)
