"""Loading recipes: what is accepted, and what a mistake is answered with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from configs.load import RecipeError, describe, load_recipe, write_resolved
from configs.schema import (
    Data,
    EmojiData,
    Engine,
    GgufModel,
    GroupsPerWorker,
    Model,
    Optimizer,
    Precision,
    Recipe,
    Response,
    Rewards,
    Rl,
    ScoringRule,
    ScratchModel,
    Sft,
    Wandb,
)

BASE = """\
name: base
output: out
data: {root: data}
model:
  scratch: {width: 64}
stage1:
  steps: 5
  optimizer: {learning_rate: 1e-3}
stage2:
  steps: 5
  optimizer: {learning_rate: 1e-4}
rl:
  steps: 5
  optimizer:
    learning_rate: 1e-5
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a recipe file: `BASE`, or the text given."""

    def write(text: str = BASE, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def complaints(path: Path, *overrides: str) -> list[str]:
    """The lines of the error, paths without their folder."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return str(caught.value).replace(f"{path.parent}/", "").splitlines()


# --- what is accepted


def test_a_recipe_is_read_with_the_schema_s_defaults(write: Write) -> None:
    recipe = load_recipe(write())

    assert recipe.name == "base"
    assert recipe.model.scratch == ScratchModel(width=64)
    assert recipe.rl.samples_per_prompt == 8


def test_a_learning_rate_without_a_dot_is_a_number(write: Write) -> None:
    assert load_recipe(write()).stage2.optimizer.learning_rate == 1e-4


@pytest.mark.parametrize("word", ["no", "on", "2024-01-01", "010", "1:30", "0x10", "1e-4", "'null'"])
def test_text_stays_as_it_was_written(write: Write, word: str) -> None:
    recipe = load_recipe(write(BASE.replace("name: base", f"name: {word}")))

    assert recipe.name == word.strip("'")


@pytest.mark.parametrize(("word", "value"), [("yes", True), ("true", True), ("off", False), ("False", False)])
def test_switches_take_the_usual_words(write: Write, word: str, value: bool) -> None:
    assert load_recipe(write(), [f"engine.enforce_eager={word}"]).engine.enforce_eager is value


def test_anchors_repeat_a_section(write: Write) -> None:
    text = BASE.replace("stage1:", "stage1: &sft").replace(
        "stage2:\n  steps: 5\n  optimizer: {learning_rate: 1e-4}", "stage2: *sft"
    )

    recipe = load_recipe(write(text))

    assert recipe.stage2 == recipe.stage1


# --- extends, null, overrides


def test_mappings_merge_deeply_and_lists_are_replaced(write: Write) -> None:
    write(BASE + "response: {reasoning_elements: [a, b], confidence_step: 0.05}\n", "base.yaml")
    child = write("extends: base.yaml\nrl: {steps: 7}\nresponse: {reasoning_elements: [c]}\n")

    recipe = load_recipe(child)

    assert (recipe.rl.steps, recipe.rl.optimizer.learning_rate) == (7, 1e-5)
    assert recipe.response == Response(reasoning_elements=("c",), confidence_step=0.05)


