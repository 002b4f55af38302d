"""Small files of strangers: bounded, plain JSON and YAML, and one line where they are not.

Configs, sidecars and indexes come from whoever published a checkpoint. What is read here is of
bounded size and depth, names no key twice, and expands no aliases without end, so that whatever
handles it later (models, messages, records) ends soon and in little memory.
"""

from __future__ import annotations

import json
import re
import reprlib
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from nla_audit.errors import UserError

if TYPE_CHECKING:
    from pydantic import ValidationError

#: The largest small files in use are tokenizer configs (a few MB) and the indexes of models with
#: 10⁵ tensors (some 10 MB).
MEGABYTE = 1 << 20
#: Real configs are nested four or five deep.
_MAX_DEPTH = 50
#: Values of a YAML file, aliases counted wherever they are used.
_MAX_VALUES = 100_000
#: The longest number in use is a tokenizer's ``model_max_length``, 10³⁰.
_MAX_DIGITS = 40
_AGAIN = "fetch the checkpoint again"


class _Refused(Exception):
    """What is wrong with a text, in words."""


def read_bounded(path: Path, limit: int, *, advice: str = _AGAIN) -> str:
    """The text of a regular file of at most ``limit`` bytes.

    Raises:
        UserError: not there, no regular file, too large, or not UTF-8.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path}: not a regular file; {advice}")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot read ({error.strerror}); {advice}") from None
    if len(data) > limit:
        raise UserError(
            f"{path}: larger than {limit / MEGABYTE:g} MB, which no such file is; {advice}"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; {advice}") from None


def read_json_object(
    path: Path, *, limit: int = 8 * MEGABYTE, advice: str = _AGAIN
) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UserError: as :func:`read_bounded`, or it is no JSON object, names a key twice, is nested
            without end, or holds what is no text or no number of sensible length.
    """
    text = read_bounded(path, limit, advice=advice)
    try:
        value = json.loads(text, object_pairs_hook=_without_twins, parse_int=_whole_number)
        _check_values([value])
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: cannot read: not valid JSON ({error}); {advice}") from None
    except _Refused as error:
        raise UserError(f"{path}: {error}; {advice}") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deep; {advice}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {shown(value)}; {advice}")
    return value


def read_yaml(path: Path, *, advice: str, limit: int = MEGABYTE) -> Any:
    """The plain data in a YAML file: text, numbers, dates, lists, mappings.

    Raises:
        UserError: as :func:`read_json_object`, but for the kind of the whole; or its aliases
            expand to too much.
    """
    return parse_yaml(read_bounded(path, limit, advice=advice), str(path), advice=advice)


def parse_yaml(text: str, where: str, *, advice: str) -> Any:
    """The plain data that ``text`` is in YAML; ``where`` begins error messages.

    Raises:
        UserError: as :func:`read_yaml`, but for what a file may lack.
    """
    try:
        value = _load_yaml(text)
        _check_values([value], nul=False)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # libyaml sets the end of a file behind its last line.
        number_of_lines = max(1, len(text.splitlines()))
        line = f" at line {min(mark.line + 1, number_of_lines)}" if mark is not None else ""
        raise UserError(f"{where}: not valid YAML{line}; {advice}") from None
    except yaml.YAMLError:  # a character that YAML does not allow
        raise UserError(f"{where}: not valid YAML; {advice}") from None
    except _Refused as error:
        raise UserError(f"{where}: {error}; {advice}") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deep; {advice}") from None
    return value


#: libyaml's parser where PyYAML was built with it: a hundred times faster.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _load_yaml(text: str) -> Any:
    # Its depth first, from the events alone: whatever builds nodes or values of them recurses.
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise _Refused("nested too deep")
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _expanded(node, {}) > _MAX_VALUES:
            raise _Refused("its aliases expand to too much")
        return _constructed(loader, node)
    finally:
        loader.dispose()


