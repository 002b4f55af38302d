"""The names of the analyzer commands, without importing an analyzer.

``nla-audit --help`` and shell completion list every analyzer; importing them all, with the
numerical libraries they use, takes longer than a user should wait for a list. So the list is
read from the source files; everything else comes from the registered cards.
"""

from __future__ import annotations

import ast
import pkgutil
from pathlib import Path

from nla_audit import analyzers


def analyzer_names() -> dict[str, str]:
    """Name of each analyzer → the first line of its file's docstring, in order of name."""
    found: dict[str, str] = {}
    for module in pkgutil.iter_modules(analyzers.__path__):
        path = Path(getattr(module.module_finder, "path", "")) / f"{module.name}.py"
        if not path.is_file():
            continue
        tree = ast.parse(path.read_bytes())
        summary = (ast.get_docstring(tree) or "").split("\n", maxsplit=1)[0]
        for function in tree.body:
            if isinstance(function, ast.FunctionDef):
                found |= dict.fromkeys(_registered_names(function), summary)
    return dict(sorted(found.items()))


def _registered_names(function: ast.FunctionDef) -> list[str]:
    """The ``name="…"`` of each ``@analyzer(…)`` on ``function``."""
    return [
        keyword.value.value
        for decorator in function.decorator_list
        if isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Name)
        and decorator.func.id == "analyzer"
        for keyword in decorator.keywords
        if keyword.arg == "name"
        and isinstance(keyword.value, ast.Constant)
        and isinstance(keyword.value.value, str)
    ]
