"""Pairs trained on centred or whitened activations: read as they were trained, or refused.

What :mod:`nla_audit.checkpoint.read_transform` reads is written here as syvb's EasyNLA writes it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from nla_audit import cli
from nla_audit.checkpoint.inspection import inspect
from nla_audit.checkpoint.load import Pair, load
from nla_audit.checkpoint.read_sidecar import parse_sidecar
from nla_audit.checkpoint.read_transform import transform_of
from nla_audit.checkpoint.save import save_ar, save_av
from nla_audit.errors import UserError
from nla_audit.train.dataset import read_training_table
from tests.pairs import tiny
from tests.pairs.explaining import FLOAT32, table_of

D = tiny.D_MODEL
RNG = np.random.default_rng(3)
MEAN = RNG.normal(size=D)
ROOT = RNG.normal(size=(D, D))
W = np.linalg.inv(ROOT @ ROOT.T + np.eye(D))  # symmetric, and far from the identity
W = (W + W.T) / 2
RAW = RNG.normal(size=(12, D)).astype(np.float32)


def sha256(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(array.astype("<f8").tobytes() for array in arrays)).hexdigest()


def say(folder: Path, **extraction: Any) -> None:
    """Add to ``extraction`` in the sidecar of a half."""
    path = folder / "nla_meta.yaml"
    fields = yaml.safe_load(path.read_text())
    fields["extraction"] = {**fields.get("extraction", {}), **extraction}
    path.write_text(yaml.safe_dump(fields, allow_unicode=True))


def as_published(folder: Path) -> None:
    """Whitened, as EasyNLA's ``save_stats`` and ``sidecar_block`` write it."""
    np.savez_compressed(
        folder / "stats-L2.npz",
        mean=MEAN,
        w=W,
        w_inv=np.linalg.inv(W),
        eigenvalues=np.ones(D),
        shrinkage=np.float64(0),
        source=np.str_("av_sft_train.parquet"),
        sha256=np.str_(sha256(MEAN, W)),
    )
    block = {
        "method": "whitened_zca_v1",
        "stats_path": "/workspace/data/stats-L2.npz",
        "stats_sha256": sha256(MEAN, W),
        "n_samples": 1000,
    }
    say(folder, norm="whitened_zca_v1", whitening=block)


def default_name(folder: Path) -> None:
    save_file({"mean": MEAN, "w": W}, folder / "whitening_stats.safetensors")
    say(folder, norm="whitened")


def fortran_float32(folder: Path) -> None:
    np.savez(
        folder / "whitening_stats.npz",
        mean=MEAN.astype(np.float32),
        w=np.asfortranarray(W.astype(np.float32)),
    )
    say(folder, norm="whitened_zca")


def centred_file(folder: Path) -> None:
    np.savez(folder / "mean.npz", mean=MEAN)
    block = {"stats_path": "mean.npz", "stats_sha256": sha256(MEAN)}
    say(folder, norm="centered", centering=block)


def centred_inline(folder: Path) -> None:
    say(folder, norm="mean_centered", centering={"mean": MEAN.tolist()})


def centred(vectors: np.ndarray) -> np.ndarray:
    return vectors - MEAN


def whitened(vectors: np.ndarray) -> np.ndarray:
    return (vectors - MEAN) @ W


KNOWN = [
    (as_published, whitened),
    (default_name, whitened),
    (fortran_float32, whitened),
    (centred_file, centred),
    (centred_inline, centred),
]


def spoiled(pair_path: Path, root: Path, spoil: Callable[[Path], None]) -> Path:
    shutil.copytree(pair_path, root)
    for half in ("av", "ar"):
        spoil(root / half)
    return root


def explain(pair: Path, table: Path, out: Path) -> pl.DataFrame:
    arguments = ["explain", pair, table, "--out", out, "--greedy", "--max-new-tokens", 16]
    assert cli.run([*map(str, arguments), "--dtype", "float32"]) == 0
    return pl.read_parquet(out)


