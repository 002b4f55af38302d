"""Error of what ``multiscale`` reads of chains and separators, on planted stages.

``python benchmarks/stages.py > benchmarks/stages.md`` (some minutes).
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from nla_audit.analyzers._stages import first_parts, stages_of
from nla_audit.record import commit
from nla_audit.table.completions import from_frame
from nla_audit.world.sweep.stages import BEFORE, STAGE, PlantedStage, plant_stages

SEEDS, ACTIVATIONS = 6, 200
CASES = (
    PlantedStage("says nearly all first", omit=0.1),
    PlantedStage("half of that in few words", omit=0.1, reword=0.5),
    PlantedStage("says half", omit=0.5),
    PlantedStage("says a tenth", omit=0.9),
    PlantedStage("says nearly all last", omit=0.1, late=True),
    PlantedStage("another activation's", other=True),
)


def main() -> None:
    """Print the table."""
    print(f"{SEEDS} seeds, {ACTIVATIONS} activations; mean and worst error of a share.")
    print(f"Measured at commit {commit()}.\n")
    print("| case | said first: truth | error | floor: truth | error | covered | answers |", end="")
    print(" repeated: truth | error |")
    print("| --- | --: | --: | --: | --: | --: | --- | --: | --: |")
    for case in CASES:
        said, floors, repeated, covered = [], [], [], []
        truths: list[tuple[float, float, float]] = []
        answers: Counter[str] = Counter()
        for seed in range(SEEDS):
            planted = plant_stages(case, activations=ACTIVATIONS, seed=seed)
            table = from_frame(planted.completions, reference=BEFORE)
            found = {
                row["kind"]: row for row in stages_of(table, [(BEFORE, STAGE)], seed).to_dicts()
            }
            chain, segments = found["chain"], found["separators"]
            truth = planted.said_within(first_parts(table, BEFORE, STAGE))
            truths.append((truth, planted.floor, planted.repeated))
            answers[chain["says_first"]] += 1
            if chain["said_first"] is not None:
                said.append(chain["said_first"] - truth)
                covered.append(chain["said_first_low"] <= truth <= chain["said_first_high"])
            floors.append(chain["floor"] - planted.floor)
            if segments["repeated"] is not None:
                repeated.append(segments["repeated"] - planted.repeated)
        first, floor, again = np.mean(truths, axis=0)
        told = ", ".join(f"{answer} {number}" for answer, number in answers.most_common())
        print(
            f"| {case.name} | {first:.3f} | {_error(said)} | {floor:.3f} | {_error(floors)} | "
            f"{sum(covered)} of {len(covered)} | {told} | {again:.3f} | {_error(repeated)} |",
            flush=True,
        )


def _error(errors: list[float]) -> str:
    if not errors:
        return "–"
    return f"{np.mean(errors):+.3f} (worst {max(errors, key=abs):+.3f})"


if __name__ == "__main__":
    main()
