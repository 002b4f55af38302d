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
from nla_audit.train.keys import digest, hashed
from nla_audit.train.recipe import Recipe
from nla_audit.train.recipe_rl import Rl
from nla_audit.train.runs import Run, run_name

Stage = Literal["target", "activations", "warm-start", "rl", "completions", "audit"]
STAGES: tuple[Stage, ...] = get_args(Stage)

_DONE = "done.json"
#: Whose parts lie in a stage's folder before it is done.
_BEGUN = "begun.json"


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
        self.runs = recipe.sweep()

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

    @property
    def ar_of_gold(self) -> Path:
        """The AR after its warm start on gold: its last, or that before it reads the AV's texts."""
        is_last = self.recipe.warm_start.ar_on_generated is None
        return self.warm_start / ("ar" if is_last else "ar-of-gold")

    def av_warm_start(self, run: Run | None = None) -> Path:
        """Folder of the AV's warm start that a run begins from, with ``av/`` in it.

        It is the recipe's own, or one beside it where the run's grading needs other separators
        than the recipe's.
        """
        own, base = (
            _separators(one) for one in (self.recipe.rl if run is None else run.rl, self.recipe.rl)
        )
        if own == base:
            return self.warm_start
        return self.warm_start / (f"separators-{digest(own)[:8]}" if own else "no-separators")

    def run(self, run: Run) -> Path:
        """Folder of a run."""
        return self.out / "rl" / run.name

    @property
    def completions(self) -> Path:
        """The table that is audited."""
        return self.out / "completions" / "completions.parquet"

    @property
    def report(self) -> Path:
        """The audit's report."""
        return self.out / "report"

    @property
    def judges(self) -> Path:
        """Answers of judges, so that none is asked for twice."""
        return self.out / "judges.sqlite"

    def key(self, stage: Stage, run: Run | None = None) -> str:
        """Hash of everything that the result of ``stage`` (of one run) depends on.

        The warm start of a run is that of the whole recipe, but for what its grading needs.
        """
        recipe = self.recipe
        rl = recipe.rl if run is None else run.rl
        parts: list[Any] = [recipe.seed, recipe.target]
        if stage == "target":
            return digest(*parts)
        parts += [recipe.data, recipe.pair.marker, recipe.pair.av_template, recipe.pair.ar_template]
        if stage == "activations":
            return digest(*parts)
        parts += [recipe.pair, recipe.warm_start, *_separators(rl)]
        if stage == "warm-start":
            return digest(*parts)
        settings = hashed(rl)
        penalties = settings.pop("length_penalties")
        budget = [settings.pop("steps"), settings.pop("minutes")]
        # Under a constant rate a longer run begins as the shorter one did, so it may go on from it.
        settings["decays_over"] = budget if _decays(rl) else None
        if stage == "rl":
            assert run is not None
            return digest(*parts, settings, run.length_penalty, *self._origin(run))
        named = [
            [one.name, self.key("rl", one), one.rl.steps, one.rl.minutes]
            for one in self.runs
            if one.rl is not rl or one.start is not None or one.name != run_name(one.length_penalty)
        ]
        more = [named] if named else []
        return digest(*parts, settings, budget, penalties, recipe.evaluation, *more)

    def _origin(self, run: Run) -> list[Any]:
        """What a run's key says of where it starts; nothing where that is the warm start."""
        if run.start is None:
            return []
        before = self.named(run.start)
        return [self.key("rl", before), before.rl.steps, before.rl.minutes, run.anchor]

    def named(self, name: str) -> Run:
        """The run of this name, which must be one."""
        return next(run for run in self.runs if run.name == name)

    def is_trained(self, run: Run) -> bool:
        """Whether a run has had its whole budget of steps or time.

        Raises:
            UserError: as :meth:`is_done`.
        """
        folder = self.run(run)
        if not self.is_done(folder, self.key("rl", run)):
            return False
        facts = self.facts(folder)
        in_time = run.rl.minutes is not None and facts["seconds"] >= 60 * run.rl.minutes
        return in_time or facts["rl_steps"] >= run.rl.steps

    def is_done(self, folder: Path, key: str) -> bool:
        """Whether ``folder`` holds a finished stage of this ``key``.

        Raises:
            UserError: it holds one of another key; nothing of a user's is ever overwritten.
        """
        done = self.facts(folder)
        if done:
            _check_key(folder, done, key)
        return bool(done)

    def begin(self, folder: Path, key: str) -> None:
        """Say that a stage of several parts is under way, each of which is kept as it finishes.

        Raises:
            UserError: parts of another key are there.
        """
        begun = _facts_in(folder / _BEGUN)
        if begun:
            _check_key(folder, begun, key)
        else:
            write_text(folder / _BEGUN, json.dumps({"key": key}) + "\n")

    def facts(self, folder: Path) -> dict[str, Any]:
        """What a finished stage said of itself; nothing where it is not finished."""
        return _facts_in(folder / _DONE)

    def mark_done(self, folder: Path, key: str, **facts: Any) -> None:
        """Say that the stage in ``folder`` is finished."""
        write_text(folder / _DONE, json.dumps({"key": key, **facts}, indent=2) + "\n")

    def write_recipe(self) -> None:
        """The recipe with every default filled in."""
        plain = self.recipe.model_dump(mode="json")
        text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
        write_text(self.out / "recipe.yaml", text)


def _facts_in(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _check_key(folder: Path, facts: dict[str, Any], key: str) -> None:
    if facts.get("key") != key:
        raise UserError(
            f"{folder}: made by another recipe (settings that it depends on have changed); "
            "name another --out, or delete the folder to make it again"
        )


def _decays(rl: Rl) -> bool:
    """Whether a rate depends on how many steps there will be."""
    optimizers = [rl.optimizer, *([rl.ar_optimizer] if rl.train_ar else [])]
    return any(one.schedule == "cosine" for one in optimizers)


def _separators(rl: Rl) -> list[Any]:
    """What the warm start of the AV depends on besides the recipe's own sections."""
    token = rl.grading.separator()
    return [] if token is None else [[token, rl.grading.most_separators()]]