@pytest.mark.parametrize(("spoil", "formula"), KNOWN, ids=lambda each: each.__name__)
def test_raw_activations_are_transformed(
    spoil: Callable[[Path], None],
    formula: Callable[[np.ndarray], np.ndarray],
    pair_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Explaining and scoring raw vectors is what the plain pair does with transformed ones."""
    pair = spoiled(pair_path, tmp_path / "pair", spoil)
    (av,) = inspect(pair / "av")
    assert av.problems == []
    assert "raw ones are centred" in av.facts["activations"]
    table_of(RAW).write_parquet(tmp_path / "raw.parquet")
    table_of(formula(RAW).astype(np.float32)).write_parquet(tmp_path / "done.parquet")
    wanted = explain(pair_path, tmp_path / "done.parquet", tmp_path / "wanted.parquet")
    found = explain(pair, tmp_path / "raw.parquet", tmp_path / "found.parquet")
    assert found["explanation"].to_list() == wanted["explanation"].to_list()
    for column in ("mse", "fve", "fve_mean_normalized"):
        np.testing.assert_allclose(found[column], wanted[column], atol=1e-5)
    plain = explain(pair_path, tmp_path / "raw.parquet", tmp_path / "plain.parquet")
    assert not np.allclose(plain["mse"].fill_null(0), wanted["mse"].fill_null(0), atol=0.01)

    scored = tmp_path / "scored.parquet"
    arguments = [tmp_path / "found.parquet", "--ar", pair / "ar"]
    arguments += ["--activations", tmp_path / "raw.parquet", "--out", scored]
    assert cli.run(["score", *map(str, arguments), "--dtype", "float32"]) == 0
    np.testing.assert_allclose(pl.read_parquet(scored)["fve"], found["fve"], atol=1e-5)
    record = json.loads((tmp_path / "scored.parquet.record.json").read_text())
    assert record["ar"]["transform_sha256"]
    capsys.readouterr()


def test_saved_pair_keeps_its_transform(pair_path: Path, tmp_path: Path) -> None:
    pair = spoiled(pair_path, tmp_path / "pair", as_published)
    loaded = load(av=pair / "av", ar=pair / "ar", placement=FLOAT32)
    assert loaded.verbalizer is not None
    assert loaded.reconstructor is not None
    save_av(loaded.verbalizer, tmp_path / "again" / "av")
    save_ar(loaded.reconstructor, tmp_path / "again" / "ar")
    again = load(av=tmp_path / "again" / "av", ar=tmp_path / "again" / "ar", placement=FLOAT32)
    for half in (again.verbalizer, again.reconstructor):
        assert half is not None
        assert half.transform is not None
        assert half.transform == loaded.verbalizer.transform
        np.testing.assert_allclose(half.transform.apply(RAW), whitened(RAW), atol=1e-5)
        np.testing.assert_allclose(
            half.transform.undo(half.transform.apply(RAW)), RAW, rtol=1e-3, atol=1e-3
        )


class TestTables:
    """What a sidecar beside a table says of its vectors."""

    @staticmethod
    def table(folder: Path, vectors: np.ndarray, **extraction: Any) -> Path:
        path = folder / "table.parquet"
        table_of(vectors.astype(np.float32)).write_parquet(path)
        sidecar = {"kind": "nla_dataset", "extraction": extraction}
        (folder / "table.parquet.nla_meta.yaml").write_text(yaml.safe_dump(sidecar))
        return path

    def test_whitened_ones_are_taken_as_they_are(self, pair_path: Path, tmp_path: Path) -> None:
        pair = spoiled(pair_path, tmp_path / "pair", as_published)
        block = {"stats_sha256": sha256(MEAN, W)}
        done = self.table(tmp_path, whitened(RAW), norm="whitened_zca_v1", whitening=block)
        table_of(RAW).write_parquet(tmp_path / "raw.parquet")
        found = explain(pair, done, tmp_path / "found.parquet")
        wanted = explain(pair, tmp_path / "raw.parquet", tmp_path / "wanted.parquet")
        np.testing.assert_allclose(found["mse"], wanted["mse"], atol=1e-5)

    @pytest.mark.parametrize(
        ("is_pair_whitened", "extraction", "words"),
        [
            (False, {"norm": "whitened_zca_v1"}, "the pair reads raw activations"),
            (True, {"norm": "centered"}, "its sidecar says centered, the pair reads whitened"),
            (
                True,
                {"norm": "whitened_zca_v1", "whitening": {"stats_sha256": "0" * 64}},
                "its sidecar says whitened_zca_v1 (000000000000…)",
            ),
            (
                False,
                {"norm": "none", "whitening": {"stats_sha256": "0"}},
                "one of the two is wrong",
            ),
            (False, {"norm": 7}, "extraction.norm must be a name"),
        ],
    )
    def test_others_are_refused(
        self,
        *,
        is_pair_whitened: bool,
        extraction: dict[str, Any],
        words: str,
        pair_path: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        pair = pair_path
        if is_pair_whitened:
            pair = spoiled(pair_path, tmp_path / "pair", as_published)
        table = self.table(tmp_path, RAW, **extraction)
        out = tmp_path / "out.parquet"
        assert cli.run(["explain", str(pair), str(table), "--out", str(out)]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert words in error
        assert not out.exists()

    def test_the_trainer_refuses_them(self, tmp_path: Path) -> None:
        table = self.table(tmp_path, RAW, norm="whitened_zca_v1")
        with pytest.raises(UserError, match="give raw activations"):
            read_training_table(table, held_out_share=0.5, seed=0)


def lost(folder: Path) -> None:
    as_published(folder)
    (folder / "stats-L2.npz").unlink()


def elsewhere(folder: Path) -> None:
    """A path out of the checkpoint, to a file that is there, is not followed."""
    as_published(folder)
    (folder / "stats-L2.npz").rename(folder.parents[1] / "stats-L2.npz")
    block = {"stats_path": "../../stats-L2.npz"}
    say(folder, norm="whitened_zca_v1", whitening=block)


def another(folder: Path) -> None:
    as_published(folder)
    np.savez(folder / "stats-L2.npz", mean=MEAN + 1, w=W)


def unknown(folder: Path) -> None:
    say(folder, norm="zscore_v3")


def truth(folder: Path) -> None:
    say(folder, norm=True)


def contradiction(folder: Path) -> None:
    as_published(folder)
    say(folder, norm="none")


def asymmetric(folder: Path) -> None:
    np.savez(folder / "whitening_stats.npz", mean=MEAN, w=ROOT)
    say(folder, norm="whitened")


def other_width(folder: Path) -> None:
    np.savez(folder / "whitening_stats.npz", mean=MEAN[:5], w=W[:5, :5])
    say(folder, norm="whitened")


def not_finite(folder: Path) -> None:
    np.savez(folder / "whitening_stats.npz", mean=MEAN * np.nan, w=W)
    say(folder, norm="whitened")


def whole_numbers(folder: Path) -> None:
    np.savez(folder / "whitening_stats.npz", mean=np.arange(D), w=W)
    say(folder, norm="whitened")


def pickled(folder: Path) -> None:
    np.savez(folder / "whitening_stats.npz", mean=np.array([{}] * D, dtype=object), w=W)
    say(folder, norm="whitened")


def mean_only(folder: Path) -> None:
    np.savez(folder / "whitening_stats.npz", mean=MEAN)
    say(folder, norm="whitened")


def cut_off(folder: Path) -> None:
    as_published(folder)
    path = folder / "stats-L2.npz"
    path.write_bytes(path.read_bytes()[:200])


def bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder / "whitening_stats.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mean.npy", b"\0" * 10_000_000)
    say(folder, norm="whitened")


def short_list(folder: Path) -> None:
    say(folder, norm="centered", centering={"mean": [1.0, 2.0]})


REFUSED = [
    (lost, "its parameters are not here; put stats-L2.npz"),
    (elsewhere, "its parameters are not here"),
    (another, "these are not the parameters of whitened_zca_v1"),
    (unknown, "'zscore_v3', a transform of the activations that is not known here"),
    (truth, "extraction.norm must be a name"),
    (contradiction, "one of the two is wrong"),
    (asymmetric, "w is not symmetric"),
    (other_width, "mean has shape [5], the pair needs [32]"),
    (not_finite, "mean holds NaN or infinity"),
    (whole_numbers, "not floating-point numbers"),
    (pickled, "not floating-point numbers"),
    (mean_only, "no w in it"),
    (cut_off, "cannot read"),
    (bomb, "mean is larger than the pair needs"),
    (short_list, "the mean must be a list of 32 numbers"),
]


@pytest.mark.parametrize(
    ("spoil", "words"), REFUSED, ids=lambda each: getattr(each, "__name__", "")
)
def test_others_are_refused(
    spoil: Callable[[Path], None], words: str, pair_path: Path, tmp_path: Path
) -> None:
    pair = spoiled(pair_path, tmp_path / "pair", spoil)
    for half in ("av", "ar"):
        with pytest.raises(UserError) as refused:
            load(**{half: pair / half}, placement=FLOAT32)
        assert words in str(refused.value)
        assert "\n" not in str(refused.value)
        (found,) = inspect(pair / half)
        assert found.problems == [str(refused.value)]


def test_halves_of_two_spaces(pair_path: Path, tmp_path: Path, capsys: Any) -> None:
    pair = Path(shutil.copytree(pair_path, tmp_path / "pair"))
    as_published(pair / "av")
    table_of(RAW).write_parquet(tmp_path / "raw.parquet")
    out = tmp_path / "out.parquet"
    assert cli.run(["explain", str(pair), str(tmp_path / "raw.parquet"), "--out", str(out)]) == 2
    assert "the AR predicts raw activations: take the halves of one pair" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x\n.npz", "\0.npz", "\ud800.npz", f"{'x' * 300}.npz", "..", ""])
def test_names_that_no_file_has(name: str, pair: Pair, tmp_path: Path) -> None:
    assert pair.verbalizer is not None
    fields = pair.verbalizer.sidecar.raw
    block = {"norm": "whitened", "whitening": {"stats_path": name}}
    extraction = {**fields["extraction"], **block}
    sidecar = parse_sidecar({**fields, "extraction": extraction}, tmp_path / "nla_meta.yaml")
    with pytest.raises(UserError, match=r"^.*put whitening_stats\.npz .*$"):
        transform_of(sidecar, [tmp_path])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    norm=st.none()
    | st.sampled_from(["none", "raw", "centered", "whitened_zca_v1", "x"])
    | st.text(),
    block=st.none()
    | st.dictionaries(
        st.sampled_from(["stats_path", "stats_sha256", "mean", "method"]),
        st.none() | st.text() | st.integers() | st.lists(st.floats(), max_size=3),
    ),
    name=st.sampled_from(["whitening", "centering", "centring", "other"]),
)
def test_any_sidecar_gives_a_transform_or_one_line(
    norm: Any, block: Any, name: str, pair: Pair, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert pair.verbalizer is not None
    fields = pair.verbalizer.sidecar.raw
    extraction = {**fields["extraction"], "norm": norm, name: block}
    folder = tmp_path_factory.getbasetemp()
    sidecar = parse_sidecar({**fields, "extraction": extraction}, folder / "nla_meta.yaml")
    try:
        found = transform_of(sidecar, [folder])
    except UserError as error:
        said = str(error)
        assert said.count("\n") == 0, said
    else:
        assert found is None
        assert norm in (None, "none", "raw")
