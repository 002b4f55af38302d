"""The card of a repository: ``README.md`` with YAML front matter that tools can read.

Every number in it is read from a file or computed from a table by the functions that the
analyzers use; what is not known is said to be unknown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from nla_audit import __version__
from nla_audit.publish.contents import Contents, read_record, table_paths
from nla_audit.report.escape import markdown_text
from nla_audit.stats import Interval
from nla_audit.table.model_names import is_without_rl, length_penalty_of
from nla_audit.table.pairing import column, resampler

if TYPE_CHECKING:
    from nla_audit.checkpoint.formats import Checkpoint
    from nla_audit.nla.sidecar import Sidecar
    from nla_audit.table.completions import Completions

#: By which a card of ours is told from one that somebody wrote.
MARK = "<!-- written by nla-audit push -->"
_TAGS = ["natural-language-autoencoder", "nla", "interpretability"]
#: The Hub's own names for numbers of rows.
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_UNKNOWN = "not recorded"
_NOT_FOR_THIS = "–"
_WHAT = (
    "An NLA (natural language autoencoder) is a pair of language models: a verbalizer (AV) that "
    "turns a model's activation into text, and a reconstructor (AR) that turns the text back into "
    "the activation. FVE is the fraction of variance that the reconstruction explains."
)


def card_of(
    contents: Contents,
    repository: str,
    *,
    completions: Sequence[Path] = (),
    ruler: str | None = None,
    base_model: str | None = None,
) -> str:
    """The card.

    Args:
        repository: ``owner/name`` of where it goes.
        completions: for a pair, tables of its completions, from which FVE is taken.
        ruler: the AR whose FVE the card states, where a table holds several.
        base_model: the model whose activations are explained, if not as recorded.

    Raises:
        UserError: a table that cannot be read.
    """
    if contents.kind == "completions":
        return _completions_card(contents, repository, ruler, base_model)
    if contents.kind == "report":
        return _report_card(contents, repository)
    from nla_audit.table.completions import load  # keeps --help fast

    measured = load(list(completions), ar=ruler) if completions else None
    return _pair_card(contents, repository, measured, base_model)


def _completions_card(
    contents: Contents, repository: str, ruler: str | None, base_model: str | None
) -> str:
    from nla_audit.table.completions import load  # keeps --help fast

    tables = table_paths(contents)
    loaded = load(list(tables.values()), ar=ruler)
    records = [record for file in tables.values() if (record := read_record(file)) is not None]
    facts: dict[str, Any] = {
        "kind": "completions",
        "base_model": base_model,
        "activations": loaded.rows["idx"].n_unique(),
        "explanations": loaded.rows.height,
        "ruler": loaded.ar,
        "layer": _common(record.get("ar", {}).get("layer") for record in records),
        "injection": _common(record.get("av", {}).get("injection") for record in records),
        "baseline": _common(record.get("baselines", {}).get("chosen") for record in records),
        "columns": sorted(loaded.columns),
        "models": _models(loaded),
    }
    front = {
        "tags": _TAGS,
        "size_categories": [_size(loaded.rows.height)],
        "configs": [{"config_name": "default", "data_files": list(tables)}],
        "nla": facts,
    }
    body = [
        f"# {markdown_text(repository)}",
        "Explanations of a language model's activations by natural language autoencoders. " + _WHAT,
        _facts(
            {
                "Base model": base_model,
                "Activations": f"{facts['activations']:,}",
                "Explanations": f"{facts['explanations']:,}",
                "Extraction layer": facts["layer"],
                "Injection": facts["injection"],
                "Ruler (the AR that scored)": facts["ruler"],
                "FVE baseline": facts["baseline"],
                "Columns": ", ".join(facts["columns"]),
            }
        ),
        "## Models",
        _model_table(facts["models"]),
        *(f"> {markdown_text(note)}" for note in loaded.notes),
        "## Use",
        f"```\nnla-audit audit {_address(repository, tables)} --out report\n```",
    ]
    return _card(front, body)


def _pair_card(
    contents: Contents, repository: str, measured: Completions | None, base_model: str | None
) -> str:
    from nla_audit.checkpoint.formats import recognise

    halves = {name: recognise(contents.root / name) for name in contents.checkpoints}
    rows = [_half(name, checkpoint) for name, checkpoint in halves.items()]
    base = base_model or _common(row["base_model"] for row in rows)
    facts: dict[str, Any] = {
        "kind": "pair",
        "layer": _common(row["layer"] for row in rows),
        "checkpoints": rows,
        "fve": None if measured is None else {"ruler": measured.ar, "models": _models(measured)},
    }
    front = {
        **({"base_model": base} if _is_hub_name(base) else {}),
        "tags": _TAGS,
        "nla": facts,
    }
    header = ("folder", "role", "format", "layer", "injection", "λ", "AR trained in RL")
    body = [
        f"# {markdown_text(repository)}",
        _WHAT,
        _facts({"Base model": base, "Extraction layer": facts["layer"]}),
        "## Checkpoints",
        _table(
            header,
            [
                (
                    row["folder"],
                    row["role"].upper() if row["role"] else "plain model",
                    row["format"],
                    row["layer"],
                    row["injection"] if row["role"] == "av" else _NOT_FOR_THIS,
                    row["length_penalty"] if row["role"] == "av" else _NOT_FOR_THIS,
                    row["ar_trained_in_rl"],
                )
                for row in rows
            ],
        ),
        "## FVE",
    ]
    if measured is None:
        body.append("Not measured for this card.")
    else:
        body += [
            f"Ruler: {_shown(measured.ar)}.",
            _model_table(facts["fve"]["models"]),
            *(f"> {markdown_text(note)}" for note in measured.notes),
        ]
    body += [
        "## Use",
        f"```\nnla-audit explain {repository} activations.parquet --out completions.parquet\n```",
    ]
    return _card(front, body)


def _half(name: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """One row of a pair's table of checkpoints; ``None`` is "not recorded"."""
    from nla_audit.nla.injection import injection_of  # torch

    sidecar = checkpoint.sidecar or _sidecar_of_base(checkpoint)
    is_av = checkpoint.role == "av"
    return {
        "folder": name,
        "role": checkpoint.role,
        "format": checkpoint.format_name,
        "base_model": sidecar.base_model if sidecar else None,
        "d_model": sidecar.d_model if sidecar else None,
        "layer": sidecar.layer_index if sidecar else None,
        "injection": str(injection_of(sidecar)) if sidecar and is_av else None,
        "length_penalty": length_penalty_of(checkpoint.path.resolve().name) if is_av else None,
        "ar_trained_in_rl": sidecar.ar_trained_in_rl if sidecar else None,
    }


