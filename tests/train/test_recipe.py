"""Recipes: what is shipped is valid, what is wrong is said in one line."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from nla_audit.cli import run
from nla_audit.errors import UserError
from nla_audit.table.model_names import length_penalty_of
from nla_audit.train.pair import check_prompts
from nla_audit.train.read_recipe import parse_recipe, read_recipe
from nla_audit.train.recipe import PairSettings, Recipe
from nla_audit.train.recipe_data import Target
from nla_audit.train.runs import run_name
from tests.runs.extracting import save_target

RECIPES = Path(__file__).parents[2] / "recipes"
TINY = yaml.safe_load((RECIPES / "tiny.yaml").read_text(encoding="utf-8"))


def changed(path: str, value: object) -> dict:
    raw = copy.deepcopy(TINY)
    *sections, name = path.split(".")
    inner = raw
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[name] = value
    return raw


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path):
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert 0.0 in recipe.rl.length_penalties
    # What is printed as the resolved recipe is a recipe, and the same one.
    assert parse_recipe(recipe.model_dump(mode="json"), "resolved") == recipe


def test_the_sweep_has_the_posts_settings():
    rl = read_recipe(RECIPES / "qwen3-8b-length-sweep.yaml").rl
    assert rl.length_penalties == (0.0, 0.001, 0.002, 0.006, 0.015, 0.03)
    assert (rl.steps, rl.max_new_tokens, rl.kl, rl.optimizer.learning_rate) == (
        250,
        160,
        0.01,
        1e-5,
    )
    assert rl.lora is not None
    assert rl.lora.rank == 16
    assert not rl.train_ar


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("rl.length_penaltys", [0.1], "unknown key rl.length_penaltys; did you mean length_pen"),
        ("warm_start.av.stepz", 3, "unknown key warm_start.av.stepz; did you mean steps?"),
        ("rl.lora", {"rnk": 3}, "unknown key rl.lora.rnk; did you mean rank?"),
        ("rl.length_penalties", [-0.1], "greater than or equal to 0, found -0.1"),
        ("rl.length_penalties", [float("nan")], "rl.length_penalties.0"),
        ("rl.length_penalties", [0.1, 0.1], "names a λ twice"),
        ("rl.length_penalties", [], "rl.length_penalties"),
        ("rl.samples", 1, "rl.samples"),
        ("target.model", "Qwen/Qwen3-8B", "exactly one of target.model and target.world"),
        ("pair.av", "a/b", "belong together"),
        ("seed", "abc", "seed"),
        ("target.load_in_4bit", True, "needs rl.lora"),
        ("rl.ar_lora", {"rank": 2}, "rl.ar_lora needs rl.train_ar: true"),
        ("target.world.d_model", 10**9, "target.world.d_model"),
        ("target.world.blocks", 10**5, "target.world.blocks"),
        ("target.world.peakiness", float("inf"), "target.world.peakiness"),
        ("warm_start.av.steps", 10**30, "warm_start.av.steps"),
        ("rl.lora", {"rank": 10**9}, "rl.lora.rank"),
        ("rl.rewards", {"negative_mse": float("nan")}, "rl.rewards.negative_mse"),
        ("rl.kl", float("inf"), "rl.kl"),
        ("name", ["x"] * 10_000, "name"),
    ],
)
def test_what_is_wrong_is_one_line(path, value, message):
    with pytest.raises(UserError) as caught:
        parse_recipe(changed(path, value), "x.yaml")
    text = str(caught.value)
    assert text.startswith("x.yaml: ")
    assert message in text
    assert "\n" not in text
    assert len(text) < 500


def test_data_is_needed_without_a_world():
    raw = copy.deepcopy(TINY)
    raw["target"] = {"model": "somewhere/model"}
    with pytest.raises(UserError, match=r"data\.table or data\.texts"):
        parse_recipe(raw, "x.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML at line"),
        ("- 1", "expected a mapping"),
        ("", "expected a mapping"),
        ("name: 2024-99-99", "no valid timestamp"),
        ("name: a\nname: b", "the key 'name' stands there twice"),
        ("name: &a [*a]", "contains itself"),
        ("a: &a [x]\nb: [*a]\nb: [*a]", "the key 'b' stands there twice"),
        ("[" * 40 + "&a [x]" + ", *a" * 3 + "]" * 40, "expected a mapping"),
        ("name: 'x\n" * 3, "not valid YAML"),
    ],
)
def test_broken_files(tmp_path, text, message, capsys):
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    assert run(["train", str(path), "--dry-run"]) == 2
    assert message in capsys.readouterr().err


def test_unknown_reward_terms_suggest_the_nearest(tmp_path, capsys):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(changed("rl.rewards", {"negative_mes": 1.0})), encoding="utf-8")
    assert run(["train", str(path), "--dry-run"]) == 2
    assert "did you mean negative_mse?" in capsys.readouterr().err


def test_dry_run_prints_recipe_memory_and_tokens(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["train", str(RECIPES / "tiny.yaml"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert yaml.safe_load(out) == read_recipe(RECIPES / "tiny.yaml").model_dump(mode="json")
    rl = read_recipe(RECIPES / "tiny.yaml").rl
    tokens = len(rl.length_penalties) * rl.steps * rl.prompts * rl.samples * rl.max_new_tokens
    assert f"{tokens:,} tokens" in out
    assert "# memory:" in out
    assert "# disk: 0.00 GB for the saved state of a run\n" in out
    assert not any(tmp_path.iterdir())
    keeping = ["--set", "rl.keep=best_fve", "--set", "target.world.d_model=1024"]
    assert run(["train", str(RECIPES / "tiny.yaml"), "--dry-run", *keeping]) == 0
    disk = re.search(r"# disk: (.*) GB for .*, up to (.*) GB for its best", capsys.readouterr().out)
    assert disk is not None
    assert float(disk[2]) == pytest.approx(2 / 3 * float(disk[1]), abs=0.01)
    assert float(disk[2]) > 0.1


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_dry_run_of_what_is_shipped_needs_no_connection(path, capsys, tmp_path, monkeypatch):
    # Fails with: transformers asked for the config, which tries again for half a minute.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waits to ask again"))
    assert run(["train", str(path), "--dry-run"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    comments = [line for line in told.out.splitlines() if line.startswith("#")]
    assert yaml.safe_load(told.out) == read_recipe(path).model_dump(mode="json")
    recipe = read_recipe(path)
    for key, reference in (("data.table", recipe.data.table), ("data.texts", recipe.data.texts)):
        if reference is not None and not (path.parent / reference).exists():
            assert f"# not here yet: {key}: {path.parent / reference}" in comments
    model = recipe.target.model
    if model is not None and not (path.parent / model).exists():
        (memory,) = (line for line in comments if line.startswith("# memory: unknown"))
        assert model in memory
        assert "# time: unknown, for the same reason" in comments


def test_every_field_is_documented_where_it_is_declared():
    seen: set[type[BaseModel]] = set()

    def check(section: type[BaseModel]) -> None:
        if section in seen:
            return
        seen.add(section)
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"
            for kind in [field.annotation, *getattr(field.annotation, "__args__", ())]:
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    check(kind)

    check(Recipe)
    assert len(seen) > 8


def test_run_names_are_those_the_audit_reads():
    for penalty in (0.0, 0.001, 0.03, 1e-5, 2.5):
        assert length_penalty_of(run_name(penalty)) == penalty


def test_settings_take_the_place_of_the_recipes():
    # Fails with: text that is not read as YAML; sections that the file leaves out.
    given = ["target.layer_index=1", "data.held_out_share=0.25", "warm_start.av.lora={rank: 3}"]
    recipe = read_recipe(RECIPES / "tiny.yaml", [*given, "name=a=b"])
    assert (recipe.target.layer_index, recipe.data.held_out_share) == (1, 0.25)
    assert (recipe.warm_start.av.lora.rank, recipe.name) == (3, "a=b")
    assert recipe.target.world == read_recipe(RECIPES / "tiny.yaml").target.world


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rl.steps", "write KEY=VALUE"),
        ("rl.stepz=3", "unknown key rl.stepz; did you mean steps?"),
        ("name.first=3", "the recipe has no sections at this place"),
        ("name=[", "--set name=[: not valid YAML at line 1; quote the value"),
    ],
)
def test_a_setting_that_cannot_be_is_told(setting, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read_recipe(RECIPES / "tiny.yaml", [setting])


def test_what_the_readme_shows_of_a_run_is_a_recipe():
    # Fails with: a key renamed there or here; a default that it says is off, on.
    text = (RECIPES.parent / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(tracking:.*?)^```", text, re.S | re.M)
    shown = yaml.safe_load(block)
    target = {"world": {}}
    recipe = parse_recipe({"name": "x", "target": target, **shown}, "README.md")
    plain = parse_recipe({"name": "x", "target": target}, "x")
    assert recipe.tracking != plain.tracking
    for name in shown["rl"]:
        assert getattr(recipe.rl, name) != getattr(plain.rl, name), name


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("pair.ar_template", "", "pair.ar_template must contain {explanation} once"),
        ("pair.av_template", "{injection_char}{x}", "pair.av_template must contain"),
        ("pair.av_template", "{", "pair.av_template is no valid template"),
        ("pair.injection", "", "pair.injection '': expected replace:SCALE"),
        ("pair.injection", "add:4", "pair.injection names block 4: the world has blocks 0 to 3"),
        ("target.layer_index", 4, "target.layer_index names block 4: the world has blocks 0 to 3"),
        ("target.world.d_model", 97, "target.world.d_model: input should be a multiple of 4"),
    ],
)
def test_a_pair_that_cannot_be_is_told_before_the_target_is_trained(path, value, told):
    with pytest.raises(UserError, match=re.escape(told)):
        parse_recipe(changed(path, value), "r.yaml")


def test_a_block_to_add_at_that_a_model_lacks_is_told_before_the_warm_start(tmp_path):
    target = save_target(tmp_path / "target", "qwen3")
    with pytest.raises(UserError, match=r"pair\.injection add:4: the model has blocks 0 to 3"):
        check_prompts(target, Target(model=str(target)), PairSettings(injection="add:4"))
