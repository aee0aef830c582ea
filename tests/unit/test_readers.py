"""Reading data files: what a good row becomes, and what is said of a bad one."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rollout.picture_check import PictureCheck
from rollout.prompts import Message, Prompt
from rollout.readers import DataError, read_prompts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 4)).save(tmp_path / "pictures" / "a.png")
    Image.new("RGB", (4, 8)).save(tmp_path / "pictures" / "b.jpg")
    return tmp_path


def chat_row(**changes: object) -> dict[str, object]:
    """A good row; a change to None removes the key."""
    row: dict[str, object] = {
        "id": "1",
        "task": "faces",
        "messages": [
            {"role": "system", "content": "Look."},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which?"}]},
            {"role": "assistant", "content": "<answer>joy</answer>"},
        ],
        "images": ["pictures/a.png"],
        "candidates": ["joy", "fear", "awe"],
        "reference": {"label": "joy"},
    }
    return {key: value for key, value in (row | changes).items() if value is not None}


def vec_row(**changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "id": 7,
        "task": "EmoSet-8",
        "conversations": [
            {"from": "human", "value": "<image>\nWhich?"},
            {"from": "gpt", "value": "<answer>joy</answer>"},
        ],
        "image": "pictures/a.png",
        "candidates": ["joy", "fear"],
        "ground_truth": "Joy",
    }
    return {key: value for key, value in (row | changes).items() if value is not None}


def read(
    folder: Path, *rows: Mapping[str, object] | str | bytes, shown: int = 20, megapixels: float = 64.0
) -> list[Prompt]:
    """Rows as objects, or as the bytes of their line, through a file in `folder`."""
    lines = [row if isinstance(row, str | bytes) else json.dumps(row) for row in rows]
    encoded = [line if isinstance(line, bytes) else line.encode() for line in lines]
    (folder / "data.jsonl").write_bytes(b"\n".join(encoded))
    return read_prompts(
        folder / "data.jsonl",
        folder,
        errors_shown=shown,
        megapixels_at_most=megapixels,
        need_response=True,
        require_reference=True,
    )


def faults(folder: Path, *rows: Mapping[str, object] | str | bytes, megapixels: float = 64.0) -> list[str]:
    """The problems without the file's name: ROW: what."""
    with pytest.raises(DataError) as caught:
        read(folder, *rows, megapixels=megapixels)
    prefix = f"{folder / 'data.jsonl'}:"
    assert all(problem.startswith(prefix) for problem in caught.value.problems)
    return [problem.removeprefix(prefix) for problem in caught.value.problems]


def test_a_chat_row_becomes_a_prompt_with_its_response(folder: Path) -> None:
    [prompt] = read(folder, chat_row())

    assert prompt == Prompt(
        prompt_id="1",
        task="faces",
        messages=(Message("system", "Look."), Message("user", "<image>Which?")),
        images=(str(folder / "pictures" / "a.png"),),
        candidates=("joy", "fear", "awe"),
        label="joy",
        counts={},
        response="<answer>joy</answer>",
    )


def test_a_vecbench_row_becomes_a_prompt_with_the_candidates_spelling(folder: Path) -> None:
    [prompt] = read(folder, vec_row())

    assert prompt == Prompt(
        prompt_id="7",
        task="EmoSet-8",
        messages=(Message("user", "<image>\nWhich?"),),
        images=(str(folder / "pictures" / "a.png"),),
        candidates=("joy", "fear"),
        label="joy",
        counts={},
        response="<answer>joy</answer>",
    )


def test_a_vecbench_row_may_have_several_images_a_system_turn_and_no_id(folder: Path) -> None:
    turns = [
        {"from": "system", "value": "Look."},
        {"from": "human", "value": "<image><image>Which?"},
        {"from": "gpt", "value": "joy"},
    ]
    both = ["pictures/a.png", "pictures/b.jpg"]

    [first, second] = read(
        folder,
        vec_row(id=None, conversations=turns, image=both),
        vec_row(id=None, conversations=turns, image=None, images=both),
    )

    assert first.messages == second.messages == (Message("system", "Look."), Message("user", turns[1]["value"]))
    assert [Path(image).name for image in first.images] == ["a.png", "b.jpg"]
    assert first.images == second.images
    assert (first.prompt_id, second.prompt_id) == ("data:1", "data:2")