def test_a_chain_of_recipes_is_followed_from_folder_to_folder(write: Write, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write()
    write("extends: ../recipe.yaml\nname: middle\nseed: 3\n", "deep/middle.yaml")
    leaf = write("extends: deep/middle.yaml\nname: leaf\n", "leaf.yaml")

    recipe = load_recipe(leaf)

    assert (recipe.name, recipe.seed, recipe.output) == ("leaf", 3, "out")


def test_null_takes_back_what_the_extended_recipe_said(write: Write) -> None:
    write(BASE + "engine: {workers: 3, sequences_at_once: 8}\n", "base.yaml")
    child = write("extends: base.yaml\nengine: null\nmodel: {scratch: null, path: a-model}\n")

    recipe = load_recipe(child)

    assert recipe.engine == Engine()
    assert recipe.model == Model(path="a-model")


def test_null_for_a_key_without_a_default_says_where(write: Write) -> None:
    write(name="base.yaml")

    lines = complaints(write("extends: base.yaml\nrl:\n  steps:\n"))

    assert lines == ["recipe.yaml:3: rl.steps: missing, and has no default; expected int >= 1 (Batches trained on.)"]


def test_null_drops_an_entry_of_a_mapping(write: Write) -> None:
    text = BASE.replace("{root: data}", "{root: data, evaluation: {seen: a, unseen: b}}")
    write(text, "base.yaml")

    recipe = load_recipe(write("extends: base.yaml\ndata: {evaluation: {seen: null}}\n"))

    assert recipe.data.evaluation == {"unseen": "b"}


def test_overrides_win_over_the_file_and_the_last_one_over_the_others(write: Write) -> None:
    overrides = ["rl.steps=9", "rl.steps=10", "rl.optimizer.betas=[0.5, 0.6]", "model.scratch={layers: 2}"]

    recipe = load_recipe(write(), overrides)

    assert recipe.rl.steps == 10
    assert recipe.rl.optimizer.betas == (0.5, 0.6)
    assert recipe.model.scratch == ScratchModel(width=64, layers=2)


def test_an_override_may_hold_an_equals_sign_and_may_be_empty(write: Write) -> None:
    recipe = load_recipe(write(BASE + "seed: 4\n"), ["name=a=b", "seed="])

    assert (recipe.name, recipe.seed) == ("a=b", 0)


# --- mistakes in keys and values


def test_an_unknown_key_is_answered_with_its_line_and_the_nearest_known_one(write: Write) -> None:
    lines = complaints(write(BASE + "  sampels_per_prompt: 3\n"))

    assert lines == ["recipe.yaml:16: rl.sampels_per_prompt: unknown key; did you mean samples_per_prompt?"]


def test_an_unknown_override_is_answered_with_the_nearest_known_key(write: Write) -> None:
    lines = complaints(write(), "rl.sampels_per_prompt=16")

    assert lines == ["override: rl.sampels_per_prompt: unknown key; did you mean samples_per_prompt?"]


def test_a_key_of_another_section_is_answered_with_its_path(write: Write) -> None:
    lines = complaints(write(), "max_policy_lag=2")

    assert lines == ["override: max_policy_lag: unknown key; did you mean rl.max_policy_lag?"]


def test_an_unknown_key_like_no_other_is_answered_with_the_known_ones(write: Write) -> None:
    lines = complaints(write(BASE + "wandb: {zzz: null}\n"))

    assert lines == ["recipe.yaml:16: wandb.zzz: unknown key; known here: mode, project"]


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("rl.steps=twelve", "rl.steps: got 'twelve'; expected int >= 1 (Batches trained on.)"),
        ("rl.steps=yes", "rl.steps: got 'yes'; expected int >= 1 (Batches trained on.)"),
        ("rl.steps=0", "rl.steps: got '0'; expected int >= 1 (Batches trained on.)"),
        ("rl.steps=[1]", "rl.steps: got a list of 1; expected int >= 1 (Batches trained on.)"),
        ("rl.temperature=inf", "rl.temperature: got 'inf'; expected float > 0 ("),
        ("rl.temperature=nan", "rl.temperature: got 'nan'; expected float > 0 ("),
        ("rl.optimizer.betas=[0.9, x]", "rl.optimizer.betas.1: got 'x'; expected [float >= 0 and <= 1, "),
        ("rl.optimizer.betas=[0.9, null]", "rl.optimizer.betas.1: got null; expected [float >= 0 and <= 1, "),
        ("rewards.log_clip=0.5", "rewards.log_clip: got '0.5'; expected float > 0 and < 0.5 ("),
        ("learner.precision=fp16", "learner.precision: got 'fp16'; expected fp32 | bf16 ("),
        ("engine.enforce_eager=maybe", "engine.enforce_eager: got 'maybe'; expected true or false ("),
        ("name={a: b}", "name: got a mapping; expected text (Name of the run.)"),
        ("wandb.mode=off", "wandb.mode: got 'off'; expected disabled | offline | online ("),
        ("wandb=off", "wandb: got 'off'; expected a section with the keys mode, project"),
        ("model.path=x", "model: give exactly one of model.path, model.scratch and model.gguf"),
    ],
)
def test_a_wrong_value_is_answered_with_what_was_got_and_what_was_expected(
    write: Write, override: str, complaint: str
) -> None:
    (line,) = complaints(write(), override)

    assert line.removeprefix("recipe.yaml:4: ").removeprefix("override: ").startswith(complaint)


def test_a_long_value_is_shown_shortened(write: Write) -> None:
    (line,) = complaints(write(), f"rl.steps={'x' * 500}")

    assert len(line) < 150