def _expanded(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values ``node`` holds if every alias is written out; also finds doubled keys.

    Each node is counted once; ``known`` holds what was counted, 0 while that goes on.
    """
    if id(node) in known:
        if known[id(node)] == 0:
            raise _Refused("an alias in it contains itself")
        return known[id(node)]
    known[id(node)] = 0
    parts: Iterable[yaml.Node] = ()
    if isinstance(node, yaml.SequenceNode):
        parts = node.value
    elif isinstance(node, yaml.MappingNode):
        scalars = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        _refuse_twins([(key.value, key.tag) for key in scalars])
        parts = [part for pair in node.value for part in pair]
    known[id(node)] = 1 + sum(_expanded(part, known) for part in parts)
    return known[id(node)]


def _constructed(loader: Any, node: yaml.Node) -> Any:
    """The values of ``node``; a scalar that only looks like a date or a number is refused."""
    original = loader.construct_object

    def construct(part: yaml.Node, deep: bool = False) -> Any:
        try:
            return original(part, deep=deep)
        except (yaml.YAMLError, _Refused, RecursionError):
            raise
        except Exception:  # PyYAML trusts that what looks like a date is one: any error may come
            kind = part.tag.rpartition(":")[2]
            raise _Refused(
                f"line {part.start_mark.line + 1}: {shown(part.value)} is no valid {kind}; quote "
                "it if it is text"
            ) from None

    loader.construct_object = construct
    return loader.construct_document(node)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        _refuse_twins([(key, "str") for key, _ in pairs])
    return found


def _refuse_twins(keys: list[tuple[str, str]]) -> None:
    """Refuse keys (text and type) that are equal: which of them counts is anybody's guess."""
    seen: set[tuple[str, str]] = set()
    for key in keys:
        if key in seen:
            raise _Refused(f"the key {shown(key[0])} stands there twice")
        seen.add(key)


def _whole_number(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise _Refused(f"a number of {len(digits):,} digits ({digits[:8]}…)")
    return int(digits)


def _check_values(level: list[Any], *, nul: bool = True) -> None:
    """Refuse what is nested too deep, and text that cannot be written anywhere.

    Args:
        nul: whether text may hold NUL, as the tokens of some vocabularies do.
    """
    for _ in range(_MAX_DEPTH + 1):
        below: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                below += value
                below += value.values()
            elif isinstance(value, list | tuple | set):
                below += value
            elif isinstance(value, str):
                _check_text(value, nul)
            elif isinstance(value, int) and abs(value) >= 10**_MAX_DIGITS:
                raise _Refused(f"a number of more than {_MAX_DIGITS} digits")
        if not below:
            return
        level = below
    raise _Refused("nested too deep")


def _check_text(text: str, nul: bool) -> None:
    if not nul and "\0" in text:
        raise _Refused(f"{shown(text)} holds a NUL character")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise _Refused(f"{text[:20]!a} holds half a character (a surrogate)") from None


_MOST_SHOWN = 200
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60
_short.maxlist = _short.maxtuple = _short.maxdict = _short.maxset = 4
_short.maxlevel = 3


def shown(value: Any) -> str:
    """``value`` as Python writes it, shortened: for messages about what a stranger wrote."""
    text = _short.repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def is_inside(name: str) -> bool:
    """Whether a path of a stranger stays in the folder it belongs to, on any system."""
    return (
        bool(name)
        and name.isprintable()
        and not PurePosixPath(name).is_absolute()
        and ".." not in PurePosixPath(name).parts
        and "\\" not in name
        and not re.match(r"[A-Za-z]:", name)
    )


def first_problem(error: ValidationError) -> str:
    """The first thing that pydantic found wrong: its place, what it must be, what it is."""
    problems = error.errors(include_url=False)
    # An unknown key is often the cause of a missing one, so it is told first.
    problem = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"{place} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if not place:  # of the whole; the message names the fields
        return message
    message = message[0].lower() + message[1:]
    return f"{place}: {message}, found {shown(problem['input'])}"


def whole_number(low: int, high: int) -> Callable[[Any], int]:
    """A check for pydantic: a whole number from ``low`` to ``high``; no text, no true or false."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low:,} to {high:,}")
        return value

    return check


def number(low: float, high: float, *, above: bool = False) -> Callable[[Any], float]:
    """A check for pydantic: a number from ``low`` to ``high``, neither NaN nor infinite.

    Args:
        above: ``low`` itself is not allowed.
    """
    words = f"must be a number {'above' if above else 'from'} {low:g} {'and' if above else 'to'} "
    words += f"at most {high:g}" if above else f"{high:g}"

    def check(value: Any) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high or (above and value == low):
            raise ValueError(words)
        return value

    return check
