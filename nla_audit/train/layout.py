"""Where a course puts what, and how it knows that a stage is done.

A stage is done when its folder says so with a key made of all settings that change its result,
those of earlier stages included. That a folder exists proves nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from nla_audit.errors import UserError
from nla_audit.files import write_text
from nla_audit.train.recipe import Recipe, Rl, digest, run_name

Stage = Literal["target", "activations", "warm-start", "rl", "completions", "audit"]
STAGES: tuple[Stage, ...] = get_args(Stage)

_DONE = "done.json"
#: Settings that change how a result is reached but not what it is.
_WITHOUT_EFFECT = ("processes", "checkpoint_every", "sharding")


class Layout:
    """Folders and keys of one course.

    Args:
        recipe: the whole course.
        folder: the folder that the recipe's relative paths start from.
        out: where everything goes.
    """

    def __init__(self, recipe: Recipe, folder: Path, out: Path) -> None:
        self.recipe = recipe
        self.folder = folder
        self.out = out

    @property
    def target(self) -> Path:
        """The target trained on a world."""
        return self.out / "target"

    @property
    def activations(self) -> Path:
        """The table of activations."""
        return self.out / "activations" / "activations.parquet"

    @property
    def warm_start(self) -> Path:
        """Holds ``av/`` and ``ar/`` in the release's layout."""
        return self.out / "warm-start"

    def run(self, length_penalty: float) -> Path:
        """Folder of one λ."""
        return self.out / "rl" / run_name(length_penalty)

    @property
    def completions(self) -> Path:
        """The table that is audited."""
        return self.out / "completions" / "completions.parquet"

    @property
    def report(self) -> Path:
        """The audit's report."""
        return self.out / "report"

    def key(self, stage: Stage, length_penalty: float | None = None) -> str:
        """Hash of everything that the result of ``stage`` (of one λ) depends on."""
        recipe = self.recipe
        parts: list[Any] = [recipe.seed, recipe.target]
        if stage == "target":
            return digest(*parts)
        parts += [recipe.data, recipe.pair.marker, recipe.pair.av_template, recipe.pair.ar_template]
        if stage == "activations":
            return digest(*parts)
        warm_start = _plain(recipe.warm_start.model_dump(mode="json"))
        if warm_start["ar_prefixes"] == 0:  # courses begun before there was this option go on
            del warm_start["ar_prefixes"]
        parts += [recipe.pair, warm_start]
        if (separator := recipe.rl.grading.separator()) is not None:
            parts.append([separator, recipe.rl.grading.most_separators()])
        if stage == "warm-start":
            return digest(*parts)
        rl = _plain(recipe.rl.model_dump(mode="json"))
        if rl["ar_lora"] is None:  # runs begun before there was this option go on
            del rl["ar_lora"]
        if rl["grading"] == {"kind": "final"}:  # likewise
            del rl["grading"]
        if rl["credit"] == "segment":
            del rl["credit"]
        penalties = rl.pop("length_penalties")
        budget = [rl.pop("steps"), rl.pop("minutes")]
        # Under a constant rate a longer run begins as the shorter one did, so it may go on from it.
        rl["decays_over"] = budget if _decays(recipe.rl) else None
        if stage == "rl":
            return digest(*parts, rl, length_penalty)
        evaluation = recipe.evaluation.model_dump(mode="json")
        if evaluation["prefix_activations"] == 128:  # likewise
            del evaluation["prefix_activations"]
        return digest(*parts, rl, budget, penalties, evaluation)

    def is_trained(self, length_penalty: float) -> bool:
        """Whether the run of this λ has had its whole budget of steps or time.

        Raises:
            UserError: as :meth:`is_done`.
        """
        folder, rl = self.run(length_penalty), self.recipe.rl
        if not self.is_done(folder, self.key("rl", length_penalty)):
            return False
        facts = self.facts(folder)
        in_time = rl.minutes is not None and facts["seconds"] >= 60 * rl.minutes
        return in_time or facts["rl_steps"] >= rl.steps

    def is_done(self, folder: Path, key: str) -> bool:
        """Whether ``folder`` holds a finished stage of this ``key``.

        Raises:
            UserError: it holds one of another key; nothing of a user's is ever overwritten.
        """
        done = self.facts(folder)
        if not done:
            return False
        if done.get("key") != key:
            raise UserError(
                f"{folder}: made by another recipe (settings that it depends on have changed); "
                "name another --out, or delete the folder to make it again"
            )
        return True

    def facts(self, folder: Path) -> dict[str, Any]:
        """What a finished stage said of itself; nothing where it is not finished."""
        try:
            return json.loads((folder / _DONE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def mark_done(self, folder: Path, key: str, **facts: Any) -> None:
        """Say that the stage in ``folder`` is finished."""
        write_text(folder / _DONE, json.dumps({"key": key, **facts}, indent=2) + "\n")

    def write_recipe(self) -> None:
        """The recipe with every default filled in."""
        plain = self.recipe.model_dump(mode="json")
        text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
        write_text(self.out / "recipe.yaml", text)


def _decays(rl: Rl) -> bool:
    """Whether a rate depends on how many steps there will be."""
    optimizers = [rl.optimizer, *([rl.ar_optimizer] if rl.train_ar else [])]
    return any(one.schedule == "cosine" for one in optimizers)


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _WITHOUT_EFFECT}