def test_every_problem_is_reported_at_once_and_in_order(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    text = BASE.replace("steps: 5", "steps: five", 1).replace("name: base", "nam: base")

    monkeypatch.chdir(write(text).parent)

    lines = complaints(Path("recipe.yaml"), "seed=x")

    assert lines == [
        "recipe.yaml:1: name: missing, and has no default; expected text (Name of the run.)",
        "recipe.yaml:1: nam: unknown key; did you mean name?",
        "recipe.yaml:7: stage1.steps: got 'five'; expected int >= 1 (Optimizer steps.)",
        "override: seed: got 'x'; expected int >= 0 (Seed of sampling, shuffling and initial weights.)",
    ]


def test_a_problem_is_placed_in_the_file_that_said_it_last(write: Write) -> None:
    write(BASE.replace("{width: 64}", "{width: 0}").replace("root: data", "rot: x"), "base.yaml")

    lines = complaints(write("extends: base.yaml\nname: child\nmodel:\n  scratch:\n    width: -1\n"))

    assert [line.split(": ")[:2] for line in lines] == [
        ["base.yaml:3", "data.root"],
        ["base.yaml:3", "data.rot"],
        ["recipe.yaml:5", "model.scratch.width"],
    ]


def test_a_key_missing_from_a_section_is_placed_where_the_section_was_touched_last(write: Write) -> None:
    write(BASE.replace("root: data", "stage1: x"), "base.yaml")

    lines = complaints(write("extends: base.yaml\ndata:\n  stage2: y\n"), "data.stage3=z")

    assert [line.split(": ")[:2] for line in lines] == [["recipe.yaml:2", "data.root"]]


@pytest.mark.parametrize("override", ["rl", "=3", "rl..steps=3", ".rl=3", "extends=x.yaml"])
def test_an_override_that_is_none_says_how_one_looks(write: Write, override: str) -> None:
    (line,) = complaints(write(), override)

    assert line == (f"override: got '{override}'; expected key.path=value with a key of the recipe, as in rl.steps=100")


def test_an_override_with_broken_yaml_names_its_key(write: Write) -> None:
    lines = complaints(write(), "rl.optimizer.betas=[0.9", "rl.stps=3")

    assert lines[0].startswith("override: rl.optimizer.betas: not valid YAML: ")
    assert lines[1:] == ["override: rl.stps: unknown key; did you mean steps?"]


# --- mistakes in files


def test_a_key_written_twice_is_refused_with_both_lines(write: Write) -> None:
    lines = complaints(write(BASE + "  steps: 6\n"))

    assert lines == ["recipe.yaml:16: rl.steps: written twice, lines 13 and 16; keep one"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert complaints(tmp_path / "no.yaml") == ["no.yaml: cannot be read: No such file or directory"]


def test_a_missing_base_is_placed_where_it_is_named(write: Write) -> None:
    lines = complaints(write("name: x\nextends: no.yaml\n"))

    assert lines == ["recipe.yaml:2: extends: no.yaml: cannot be read: No such file or directory"]


@pytest.mark.parametrize("value", ["[a.yaml]", "{a: b}", "null"])
def test_extends_takes_one_path(write: Write, value: str) -> None:
    lines = complaints(write(BASE + f"extends: {value}\n"))

    assert lines == ["recipe.yaml:16: extends: expected the path of a recipe, relative to this file"]


def test_recipes_that_extend_each_other_are_refused(write: Write) -> None:
    write("extends: b.yaml\n", "a.yaml")
    write("name: b\nextends: a.yaml\n", "b.yaml")

    lines = complaints(write("extends: a.yaml\n"))

    assert lines == ["b.yaml:2: extends: goes in a circle: a.yaml -> b.yaml -> a.yaml"]


@pytest.mark.parametrize(("text", "got"), [("", "nothing"), ("# no\n", "nothing"), ("- a\n", "a list"), ("a", "text")])
def test_a_file_that_is_no_mapping_is_refused(write: Write, text: str, got: str) -> None:
    (line,) = complaints(write(text))

    assert line.startswith(f"recipe.yaml:1: got {got}; expected a mapping of a recipe's sections")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: [1\nc: 2\n", 3),
        ("a: 1\nb: @\n", 2),
        ("a: 1\n\tb: 2\n", 2),
        ("a: 1\nb: \x07\n", 2),
        ("a: *b\n", 1),
        ("a: 1\n---\nb: 2\n", 2),
        ('a: "\\UFFFFFFFF"\n', 1),
    ],
)
def test_broken_yaml_is_refused_with_its_line(write: Write, text: str, line: int) -> None:
    (complaint,) = complaints(write(text))

    assert complaint.startswith(f"recipe.yaml:{line}: not valid YAML: ")


def test_bytes_that_are_no_utf_8_are_refused(write: Write) -> None:
    path = write()
    path.write_bytes(b"name: \xff\n")

    (complaint,) = complaints(path)

    assert complaint.startswith("recipe.yaml: cannot be read: 'utf-8' codec can't decode")


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.getcwd", "!!float", "!mine", "!!binary"])
def test_tags_are_refused(write: Write, tag: str) -> None:
    (complaint,) = complaints(write(BASE + f"seed: {tag} 1\n"))

    assert complaint.startswith("recipe.yaml:16: seed: the tag ")
    assert complaint.endswith(" is refused; write plain text, lists and mappings")


def test_an_alias_inside_its_own_anchor_is_refused(write: Write) -> None:
    (complaint,) = complaints(write("name: &a [*a]\n"))

    assert complaint.startswith("recipe.yaml:1: name: too large with its aliases written out")


def test_aliases_that_grow_without_end_are_refused(write: Write) -> None:
    doubling = "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 18))

    (complaint,) = complaints(write("a0: &a0 [x, x]\n" + doubling))

    assert "too large with its aliases written out" in complaint


def test_brackets_without_end_are_refused(write: Write) -> None:
    (complaint,) = complaints(write("name: " + "[" * 5000))

    assert complaint == "recipe.yaml:1: nested too deeply to be read"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.text() | st.text(alphabet="ab:-[]{}&*!?|>'\"%@#,\n ~<\\0"))
