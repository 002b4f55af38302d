"""Planted stages: a text, and a longer one by the next stage, of which all is known.

The next stage says a known share of the first's claims, in whatever words, before or after a text
that says other things (that of another activation); segments repeat a known share of what was said.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from nla_audit.world.sweep.planted import PlantedModel, plant

BEFORE, STAGE, SEGMENTED = "before", "stage", "segmented"
_AGAIN, _NEW = "again", "new"


@dataclass(frozen=True)
class PlantedStage:
    """What the next stage does.

    Attributes:
        name: of the case.
        omit: share of the predecessor's claims that it leaves out.
        reword: share of the rest that it says tersely.
        late: whether it says them behind the new text instead of before it.
        other: whether it says those of another activation instead.
    """

    name: str
    omit: float = 0.1
    reword: float = 0.0
    late: bool = False
    other: bool = False


@dataclass(frozen=True)
class PlantedStages:
    """Texts of :data:`BEFORE` (two samples), :data:`STAGE` and :data:`SEGMENTED`.

    Attributes:
        completions: ``model, idx, sample, explanation, segment_ends``.
        spans: a row for each claim of the predecessor's first sample: ``idx, start, end`` of what
            the stage says of it, null where it says nothing.
        floor: share of the claims of the predecessor's first sample that are in its second.
        repeated: share of the second segment's claims that stand in the first.
    """

    completions: pl.DataFrame
    spans: pl.DataFrame
    floor: float
    repeated: float

    def said_within(self, first: dict[int, int]) -> float:
        """Share of the predecessor's claims in a stage's first characters, ``idx → characters``;
        of a claim that is cut, the part that is there counts."""
        rows = self.spans.filter(pl.col("idx").is_in(list(first)))
        shares = [
            0.0 if start is None else min(max((first[idx] - start) / (end - start), 0.0), 1.0)
            for idx, start, end in rows.iter_rows()
        ]
        return sum(shares) / len(shares)


def plant_stages(case: PlantedStage, *, activations: int, seed: int) -> PlantedStages:
    """Draw the texts of one case."""
    models = [
        PlantedModel(BEFORE),
        PlantedModel(_AGAIN, omit=case.omit, reword=case.reword),
    ]
    sweep = plant(models, activations=activations, seed=seed, samples=2, reference=BEFORE)
    others = plant([PlantedModel(_NEW)], activations=activations, seed=seed + 7919)
    texts = sweep.completions.select("model", "idx", "sample", "explanation")
    truth = sweep.truth.filter(pl.col("sample") == 0)
    again = texts.filter((pl.col("model") == _AGAIN) & (pl.col("sample") == 0))
    if case.other:
        again = again.with_columns(pl.col("explanation").sort_by("idx").shift(1).fill_null(""))
    new = others.completions.select("idx", new="explanation")
    joined = again.join(new, on="idx").sort("idx")
    parts = ("new", "explanation") if case.late else ("explanation", "new")
    stage = joined.select(
        # It is read beside the predecessor's other sample, the first.
        pl.lit(STAGE).alias("model"),
        "idx",
        pl.lit(1, pl.Int64).alias("sample"),
        pl.concat_str(*parts, separator="  ").alias("explanation"),
    )
    before = texts.filter(pl.col("model") == BEFORE)
    first = before.filter(pl.col("sample") == 0).select("idx", first="explanation")
    segmented = joined.join(first, on="idx").select(
        pl.lit(SEGMENTED).alias("model"),
        "idx",
        "sample",
        pl.concat_str("first", *parts, separator="  ").alias("explanation"),
        pl.concat_list(pl.col("first").str.len_chars().cast(pl.Int64)).alias("segment_ends"),
    )
    moved = joined.select("idx", moved=(pl.col("new").str.len_chars() + 2) * int(case.late))
    own = truth.filter(pl.col("model") == _AGAIN).join(moved, on="idx")
    nowhere = pl.lit(case.other) | (pl.col("fate") == "omitted")
    spans = own.select(
        "idx",
        *(
            pl.when(~nowhere).then(pl.col(f"own_{end}").cast(pl.Int64) + pl.col("moved")).alias(end)
            for end in ("start", "end")
        ),
    )
    stated = own.filter(pl.col("fate") != "omitted").height
    fresh = others.truth.filter(pl.col("sample") == 0).height
    second = sweep.truth.filter((pl.col("model") == BEFORE) & (pl.col("sample") == 1))
    return PlantedStages(
        completions=pl.concat([before, stage, segmented], how="diagonal"),
        spans=spans.sort("idx"),
        floor=float((second["fate"] != "omitted").to_numpy().mean()),
        repeated=0.0 if case.other else stated / (stated + fresh),
    )
