"""Which AV and AR a run begins from, and what it is anchored to and measured by."""

from __future__ import annotations

from pathlib import Path

from nla_audit.checkpoint.load import Pair, load
from nla_audit.errors import UserError
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.train.layout import Layout
from nla_audit.train.pair import placement_of
from nla_audit.train.recipe import path_of
from nla_audit.train.runs import Run


def warm_start_references(layout: Layout, run: Run | None = None) -> tuple[str | Path, str | Path]:
    """AV and AR that RL begins from: the recipe's own, or those of the warm start.

    Args:
        run: whose grading may need an AV with separators of its own.
    """
    pair = layout.recipe.pair
    if pair.av is None or pair.ar is None:
        return layout.av_warm_start(run) / "av", layout.warm_start / "ar"
    local_av, local_ar = path_of(pair.av, layout.folder), path_of(pair.ar, layout.folder)
    return (
        local_av if local_av.is_dir() else pair.av,
        local_ar if local_ar.is_dir() else pair.ar,
    )


def start_references(layout: Layout, run: Run) -> tuple[str | Path, str | Path]:
    """AV and AR that a run begins from: those of another run, or of the warm start.

    The AR is another run's only where both train it, for a frozen one is the ruler.
    """
    av, ar = warm_start_references(layout, run)
    if run.start is None:
        return av, ar
    before = layout.named(run.start)
    if not layout.is_trained(before):
        raise UserError(
            f"{layout.run(before)}: {run.name} starts from this run, which is untrained"
        )
    own = layout.run(before)
    return own / "av", own / "ar" if run.rl.train_ar and before.rl.train_ar else ar


def anchor_of(layout: Layout, run: Run) -> Verbalizer | None:
    """What the KL is to, where that is not the AV that the run starts from."""
    if run.start is None or run.anchor == "predecessor":
        return None
    av, _ = warm_start_references(layout, run)
    placement = placement_of(layout.recipe.target, is_av_in_rl=True)
    return load(av, placement=placement).verbalizer


def load_ruler(layout: Layout) -> Reconstructor:
    """The AR of the warm start, by which held-out figures of all runs are."""
    placement = placement_of(layout.recipe.target)
    ruler = load(ar=warm_start_references(layout)[1], placement=placement).reconstructor
    assert ruler is not None
    return ruler


def load_start(layout: Layout, run: Run) -> tuple[Pair, Reconstructor]:
    """The pair that a run begins from, and a ruler that no one trains (the same AR where none is
    trained)."""
    av, ar = start_references(layout, run)
    target = layout.recipe.target
    pair = Pair(
        load(av, placement=placement_of(target, is_av_in_rl=True)).verbalizer,
        load(ar=ar, placement=placement_of(target)).reconstructor,
    )
    assert pair.reconstructor is not None
    return pair, load_ruler(layout) if run.rl.train_ar else pair.reconstructor


def both_of(pair: Pair) -> tuple[Verbalizer, Reconstructor]:
    assert pair.verbalizer is not None
    assert pair.reconstructor is not None
    return pair.verbalizer, pair.reconstructor
