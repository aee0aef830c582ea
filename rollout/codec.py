"""Groups as bytes: msgpack under a format version, decoded strictly. No pickle.

What `decode_group` would refuse `encode_group` does not write, so that a group which left one
process can always be read by the next. Decoded arrays are read-only.
"""

from __future__ import annotations

from dataclasses import fields

import msgpack
import numpy as np
from numpy.typing import NDArray

from rollout.trajectory import FinishReason, Group, Sample, Score, Span, Trajectory, VersionSpan
from rollout.wire import (
    CodecError,
    array,
    integer,
    mapping,
    numbers,
    optional,
    packed_array,
    real,
    refuse,
    sequence,
    text,
    unpack,
)

__all__ = ["FORMAT", "VERSION", "CodecError", "decode_group", "encode_group"]

FORMAT = "caliber.group"
VERSION = 2  # 1 had no score.target

GROUP_BYTES = 64 * 2**20  # one message must fit a worker's memory many times over
TOKENS_PER_SAMPLE = 1_000_000  # longer than the context of any model this trains
TOKENS_PER_PROMPT = 1_000_000  # the same; a picture is thousands of them at most
SAMPLES_PER_GROUP = 10_000  # far above any group size that helps an advantage
VERSIONS_PER_SAMPLE = 10_000  # one for each weight update that a response lives through
IMAGES_PER_PROMPT = 1_000
NUMBERS_PER_MAP = 1_000  # reward parts and meters are a handful
TEXT_CHARACTERS = 16 * 2**20  # a million tokens of 16 characters
NAME_CHARACTERS = 4096  # ids, paths (PATH_MAX), names of parts, causes of a failure

_NAMES = {kind: tuple(field.name for field in fields(kind)) for kind in (Group, Sample, Score, Trajectory)}


def encode_group(group: Group) -> bytes:
    """A group as bytes.

    Raises CodecError for a group that `decode_group` would refuse.
    """
    try:
        data: bytes = msgpack.packb({"format": FORMAT, "version": VERSION, **_packed_group(group)})
    except (TypeError, ValueError, OverflowError) as error:
        # Seen: a numpy scalar where a Python number belongs, a lone surrogate, an integer over 64 bits.
        raise CodecError(f"group {group.group_id} cannot be encoded: {error}") from error
    decode_group(data)
    return data


def decode_group(data: bytes) -> Group:
    """The group that `encode_group` made these bytes of.

    Raises CodecError, which names the field, for anything else.
    """
    message = unpack(data, GROUP_BYTES)
    if not isinstance(message, dict) or message.get("format") != FORMAT:
        refuse("format", message if not isinstance(message, dict) else message.get("format"), repr(FORMAT))
    if type(message.get("version")) is not int or message["version"] != VERSION:
        refuse("version", message.get("version"), f"{VERSION}, the one this release reads")
    entries = mapping(message, "group", ("format", "version", *_NAMES[Group]))
    trajectories = sequence(entries["trajectories"], "trajectories", SAMPLES_PER_GROUP)
    if not trajectories:
        refuse("trajectories", "none", "at least one")
    return Group(
        group_id=integer(entries["group_id"], "group_id"),
        prompt_id=_name(entries["prompt_id"], "prompt_id"),
        images=_images(entries["images"]),
        prompt_tokens=_tokens(entries["prompt_tokens"], "prompt_tokens", TOKENS_PER_PROMPT),
        target=optional(entries["target"], lambda target: text(target, "target", TEXT_CHARACTERS)),
        admitted=real(entries["admitted"], "admitted"),
        worker=_name(entries["worker"], "worker"),
        trajectories=tuple(_trajectory(item, f"trajectories[{k}]") for k, item in enumerate(trajectories)),
        meters=numbers(entries["meters"], "meters", NUMBERS_PER_MAP, NAME_CHARACTERS),
    )


def _packed_group(group: Group) -> dict[str, object]:
    return _plain(group) | {
        "prompt_tokens": packed_array(group.prompt_tokens),
        "trajectories": [_packed_trajectory(trajectory) for trajectory in group.trajectories],
        "meters": dict(group.meters),
    }


def _packed_trajectory(trajectory: Trajectory) -> dict[str, object]:
    sample, score = trajectory.sample, trajectory.score
    packed_sample = _plain(sample) | {
        "tokens": packed_array(sample.tokens),
        "logprobs": packed_array(sample.logprobs),
        "version_spans": [[span.version, span.start, span.end] for span in sample.version_spans],
        "finish_reason": str(sample.finish_reason),
    }
    packed_score = None if score is None else _packed_score(score)
    return _plain(trajectory) | {"sample": packed_sample, "score": packed_score}


