"""Control: the explanation of another activation, the floor."""

from collections.abc import Sequence
from typing import Any

from nla_audit.probes.transforming.cards import control
from nla_audit.stats import derangement


@control(
    name="another",
    summary="The explanation of another activation, chosen at random: retention 0, the floor.",
)
def another(texts: Sequence[str], labels: Sequence[Any], seed: int) -> list[str | None]:
    """For each text, that of a random text of another label; ``None`` where there is none."""
    partners = derangement([str(label) for label in labels], seed)
    return [None if partner < 0 else texts[partner] for partner in partners]
