from __future__ import annotations

import math
import zlib
from dataclasses import replace
from itertools import pairwise

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout import codec, wire
from rollout.codec import CodecError, decode_group, encode_group
from rollout.trajectory import FinishReason, Group, Sample, Score, Span, Trajectory, VersionSpan
from tests.unit.groups import example_group, example_sample, same

NAMES = st.text(st.characters(codec="utf-8"), max_size=12)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TOKENS = st.integers(0, 2**31 - 1)
SHARES = st.floats(0, 1)
NUMBERS = st.dictionaries(NAMES, FINITE, max_size=3)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    length = draw(st.integers(1, 20))
    cuts = sorted({0, length} | draw(st.sets(st.integers(0, length), max_size=3)))
    return Sample(
        tokens=np.array(draw(st.lists(TOKENS, min_size=length, max_size=length)), np.int32),
        logprobs=np.array(
            draw(st.lists(st.floats(-(2.0**99), 0, width=32), min_size=length, max_size=length)), np.float32
        ),
        version_spans=tuple(VersionSpan(draw(st.integers(0, 2**40)), start, end) for start, end in pairwise(cuts)),
        finish_reason=draw(st.sampled_from(FinishReason)),
        text=draw(NAMES),
        started=draw(FINITE),
        finished=draw(FINITE),
    )


@st.composite
def scores(draw: st.DrawFn, length: int) -> Score:
    spans = st.none() | st.tuples(st.integers(0, length), st.integers(0, length)).filter(
        lambda pair: pair[0] < pair[1]
    ).map(lambda pair: Span(*pair))
    return Score(
        answer=draw(st.none() | NAMES),
        confidence=draw(st.none() | SHARES),
        malformed=draw(st.none() | NAMES),
        correct=draw(st.none() | SHARES),
        target=draw(st.none() | SHARES),
        parts=draw(NUMBERS),
        reasoning_span=draw(spans),
        answer_span=draw(spans),
        confidence_span=draw(spans),
    )


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    sample = draw(samples())
    score = draw(st.none() | scores(len(sample.tokens)))
    return Trajectory(sample, score, draw(st.none() | NAMES) if score is None else None)


GROUPS = st.builds(
    Group,
    group_id=st.integers(0, 2**63 - 1),
    prompt_id=NAMES,
    images=st.lists(NAMES, max_size=2).map(tuple),
    prompt_tokens=st.lists(TOKENS, min_size=1, max_size=9).map(lambda ids: np.array(ids, np.int32)),
    target=st.none() | NAMES,
    admitted=FINITE,
    worker=NAMES,
    trajectories=st.lists(trajectories(), min_size=1, max_size=3).map(tuple),
    meters=NUMBERS,
)


@given(GROUPS)
@settings(max_examples=150, deadline=None)
def test_a_group_survives_encoding_and_decoding(group: Group) -> None:
    assert same(decode_group(encode_group(group)), group)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_with_a_codec_error(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode_group(data)


def refused_or_valid(data: bytes) -> None:
    """Decode; a group that comes out must be one that encodes to itself again."""
    try:
        group = decode_group(data)
    except CodecError:
        return
    assert same(decode_group(encode_group(group)), group)


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_damaged_bytes_give_a_valid_group_or_a_codec_error(data: st.DataObject) -> None:
    damaged = bytearray(encode_group(example_group()))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        kind = data.draw(st.sampled_from(["change", "insert", "cut"]))
        new = data.draw(st.binary(min_size=1, max_size=3))
        removed = {"change": len(new), "insert": 0, "cut": 4}[kind]
        damaged[place : place + removed] = b"" if kind == "cut" else new

    refused_or_valid(bytes(damaged))


LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | NAMES | st.binary(max_size=9)
KEYS = NAMES | st.binary(max_size=3)
HOSTILE = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)