def _sidecar_of_base(checkpoint: Checkpoint) -> Sidecar | None:
    """The sidecar of the model beside an adapter that it sits on."""
    from nla_audit.checkpoint.formats import neighbour, recognise

    if checkpoint.base_named is None:
        return None
    base = neighbour(checkpoint.path, Path(checkpoint.base_named).name)
    return recognise(base).sidecar if base is not None else None


def _report_card(contents: Contents, repository: str) -> str:
    document = json.loads(contents.files["findings.json"].read_text(encoding="utf-8"))
    record = document["record"]
    facts = {
        "kind": "report",
        "models": record["models"],
        "length_penalties": record["length_penalties"],
        "activations": record["activations"],
        "explanations": record["rows"],
        "ruler": record["ruler"],
        "reference": record["reference"],
        "seed": record["seed"],
        "tables": [source["sha256"] for source in record["tables"]],
        "analyzers": [finding["analyzer"] for finding in document["findings"]],
    }
    body = [
        f"# {markdown_text(repository)}",
        "A report of `nla-audit audit`. Open `report.html` for the whole of it, with figures.",
        _facts(
            {
                "Models": ", ".join(facts["models"]),
                "Activations": f"{facts['activations']:,}",
                "Explanations": f"{facts['explanations']:,}",
                "Reference": facts["reference"],
                "Ruler": facts["ruler"],
                "Seed": facts["seed"],
            }
        ),
        "## Verdicts",
        "\n".join(
            f"- **{markdown_text(finding['question'])}** {markdown_text(finding['verdict'])}"
            for finding in document["findings"]
        ),
    ]
    return _card({"tags": _TAGS, "nla": facts}, body)


