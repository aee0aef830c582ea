from __future__ import annotations

import errno
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.file_sums import FileSum, found_sums, sum_of, write_summed

FULL = Path("/dev/full")  # the kernel's own full disk


@given(st.lists(st.binary(max_size=64), max_size=5))
def test_the_sum_of_what_is_written_is_that_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("sums") / "file"

    written = write_summed(path, lambda file: [file.write(part) for part in parts])

    assert path.read_bytes() == b"".join(parts)
    assert written == sum_of(path)
    assert written.size == sum(map(len, parts))


@given(st.binary(min_size=1, max_size=64), st.data())
def test_any_other_bytes_have_another_sum(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, draw: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("sums") / "file"
    written = write_summed(path, lambda file: file.write(data))
    bit = draw.draw(st.integers(0, 8 * len(data) - 1))
    spoilt = bytearray(data)
    spoilt[bit // 8] ^= 1 << bit % 8

    path.write_bytes(spoilt)
    assert sum_of(path) != written
    path.write_bytes(data[:-1])
    assert sum_of(path) != written


def test_a_file_that_cannot_be_read_has_the_cause_in_place_of_its_sum(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"abc")

    found = found_sums(tmp_path, ["there", "gone"])

    assert found == {"there": FileSum(3, 0x352441C2), "gone": "No such file or directory"}


def test_a_full_disk_is_told_as_such_even_where_the_writer_makes_something_else_of_it() -> None:
    def as_torch_does(file: BinaryIO) -> None:
        try:
            file.write(bytes(2**20))
        except OSError as error:
            raise RuntimeError("unexpected pos 1152 vs 1046") from error

    for write in (lambda file: file.write(bytes(2**20)), lambda file: file.write(b"little"), as_torch_does):
        with pytest.raises(OSError, match="No space left") as raised:
            write_summed(FULL, write)
        assert raised.value.errno == errno.ENOSPC


def test_what_else_a_writer_raises_is_raised_as_it_is(tmp_path: Path) -> None:
    def write(file: BinaryIO) -> None:
        raise RuntimeError("no such tensor")

    with pytest.raises(RuntimeError, match="no such tensor"):
        write_summed(tmp_path / "file", write)
