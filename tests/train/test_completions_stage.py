"""What is refused before any text is written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nla_audit.errors import UserError
from nla_audit.train.completions_stage import write_completions


def test_a_run_that_is_not_trained_is_told_before_others_are_asked(tmp_path: Path) -> None:
    # A course of which nothing else is there to be read.
    layout: Any = SimpleNamespace(
        completions=tmp_path / "completions" / "completions.parquet",
        key=lambda stage: "key",
        is_done=lambda folder, key: False,
        runs=["trained", "half"],
        is_trained=lambda run: run == "trained",
        run=lambda run: tmp_path / run,
    )
    with pytest.raises(UserError, match=r"half: this run is not trained to the end; run the stage"):
        write_completions(layout, lambda *_: None)
