"""Files of weights in memory: where they are written, what is read there, and what is left where they do not fit."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

import rollout.staging
from rollout.checksum import checksum
from rollout.staging import checksum_of_file, staged
from tests.unit.full_disk import files_of_at_most

WEIGHTS = {"a": torch.arange(4096, dtype=torch.float32), "b.c": torch.ones(3, 5, dtype=torch.bfloat16).T}


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Shared memory, and the folder for temporary files."""
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    for folder in (memory, disk):
        folder.mkdir()
    monkeypatch.setattr(rollout.staging, "_SHARED_MEMORY", memory)
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    return memory, disk


async def where_and_what() -> tuple[Path, str]:
    async with staged(WEIGHTS) as path:
        return path.parent.parent, checksum_of_file(path)


def left(places: tuple[Path, Path]) -> list[Path]:
    return [path for place in places for path in place.iterdir()]


def test_weights_are_found_in_memory_as_they_were_given_and_nothing_is_left(places: tuple[Path, Path]) -> None:
    assert asyncio.run(where_and_what()) == (places[0], checksum(WEIGHTS))
    assert left(places) == []


def test_what_shared_memory_has_no_room_for_goes_to_the_disk(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout.staging, "_SPARE", 1e12)

    assert asyncio.run(where_and_what()) == (places[1], checksum(WEIGHTS))


def test_where_others_take_the_room_meanwhile_the_disk_is_tried_and_nothing_is_left_in_memory(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(tensors: dict[str, torch.Tensor], path: Path) -> None:
        if path.is_relative_to(places[0]):
            path.write_bytes(bytes(1024))
            raise SafetensorError("No space left on device")
        save_file(tensors, path)

    async def job() -> list[Path]:
        async with staged(WEIGHTS) as path:
            assert checksum_of_file(path) == checksum(WEIGHTS)
            return left(places)

    monkeypatch.setattr(rollout.staging, "save_file", save)

    assert [path.parent for path in asyncio.run(job())] == [places[1]]


def test_where_neither_takes_them_both_are_named_and_nothing_is_left(places: tuple[Path, Path]) -> None:
    with files_of_at_most(1024), pytest.raises(OSError, match="could not be written") as caught:
        asyncio.run(where_and_what())

    assert all(str(place) in str(caught.value) for place in places)
    assert left(places) == []
