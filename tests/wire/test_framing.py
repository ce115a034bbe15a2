"""The hand-written outer level against protobuf itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replaystore.errors import InvalidArgument
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.framing import ALIGNMENT_BYTES, allocate, join, prefix, split, varint

CARRIERS = [pb.AppendRequest, pb.SampleRequest, pb.SampleReply, pb.UpdatePrioritiesRequest, pb.Rows, pb.ParametersPart]


def headers() -> st.SearchStrategy[pb.AppendHeader]:
    return st.builds(
        pb.AppendHeader,
        table=st.text(max_size=200),
        sequence=st.integers(0, 2**64 - 1),
        actor=st.integers(-(2**31), 2**31 - 1),
        commit=st.booleans(),
        timeout_s=st.floats(allow_nan=False),
    )


def layouts() -> st.SearchStrategy[pb.Layout]:
    field = st.builds(pb.Field, name=st.text(max_size=20), dtype=st.text(max_size=8), shape=st.lists(st.integers(0, 2**40), max_size=4))
    return st.builds(pb.Layout, fields=st.lists(field, max_size=5))


@given(headers(), layouts(), st.binary(max_size=400))
def test_what_we_write_is_what_protobuf_reads(header: pb.AppendHeader, layout: pb.Layout, payload: bytes) -> None:
    message = join(header.SerializeToString(), layout.SerializeToString(), [payload], len(payload))
    read = pb.AppendRequest.FromString(message)
    assert read.header == header
    assert read.layout == layout
    assert read.payload == payload
    assert not any(read.padding)
    if payload:
        assert message.index(payload, len(message) - len(payload)) % ALIGNMENT_BYTES == 0


@given(headers(), layouts(), st.binary(max_size=400), st.binary(max_size=40), st.randoms(use_true_random=False))
def test_we_read_what_protobuf_writes_in_any_order(
    header: pb.AppendHeader, layout: pb.Layout, payload: bytes, padding: bytes, random: object
) -> None:
    pieces = [
        pb.AppendRequest(header=header).SerializeToString(),
        pb.AppendRequest(layout=layout).SerializeToString(),
        pb.AppendRequest(payload=payload).SerializeToString(),
        pb.AppendRequest(padding=padding).SerializeToString(),
        # unknown fields of every wire type: 20 varint, 21 fixed64, 22 bytes, 23 fixed32
        varint(20 << 3) + varint(2**63),
        varint(21 << 3 | 1) + bytes(8),
        varint(22 << 3 | 2) + varint(5) + b"hello",
        varint(23 << 3 | 5) + bytes(4),
    ]
    random.shuffle(pieces)  # type: ignore[attr-defined]
    message = b"".join(pieces)
    parts = split(message)
    assert pb.AppendHeader.FromString(parts.header) == header
    assert pb.Layout.FromString(parts.layout) == layout
    assert message[parts.payload_start : parts.payload_start + parts.payload_bytes] == payload
    assert pb.AppendRequest.FromString(message).payload == payload


@given(headers(), headers(), layouts(), layouts())
def test_a_field_that_occurs_twice_is_merged_as_protobuf_does(
    first: pb.AppendHeader, second: pb.AppendHeader, one: pb.Layout, two: pb.Layout
) -> None:
    message = (
        pb.AppendRequest(header=first, layout=one, payload=b"old").SerializeToString()
        + pb.AppendRequest(header=second, layout=two, payload=b"newer").SerializeToString()
    )
    read, parts = pb.AppendRequest.FromString(message), split(message)
    assert pb.AppendHeader.FromString(parts.header) == read.header
    assert pb.Layout.FromString(parts.layout) == read.layout
    assert message[parts.payload_start :][: parts.payload_bytes] == read.payload == b"newer"


@given(st.binary(max_size=200))
def test_garbage_is_taken_apart_or_refused_but_never_crashes(message: bytes) -> None:
    try:
        parts = split(message)
    except InvalidArgument:
        return
    assert parts.payload_start + parts.payload_bytes <= len(message)


@given(headers(), st.binary(min_size=1, max_size=100), st.data())
def test_a_message_cut_short_is_refused(header: pb.AppendHeader, payload: bytes, data: st.DataObject) -> None:
    message = join(header.SerializeToString(), b"", [payload], len(payload))
    cut = data.draw(st.integers(len(message) - len(payload), len(message) - 1))
    with pytest.raises(InvalidArgument, match="message"):
        split(message[:cut])


def test_a_claim_larger_than_the_message_allocates_nothing() -> None:
    with pytest.raises(InvalidArgument, match="field 4 claims 1099511627776 bytes, only 3 follow"):
        split(b"\x22" + varint(1 << 40) + b"abc")


@pytest.mark.parametrize("size", [1, 15, 16, 17, 127, 128, 5000, 1 << 20])
@pytest.mark.parametrize("header", [b"", b"\x10\x01"])
def test_an_allocated_message_is_written_in_place_and_aligned(size: int, header: bytes) -> None:
    message, payload = allocate(header, b"", size)
    payload[...] = np.arange(size, dtype=np.uint8)
    assert payload.ctypes.data % ALIGNMENT_BYTES == 0
    assert pb.AppendRequest.FromString(message).payload == bytes(np.arange(size, dtype=np.uint8))
    del payload  # the message outlives the view, and the view would have kept the message
    assert len(message) == len(prefix(header, b"", size)) + size


def test_every_carrier_has_the_same_outer_level() -> None:
    for kind in CARRIERS:
        numbers = {field.name: field.number for field in kind.DESCRIPTOR.fields}
        assert numbers == {"header": 1, "layout": 2, "padding": 3, "payload": 4} | ({"query": 5} if "query" in numbers else {})