def test_a_vecbench_row_may_name_who_speaks_as_messages_do(folder: Path) -> None:
    turns = [("system", "Look."), ("user", "<image>Which?"), ("assistant", "joy")]

    [prompt] = read(folder, vec_row(conversations=[{"from": who, "value": text} for who, text in turns]))

    assert prompt.messages == (Message("system", "Look."), Message("user", "<image>Which?"))
    assert prompt.response == "joy"


@pytest.mark.parametrize("tag", ["observation", "Human", 3])
def test_an_unknown_speaker_is_answered_with_the_names_there_are(folder: Path, tag: object) -> None:
    [fault] = faults(folder, vec_row(conversations=[{"from": tag, "value": "<image>Which?"}]))

    expected = "system, human, user, gpt, assistant: rename it in the file; a conversation with tools must be left out"
    assert fault == f"1: conversations.0.from: got {tag!r}, expected one of {expected}"


def test_prompts_keep_the_order_of_the_file_and_empty_lines_count_as_rows(folder: Path) -> None:
    assert [prompt.prompt_id for prompt in read(folder, chat_row(id="b"), " ", chat_row(id="a"))] == [
        "b",
        "a",
    ]
    assert faults(folder, "", chat_row(id="b"), "", "[]")[0].startswith("4: ")


def test_the_task_defaults_to_the_name_of_the_file(folder: Path) -> None:
    assert read(folder, chat_row(task=None))[0].task == "data"


def test_counts_take_the_candidates_order_and_spelling_and_zeros_for_the_rest(folder: Path) -> None:
    [prompt] = read(folder, chat_row(reference={"counts": {"AWE": 3, "joy": 1}}))

    assert list(prompt.counts.items()) == [("joy", 1), ("fear", 0), ("awe", 3)]
    assert prompt.label == "awe"


def test_of_equal_counts_the_label_is_the_first_candidate_or_the_one_given(folder: Path) -> None:
    counts = {"awe": 2, "fear": 2}

    [implied, given_] = read(
        folder,
        chat_row(reference={"counts": counts}),
        chat_row(id="2", reference={"counts": counts, "label": "awe"}),
    )

    assert (implied.label, given_.label) == ("fear", "awe")


def test_a_label_needs_no_candidates(folder: Path) -> None:
    assert read(folder, chat_row(candidates=None, reference={"label": " Joy "}))[0].label == "Joy"


def test_without_a_last_assistant_turn_there_is_no_response(folder: Path) -> None:
    row = chat_row(messages=[{"role": "user", "content": "<image>Which?"}], reference=None)
    (folder / "data.jsonl").write_text(json.dumps(row))

    [prompt] = read_prompts(folder / "data.jsonl", folder, need_response=False, require_reference=False)

    assert (prompt.response, prompt.label, prompt.counts) == (None, None, {})


def test_an_earlier_assistant_turn_stays_in_the_prompt(folder: Path) -> None:
    turns = [("user", "<image>Who?"), ("assistant", "A cat."), ("user", "Which?"), ("assistant", "joy")]

    [prompt] = read(folder, chat_row(messages=[{"role": role, "content": text} for role, text in turns]))

    assert prompt.messages == tuple(Message(role, text) for role, text in turns[:3])
    assert prompt.response == "joy"


def test_a_picture_may_lie_beside_the_files_folder_inside_the_data_folder(folder: Path) -> None:
    (folder / "splits").mkdir()
    row = chat_row(images=["../pictures/a.png"])
    (folder / "splits" / "data.jsonl").write_text(json.dumps(row))

    [prompt] = read_prompts(folder / "splits" / "data.jsonl", folder, need_response=True, require_reference=True)

    assert prompt.images == (str(folder / "pictures" / "a.png"),)


