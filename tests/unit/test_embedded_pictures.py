"""Pictures that rows hold themselves: checked as others are, and kept as files under the root."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rollout.picture_store import FOLDER
from rollout.readers import DataError, read_prompts
from tests.unit import data_formats as formats
from tests.unit.data_formats import as_lines, as_parquet, problems, read, with_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_pictures(tmp_path)


def test_bytes_in_a_table_that_are_no_picture_are_a_fault_of_their_row(folder: Path) -> None:
    rows = [formats.verl("1"), formats.verl("2") | {"images": [{"bytes": b"no picture", "path": "2.png"}]}]

    [fault] = problems(as_parquet(folder, rows), folder)

    assert fault.startswith(f"{folder / 'data.parquet'}:2: an image of 10 bytes in the row cannot be read")


def test_an_embedded_picture_of_too_many_pixels_is_refused_and_not_written(folder: Path) -> None:
    path = as_lines(folder, [formats.openai("1", formats.data_uri("1"))])

    with pytest.raises(DataError, match="has 8 x 4 pixels, expected at most 1e-05 million"):
        read_prompts(path, folder, megapixels_at_most=1e-5, need_response=True, require_reference=True)

    assert not (folder / FOLDER).exists()


def test_an_embedded_picture_is_written_once_and_not_again(folder: Path) -> None:
    path = as_lines(folder, [formats.openai(number, formats.data_uri("1")) | {"id": number} for number in ("1", "2")])

    first = read(path, folder)
    [file] = (folder / FOLDER).iterdir()
    written = file.stat().st_mtime_ns
    second = read(path, folder)

    assert first == second
    assert first[0].images == first[1].images == (str(file),)
    assert file.stat().st_mtime_ns == written


@pytest.mark.parametrize("linked", ["folder", "file"])
def test_a_link_in_the_place_of_embedded_pictures_leads_nothing_out(folder: Path, linked: str) -> None:
    root, outside = folder / "root", folder / "outside"
    root.mkdir(), outside.mkdir()
    (outside / "secret.png").write_bytes(formats.picture("2"))
    path = as_lines(root, [formats.openai("1", formats.data_uri("1"))])
    if linked == "folder":
        (root / FOLDER).symlink_to(outside)
        with pytest.raises(ValueError, match="is a link: remove it"):
            read(path, root)
    else:
        name = Path(read(path, root)[0].images[0]).name
        (root / FOLDER / name).unlink()
        (root / FOLDER / name).symlink_to(outside / "secret.png")

        [prompt] = read(path, root)

        assert Path(prompt.images[0]).read_bytes() == formats.picture("1")

    assert [file.name for file in outside.iterdir()] == ["secret.png"]
    assert (outside / "secret.png").read_bytes() == formats.picture("2")


def test_where_embedded_pictures_cannot_be_written_the_remedy_is_named(folder: Path) -> None:
    (folder / FOLDER).write_text("in the way")

    with pytest.raises(ValueError, match=r"let it be written to, or give the rows paths of pictures"):
        read(as_lines(folder, [formats.openai("1", formats.data_uri("1"))]), folder)


@settings(deadline=None, max_examples=30)
@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)), kind=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]))
def test_an_embedded_picture_is_kept_byte_by_byte(
    tmp_path_factory: pytest.TempPathFactory, size: tuple[int, int], kind: str
) -> None:
    root = tmp_path_factory.getbasetemp()
    Image.new("RGB", size).save(root / "drawn", kind)
    encoded = (root / "drawn").read_bytes()
    rows = [formats.verl("1") | {"images": [{"bytes": encoded, "path": None}]}]

    [prompt] = read(as_parquet(root, rows), root)

    assert Path(prompt.images[0]).read_bytes() == encoded
    assert Path(prompt.images[0]).suffix == f".{kind.lower()}"
