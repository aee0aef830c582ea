"""One number for a set of tensors, so that the receiver of weights can prove what it holds.

It is the digest of the tensors' digests, and a tensor's is that of its name, its type, its shape and the digests of
its blocks. So a sender takes it bucket by bucket without holding the whole, and several threads share the work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch

_DIGEST_BYTES = 16
_BLOCK = 2**24  # bytes a thread takes at a time: few enough that one large tensor occupies all threads


def checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    """A hexadecimal digest of names, types, shapes and bytes; the order of the mapping does not count."""
    return checksum_of(digests(tensors))


def checksum_of(digests: Iterable[bytes]) -> str:
    """The checksum of tensors whose digests these are, in any order."""
    return _digest(b"".join(sorted(digests))).hex()


def digests(tensors: Mapping[str, torch.Tensor]) -> list[bytes]:
    """Each tensor's digest, on as many threads as torch may use here.

    blake2b reads 600 to 900 MB a second on one core and needs no special instructions. It lets go of the
    interpreter lock meanwhile.
    """
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        found = [
            (f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode(), threads.map(_digest, _blocks(tensor)))
            for name, tensor in tensors.items()
        ]
        return [_digest(b"".join([kind, *blocks])) for kind, blocks in found]


def _blocks(tensor: torch.Tensor) -> list[memoryview]:
    flat = tensor.detach().cpu().contiguous().flatten()
    # numpy has no bf16: bytes are read as bytes.
    data = flat.view(torch.uint8).numpy().data
    return [data[start : start + _BLOCK] for start in range(0, len(data), _BLOCK)]


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
