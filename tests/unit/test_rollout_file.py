from __future__ import annotations

import logging
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest

from rollout.codec import GROUP_BYTES, CodecError
from rollout.rollout_file import HEADER, RolloutWriter, TornTailError, read_rollouts
from tests.unit.full_disk import files_of_at_most
from tests.unit.groups import example_group, same

FRAME = struct.Struct("<III")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "rollouts" / "0.rollouts"
    with RolloutWriter(path) as writer:
        for group_id in range(3):
            writer.append(replace(example_group(), group_id=group_id))
    return path


def ids(path: Path, *, strict: bool = True) -> list[int]:
    return [group.group_id for group in read_rollouts(path, strict=strict)]


def record_offsets(path: Path) -> list[int]:
    """Where each record begins, and the end of the file."""
    data, offsets = path.read_bytes(), [len(HEADER)]
    while offsets[-1] < len(data):
        offsets.append(offsets[-1] + FRAME.size + FRAME.unpack_from(data, offsets[-1])[0])
    return offsets


def test_a_rollout_file_gives_its_groups_back_in_order(written: Path) -> None:
    groups = list(read_rollouts(written))

    assert [group.group_id for group in groups] == [0, 1, 2]
    assert same(groups[2], replace(example_group(), group_id=2))


def test_a_file_opened_again_is_continued(written: Path, caplog: pytest.LogCaptureFixture) -> None:
    with RolloutWriter(written) as writer:
        writer.append(replace(example_group(), group_id=3))

    assert ids(written) == [0, 1, 2, 3]
    assert not caplog.records


def test_what_was_appended_can_be_read_while_the_writer_is_open(tmp_path: Path) -> None:
    with RolloutWriter(tmp_path / "r") as writer:
        assert ids(tmp_path / "r") == []
        writer.append(example_group())
        writer.sync()

        assert ids(tmp_path / "r") == [7]


def test_a_group_that_is_not_valid_leaves_the_file_as_it_was(written: Path) -> None:
    with RolloutWriter(written) as writer, pytest.raises(CodecError):
        writer.append(replace(example_group(), group_id=-1))

    assert ids(written) == [0, 1, 2]


@pytest.mark.parametrize("taken", [0, 5, 40])
def test_a_group_that_the_disk_takes_a_part_of_leaves_the_file_as_it_was(written: Path, taken: int) -> None:
    before = written.read_bytes()

    with RolloutWriter(written) as writer:
        with files_of_at_most(len(before) + taken), pytest.raises(OSError, match="too large"):
            writer.append(replace(example_group(), group_id=3))
        assert written.read_bytes() == before
        writer.append(replace(example_group(), group_id=4))

    assert ids(written) == [0, 1, 2, 4]


def test_every_torn_tail_is_reported_and_cut_off(
    written: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, offsets = written.read_bytes(), record_offsets(written)
    torn = tmp_path / "torn"
    cuts = {*range(offsets[-2] + 1, offsets[-1], 41), offsets[-2] + FRAME.size, offsets[-1] - 1}
    for size in [*cuts, *range(0, len(HEADER), 6)]:
        torn.write_bytes(data[:size])
        whole, end = ([0, 1], offsets[-2]) if size > len(HEADER) else ([], 0)

        with pytest.raises(TornTailError) as caught:
            ids(torn)
        assert caught.value.offset == end
        assert ids(torn, strict=False) == whole

        caplog.clear()
        with RolloutWriter(torn) as writer:
            writer.append(replace(example_group(), group_id=9))
        assert ids(torn) == [*whole, 9]
        assert [record.levelno for record in caplog.records] == ([logging.WARNING] if size else [])


def test_a_torn_tail_comes_after_the_groups_before_it(written: Path) -> None:
    last = record_offsets(written)[-2]
    written.write_bytes(written.read_bytes()[:-1])
    groups = read_rollouts(written)

    assert [next(groups).group_id, next(groups).group_id] == [0, 1]
    with pytest.raises(TornTailError, match=f"byte {last} lacks 1 bytes"):
        next(groups)


@pytest.mark.parametrize("strict", [True, False])
def test_every_flipped_bit_is_found_and_its_record_named(written: Path, *, strict: bool) -> None:
    data, offsets = written.read_bytes(), record_offsets(written)
    for place in [*range(offsets[1], offsets[2], 7), *range(offsets[1], offsets[1] + FRAME.size)]:
        damaged = bytearray(data)
        damaged[place] ^= 0x40
        written.write_bytes(damaged)

        with pytest.raises(CodecError, match=f"record at byte {offsets[1]} is corrupt") as caught:
            ids(written, strict=strict)
        assert not isinstance(caught.value, TornTailError)


def test_a_corrupt_frame_is_never_cut_off(written: Path) -> None:
    damaged = bytearray(written.read_bytes())
    damaged[record_offsets(written)[1]] ^= 0x40
    written.write_bytes(damaged)

    with pytest.raises(CodecError, match="corrupt"):
        RolloutWriter(written)

    assert written.read_bytes() == damaged


def test_a_record_longer_than_any_group_is_refused_before_it_is_read(written: Path) -> None:
    end = written.stat().st_size
    checked = struct.pack("<II", GROUP_BYTES + 1, 0)
    with written.open("ab") as file:
        file.write(checked + struct.pack("<I", zlib.crc32(checked)))
        file.truncate(end + FRAME.size + GROUP_BYTES + 1)  # all of it is there, in a file with a hole

    with pytest.raises(CodecError, match=f"record at byte {end} is corrupt: its frame"):
        ids(written)


def test_a_record_that_is_no_group_is_named_with_its_offset(written: Path) -> None:
    payload = msgpack.packb({"format": "other"})
    checked = struct.pack("<II", len(payload), zlib.crc32(payload))
    end = written.stat().st_size
    with written.open("ab") as file:
        file.write(checked + struct.pack("<I", zlib.crc32(checked)) + payload)

    with pytest.raises(CodecError, match=f"record at byte {end}: format: got other"):
        ids(written)


def test_another_kind_of_file_is_neither_read_nor_written(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not rollouts, but a note that must survive")

    with pytest.raises(CodecError, match="expected a rollout file"):
        ids(path)
    with pytest.raises(CodecError, match="expected a rollout file"):
        RolloutWriter(path)
    assert path.read_text().startswith("not rollouts")