def _models(completions: Completions) -> list[dict[str, Any]]:
    """What each model's explanations cost and carry, with 95 % intervals over activations."""
    rows = []
    for name in completions.models:
        own = completions.of(name)
        draw = resampler(own, seed=0)
        fve, tokens = draw.mean(column(own, "fve")), draw.mean(column(own, "n_tokens"))
        median = draw.quantile(column(own, "fve"), 0.5)
        rows.append(
            {
                "model": name,
                "length_penalty": completions.length_penalties[name],
                "explanations": own.height,
                "extracted": _rounded(draw.mean(column(own, "extracted")).value),
                "tokens_mean": _interval(tokens, digits=1),
                "fve_mean": _interval(fve),
                "fve_median": _interval(median),
                "fve_missing": fve.missing,
            }
        )
    return rows


def _interval(interval: Interval, digits: int = 3) -> dict[str, float | None] | None:
    """``None`` where nothing was measured; limits ``None`` where too little was."""
    if math.isnan(interval.value):
        return None
    return {
        "value": _rounded(interval.value, digits),
        "low": _rounded(interval.low, digits),
        "high": _rounded(interval.high, digits),
    }


def _rounded(value: float, digits: int = 3) -> float | None:
    return None if math.isnan(value) else round(value, digits)


def _model_table(models: Iterable[dict[str, Any]]) -> str:
    header = (
        "model",
        "λ",
        "explanations",
        "extracted",
        "mean tokens",
        "mean FVE",
        "median FVE",
        "without FVE",
    )
    return _table(
        header,
        [
            (
                row["model"],
                "no RL" if is_without_rl(row["model"]) else row["length_penalty"],
                row["explanations"],
                None if row["extracted"] is None else f"{row['extracted']:.1%}",
                _interval_text(row["tokens_mean"], ".1f"),
                _interval_text(row["fve_mean"], ".3f"),
                _interval_text(row["fve_median"], ".3f"),
                row["fve_missing"],
            )
            for row in models
        ],
    ) + ("\n\nIn brackets: 95 % intervals over activations (over documents, where known).")


def _interval_text(interval: dict[str, float | None] | None, form: str) -> str | None:
    if interval is None:
        return None
    low, high = interval["low"], interval["high"]
    limits = "too few for an interval" if low is None else f"{low:{form}}, {high:{form}}"
    return f"{interval['value']:{form}} [{limits}]"


def _facts(facts: dict[str, Any]) -> str:
    return "\n".join(f"- **{name}**: {_shown(value)}" for name, value in facts.items())


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *([_shown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(value: Any) -> str:
    """A value for people; missing is never a number."""
    if value is None:
        return _UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    return markdown_text(f"{value:g}" if isinstance(value, float) else value)


def _common(values: Iterable[Any]) -> Any:
    """The one value that all who state one agree on, ``None`` otherwise."""
    stated = {value for value in values if value is not None}
    return stated.pop() if len(stated) == 1 else None


def _size(rows: int) -> str:
    return next((name for limit, name in _SIZES if rows < limit), "n>1M")


def _address(repository: str, tables: Iterable[str]) -> str:
    """The address at which all the tables can be read."""
    names = list(tables)
    address = f"hf://datasets/{repository}"
    return f"{address}/{names[0]}" if len(names) == 1 else address


def _is_hub_name(name: Any) -> bool:
    """Whether ``name`` is ``owner/name`` and not a path on somebody's machine."""
    if not isinstance(name, str) or name.startswith(("/", ".", "~")):
        return False
    return name.count("/") == 1 and not Path(name).exists()


def _card(front: dict[str, Any], body: Sequence[str]) -> str:
    header = yaml.safe_dump(front, allow_unicode=True, sort_keys=False, width=100)
    footer = f"Written by nla-audit {__version__}."
    return "\n".join(["---", header.rstrip(), "---", MARK, "", "\n\n".join([*body, footer])]) + "\n"
