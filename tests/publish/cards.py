"""What a card says of itself, for programs."""

from __future__ import annotations

from typing import Any

import yaml


def front_matter(card: bytes | str) -> dict[str, Any]:
    text = card.decode() if isinstance(card, bytes) else card
    _, header, _ = text.split("---\n", maxsplit=2)
    return yaml.safe_load(header)
