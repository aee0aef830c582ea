"""Pictures are checked before they are decoded, and come out as RGB."""

from __future__ import annotations

import builtins
import errno
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cluster.report.thumbnails import Thumbnails
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


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_picture_that_another_attempt_may_read_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    file = tmp_path / "a.png"
    Image.new("L", (4, 4)).save(file)

    def failing(*_: Any) -> None:
        raise OSError(number, "for now")

    monkeypatch.setattr(builtins, "open", failing)
    with pytest.raises(OSError, match=r"for now: .*a\.png") as raised:
        load_image(str(file), MANY)
    assert Thumbnails(1.0).number(str(file)) is None  # a report does without it
    monkeypatch.undo()

    assert raised.value.errno == number
    assert load_image(str(file), MANY).size == (4, 4)


def test_a_picture_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(builtins, "open", forbidden)

    with pytest.raises(ValueError, match=r"a\.png: the picture cannot be read"):
        load_image(str(tmp_path / "a.png"), MANY)