def places(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The path of every value within a message."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def with_value(message: object, path: tuple[object, ...], value: object) -> object:
    """The message with the value at `path` exchanged."""
    if not path:
        return value
    copy = dict(message) if isinstance(message, dict) else list(message)  # type: ignore[call-overload]
    copy[path[0]] = with_value(copy[path[0]], path[1:], value)
    return copy


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_a_hostile_value_in_any_field_gives_a_valid_group_or_a_codec_error(data: st.DataObject) -> None:
    message = msgpack.unpackb(encode_group(example_group()))
    path = data.draw(st.sampled_from(places(message)))

    refused_or_valid(msgpack.packb(with_value(message, path, data.draw(HOSTILE))))


SAMPLE = ("trajectories", 0, "sample")
SCORE = ("trajectories", 0, "score")


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("format",), "caliber.sample", "format"),
        (("version",), 1, "version"),
        (("version",), True, "version"),
        (("group_id",), -1, "group_id"),
        (("group_id",), 1.0, "group_id"),
        (("group_id",), True, "group_id"),
        (("prompt_id",), b"x", "prompt_id"),
        (("prompt_id",), "x" * 4097, "prompt_id"),
        (("admitted",), math.nan, "admitted"),
        (("admitted",), True, "admitted"),
        (("meters",), {"a": math.inf}, "meters.a"),
        (("trajectories",), [], "trajectories"),
        ((*SAMPLE, "finish_reason"), "abort", "finish_reason"),
        ((*SAMPLE, "finish_reason"), [], "finish_reason"),
        ((*SAMPLE, "version_spans"), [], "version_spans"),
        ((*SAMPLE, "version_spans"), [[1, 0, 3]], "version_spans"),
        ((*SAMPLE, "version_spans"), [[1, 0, 2], [2, 3, 4]], "version_spans"),
        ((*SAMPLE, "version_spans"), [[1, 0, 3], [2, 2, 4]], "version_spans"),
        ((*SAMPLE, "version_spans"), [[1, 0, 5]], "version_spans"),
        ((*SAMPLE, "version_spans"), [[1, 0, 0], [1, 0, 4]], "version_spans"),
        ((*SAMPLE, "version_spans"), [[-1, 0, 4]], "version_spans"),
        ((*SAMPLE, "tokens", "dtype"), "<i8", "tokens.dtype"),
        ((*SAMPLE, "tokens", "length"), 3, "tokens.data"),
        ((*SAMPLE, "tokens", "data"), b"\xff" * 16, "tokens"),
        ((*SAMPLE, "logprobs", "length"), 3, "logprobs.length"),
        ((*SCORE, "confidence"), 1.5, "confidence"),
        ((*SCORE, "correct"), -0.5, "correct"),
        ((*SCORE, "answer_span"), [0, 5], "answer_span"),
        ((*SCORE, "answer_span"), [2, 2], "answer_span"),
        ((*SCORE, "answer_span"), [-1, 2], "answer_span"),
        ((*SCORE, "answer_span"), [1], "answer_span"),
        ((*SCORE, "parts"), {"brier": "high"}, "parts.brier"),
        (("trajectories", 0, "failure"), "both", "failure"),
    ],
)
def test_a_wrong_field_is_refused_by_name(path: tuple[object, ...], value: object, named: str) -> None:
    message = msgpack.unpackb(encode_group(example_group()))

    with pytest.raises(CodecError, match=rf"{named}( \(name\))?: "):
        decode_group(msgpack.packb(with_value(message, path, value)))


@pytest.mark.parametrize("logprob", [math.nan, math.inf, -math.inf, 0.5])
def test_logprobs_that_are_not_logarithms_of_probabilities_are_refused(logprob: float) -> None:
    sample = replace(example_sample(), logprobs=np.array([-1, logprob, -1, -1], np.float32))

    with pytest.raises(CodecError, match=r"trajectories\[0\].sample.logprobs"):
        encode_group(replace(example_group(), trajectories=(Trajectory(sample),)))


