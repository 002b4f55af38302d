"""FVE in whitened space: what was planted, and what exchanged texts must have."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from nla_audit import cli
from nla_audit.errors import UserError
from nla_audit.findings import Finding
from nla_audit.nla.fve import measure_baselines
from nla_audit.probes import registry
from nla_audit.probes._reconstructions import Reconstructions
from nla_audit.probes._whitening import cross_fitted, fit
from nla_audit.probes.whitened import _measured
from nla_audit.table.completions import load
from nla_audit.text.token_kinds import token_kind
from tests.declared import absent, undeclared
from tests.probes import exchanged

RIGHT = 0.8


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = exchanged.save_study(tmp_path_factory.mktemp("whitened"), right=RIGHT)
    sources = ["Hello there\nuser\n", "A fair \n", "A fair", None]
    table = pl.read_parquet(root / "texts.parquet")
    texts = pl.Series("source_text", [sources[row % 4] for row in range(table.height)])
    table.with_columns(texts).write_parquet(root / "texts.parquet")
    return root


@pytest.fixture(scope="module")
def finding(root: Path) -> Finding:
    return registry()["whitened"].run(
        load(root / "texts.parquet"),
        pair=str(root / "ar"),
        activations=str(root / "activations.parquet"),
        seed=0,
    )


def test_exchanged_texts_have_what_follows_from_their_share(finding: Finding) -> None:
    """Activations vary alike in all directions in which they vary, so that whitening is nothing."""
    own = finding.headline[exchanged.MODEL]
    assert own["fve"] == pytest.approx(2 * RIGHT - 1, abs=0.08)
    assert own["whitened_fve"] == pytest.approx(own["fve"], abs=0.03)
    assert own["whitened_fve_rescaled"] == pytest.approx(RIGHT**2, abs=0.06)
    assert own["chance_fve"] == pytest.approx(-1, abs=0.15)
    assert own["chance_whitened_fve_rescaled"] == pytest.approx(0, abs=0.03)
    assert "another activation's text has" in finding.verdict


def test_the_card_declares_every_number(finding: Finding) -> None:
    assert undeclared(finding) == []
    assert absent(finding, finding.metrics) == []


def test_figures_by_kind_of_token_are_those_of_their_rows(finding: Finding) -> None:
    table = finding.tables["by_token"]
    assert table["token"].to_list() == ["template", "blank", "content"]
    assert table["explanations"].to_list() == [100, 100, 100]
    assert table["fve"].is_between(0.3, 0.9).all()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Hi<|im_end|>", "template"),
        ("<start_of_turn>", "template"),
        ("x [/INST]", "template"),
        ("x\nassistant\n", "template"),
        ("x\n\n", "blank"),
        ("x ", "blank"),
        ("the user", "content"),
        ("a < b", "content"),
        ("x.", "content"),
        ("", "content"),
    ],
)
def test_a_token_is_told_by_the_text_that_ends_there(text: str, kind: str) -> None:
    assert token_kind(text) == kind


def planted(deviations: list[float], n: int = 2000) -> Any:
    """Activations with known deviations, and reconstructions right in the first direction only."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(n, len(deviations))) * deviations
    raw = np.zeros_like(vectors)
    raw[:, 0] = vectors[:, 0]
    names = pl.DataFrame({"doc_id": [f"d{row // 2}" for row in range(n)]})
    rest = {"sample": 0, "position": None, "source_text": None}
    keys = names.with_columns(model=pl.lit("a"), idx=pl.int_range(n)).with_columns(
        **{name: pl.lit(value) for name, value in rest.items()}
    )
    ruler: Any = SimpleNamespace(
        scorer=SimpleNamespace(mse_scale=None),
        activations=SimpleNamespace(vectors=vectors, problems={}, keys=names),
        baselines=measure_baselines(vectors, None),
    )
    return Reconstructions(keys, raw.astype(np.float32), np.arange(n), ruler, 0)


def test_the_widest_direction_alone_is_one_of_eight() -> None:
    found = _measured(planted([10.0] + [1.0] * 7), 1.0, 0)
    assert found.rows["fve"].mean() == pytest.approx(100 / 107, abs=0.01)
    assert found.rows["whitened_fve"].mean() == pytest.approx(1 / 8, abs=0.02)
    assert found.activations == 1600


def test_whitened_activations_have_unit_variance_in_every_direction() -> None:
    generator = np.random.default_rng(1)
    turned = np.linalg.qr(generator.normal(size=(6, 6)))[0]
    mixing = np.diag([3.0, 2.0, 1.0, 1.0, 0.8, 0.5]) @ turned
    whitening = fit(generator.normal(size=(4000, 6)) @ mixing + 3)
    fresh = whitening(generator.normal(size=(4000, 6)) @ mixing + 3)
    assert np.cov(fresh.T) == pytest.approx(np.eye(6), abs=0.1)


def test_no_document_is_judged_by_its_own_covariance() -> None:
    """Marked activations enter the covariance of every fifth but that of their document."""
    vectors = np.random.default_rng(2).normal(size=(100, 3))
    documents = np.repeat(np.arange(20), 5)
    vectors[documents == 7] += 1000
    judged = np.zeros(100, dtype=int)
    for own, whitening in cross_fitted(vectors, documents, 1.0, 0):
        judged += own
        assert (whitening.mean.max() > 10) == (not own[documents == 7].all())
    assert (judged == 1).all()


def test_the_command_says_what_it_needs(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["whitened", *exchanged.arguments(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tables"]["by_number"]
    few = exchanged.save_study(tmp_path, right=1.0, n=12)
    assert cli.run(["whitened", *exchanged.arguments(few)]) == 2
    assert (
        "12 usable activations of 12 documents; a covariance needs at least 20"
        in capsys.readouterr().err
    )


def test_what_says_nothing_has_the_fve_of_chance_whatever_the_covariance_is_from() -> None:
    """Three activations for each dimension: in the space that they were fitted in themselves,
    others' activations lie nearer together than the baseline says, and chance seemed to explain."""
    study = planted([1.0] * 20, n=60)
    noise = np.random.default_rng(5).normal(size=(60, 20)).astype(np.float32)
    mute = Reconstructions(study.keys, noise, study.rows, study.ruler, 0)
    found = _measured(mute, 1.0, 0).rows
    for name in ("whitened_fve_rescaled", "chance_whitened_fve_rescaled"):
        assert found[name].mean() == pytest.approx(0, abs=0.02)


def test_activations_that_do_not_differ_have_no_covariance() -> None:
    with pytest.raises(UserError, match="12 activations that a covariance is fitted on"):
        fit(np.ones((12, 3)))


def test_what_cannot_be_told_is_not_called_nan(root: Path, tmp_path: Path) -> None:
    """One explanation has no other to fit the factor on."""
    pl.read_parquet(root / "texts.parquet").head(1).write_parquet(tmp_path / "one.parquet")
    found = registry()["whitened"].run(
        load(tmp_path / "one.parquet"),
        pair=str(root / "ar"),
        activations=str(root / "activations.parquet"),
        seed=0,
    )
    assert "not known where every direction counts alike" in found.verdict