def test_images_are_absolute_paths_though_the_file_is_named_relatively(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "data.jsonl").write_text(json.dumps(chat_row()))
    monkeypatch.chdir(folder.parent)
    relative = Path(folder.name)

    [prompt] = read_prompts(relative / "data.jsonl", relative, need_response=True, require_reference=True)

    assert prompt.images == (str(folder / "pictures" / "a.png"),)


def user(content: object) -> list[object]:
    return [{"role": "user", "content": content}, {"role": "assistant", "content": "joy"}]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": ["pictures/no.png"]}, "image 'pictures/no.png' is missing"),
        ({"images": ["pictures"]}, "image 'pictures' is missing"),
        ({"images": ["data.jsonl"]}, "image 'data.jsonl' cannot be read"),
        ({"images": ["/etc/hostname"]}, "is an absolute path"),
        ({"images": ["../x.png"]}, "leads out of the data folder"),
        ({"images": ["pictures/../../x.png"]}, "leads out of the data folder"),
        ({"images": [""]}, "is not a path"),
        ({"images": ["a\0b"]}, "is not a path"),
        ({"images": []}, "got 0 images for 1 image places"),
        ({"images": ["pictures/a.png", "pictures/b.jpg"]}, "got 2 images for 1 image places"),
        ({"images": 7}, "images: expected a path, a data URI, or an object with bytes or a path, got 7"),
        ({"images": ["http://x.org/a.png"]}, "images: 'http://x.org/a.png' is an address, and nothing is fetched"),
        ({"images": ["file://host/a.png"]}, "images: 'file://host/a.png' is on another machine"),
        ({"images": ["file:///etc/hostname"]}, "is an absolute path"),
        ({"images": ["data:image/png,abc"]}, "images: 'data:image/png,abc' is no data URI in base64"),
        ({"images": ["data:image/png;base64,ab*"]}, "images: 'data:image/png;base64,ab*' is no base64"),
        ({"images": ["data:;base64,aGFsbG8="]}, "an image of 5 bytes in the row cannot be read"),
        ({"videos": ["a.mp4"]}, "got videos or audios"),
        ({"messages": user("<image><image>Which?")}, "got 1 images for 2 image places"),
        (
            {"messages": user([{"type": "image"}, {"type": "text", "text": "an <image>"}])},
            'got "<image>" as text',
        ),
        ({"messages": user([{"type": "text", "text": "<image>"}])}, 'got "<image>" as text'),
        (
            {"messages": user([{"type": "text", "text": "<im"}, {"type": "text", "text": "age>"}])},
            'got "<image>" as text',
        ),
        ({"messages": user([{"type": "video"}])}, "messages.0.content.0: Input tag 'video'"),
        ({"messages": user(4)}, "messages.0.content: expected text or a list of parts, got 4"),
        ({"messages": []}, "has no messages"),
        ({"messages": [{"role": "assistant", "content": "<image>"}]}, "the last message before the response"),
        (
            {"messages": [*user("<image>"), {"role": "system", "content": "a"}, *user("b")[1:]]},
            "the last message before the response must be the user's",
        ),
        ({"messages": user("<image>")[:1]}, "has no response to train on"),
        (
            {"messages": [*user("<image>")[:1], {"role": "assistant", "content": "\n"}]},
            "message 2 (assistant) is",
        ),
        (
            {"messages": [*user("<image>")[:1], {"role": "assistant", "content": "<image>"}]},
            "the response holds",
        ),
        ({"messages": [{"role": "system", "content": ""}, *user("<image>")]}, "message 1 (system) is empty"),
        ({"messages": [{"role": "bot", "content": "<image>"}]}, "messages.0.role: Input should be 'system'"),
        ({"reference": None}, "has no reference"),
        ({"reference": {}}, "has no reference"),
        ({"reference": {"label": "rage"}}, "the label 'rage' is not among the candidates joy, fear, awe"),
        ({"reference": {"lable": "joy"}}, "reference.lable: Extra inputs are not permitted"),
        ({"reference": {"counts": {"joy": 1, "rage": 2}}}, "the counts name 'rage', which is not among"),
        ({"reference": {"counts": {"joy": 1, "Joy": 2}}}, "the counts name 'joy' twice"),
        ({"reference": {"counts": {"joy": -1, "fear": 2}}}, "reference.counts.joy: Input should be greater"),
        ({"reference": {"counts": {"joy": 1.0}}}, "reference.counts.joy: Input should be a valid integer"),
        ({"reference": {"counts": {"joy": True}}}, "reference.counts.joy: Input should be a valid integer"),
        ({"reference": {"counts": {"joy": "1"}}}, "reference.counts.joy: Input should be a valid integer"),
        ({"reference": {"counts": {"joy": 0}}}, "the counts hold no vote"),
        ({"reference": {"counts": {}}}, "the counts hold no vote"),
        ({"reference": {"counts": {"joy": 1}}, "candidates": None}, "has counts without candidates"),
        ({"reference": {"counts": {"joy": 2, "awe": 1}, "label": "awe"}}, "the label 'awe' has 1 votes, but"),
        ({"reference": {"counts": {"joy": 2}, "label": "fear"}}, "the label 'fear' has 0 votes, but"),
        ({"candidates": ["joy", "fear", " JOY"]}, "the candidates 'joy' and 'JOY' are the same answer"),
        ({"candidates": ["joy", "joy"]}, "the candidates 'joy' and 'joy' are the same answer"),
        ({"candidates": ["joy", " "]}, "candidates.1: String should have at least 1 character"),
        ({"id": ""}, "id: String should have at least 1 character"),
        ({"id": 3.5}, "id: Input should be a valid string, got 3.5"),
    ],
)
def test_a_bad_chat_row_is_named_with_its_fault(folder: Path, changes: dict[str, object], said: str) -> None:
    row = {key: value for key, value in (chat_row() | changes).items() if value is not None}

    found = faults(folder, chat_row(id="good"), row)

    assert all(fault.startswith("2: ") for fault in found)
    assert any(said in fault for fault in found), found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ground_truth": "rage"}, "the label 'rage' is not among the candidates joy, fear"),
        ({"ground_truth": None}, "has no reference"),
        ({"images": ["pictures/a.png"]}, "got pictures in both `image` and `images`"),
        ({"image": None}, "got 0 images for 1 image places"),
        ({"image": "no.png"}, "image 'no.png' is missing"),
        ({"id": 1.0}, "Input should be a valid"),
        ({"id": True}, "Input should be a valid"),
        ({"conversations": [{"from": "human", "value": "<image>"}]}, "has no response"),
        ({"conversations": [{"from": "bot", "value": "<image>"}]}, "conversations.0.from: got 'bot', expected"),
        ({"conversations": []}, "has no messages"),
    ],
)
def test_a_bad_vecbench_row_is_named_with_its_fault(folder: Path, changes: dict[str, object], said: str) -> None:
    row = {key: value for key, value in (vec_row() | changes).items() if value is not None}

    found = faults(folder, vec_row(id=1), row)

    assert all(fault.startswith("2: ") for fault in found)
    assert any(said in fault for fault in found), found


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"id": "2", ', "invalid JSON"),
        (b'{"id": NaN}', "invalid JSON: NaN is not a JSON number"),
        (b"[" * 100_000, "invalid JSON: nested too deeply"),
        (b'{"id": ' + b"9" * 5000 + b"}", "invalid JSON"),
        (b"[1]", "got [1], expected one JSON object a line"),
        (b'"\xff"', "not valid Unicode"),
        (b'{"id": "\\ud83d"}', "not valid Unicode"),
        (b"{}", "has no `messages`, as the rows before it have"),
        (json.dumps(vec_row()).encode(), "has no `messages`, as the rows before it have"),
    ],
)
def test_a_line_that_is_not_a_row_is_named_with_its_fault(folder: Path, line: bytes, said: str) -> None:
    [fault] = faults(folder, chat_row(), line)

    assert fault.startswith("2: ")
    assert said in fault