@pytest.mark.parametrize("path", [(), SAMPLE, SCORE, ("trajectories", 1), (*SAMPLE, "tokens")])
def test_keys_that_are_missing_or_unknown_are_refused_everywhere(path: tuple[object, ...]) -> None:
    message = msgpack.unpackb(encode_group(example_group()))
    record = message
    for key in path:
        record = record[key]
    some_key = list(record)[-1]

    with pytest.raises(CodecError, match="missing"):
        decode_group(msgpack.packb(with_value(message, path, {k: v for k, v in record.items() if k != some_key})))
    with pytest.raises(CodecError, match="unknown"):
        decode_group(msgpack.packb(with_value(message, path, {**record, "colour": 1})))


def test_repeated_keys_are_refused() -> None:
    data = encode_group(example_group())
    assert data[0] == 0x8B  # a map of 11

    with pytest.raises(CodecError, match="repeats"):
        decode_group(b"\x8c" + data[1:] + msgpack.packb("worker") + msgpack.packb("other"))


@pytest.mark.parametrize(
    "header", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdc\xff\xff" + b"\xc0" * 65535]
)
def test_containers_that_claim_too_much_are_refused_before_they_are_made(header: bytes) -> None:
    with pytest.raises(CodecError, match="message"):
        decode_group(header)


def test_extension_types_are_refused() -> None:
    message = msgpack.unpackb(encode_group(example_group()))

    for value in (msgpack.Timestamp(1), msgpack.ExtType(5, b"abcd")):
        with pytest.raises(CodecError):
            decode_group(msgpack.packb({**message, "target": value}))


def test_oversized_fields_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    group = example_group()
    data = encode_group(group)
    limits = {
        "GROUP_BYTES": (len(data) - 1, "message"),
        "TOKENS_PER_SAMPLE": (3, r"sample.tokens.length"),
        "TOKENS_PER_PROMPT": (2, "prompt_tokens.length"),
        "SAMPLES_PER_GROUP": (1, "trajectories"),
        "VERSIONS_PER_SAMPLE": (1, "version_spans"),
        "IMAGES_PER_PROMPT": (0, "images"),
        "NUMBERS_PER_MAP": (0, "parts|meters"),
        "TEXT_CHARACTERS": (2, "text|target|answer"),
        "NAME_CHARACTERS": (3, "prompt_id"),
    }
    for name, (limit, field) in limits.items():
        with monkeypatch.context() as patch:
            patch.setattr(codec, name, limit)

            with pytest.raises(CodecError, match=field):
                decode_group(data)


def test_no_limit_of_a_list_is_above_what_unpacking_lets_through() -> None:
    assert max(codec.SAMPLES_PER_GROUP, codec.VERSIONS_PER_SAMPLE) <= wire._ELEMENTS_AT_MOST


@pytest.mark.parametrize(
    "change",
    [
        {"group_id": np.int64(3)},
        {"group_id": 2**70},
        {"prompt_id": "\ud800"},
        {"prompt_tokens": np.array([1, 2], np.int64)},
        {"prompt_tokens": np.array([[1, 2]], np.int32)},
        {"prompt_tokens": np.array([], np.int32)},
        {"trajectories": ()},
        {"meters": {"a": {"b": 1}}},
    ],
)
def test_what_could_not_be_decoded_is_not_encoded(change: dict[str, object]) -> None:
    with pytest.raises(CodecError):
        encode_group(replace(example_group(), **change))  # type: ignore[arg-type]


def test_arrays_of_the_other_byte_order_are_written_little_endian() -> None:
    swapped = replace(example_group(), prompt_tokens=np.array([1, 2, 3], ">i4"))

    assert encode_group(swapped) == encode_group(example_group())


def test_decoded_arrays_cannot_be_changed() -> None:
    group = decode_group(encode_group(example_group()))

    with pytest.raises(ValueError, match="read-only"):
        group.prompt_tokens[0] = 9


def test_format_version_2_has_not_changed() -> None:
    # Files on disk are read by later releases: a change of these bytes needs a new VERSION.
    assert codec.VERSION == 2
    assert zlib.crc32(encode_group(example_group())) == 2845854072


def test_the_suite_finds_groups_that_differ() -> None:
    assert not same(example_group(), replace(example_group(), prompt_tokens=np.array([1, 2, 4], np.int32)))