def test_any_text_is_read_or_refused_with_a_recipe_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))

    with pytest.raises(RecipeError):
        load_recipe(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.text())
def test_any_override_is_taken_or_refused_with_a_recipe_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "base.yaml"
    path.write_text(BASE)

    try:
        load_recipe(path, [text, f"name={text}", f"rl.{text}"])
    except RecipeError as error:
        assert error.problems


# --- writing


positive = st.floats(min_value=1e-12, max_value=1e6)
optimizers = st.builds(
    Optimizer,
    learning_rate=positive,
    betas=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    weight_decay=positive,
)
stages = st.builds(Sft, steps=st.integers(1, 10**9), optimizer=optimizers, eval_share=st.floats(0, 1))
printable = st.text(st.characters(exclude_categories=["Cs"]))
recipes = st.builds(
    Recipe,
    name=printable | st.sampled_from(["null", "~", "no", "1e-4", "", "a: b", "# c", "- d", "2024-01-01"]),
    output=printable,
    seed=st.integers(min_value=0),
    data=st.builds(
        Data,
        root=printable,
        evaluation=st.dictionaries(printable, printable, max_size=3),
        emoji=st.none() | st.builds(EmojiData, seed=st.integers(min_value=0)),
    ),
    model=st.builds(Model, path=printable)
    | st.builds(Model, scratch=st.builds(ScratchModel))
    | st.builds(Model, gguf=st.builds(GgufModel, file=printable)),
    response=st.builds(Response, reasoning_elements=st.lists(printable, max_size=3).map(tuple)),
    stage1=stages,
    stage2=stages,
    rl=st.builds(
        Rl,
        steps=st.just(1),
        optimizer=optimizers,
        temperature=positive,
        groups_per_worker=st.none() | st.just(3) | st.just(GroupsPerWorker.ADAPTIVE),
    ),
    rewards=st.builds(Rewards, scoring_rule=st.sampled_from(ScoringRule), allow_unsafe=st.booleans()),
    engine=st.builds(
        Engine,
        precision=st.sampled_from(Precision),
        threads_per_worker=st.none() | st.just(2),
        cores=st.just(("0-1", "3")),
    ),
    wandb=st.builds(Wandb, mode=st.sampled_from(["disabled", "offline", "online"])),
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=80,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking a whole recipe takes minutes
)
@given(recipes)
def test_a_written_recipe_loads_equal(tmp_path: Path, recipe: Recipe) -> None:
    path = tmp_path / "resolved.yaml"

    write_resolved(recipe, path)

    assert load_recipe(path) == recipe


