"""Reads what Weights & Biases keeps of an offline run: a log of protobuf records."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import wandb
from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32768  # bytes; .wandb files are logs of LevelDB's format, with a header of their own
FILE_HEADER, CHUNK_HEADER = 7, struct.Struct("<IHB")  # of a chunk: checksum, length, and which part of a record it is
WHOLE, LAST = 1, 4


def wandb_records(folder: Path) -> list[Record]:
    """All records of the one offline run in a folder, the last of which is its exit."""
    wandb.teardown()
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    until = time.monotonic() + 60  # in Ray jobs wandb's service is a process that nobody waits for
    while not exit_codes(records := list(map(Record.FromString, leveldb_records(file.read_bytes())))):
        assert time.monotonic() < until, records
        time.sleep(0.1)
    return records


def leveldb_records(data: bytes) -> Iterator[bytes]:
    at, begun = FILE_HEADER, b""
    while at + CHUNK_HEADER.size <= len(data):
        if BLOCK - at % BLOCK < CHUNK_HEADER.size:  # what is left of a block is padding
            at += BLOCK - at % BLOCK
            continue
        _, length, part = CHUNK_HEADER.unpack_from(data, at)
        at += CHUNK_HEADER.size + length
        if at > len(data):
            return  # it is being written
        begun += data[at - length : at]
        if part in (WHOLE, LAST):
            yield begun
            begun = b""


def defined(record: Record) -> Mapping[str, float | None]:
    """The metrics of a line of history, without what wandb adds to them."""
    found = {"".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
    return {name: value for name, value in found.items() if not name.startswith("_")}


def exit_codes(records: Sequence[Record]) -> list[int]:
    return [record.exit.exit_code for record in records if record.HasField("exit")]
