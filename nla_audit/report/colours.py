"""One colour a model, the same in every figure, table and in the viewer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Models without RL (base, warm start), or whose λ is unknown.
NEUTRAL = "#6f6f6f"
#: Okabe and Ito's qualitative palette (jfly.uni-koeln.de/color), without the yellow that
#: vanishes on white; used for groups that are not models.
CATEGORIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#3b3b3b")


@dataclass(frozen=True)
class ModelColours:
    """Colours by model name; models of a sweep run from dark (small λ) to light (large λ)."""

    by_model: Mapping[str, str]

    @classmethod
    def of(
        cls, models: Sequence[str], length_penalties: Mapping[str, float | None]
    ) -> ModelColours:
        """Colours for ``models`` in their order; those without a λ are grey."""
        from matplotlib import colormaps  # a terminal needs no matplotlib
        from matplotlib.colors import to_hex

        trained = [name for name in models if length_penalties.get(name) is not None]
        # viridis is even in lightness and safe for the colour-blind; its last sixth is a
        # yellow too pale for a line on white.
        ramp = colormaps["viridis"]
        last = max(len(trained) - 1, 1)
        colours = dict.fromkeys(models, NEUTRAL)
        for rank, name in enumerate(trained):
            colours[name] = to_hex(ramp(0.84 * rank / last))
        return cls(colours)

    def names(self) -> list[str]:
        """The models in their order."""
        return list(self.by_model)

    def get(self, model: object) -> str | None:
        """The colour of ``model``, or ``None`` for a name that is no model."""
        return self.by_model.get(str(model))
