"""Pictures from files to RGB, checked before they are decoded."""

from __future__ import annotations

import errno
import warnings

from PIL import Image, ImageOps

from rollout.picture_check import FORMATS

# Storage that is away for a moment, or a process short of files or memory: elsewhere, or later, the picture is there.
_PASSING = frozenset(
    (errno.EAGAIN, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT)
)


def load_image(path: str, max_pixels: int) -> Image.Image:
    """Read a picture as RGB, upright, on white where it is transparent.

    Raises ValueError, naming the file, for what cannot be read and for more than `max_pixels`; OSError, naming it too,
    where another attempt may read it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size, which is limited here, and of broken EXIF data
            with Image.open(path, formats=FORMATS) as picture:
                _check_size(path, picture, max_pixels)
                return _on_white(ImageOps.exif_transpose(picture))
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: {error}") from error
    # Pillow raises these for broken files, SyntaxError for broken chunks of a PNG.
    except (OSError, EOFError, OverflowError, SyntaxError) as error:
        if isinstance(error, OSError) and error.errno in _PASSING:
            raise OSError(error.errno, error.strerror, path) from error
        raise ValueError(f"{path}: the picture cannot be read ({error})") from error


def image_size(path: str) -> tuple[int, int]:
    """Width and height of a picture that can be read, as it lies, by its header: no pixel is decoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        with Image.open(path, formats=FORMATS) as picture:
            return picture.size


def _check_size(path: str, picture: Image.Image, max_pixels: int) -> None:
    if picture.width * picture.height > max_pixels:
        raise ValueError(
            f"{path}: it has {picture.width}x{picture.height} pixels, at most {max_pixels} are taken: "
            "scale it down or raise data.image_megapixels_at_most"
        )


def _on_white(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