def test_a_row_that_has_no_key_of_any_kind_is_answered_with_what_was_looked_for(folder: Path) -> None:
    [fault] = faults(folder, "{}")

    assert fault.startswith(
        "1: has none of `messages`, `conversations`, `prompt`, `instruction` to tell its format by, only the keys of"
    )


def test_a_duplicated_id_names_the_row_that_had_it_first(folder: Path) -> None:
    found = faults(folder, chat_row(), chat_row(id="2"), chat_row(), chat_row(images=[]))

    assert found[0] == "3: id '1' is row 1's too: ids must be unique in a file"
    assert found[1] == "4: id '1' is row 1's too: ids must be unique in a file"


def test_a_row_number_that_is_also_an_id_is_a_duplicate(folder: Path) -> None:
    assert faults(folder, vec_row(id="data:2"), vec_row(id=None))[0].startswith("2: id 'data:2' is row 1's")


def test_all_faults_of_all_rows_are_collected(folder: Path) -> None:
    found = faults(folder, chat_row(images=["no.png"], reference=None), "{", chat_row(id="3", messages=[]))

    assert [fault.split(":")[0] for fault in found] == ["1", "1", "2", "3", "3"]


def test_the_message_shows_so_many_errors_and_counts_the_rest(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(folder, *["{"] * 5, shown=2)

    lines = str(caught.value).split("\n")
    assert [line.split(": ")[0] for line in lines[:2]] == [f"{folder}/data.jsonl:1", f"{folder}/data.jsonl:2"]
    assert lines[2:] == ["… and 3 more"]
    assert len(caught.value.problems) == 5


def test_the_message_counts_no_rest_where_all_errors_are_shown(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(folder, *["{"] * 5, shown=5)

    assert len(str(caught.value).split("\n")) == 5


def test_a_missing_or_empty_file_is_an_error(folder: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        read_prompts(folder / "none.jsonl", folder, need_response=False, require_reference=False)
    with pytest.raises(DataError, match="the file is empty"):
        read(folder, " ", "")


def test_a_byte_order_mark_is_skipped(folder: Path) -> None:
    assert len(read(folder, b"\xef\xbb\xbf" + json.dumps(chat_row()).encode())) == 1


def header_only_png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def test_pictures_are_limited_by_the_size_in_their_header(folder: Path) -> None:
    (folder / "pictures" / "a.png").write_bytes(header_only_png(2000, 1000) + b"\0\0\0\0IDAT")

    assert len(read(folder, chat_row(), megapixels=2.0)) == 1
    [fault] = faults(folder, chat_row(), megapixels=1.999)
    assert "has 2000 x 1000 pixels, expected at most 1.999 million" in fault


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [10_000, 30_000])  # Pillow warns of the one and refuses the other
def test_a_decompression_bomb_is_refused_unopened(folder: Path, side: int) -> None:
    (folder / "pictures" / "a.png").write_bytes(header_only_png(side, side) + b"\0\0\0\0IDAT")

    [fault] = faults(folder, chat_row())

    assert "expected at most 64 million" in fault


def test_a_pipe_is_not_opened(folder: Path) -> None:
    os.mkfifo(folder / "pictures" / "pipe.png")

    [fault] = faults(folder, chat_row(images=["pictures/pipe.png"]))

    assert "is missing" in fault


def test_a_placeholder_in_the_response_asks_for_no_picture(folder: Path) -> None:
    turns = [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": "an <image>"}]

    [fault] = faults(folder, chat_row(messages=turns))

    assert "the response holds" in fault


@pytest.mark.parametrize("error", [OSError, ValueError, EOFError, OverflowError])
def test_whatever_pillow_raises_over_a_header_is_a_fault(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(path: str, **options: Any) -> Image.Image:
        raise error("spoilt")

    monkeypatch.setattr(Image, "open", fail)

    [fault] = faults(folder, chat_row())

    assert "cannot be read (spoilt)" in fault


def test_a_sibling_whose_name_begins_like_the_data_folder_is_outside_it(tmp_path: Path) -> None:
    (tmp_path / "data-secret").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "data-secret" / "a.png")
    check = PictureCheck(tmp_path / "data", tmp_path / "data", 1.0)

    assert "leads out of the data folder" in str(check.fault("../data-secret/a.png"))


@pytest.mark.parametrize("linked", ["pictures/a.png", "pictures"])
def test_a_link_that_leads_out_of_the_data_folder_is_not_followed(tmp_path: Path, linked: str) -> None:
    outside, root = tmp_path / "outside", tmp_path / "data"
    (outside / "pictures").mkdir(parents=True)
    Image.new("L", (2, 2)).save(outside / "pictures" / "a.png")
    (root / linked).parent.mkdir(parents=True)
    (root / linked).symlink_to(outside / linked)

    fault = PictureCheck(root, root, 1.0).fault("pictures/a.png")

    assert f"a link that leads out of the data folder, to {outside / 'pictures' / 'a.png'}" in str(fault)


def test_a_link_within_the_data_folder_and_a_data_folder_that_is_one_are_followed(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "store" / "a.png")
    (tmp_path / "store" / "b.png").symlink_to("a.png")
    (tmp_path / "data").symlink_to("store")

    assert PictureCheck(tmp_path / "data", tmp_path / "data", 1.0).fault("b.png") is None


def test_a_picture_is_opened_once_however_many_rows_name_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    really = Image.open

    def counted(path: str, **options: Any) -> Image.Image:
        opened.append(path)
        return really(path, **options)

    monkeypatch.setattr(Image, "open", counted)

    read(folder, *(chat_row(id=str(number)) for number in range(5)))

    assert len(opened) == 1


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_no_bytes_in_a_picture_do_more_than_make_a_fault(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    kind = data.draw(st.sampled_from(["png", "jpeg", "gif", "bmp", "tiff", "webp"]))
    Image.new("RGB", (3, 5), (1, 2, 3)).save(folder / "fuzzed", format=kind)
    written = bytearray((folder / "fuzzed").read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(written) - 1), max_size=8)):
        written[place] = data.draw(st.integers(0, 255))
    (folder / "fuzzed").write_bytes(written[: data.draw(st.integers(0, len(written)))])

    fault = PictureCheck(folder, folder, 64.0).fault("fuzzed")

    assert fault is None or fault.startswith("image 'fuzzed' ")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["<image>", "joy", "user"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "from", "value", "counts"]), inner)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(changes=st.dictionaries(st.sampled_from([*chat_row(), *vec_row()]), json_values, max_size=4))
def test_no_row_does_more_than_make_a_fault(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, object]
) -> None:
    folder = tmp_path_factory.getbasetemp()

    for row in (chat_row() | changes, vec_row() | changes):
        try:
            read(folder, row)
        except DataError as error:
            assert all(problem.startswith(f"{folder}/data.jsonl:1: ") for problem in error.problems)


parts = st.lists(st.none() | st.text(alphabet="<image>x", min_size=1, max_size=9), min_size=1, max_size=5)


@settings(deadline=None)
@given(parts=parts)
def test_content_parts_give_one_place_for_each_picture_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str | None]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    Image.new("L", (2, 2)).save(folder / "a.png")
    pictures = parts.count(None)
    content = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]
    joined = "".join("<image>" if part is None else part for part in parts)

    row = chat_row(messages=user(content), images=["a.png"] * pictures)

    if joined.count("<image>") == pictures:
        assert read(folder, row)[0].messages[0].text == joined
    else:
        assert 'got "<image>" as text' in faults(folder, row)[0]
