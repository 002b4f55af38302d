"""The documentation: its examples work, its reference is whole, the files it names are there."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from nla_audit import analyzers, findings, probes
from nla_audit.checkpoint import formats
from nla_audit.commands.analyze import command_for
from nla_audit.commands.listing import probe_names
from nla_audit.concepts.contrast_sets import contrast_set_names, load_contrast_set
from nla_audit.nla.fve import measure_baselines
from nla_audit.probes import transforms
from nla_audit.probes.transforming import cards as transform_cards
from nla_audit.probes.transforming.preservation import broken_promises
from nla_audit.table.completions import from_frame
from nla_audit.train import grading, gradings, rewards
from tests.declared import absent, undeclared

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
Adopt = Callable[[ModuleType, str], None]


def _block(page: str, language: str = "python") -> str:
    """The only block of a language on a page about adding something."""
    text = (DOCS / "adding" / f"{page}.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)
    return block


@pytest.fixture
def adopt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Adopt]:
    """Puts a page's file into a package as if it lay in its folder; afterwards all is undone."""
    for every in (analyzers.registry, probes.registry, transform_cards.transforms, grading.cards):
        every()  # what is imported only now would be forgotten below, and not imported again
    known = (
        findings._REGISTRY,
        findings._PROBES,
        transform_cards._REGISTRY,
        grading._KINDS,
        grading._CARDS,
    )
    before = [dict(registry) for registry in known]
    modules = set(sys.modules)

    def put(package: ModuleType, page: str) -> None:
        code = _block(page)
        match = re.match(r"# (\S+)/(\w+\.py)\n", code)
        assert match is not None
        assert match[1].replace("/", ".") == package.__name__  # the page says the right folder
        (tmp_path / match[2]).write_text(code, encoding="utf-8")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])

    yield put
    for registry, former in zip(known, before, strict=True):
        registry.clear()
        registry.update(former)
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    grading._found.cache_clear()


def _table() -> pl.DataFrame:
    rows = [
        {
            "model": model,
            "idx": idx,
            "explanation": "Who asks? red fox" if model == "p0.0" else "blue sea",
        }
        for model in ("p0.0", "p0.01")
        for idx in range(12)
    ]
    return pl.DataFrame(rows)


def test_an_analyzer_is_one_file(adopt: Adopt) -> None:
    adopt(analyzers, "analyzer")
    card = analyzers.registry()["questions"]
    finding = card.run(from_frame(_table()))
    assert finding.headline["p0.0"]["share"] == 1.0
    assert finding.headline["p0.01"]["share"] == 0.0
    assert 0.5 < (finding.headline["p0.0"]["share_low"] or 0.0) < 1.0  # of 12 activations
    help_text = CliRunner().invoke(command_for(card), ["--help"]).output
    assert "hold a question mark" in help_text
    assert undeclared(finding) == absent(finding, card.metrics) == []


def test_a_transform_is_one_file(adopt: Adopt) -> None:
    adopt(transforms, "transform")
    card = transform_cards.transforms()["digits_masked"]
    assert card.one is not None
    text = "In 1984, 3 men\nwalked."
    changed = card.one(text, np.random.default_rng(0))
    assert changed == "In 0000, 0 men\nwalked."
    assert broken_promises(text, changed, card.keeps) == []


def test_a_reward_term_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards, "_TERMS", dict(rewards._TERMS))
    here = vars(rewards)  # the page says that it is appended there
    code = compile(_block("reward_term"), "reward_term.md", "exec")
    exec(code, scratch := dict(here))
    assert "question_marks" in scratch
    rewards.check_terms({"question_marks": -0.1})
    samples = rewards.Samples(
        explanations=["why? how?", "", None],
        mse=np.array([1.0, 1.0, np.nan]),
        n_tokens=np.array([9, 3, 20]),
        content_tokens=np.array([6, 0, 0]),
        cjk=np.zeros(3),
    )
    total, terms = rewards.rewards_of(
        samples, {"question_marks": -0.5}, length_penalty=0.0, charge=rewards.Charge()
    )
    assert total.tolist() == [-1.0, 0.0, 0.0]
    assert set(terms) == {"question_marks", "length"}


def test_a_grading_is_one_file(adopt: Adopt) -> None:
    grading._found.cache_clear()
    adopt(gradings, "grading")
    made = grading.read_grading({"kind": "two_halves", "half_weight": 0.5})
    assert "two_halves" in grading.cards()

    class Responses:
        lengths = np.array([5, 2])

        def __len__(self) -> int:
            return 2

        def texts(self, places: list[tuple[int, int]]) -> list[str]:
            return [f"row {row} up to {stop}" for row, stop in places]

    ends = made.ends(Responses(), 0.01)  # all that this grading asks of it
    assert ends.stops.tolist() == [[3, 5], [1, 2]]
    assert ends.texts[1] == ["row 1 up to 1", "row 1 up to 2"]
    assert ends.weights.tolist() == [[0.5, 1.0]] * 2
    assert (ends.penalties == 0.01).all()


class _OrderedReader:
    """An AR that makes more of any text whose words come in order, whatever the activation."""

    def score(self, texts: list[str], vectors: np.ndarray, **_: object) -> SimpleNamespace:
        in_order = np.array([text in ("Who asks? red fox", "blue sea") for text in texts])
        return SimpleNamespace(fve=np.where(in_order, 0.75, 0.25))


