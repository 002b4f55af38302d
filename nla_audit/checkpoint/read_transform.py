"""Transforms of the activations that an NLA was trained on: none, centring, whitening.

A sidecar names the transform in ``extraction.norm``. Reading such a pair raw gives numbers, all of
them wrong, so an unknown name is refused, and so is a known one whose parameters do not come with
the checkpoint. What is read (source: whitening.py and schema.py of syvb's EasyNLA):

==================  =====================  ==========================================
``extraction.norm``  x becomes             parameters
==================  =====================  ==========================================
absent, ``none``    x
``centered``        x − mean               ``mean`` [d_model]
``whitened_zca_v1``  (x − mean) · w        ``mean``, ``w`` [d_model, d_model], symmetric
==================  =====================  ==========================================

(``centred``, ``mean_centered``, ``whitened`` and ``whitened_zca`` are read as well.) The
parameters lie in a file of the checkpoint's folder or of the sidecar's: the one that
``extraction.whitening.stats_path`` (or ``extraction.centering.stats_path``) names, of which only
the last part counts, else ``whitening_stats`` or ``centering_stats`` with ending ``.npz`` or
``.safetensors``. ``stats_sha256`` in the same block pins them: the SHA-256 of ``mean``, and then
``w``, as little-endian float64. A ``mean`` may also stand in the block itself, as a list.

Tables hold raw vectors, unless a sidecar beside them (``<table>.nla_meta.yaml``) says otherwise.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from nla_audit.checkpoint.read_sidecar import SIDECAR_NAME, read_fields
from nla_audit.errors import UserError, first_line
from nla_audit.nla.sidecar import Sidecar
from nla_audit.nla.transform import ActivationTransform, Vectors

RAW = "none"
_RAW_NAMES = (None, RAW, "raw")
_CENTRED = re.compile(r"(mean_)?cent(er|r)ed(_v1)?")
_WHITENED = re.compile(r"whitened(_zca)?(_v1)?")
#: Blocks of ``extraction`` that describe a transform.
_BLOCKS = ("whitening", "centering", "centring")
#: What files of its parameters are called, before their ending.
WHITENING_STATS, CENTERING_STATS = "whitening_stats", "centering_stats"
_ENDINGS = (".npz", ".safetensors")
#: Characters of a file's name; file systems end at 255 bytes.
_LONGEST_NAME = 64
#: More than the header of an array in a ``.npz`` takes.
_HEADER_BYTES = 4096


@dataclass(frozen=True)
class Norm:
    """What a sidecar says of its activations.

    Attributes:
        name: ``none``, or the transform as written.
        sha256: of the parameters, where they are known.
    """

    name: str = RAW
    sha256: str | None = None


def norm_of_table(path: Path) -> Norm:
    """What the sidecar beside a table of activations says of them; raw where there is none.

    Raises:
        UserError: the sidecar cannot be read.
    """
    sidecar = path.with_name(f"{path.name}.{SIDECAR_NAME}")
    return _norm(read_fields(sidecar), sidecar)[0] if sidecar.is_file() else Norm()


def transform_of(sidecar: Sidecar, folders: Iterable[Path]) -> ActivationTransform | None:
    """The transform that a pair's activations went through, ``None`` if none.

    Args:
        folders: where its parameters may lie, besides the sidecar's own folder.

    Raises:
        UserError: an unknown transform, or its parameters are missing, damaged or others.
    """
    norm, block = _norm(sidecar.raw, sidecar.path)
    if norm.name == RAW:
        return None
    is_centred = _CENTRED.fullmatch(norm.name) is not None
    if not is_centred and not _WHITENED.fullmatch(norm.name):
        raise UserError(
            f"{sidecar.path}: extraction.norm is {norm.name!r}, a transform of the activations "
            "that is not known here (known: none, centered, whitened_zca_v1); reading them raw "
            "would be wrong"
        )
    width = sidecar.d_model
    needed = {"mean": (width,)} if is_centred else {"mean": (width,), "w": (width, width)}
    if is_centred and "mean" in block:
        path, found = sidecar.path, {"mean": _listed(block["mean"], width, sidecar.path)}
    else:
        path = _parameter_file(block, norm, [*folders, sidecar.path.parent], sidecar.path)
        found = _parameters(path, needed)
    digest = hashlib.sha256(
        b"".join(np.ascontiguousarray(found[name], dtype="<f8").tobytes() for name in needed)
    ).hexdigest()
    if norm.sha256 is not None and norm.sha256 != digest:
        raise UserError(
            f"{path}: these are not the parameters of {norm.name} that {sidecar.path} pins "
            f"(SHA-256 {digest[:12]}…, not {norm.sha256[:12]}…); take the file that belongs to it"
        )
    return ActivationTransform(norm.name, digest, found["mean"], found.get("w"), path)


def _norm(fields: Mapping[str, Any], path: Path) -> tuple[Norm, Mapping[str, Any]]:
    """What a sidecar says, and the block that describes the transform (empty if none does)."""
    extraction = fields.get("extraction")
    if not isinstance(extraction, Mapping):
        return Norm(), {}
    name = extraction.get("norm")
    blocks = [extraction[block] for block in _BLOCKS if extraction.get(block) is not None]
    if name in _RAW_NAMES:
        if blocks:
            raise UserError(
                f"{path}: extraction.norm is {name!r}, but a transform is described beside it; one "
                "of the two is wrong: mend the sidecar"
            )
        return Norm(), {}
    block = blocks[0] if blocks else {}
    if not isinstance(name, str) or len(blocks) > 1 or not isinstance(block, Mapping):
        raise UserError(
            f"{path}: extraction.norm must be a name, with at most one block of parameters "
            f"({', '.join(_BLOCKS)})"
        )
    pinned = block.get("stats_sha256")
    if pinned is not None and not isinstance(pinned, str):
        raise UserError(f"{path}: stats_sha256 must be text")
    return Norm(name, pinned), block


def _parameter_file(
    block: Mapping[str, Any], norm: Norm, folders: Iterable[Path], sidecar: Path
) -> Path:
    # Only the last part: the path is one on the machine of training, and a stranger's.
    stated = block.get("stats_path")
    last = re.split(r"[/\\]", stated)[-1] if isinstance(stated, str) else ""
    is_a_name = last.isprintable() and last.endswith(_ENDINGS) and len(last) < _LONGEST_NAME
    names = [last] if is_a_name else []
    stems = (WHITENING_STATS, CENTERING_STATS)
    names += [f"{stem}{ending}" for stem in stems for ending in _ENDINGS]
    places = list(dict.fromkeys(folders))
    for name in names:
        for folder in places:
            if (folder / name).is_file():
                return folder / name
    raise UserError(
        f"{sidecar}: the activations are {norm.name}, and its parameters are not here; put "
        f"{names[0]} (mean, and w if whitened) into {places[0]}"
    )


def _parameters(path: Path, needed: Mapping[str, tuple[int, ...]]) -> dict[str, Vectors]:
    """The arrays ``needed`` (name → shape) in a file, checked.

    Raises:
        UserError: the file is damaged, one is missing, of another shape, not finite, or ``w`` is
            not symmetric.
    """
    if path.suffix == ".npz":
        found = {name: _from_npz(path, name, shape) for name, shape in needed.items()}
    else:
        found = _from_safetensors(path, needed)
    for name, shape in needed.items():
        if found[name].shape != shape:
            raise UserError(
                f"{path}: {name} has shape {list(found[name].shape)}, the pair needs {list(shape)}"
            )
        if not np.isfinite(found[name]).all():
            raise UserError(f"{path}: {name} holds NaN or infinity; fetch it again")
    matrix = found.get("w")
    if matrix is not None and np.abs(matrix - matrix.T).max() > 1e-6 * np.abs(matrix).max():
        raise UserError(
            f"{path}: w is not symmetric, so that it is no ZCA whitening, and from which side it "
            "is to be multiplied is not known"
        )
    return found


def _from_safetensors(path: Path, names: Iterable[str]) -> dict[str, Vectors]:
    try:
        with safe_open(str(path), framework="np") as file:
            missing = sorted(set(names) - set(file.keys()))
            if missing:
                raise UserError(f"{path}: no {missing[0]} in it; fetch it again")
            return {name: file.get_tensor(name).astype(np.float64) for name in names}
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise UserError(f"{path}: cannot read ({first_line(error)}); fetch it again") from None


def _from_npz(path: Path, name: str, shape: tuple[int, ...]) -> Vectors:
    """One array of a ``.npz``; never more of it in memory than ``shape`` needs."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo(f"{name}.npy").file_size
            if size > 8 * int(np.prod(shape)) + _HEADER_BYTES:
                raise UserError(f"{path}: {name} is larger than the pair needs ({list(shape)})")
            data = io.BytesIO(archive.read(f"{name}.npy"))
        version = np.lib.format.read_magic(data)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        found, in_fortran_order, kind = read_header(data)
        if kind.kind != "f":
            raise UserError(f"{path}: {name} holds {kind}, not floating-point numbers")
        order: Any = "F" if in_fortran_order else "C"
        values = np.frombuffer(data.read(), dtype=kind).reshape(found, order=order)
    except KeyError:
        raise UserError(f"{path}: no {name} in it, or of a newer format; fetch it again") from None
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path}: cannot read ({first_line(error)}); fetch it again") from None
    return values.astype(np.float64)


def _listed(values: Any, width: int, path: Path) -> Vectors:
    is_list = isinstance(values, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
    if not is_list or len(values) != width or not np.isfinite(values).all():
        raise UserError(f"{path}: the mean must be a list of {width} numbers")
    return np.array(values, dtype=np.float64)
