"""The names of the commands of analyzers and probes, without importing any.

``nla-audit --help`` and shell completion list every one; importing them all, with the
numerical libraries they use, takes longer than a user should wait for a list. So the list is
read from the source files; everything else comes from the registered cards.
"""

from __future__ import annotations

import ast
import pkgutil
from pathlib import Path
from types import ModuleType

from nla_audit import analyzers, probes


def analyzer_names() -> dict[str, str]:
    """Name of each analyzer → the first line of its file's docstring, in order of name."""
    return _names(analyzers, "analyzer")


def probe_names() -> dict[str, str]:
    """As :func:`analyzer_names`, of the probes that are one file."""
    return _names(probes, "probe")


def _names(folder: ModuleType, decorator: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for module in pkgutil.iter_modules(folder.__path__):
        path = Path(getattr(module.module_finder, "path", "")) / f"{module.name}.py"
        if not path.is_file():
            continue
        tree = ast.parse(path.read_bytes())
        summary = (ast.get_docstring(tree) or "").split("\n", maxsplit=1)[0]
        for function in tree.body:
            if isinstance(function, ast.FunctionDef):
                found |= dict.fromkeys(_registered_names(function, decorator), summary)
    return dict(sorted(found.items()))


def _registered_names(function: ast.FunctionDef, decorator: str) -> list[str]:
    """The ``name="…"`` of each ``@analyzer(…)`` or ``@probe(…)`` on ``function``."""
    return [
        keyword.value.value
        for call in function.decorator_list
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == decorator
        for keyword in call.keywords
        if keyword.arg == "name"
        and isinstance(keyword.value, ast.Constant)
        and isinstance(keyword.value.value, str)
    ]
