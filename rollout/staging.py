"""Tensors from one process to others of the same machine: a safetensors file in memory."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rollout.checksum import checksum

_SHARED_MEMORY = Path("/dev/shm")
_SPARE = 1.1  # room asked for beyond the tensors themselves


@asynccontextmanager
async def staged(tensors: Mapping[str, torch.Tensor], name: str = "weights.safetensors") -> AsyncIterator[Path]:
    """Write `tensors`, which are on the CPU, to a file that lives, in a folder of its own, as long as the context.

    The file is in shared memory where that has room (containers often give it 64 MB), else in the
    folder for temporary files. Whoever maps it keeps the mapped memory after the file is gone.
    Raises OSError where neither takes it.
    """
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    size = sum(tensor.nbytes for tensor in contiguous.values())
    with await asyncio.to_thread(_written, contiguous, name, _places(size)) as folder:
        yield Path(folder, name)


def checksum_of_file(path: Path) -> str:
    """The checksum of the tensors that whoever maps a staged file finds there."""
    return checksum(load_file(path))


def _written(tensors: dict[str, torch.Tensor], name: str, places: Sequence[Path]) -> tempfile.TemporaryDirectory[str]:
    """A folder with the file, in the first of the places that takes it."""
    refused = []
    for place in places:
        folder = tempfile.TemporaryDirectory(prefix="caliber-weights-", dir=place)
        try:
            save_file(tensors, Path(folder.name, name))
        except SafetensorError as error:  # others may have taken the room meanwhile
            folder.cleanup()
            refused.append(f"{place}: {error}")
        else:
            return folder
    raise OSError(f"weights could not be written to a file; {'; '.join(refused)}")


def _places(size: int) -> list[Path]:
    """Folders to try, in turn."""
    roomy = _SHARED_MEMORY.is_dir() and shutil.disk_usage(_SHARED_MEMORY).free > _SPARE * size
    return [*([_SHARED_MEMORY] if roomy else []), Path(tempfile.gettempdir())]
