"""Write the reference pages, which are made from the cards and recipes and not by hand.

``python docs/make_reference.py [FOLDER]`` writes ``analyzers.md``, ``probes.md``,
``transforms.md``, ``concepts.md`` and ``recipes.md`` (``docs/reference`` by default). They are not
committed: the code is what they say.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import BaseModel

from nla_audit import analyzers, probes
from nla_audit.concepts.confounding import confounding
from nla_audit.concepts.contrast_sets import contrast_set_names, load_contrast_set
from nla_audit.findings import Card, Metric
from nla_audit.probes.transforming.cards import TextTransform, transforms
from nla_audit.train import grading, recipe


def analyzers_page() -> str:
    """One section for each analyzer, from its card."""
    return _cards_page("Analyzers", analyzers.registry().values())


def probes_page() -> str:
    """One section for each probe, from its card."""
    return _cards_page("Probes", probes.registry().values())


def _cards_page(title: str, cards: Iterable[Card]) -> str:
    lines = [f"# {title}", "", "Made from the cards; `nla-audit NAME --help` says the same.", ""]
    for card in cards:
        lines += [f"## {card.name}", "", card.question, ""]
        lines += [f"- Reads: {', '.join(f'`{name}`' for name in card.reads)}."]
        lines += [
            f"- Better with `{name}`; without it: {lost}." for name, lost in card.uses.items()
        ]
        lines += [f"- Unit: {card.unit}.", f"- Control: {card.control}."]
        lines += [f"- What a high value means: {card.high_means}.", ""]
        numbers = [
            (f"`{metric.name}`", metric.unit, metric.better, _meaning(metric))
            for metric in card.metrics
        ]
        lines += [*_table(("number", "unit", "better", "meaning"), numbers), ""]
        options = [
            (
                option.flag or f"--{option.name.replace('_', '-')}",
                _default(option.default),
                option.help,
            )
            for option in card.options
        ]
        if options:
            lines += [*_table(("option", "default", "meaning"), options), ""]
        lines += ["```", card.example, "```", ""]
    return "\n".join(lines)


def _meaning(metric: Metric) -> str:
    chance = f"; `chance_{metric.name}`: the same by chance" if metric.chance else ""
    needs = f"; with `{metric.needs}`" if metric.needs else ""
    return f"{metric.meaning}{chance}{needs}"


def transforms_page() -> str:
    """One row for each transform of a text that the probe for codes knows."""
    groups = {"control": "Controls", "kept": "The meaning is kept", "cut": "Something is cut"}
    lines = ["# Transforms", "", "What `nla-audit stego` does to explanations.", ""]
    cards = transforms().values()
    for group, title in groups.items():
        rows = [_transform_row(card) for card in cards if card.group == group]
        columns = ("name", "what it does", "leaves nothing of", "promises to keep", "by")
        lines += [f"## {title}", "", *_table(columns, rows), ""]
    return "\n".join(lines)


def _transform_row(card: TextTransform) -> tuple[str, ...]:
    by = "a language model" if card.is_written else "rule"
    destroys, keeps = ", ".join(sorted(card.destroys)), ", ".join(card.keeps)
    return card.name, card.summary, destroys or "–", keeps or "–", by


def concepts_page() -> str:
    """One section for each contrast set that ships, from its card, with what confounds it."""
    lines = ["# Contrast sets", "", "Pairs of texts with a concept and without it.", ""]
    measured = []
    for name in contrast_set_names():
        card = load_contrast_set(name)
        found = confounding(card)
        lines += [f"## {name}", "", card.what, "", f"- Made: {card.made}"]
        lines += [f"- Confounds: {card.confounds}"]
        lines += [f"- Named by: {', '.join(card.words)}.", ""]
        shares = (f"{found.length_ratio:.2f}", str(found.length), str(found.word_counts))
        measured.append((name, str(len(card.pairs)), *shares))
    lines += [
        "## What the sides differ in besides",
        "",
        "How well held-out pairs are told apart by length alone (words and characters) and by word "
        "counts alone: AUC, 0.5 by chance, with 95 % intervals over pairs.",
        "",
        *_table(("set", "pairs", "length ratio", "length alone", "words alone"), measured),
        "",
    ]
    return "\n".join(lines)


def recipes_page() -> str:
    """Every key of a recipe with its default and its meaning, and the gradings."""
    lines = ["# Recipes", "", "Every key that a recipe takes, section by section.", ""]
    found: dict[str, type[BaseModel]] = {}
    _sections("", recipe.Recipe, found)
    for place, section in found.items():
        lines += [f"## {place or 'the whole recipe'}", "", _first(section), "", *_fields(section)]
        lines += [""]
    lines += ["# Gradings", "", "What `rl.grading` may be.", ""]
    for kind, card in grading.cards().items():
        settings = type(_smallest(kind))
        lines += [f"## {kind}", "", f"{card.sentence[0].upper()}{card.sentence[1:]}.", ""]
        lines += [*_fields(settings), ""]
    return "\n".join(lines)


def _smallest(kind: str) -> grading.Grading:
    """A grading of this kind, with the least that it needs."""
    try:
        return grading.read_grading(kind)
    except ValueError:
        return grading.read_grading({"kind": kind, "lengths": [1]})


def _sections(place: str, section: type[BaseModel], found: dict[str, type[BaseModel]]) -> None:
    """Collect ``section`` and the sections inside it, by their place in the file."""
    found[place] = section
    for name, field in section.model_fields.items():
        inside = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for kind in inside:
            if isinstance(kind, type) and issubclass(kind, BaseModel) and name != "grading":
                _sections(f"{place}.{name}".strip("."), kind, found)


def _fields(section: type[BaseModel]) -> list[str]:
    rows = []
    for name, field in section.model_fields.items():
        if name == "kind" and issubclass(section, grading.Grading):
            continue  # it is the heading
        made = field.get_default(call_default_factory=True)
        if field.is_required():
            default = "needed"
        elif isinstance(made, BaseModel):
            default = "see there"
        else:
            default = _default(made)
        rows.append((f"`{name}`", default, field.description or ""))
    return _table(("key", "default", "meaning"), rows)


def _first(section: type[BaseModel]) -> str:
    return (section.__doc__ or "").strip().split("\n\n")[0]


def _default(value: object) -> str:
    return "–" if value is None or value == () else f"`{value}`"


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(" ".join(c.split()).replace("|", "\\|") for c in cells) + " |"

    return [line(columns), line("---" for _ in columns), *map(line, rows)]


PAGES: dict[str, Callable[[], str]] = {
    "analyzers.md": analyzers_page,
    "probes.md": probes_page,
    "transforms.md": transforms_page,
    "concepts.md": concepts_page,
    "recipes.md": recipes_page,
}


def main(folder: Path) -> None:
    """Write every page into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "reference")