def _packed_score(score: Score) -> dict[str, object]:
    spans = {name: getattr(score, name) for name in _NAMES[Score] if name.endswith("_span")}
    return _plain(score) | {
        "parts": dict(score.parts),
        **{name: None if span is None else [span.start, span.end] for name, span in spans.items()},
    }


def _images(value: object) -> tuple[str, ...]:
    return tuple(_name(path, "images") for path in sequence(value, "images", IMAGES_PER_PROMPT))


def _trajectory(value: object, field: str) -> Trajectory:
    entries = mapping(value, field, _NAMES[Trajectory])
    sample = _sample(entries["sample"], f"{field}.sample")
    score = optional(entries["score"], lambda score: _score(score, f"{field}.score", len(sample.tokens)))
    failure = optional(entries["failure"], lambda cause: _name(cause, f"{field}.failure"))
    if score is not None and failure is not None:
        refuse(f"{field}.failure", failure, "none where there is a score")
    return Trajectory(sample=sample, score=score, failure=failure)


def _sample(value: object, field: str) -> Sample:
    entries = mapping(value, field, _NAMES[Sample])
    tokens = _tokens(entries["tokens"], f"{field}.tokens", TOKENS_PER_SAMPLE)
    length = len(tokens)
    logprobs = array(entries["logprobs"], f"{field}.logprobs", np.float32, (length, length))
    if not (np.isfinite(logprobs) & (logprobs <= 0)).all():
        refuse(f"{field}.logprobs", "one that is not finite or above 0", "logarithms of probabilities")
    if entries["finish_reason"] not in tuple(FinishReason):
        refuse(f"{field}.finish_reason", entries["finish_reason"], f"one of {[str(r) for r in FinishReason]}")
    return Sample(
        tokens=tokens,
        logprobs=logprobs,
        version_spans=_version_spans(entries["version_spans"], f"{field}.version_spans", length),
        finish_reason=FinishReason(entries["finish_reason"]),
        text=text(entries["text"], f"{field}.text", TEXT_CHARACTERS),
        started=real(entries["started"], f"{field}.started"),
        finished=real(entries["finished"], f"{field}.finished"),
    )


def _score(value: object, field: str, length: int) -> Score:
    entries = mapping(value, field, _NAMES[Score])
    return Score(
        answer=optional(entries["answer"], lambda answer: text(answer, f"{field}.answer", TEXT_CHARACTERS)),
        confidence=optional(entries["confidence"], lambda share: real(share, f"{field}.confidence", 0, 1)),
        malformed=optional(entries["malformed"], lambda cause: _name(cause, f"{field}.malformed")),
        correct=optional(entries["correct"], lambda share: real(share, f"{field}.correct", 0, 1)),
        target=optional(entries["target"], lambda share: real(share, f"{field}.target", 0, 1)),
        parts=numbers(entries["parts"], f"{field}.parts", NUMBERS_PER_MAP, NAME_CHARACTERS),
        reasoning_span=_span(entries["reasoning_span"], f"{field}.reasoning_span", length),
        answer_span=_span(entries["answer_span"], f"{field}.answer_span", length),
        confidence_span=_span(entries["confidence_span"], f"{field}.confidence_span", length),
    )


def _version_spans(value: object, field: str, length: int) -> tuple[VersionSpan, ...]:
    spans, covered = [], 0
    for item in sequence(value, field, VERSIONS_PER_SAMPLE):
        version, start, end = _integers(item, field, 3)
        if start != covered or not start < end <= length:
            refuse(field, f"[{start}, {end})", f"a span from {covered} to at most {length}")
        spans.append(VersionSpan(version, start, end))
        covered = end
    if covered != length:
        refuse(field, f"spans of {covered} tokens", f"that all {length} are covered")
    return tuple(spans)


def _span(value: object, field: str, length: int) -> Span | None:
    if value is None:
        return None
    start, end = _integers(value, field, 2)
    if not start < end <= length:
        refuse(field, f"[{start}, {end})", f"a span that is not empty, within the {length} tokens")
    return Span(start, end)


def _integers(value: object, field: str, count: int) -> list[int]:
    items = sequence(value, field, count)
    if len(items) != count:
        refuse(field, f"{len(items)} items", f"{count}")
    return [integer(item, field) for item in items]


def _tokens(value: object, field: str, at_most: int) -> NDArray[np.int32]:
    tokens = array(value, field, np.int32, (1, at_most))
    if tokens.min() < 0:
        refuse(field, f"token {tokens.min()}", "ids of 0 and above")
    return tokens


def _name(value: object, field: str) -> str:
    return text(value, field, NAME_CHARACTERS)


def _plain(record: Group | Sample | Score | Trajectory) -> dict[str, object]:
    """The record's fields as they are; what msgpack has no type for is put over it by the caller."""
    return {name: getattr(record, name) for name in _NAMES[type(record)]}
