"""Tensors from one process to others of the same machine: a safetensors file in memory."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file

_SHARED_MEMORY = Path("/dev/shm")
_SPARE = 1.1  # room asked for beyond the tensors themselves


@asynccontextmanager
async def staged(tensors: Mapping[str, torch.Tensor], name: str = "weights.safetensors") -> AsyncIterator[Path]:
    """Write `tensors`, which are on the CPU, to a file that lives, in a folder of its own, as long as the context.

    The file is in shared memory where that has room (containers often give it 64 MB), else in the
    folder for temporary files. Whoever maps it keeps the mapped memory after the file is gone.
    """
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    size = sum(tensor.nbytes for tensor in contiguous.values())
    with tempfile.TemporaryDirectory(prefix="caliber-weights-", dir=_folder(size)) as folder:
        path = Path(folder) / name
        await asyncio.to_thread(save_file, contiguous, path)
        yield path


def _folder(size: int) -> Path | None:
    if _SHARED_MEMORY.is_dir() and shutil.disk_usage(_SHARED_MEMORY).free > _SPARE * size:
        return _SHARED_MEMORY
    return None
