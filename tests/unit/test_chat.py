"""Prompts become ids and pixel values the same way for the engine and the learner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2Config

from rollout.chat import ChatFormat, ImageLimits, barred_token_ids
from rollout.prompts import Message, Prompt

LIMITS = ImageLimits(min_pixels=56 * 56, max_pixels=84 * 84)


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> ChatFormat:
    return ChatFormat(str(tiny_model), LIMITS)


@pytest.fixture
def text_model(tiny_model: Path, tmp_path: Path) -> Path:
    """A directory with the tiny model's tokenizer and the configuration of a text-only model."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    Qwen2Config().save_pretrained(tmp_path)
    return tmp_path


def picture(folder: Path, name: str, width: int, height: int) -> str:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / name)
    return str(folder / name)


def ask(text: str, *images: str) -> Prompt:
    return Prompt("p", "test", (Message("system", "Answer."), Message("user", text)), images)


def test_a_rendered_prompt_has_one_placeholder_for_each_picture(chat: ChatFormat, tmp_path: Path) -> None:
    prompt = ask("<image>Which is brighter?<image>", *(picture(tmp_path, f"{i}.png", 56, 56) for i in range(2)))

    rendered = chat.render(prompt)

    assert list(rendered.token_ids).count(chat.image_token_id) == 2
    assert rendered.text.endswith("<|im_start|>assistant\n")
    assert "Answer." in rendered.text


def test_expanding_repeats_the_placeholders_and_changes_nothing_else(chat: ChatFormat, tmp_path: Path) -> None:
    sizes = [(56, 56), (84, 56)]
    images = [picture(tmp_path, f"{w}x{h}.png", w, h) for w, h in sizes]
    prompt = ask("<image>Which is brighter?<image>", *images)

    expanded, rendered = chat.expand(prompt), chat.render(prompt)

    image = chat.image_token_id
    assert [t for t in expanded.token_ids if t != image] == [t for t in rendered.token_ids if t != image]
    assert (expanded.token_ids == image).sum() == (56 // 28) ** 2 + (84 // 28) * (56 // 28)
    assert expanded.image_grid_thw is not None and expanded.image_grid_thw.tolist() == [[1, 4, 4], [1, 4, 6]]
    assert expanded.pixel_values is not None and expanded.pixel_values.dtype == torch.float32


def test_pictures_are_scaled_into_the_limits(chat: ChatFormat, tmp_path: Path) -> None:
    grids = [
        chat.expand(ask("<image>", picture(tmp_path, f"{side}.png", side, side))).image_grid_thw for side in (28, 140)
    ]

    assert [grid.tolist() for grid in grids if grid is not None] == [[[1, 4, 4]], [[1, 6, 6]]]


@pytest.mark.parametrize("limits", [LIMITS, ImageLimits()])
@pytest.mark.parametrize("sides", [(28, 28), (140, 84), (61, 203)])
def test_a_prompts_length_is_told_without_its_pixels(
    tiny_model: Path, tmp_path: Path, limits: ImageLimits, sides: tuple[int, int]
) -> None:
    chat = ChatFormat(str(tiny_model), limits)
    prompts = [ask("Why?"), ask("<image>or<image>?", *(picture(tmp_path, f"{i}.png", *sides) for i in range(2)))]

    assert [chat.length(prompt) for prompt in prompts] == [len(chat.expand(prompt).token_ids) for prompt in prompts]


@pytest.mark.parametrize(
    ("text", "pictures"),
    [("no place", 1), ("<image><image>", 1), ("<image>", 0), ("<image><|image_pad|>", 1)],
)
def test_pictures_and_places_that_do_not_match_are_refused(
    chat: ChatFormat, tmp_path: Path, text: str, pictures: int
) -> None:
    prompt = ask(text, *(picture(tmp_path, f"{i}.png", 56, 56) for i in range(pictures)))

    with pytest.raises(ValueError, match=f"prompt p has {pictures} pictures, but "):
        chat.render(prompt)


def test_a_text_only_model_takes_text_and_refuses_pictures(text_model: Path, tmp_path: Path) -> None:
    chat = ChatFormat(str(text_model), ImageLimits())

    assert chat.render(ask("Why?")).text == "system: Answer.\nuser: Why?\n"
    assert chat.expand(ask("Why?")).pixel_values is None
    assert chat.barred_token_ids() == ()
    with pytest.raises(ValueError, match="reads text only"):
        chat.render(ask("<image>Why?", picture(tmp_path, "0.png", 56, 56)))


def test_limits_that_exclude_each_other_are_refused(tiny_model: Path) -> None:
    chat = ChatFormat(str(tiny_model), ImageLimits(max_pixels=28 * 28))

    with pytest.raises(ValueError, match=r"set both model\.min_image_pixels and model\.max_image_pixels"):
        _ = chat.processor_options


def test_tokens_that_stand_for_media_are_barred() -> None:
    config = Qwen2_5_VLConfig(
        image_token_id=5,
        video_token_id=6,
        vision_start_token_id=3,
        vision_end_token_id=4,
        text_config={"eos_token_id": 2},
    )

    assert barred_token_ids(config) == (3, 4, 5, 6)


def test_what_is_saved_renders_the_same(chat: ChatFormat, tiny_model: Path, tmp_path: Path) -> None:
    prompt = ask("<image>What?", picture(tmp_path, "0.png", 84, 84))
    (tmp_path / "config.json").write_text((tiny_model / "config.json").read_text())

    chat.save(tmp_path)
    again = ChatFormat(str(tmp_path), LIMITS)

    assert again.render(prompt) == chat.render(prompt)
    assert again.expand(prompt).token_ids.tolist() == chat.expand(prompt).token_ids.tolist()
