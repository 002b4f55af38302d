"""JSON and YAML of strangers: plain data, or one line that says what is wrong, soon."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nla_audit import limits
from nla_audit.errors import UserError
from nla_audit.strangers import is_inside, read_json_object, read_yaml, shown

RECIPES = Path(__file__).parents[1] / "recipes"


def _layers(first: str, again: str, depth: int = 12) -> str:
    """``depth`` lines, each of which names the one before ten times."""
    lines = [first]
    for level in range(depth):
        lines.append(again.format(new=f"a{level + 1}", old=",".join([f"*a{level}"] * 10)))
    return "\n".join(lines)


HOSTILE_YAML = {
    "lists of aliases": (_layers("a0: &a0 [x]", "{new}: &{new} [{old}]"), "aliases expand"),
    "mappings of aliases": (
        _layers("a0: &a0 {x: 1}", "{new}: &{new} {{<<: [{old}]}}"),
        "aliases expand",
    ),
    "aliases as a value": (
        _layers("a0: &a0 [x]", "{new}: &{new} [{old}]") + "\nkind: *a12",
        "aliases expand",
    ),
    "an alias of itself": ("a: &a [*a]", "contains itself"),
    "a mapping of itself": ("a: &a {b: *a}", "contains itself"),
    "no such date": ("date: 2024-99-99", "line 1: '2024-99-99' is no valid timestamp"),
    "no such day": ("a: 1\ndate: 2023-02-30", "line 2: '2023-02-30' is no valid timestamp"),
    "no such zone": ("t: 2001-12-14t21:59:43.10-99:99", "no valid timestamp"),
    "a number that is none": ("a: !!int x", "no valid int"),
    "a truth that is none": ("a: !!bool maybe", "no valid bool"),
    "a long number": ("a: " + "9" * 5000, "no valid int"),
    "a number of base 60": ("a: " + "9:" * 3000 + "9", "digits"),
    "doubled key": ("a: 1\nb: 2\na: 3", "the key 'a' stands there twice"),
    "doubled key below": ("x: {a: 1, 'a': 2}", "the key 'a' stands there twice"),
    "deep blocks": ("\n".join(" " * n + "a:" for n in range(300)), "nested too deep"),
    "deep lists": ("a: " + "[" * 300 + "]" * 300, "nested too deep"),
    "code": ("a: !!python/object/apply:os.system [ls]", "not valid YAML at line 1"),
    "two documents": ("a: 1\n---\nb: 2", "not valid YAML"),
    "half a character": ('a: "\\udc00"', "not valid YAML"),
    "a control character": ("a: \x07", "not valid YAML"),
    "NUL": ('a: "x\\0y"', "NUL"),
    "a list as key": ("? [1]\n: 2", "not valid YAML"),
    "too large": ("a: " + "x" * (1 << 21), "larger than 1 MB"),
}
HOSTILE_JSON = {
    "deep lists": ("[" * 100_000, "nested too deep"),
    "deep objects": ('{"a":' * 60 + "1" + "}" * 60, "nested too deep"),
    "doubled key": ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands there twice"),
    "a long number": ('{"a": ' + "9" * 5000 + "}", "a number of 5,000 digits"),
    "half a character": ('{"a": "\\ud800"}', "half a character"),
    "half a character in a key": ('{"\\ud800": 1}', "half a character"),
    "a list": ("[1]", "expected a JSON object"),
    "nothing": ("", "not valid JSON"),
    "cut off": ('{"a": [1, 2', "not valid JSON"),
    "too large": ('{"a": "' + "x" * (9 << 20) + '"}', "larger than 8 MB"),
}


def _refused(read: Callable[[], object], message: str) -> None:
    before = time.process_time()
    with pytest.raises(UserError, match=r"^[^\n]*$") as caught:
        read()
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500
    assert time.process_time() - before < 2


@pytest.mark.parametrize("case", HOSTILE_YAML)
def test_hostile_yaml_is_one_line(case: str, tmp_path: Path) -> None:
    path = tmp_path / "nla_meta.yaml"
    text, message = HOSTILE_YAML[case]
    path.write_text(text, encoding="utf-8")
    _refused(lambda: read_yaml(path, advice="mend it"), message)


@pytest.mark.parametrize("case", HOSTILE_JSON)
def test_hostile_json_is_one_line(case: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    text, message = HOSTILE_JSON[case]
    path.write_text(text, encoding="utf-8")
    _refused(lambda: read_json_object(path), message)


def test_what_is_no_file_of_text_is_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\0")
    endless = tmp_path / "endless"
    endless.symlink_to("/dev/zero")
    for path, message in (
        (binary, "not UTF-8"),
        (endless, "not a regular file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "absent", "No such file"),
    ):
        _refused(lambda path=path: read_json_object(path), message)
        _refused(lambda path=path: read_yaml(path, advice="mend it"), message)


def test_ordinary_files_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text(
        "made: 2024-01-02\nbase: &b {x: 1}\nmore: {<<: *b, y: 2}\nagain: [*b, *b]\nloss: .nan\n"
        "1: one\n'1': another\n",
        encoding="utf-8",
    )
    found = read_yaml(path, advice="mend it")
    assert found["more"] == {"x": 1, "y": 2}
    assert found["again"] == [{"x": 1}, {"x": 1}]
    assert found["made"].year == 2024
    path.write_text('{"model_max_length": 1000000000000000019884624838656, "limit": Infinity}')
    assert read_json_object(path)["model_max_length"] > 10**29


def test_what_is_shown_is_short() -> None:
    assert len(shown({"a" * 1000: ["b" * 1000] * 1000})) < 300
    assert len(shown([[[[["x"] * 9] * 9] * 9] * 9] * 9)) < 300


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "C:/x", "a\\x", "", "a\x1b[2J"])
def test_paths_that_leave_their_folder(name: str) -> None:
    assert not is_inside(name)


@pytest.mark.parametrize("name", ["x", "a/b.json", "a..b", "..a/x", "übung/東京.txt", "a b"])
def test_paths_that_stay_inside(name: str) -> None:
    assert is_inside(name)


_SEEDS = [path.read_text(encoding="utf-8") for path in sorted(RECIPES.glob("*.yaml"))]
_PIECES = st.sampled_from(
    """
    &a *a << : [ ] { } - !!int !!binary ' " 2024-13-01 1e999 .inf 0x ~ ? % --- | # 1_0 0o7 @ `
    """.split()
) | st.sampled_from(["\n", "\n  ", ": ", "- ", "\t", "\0", "\udcff", "9" * 50, "\n---\n"])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_change_of_a_file_gives_data_or_one_line(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = data.draw(st.sampled_from([*_SEEDS, json.dumps({"a": [1, {"b": None}], "c": "x"})]))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 20)))
        text = text[:start] + data.draw(_PIECES | st.text(max_size=5)) + text[end:]
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    for read in (lambda: read_json_object(path), lambda: read_yaml(path, advice="mend it")):
        said = ""
        try:
            read()
        except UserError as error:
            said = str(error)
        assert "\n" not in said


class TestLimits:
    def test_what_ends_comes_back(self) -> None:
        assert limits.within_limits(lambda: ["a", {"b": 1}]) == ["a", {"b": 1}]

    @pytest.mark.parametrize(
        ("work", "message"),
        [
            (lambda: sum(1 for _ in iter(int, 1)), "takes more than"),
            (lambda: 10**10**9, "takes more than"),  # native code, which hears no signal
            (lambda: "a" * 10**11, "memory"),
            (lambda: [bytearray(1 << 20) for _ in range(10**6)], "more than"),
        ],
    )
    def test_what_does_not_end_is_ended(self, work: Callable[[], object], message: str) -> None:
        with pytest.raises(limits.OverLimit, match=message):
            limits.within_limits(work)

    def test_what_is_the_same_is_done_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "_KNOWN", {})
        done = count()
        monkeypatch.setattr(limits, "_limited", lambda work, _: [next(done), work()])
        for same, expected in (("a", [0, 5]), ("a", [0, 5]), ("b", [1, 5]), (None, [2, 5])):
            found = limits.within_limits(lambda: 5, depends_on=same)
            assert found == expected
            found.append("what a caller does with it stays with it")
        for number in range(limits._MOST_KNOWN + 3):
            limits.within_limits(lambda: 5, depends_on=number)
        assert len(limits._KNOWN) == limits._MOST_KNOWN

    def test_what_fails_is_tried_again(self) -> None:
        for _ in range(2):
            with pytest.raises(limits.WorkFailed, match="division by zero"):
                limits.within_limits(lambda: 1 / 0, depends_on="a failure")
        assert limits.within_limits(lambda: 1, depends_on="a failure") == 1

    def test_what_fails_says_why(self) -> None:
        with pytest.raises(limits.WorkFailed, match="division by zero"):
            limits.within_limits(lambda: 1 / 0)