def test_a_written_recipe_says_every_key(write: Write, tmp_path: Path) -> None:
    write_resolved(load_recipe(write()), tmp_path / "run" / "resolved.yaml")

    text = (tmp_path / "run" / "resolved.yaml").read_text()

    assert "samples_per_prompt: 8" in text
    assert "*" not in text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(write())
    target = tmp_path / "run" / "resolved.yaml"
    write_resolved(recipe, target)
    before = target.read_text()

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("configs.load.os.fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_resolved(recipe.model_copy(update={"name": "other"}), target)

    assert target.read_text() == before
    assert list(target.parent.iterdir()) == [target]


# --- help


def test_every_key_is_described_with_type_default_and_help() -> None:
    fields = {field.path: field for field in describe()}

    assert (fields["rl.samples_per_prompt"].type, fields["rl.samples_per_prompt"].default) == (
        "int >= 2",
        "8",
    )
    assert fields["rl.steps"].default is None
    assert fields["rewards.scoring_rule"].type == "brier | log | unclipped_log | spherical"
    assert fields["learner.threads_per_rank"].type == "int >= 1 or null"
    assert fields["learner.cores"].type == "list of text or null"
    assert fields["rl.groups_per_worker"].type == "int >= 1 or adaptive or null"
    assert fields["model.scratch.width"].help == "Hidden size of the text model."
    assert fields["response.reasoning_elements"].type == "list of text"


def test_one_section_is_described_by_itself() -> None:
    assert [field.path for field in describe(Wandb, "wandb.")] == ["wandb.mode", "wandb.project"]


def test_a_value_that_is_of_none_of_several_types_is_one_problem(write: Write) -> None:
    for wrong in ("many", "0"):
        with pytest.raises(RecipeError) as caught:
            load_recipe(write(), [f"rl.groups_per_worker={wrong}"])

        (problem,) = caught.value.problems
        expected = f"override: rl.groups_per_worker: got '{wrong}'; expected int >= 1 or adaptive or null (Groups a"
        assert str(problem).startswith(expected)


# --- a correction and its numbers


@pytest.mark.parametrize(
    ("correction", "numbers"),
    [
        ("none", (None, None, None, None)),
        ("truncated", (2.0, None, None, None)),
        ("icepop", (None, 0.5, 5.0, None)),
        ("cispo", (None, 0.5, 2.0, None)),
        ("gspo", (None, 0.9997, 1.0004, None)),
        ("decoupled_ppo", (2.0, 0.8, 1.2, "recomputed")),
    ],
)
def test_a_correction_brings_the_numbers_it_takes_and_they_are_written(
    write: Write, tmp_path: Path, correction: str, numbers: tuple[object, ...]
) -> None:
    recipe = load_recipe(write(), [f"rl.correction={correction}"])
    write_resolved(recipe, tmp_path / "resolved.yaml")

    rl = recipe.rl
    assert (rl.importance_cap, rl.ratio_low, rl.ratio_high, rl.proximal) == numbers
    assert load_recipe(tmp_path / "resolved.yaml") == recipe


def test_a_number_that_the_correction_does_not_take_is_refused(write: Write, tmp_path: Path) -> None:
    write_resolved(load_recipe(write(), ["rl.importance_cap=3"]), tmp_path / "resolved.yaml")

    (complaint,) = complaints(tmp_path / "resolved.yaml", "rl.correction=gspo", "rl.ratio_low=0.9")
    taken_back = load_recipe(tmp_path / "resolved.yaml", ["rl.correction=gspo", "rl.importance_cap=null"]).rl

    assert "rl.importance_cap is never read with rl.correction gspo, which takes rl.ratio_low and rl.rat" in complaint
    assert (taken_back.importance_cap, taken_back.ratio_low) == (None, 0.9997)


def test_a_range_of_ratios_holds_1(write: Write) -> None:
    found = complaints(write(), "rl.correction=icepop", "rl.ratio_low=1", "rl.ratio_high=0.9")

    assert [line.partition(";")[0] for line in found] == [
        "override: rl.ratio_low: got '1'",
        "override: rl.ratio_high: got '0.9'",
    ]


def test_k1_is_no_estimator_to_train_with(write: Write) -> None:
    (complaint,) = complaints(write(), "rl.kl_estimator=k1")

    assert "expected k2 | k3" in complaint and "as a loss it pulls nowhere on average" in complaint