def test_an_ar_question_is_one_file(adopt: Adopt, monkeypatch: pytest.MonkeyPatch) -> None:
    adopt(probes, "ar_question")
    assert probe_names()["backwards"] == "What does it cost to read an explanation backwards?"
    assert "backwards" not in analyzers.registry()
    card = probes.registry()["backwards"]
    assert {option.name for option in card.options} == {"pair", "activations"}
    vectors = {idx: np.array([1.0, idx / 12], dtype=np.float32) for idx in range(12)}
    ruler = SimpleNamespace(
        scorer=_OrderedReader(),
        vectors=vectors,
        baselines=measure_baselines(np.stack(list(vectors.values())), None),
    )
    module = sys.modules["nla_audit.probes.backwards"]
    monkeypatch.setattr(module, "open_ruler", lambda *_: ruler)
    finding = card.run(from_frame(_table()), pair="P", activations="A")
    assert undeclared(finding) == absent(finding, card.metrics) == []
    assert finding.headline["p0.0"]["loss"] == pytest.approx(0.5)
    assert finding.headline["p0.01"]["loss_low"] == pytest.approx(0.5)
    # Only the control says that this is the AR's taste.
    assert finding.headline["p0.01"]["loss_elsewhere"] == pytest.approx(0.5)


def _hunks(page: str) -> Iterator[tuple[str, str, str]]:
    """File, text before and text after of each hunk on a page; a hunk begins at ``--- file``."""
    text = (DOCS / "adding" / f"{page}.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```diff\n(.*?)^```", text, re.S | re.M):
        for hunk in re.split(r"^--- ", block, flags=re.M)[1:]:
            file, *lines = hunk.splitlines()
            before = [line[1:] for line in lines if not line.startswith("+")]
            after = [line[1:] for line in lines if not line.startswith("-")]
            yield file, "\n".join(before), "\n".join(after)


def test_a_checkpoint_format_is_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed: dict[str, str] = {}
    for file, before, after in _hunks("checkpoint_format"):
        source = changed.get(file) or (ROOT / file).read_text(encoding="utf-8")
        assert source.count(before) == 1, f"{file} no longer holds what the page changes:\n{before}"
        changed[file] = source.replace(before, after)
    assert set(changed) == {"nla_audit/checkpoint/formats.py", "nla_audit/checkpoint/load.py"}
    for file, source in changed.items():
        compile(source, file, "exec")
    module = ModuleType("formats_of_the_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # its dataclasses look it up
    exec(compile(changed["nla_audit/checkpoint/formats.py"], "formats.py", "exec"), vars(module))
    for name in ("adapter_config.json", "adapter_model.safetensors", "value_head.safetensors"):
        (tmp_path / name).touch()
    for which in (formats, module):  # what is in them is another test's matter
        monkeypatch.setattr(
            which, "check_adapter_files", lambda *_: SimpleNamespace(base_model_name_or_path="b")
        )
    assert formats.recognise(tmp_path).role == "av"
    assert module.recognise(tmp_path).role == "ar"
    (tmp_path / "value_head.safetensors").unlink()
    assert module.recognise(tmp_path).role == "av"


def test_every_page_about_adding_is_tried() -> None:
    tried = {"analyzer", "transform", "reward_term", "grading", "ar_question", "checkpoint_format"}
    assert {path.stem for path in (DOCS / "adding").glob("*.md")} == tried


def test_what_adding_costs_is_what_the_examples_change() -> None:
    table = (DOCS / "index.md").read_text(encoding="utf-8")
    said = dict(re.findall(r"^\| \[[^]]+\]\(adding/(\w+)\.md\)[^|]*\| (\d+) \|", table, re.M))
    changed = {}
    for path in (DOCS / "adding").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        files = re.findall(
            r"^(?:```python\n# (?:appended to )?|--- )(nla_audit/\S+\.py)$", text, re.M
        )
        changed[path.stem] = str(len(set(files)))
    assert said == changed


def test_the_reference_is_whole(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    made.main(tmp_path)
    pages = {name: (tmp_path / name).read_text(encoding="utf-8") for name in made.PAGES}
    for name, card in analyzers.registry().items():
        assert f"## {name}\n\n{card.question}" in pages["analyzers.md"]
        for metric in card.metrics:
            assert f"| `{metric.name}` | {metric.unit} |" in pages["analyzers.md"]
    for name, card in probes.registry().items():
        assert f"## {name}\n\n{card.question}" in pages["probes.md"]
        for option in card.options:
            assert (
                f"| {option.flag or '--' + option.name.replace('_', '-')} |" in pages["probes.md"]
            )
    for name in transform_cards.transforms():
        assert f"\n| {name} |" in pages["transforms.md"]
    for name in contrast_set_names():
        assert f"\n## {name}\n\n{load_contrast_set(name).what}" in pages["concepts.md"]
        assert f"\n| {name} | 50 |" in pages["concepts.md"]
    for kind in grading.cards():
        assert f"\n## {kind}\n" in pages["recipes.md"]
    for section in ("target.world", "data.labeler", "warm_start.av.optimizer", "rl.lora"):
        assert f"\n## {section}\n" in pages["recipes.md"]
    rows = [line for line in pages["recipes.md"].splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    assert not [row for row in rows if row.endswith("|  |")]  # each key says what it means


def test_files_named_in_the_docs_are_there() -> None:
    created = {"questions.py", "digits_masked.py", "two_halves.py", "backwards.py"}
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in DOCS.rglob("*.md")
        for name in re.findall(r"\b(?:nla_audit|tests|benchmarks)/[\w/.-]+\w", page.read_text())
        if not (ROOT / name).exists() and Path(name).name not in created
    ]
    assert missing == []
