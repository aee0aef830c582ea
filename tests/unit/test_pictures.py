"""Pictures are checked before they are decoded, and come out as RGB."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from rollout.pictures import load_image

MANY = 10_000


def test_transparency_becomes_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    picture.putpixel((0, 0), (255, 0, 0, 255))
    picture.save(tmp_path / "a.png")

    loaded = load_image(str(tmp_path / "a.png"), MANY)

    assert loaded.mode == "RGB"
    assert [loaded.getpixel(at) for at in ((0, 0), (1, 0))] == [(255, 0, 0), (255, 255, 255)]


def test_a_picture_stands_as_its_camera_was_held(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by a quarter
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)

    assert load_image(str(tmp_path / "a.jpg"), MANY).size == (4, 8)


def test_a_picture_with_too_many_pixels_is_refused_before_decoding(tmp_path: Path) -> None:
    file = tmp_path / "bomb.png"
    Image.new("L", (200, 100)).save(file)
    file.write_bytes(file.read_bytes()[:60])  # the header is left, decoding would fail

    with pytest.raises(ValueError, match=r"bomb\.png: it has 200x100 pixels, at most 10000 are taken"):
        load_image(str(file), MANY)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_picture_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)

    with pytest.raises(ValueError, match=r"a\.png: the picture cannot be read"):
        load_image(str(tmp_path / "a.png"), MANY)


def test_a_cut_off_picture_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    Image.effect_noise((64, 64), 50).save(file)
    file.write_bytes(file.read_bytes()[:-400])

    with pytest.raises(ValueError, match=r"a\.jpg: the picture cannot be read"):
        load_image(str(file), MANY)


def test_a_missing_picture_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.png: the picture cannot be read"):
        load_image(str(tmp_path / "none.png"), MANY)
