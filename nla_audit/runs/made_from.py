"""What a run of a pair was made from: enough to repeat it, and to know that it was this one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from nla_audit.checkpoint.fingerprint import file_hashes
from nla_audit.errors import UserError, first_line
from nla_audit.files import whole_file, write_json
from nla_audit.nla.fve import BASELINE_NAMES, BaselineName, Baselines
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.transform import ActivationTransform
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.record import record_path
from nla_audit.runs.activations import Activations
from nla_audit.runs.target import TargetModel
from nla_audit.strangers import read_json_object


def verbalizer_record(verbalizer: Verbalizer) -> dict[str, Any]:
    """All that decides what an AV says, but for the settings of generation."""
    return {
        "injection": str(verbalizer.injection),
        "prompt_ids": " ".join(map(str, verbalizer.prompt.ids)),
        "end_ids": sorted(verbalizer.end_ids),
        **_transform(verbalizer.transform),
        **_model(verbalizer.model, verbalizer.files),
        **({"engine": verbalizer.engine.record()} if verbalizer.engine is not None else {}),
        # Rounds in another way, by which a sampled token may be another.
        **({"decoding": "compiled"} if verbalizer.steps is not None else {}),
    }


def reconstructor_record(reconstructor: Reconstructor) -> dict[str, Any]:
    """All that decides what an AR makes of a text."""
    return {
        "layer": reconstructor.layer_index,
        "template": reconstructor.template,
        "mse_scale": reconstructor.mse_scale,
        "keeps_final_norm": reconstructor.keeps_final_norm,
        "trained_in_rl": reconstructor.sidecar.ar_trained_in_rl,
        **_transform(reconstructor.transform),
        **_model(reconstructor.model, reconstructor.files),
    }


def target_record(target: TargetModel) -> dict[str, Any]:
    """All that decides what a target model's activations are."""
    return {
        "model": file_hashes(target.files),
        "dtype": str(target.model.dtype),
        "layer": target.layer_index,
    }


def _transform(transform: ActivationTransform | None) -> dict[str, Any]:
    """What the activations go through; nothing where they are read raw."""
    if transform is None:
        return {}
    return {"activations_are": transform.name, "transform_sha256": transform.sha256}


def _model(model: Any, files: Iterable[Path]) -> dict[str, Any]:
    return {
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "quantized": bool(getattr(model, "is_quantized", False)),
        "files": file_hashes(files),
    }


def activations_record(activations: Activations) -> dict[str, Any]:
    """The table of activations, and the rows of it that could not be used."""
    idx = activations.keys["idx"]
    return {
        "path": activations.path,
        "sha256": activations.sha256,
        "rows": len(activations.vectors),
        "left_out": [
            {"row": row, "idx": idx[row], "reason": reason}
            for row, reason in activations.problems.items()
        ],
    }


def baselines_record(
    baselines: Baselines, given: Mapping[BaselineName, float], chosen: BaselineName
) -> dict[str, Any]:
    """Both baselines, where each comes from, and which one column ``fve`` uses."""
    return {
        "chosen": chosen,
        **{
            name: {
                "value": baselines.of(name),
                "from": "given"
                if name in given
                else f"{baselines.activations} activations of this table",
            }
            for name in BASELINE_NAMES
        },
    }


@contextmanager
def table_and_record(out: Path, record: Mapping[str, Any]) -> Iterator[Path]:
    """A temporary name to write a run's table to; it becomes ``out``, with its record beside it.

    Raises:
        UserError: it cannot be written.
    """
    with whole_file(out) as partial:
        yield partial
        # Before the file has its name: a table without its record would be a stranger's.
        write_json(record, record_path(out))


def finished_table(path: Path) -> pl.DataFrame:
    """A table that a finished run wrote.

    Raises:
        UserError: it has gone since, or is not whole.
    """
    advice = "remove what that run wrote, and run the same command again"
    try:
        return pl.read_parquet(path, glob=False)
    except FileNotFoundError:
        raise UserError(f"{path}: not there, though its run finished: {advice}") from None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise UserError(
            f"{path}: not a whole Parquet file ({first_line(error)}): {advice}"
        ) from None


def is_done(out: Path, key: str) -> bool:
    """Whether ``out`` is already there, made by a run with this ``key``.

    Raises:
        UserError: ``out`` is there, but another run made it.
    """
    if not out.exists():
        return False
    path = record_path(out)
    advice = f"remove {out} and it, and run the same command again"
    if path.is_file() and read_json_object(path, advice=advice).get("key") == key:
        return True
    raise UserError(f"{out}: exists already, made by another run; name another --out or remove it")
