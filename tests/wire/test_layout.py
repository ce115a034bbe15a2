"""Arrays in payloads: round trips, and every false claim refused with the field's name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from replaystore.errors import InvalidArgument
from replaystore.sampling import Field
from replaystore.schema.columns import DTYPES
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.framing import join, split
from replaystore.wire.layout import arrays_of, encode_arrays, fill_message, parse, plan

Array = np.ndarray[Any, Any]


def arrays() -> st.SearchStrategy[Array]:
    shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
    return st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(np.dtype(dtype), shapes))


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=20), arrays(), max_size=6))
def test_arrays_come_back_as_they_went(sent: dict[str, Array]) -> None:
    message = encode_arrays(b"", sent)
    received = arrays_of(split(message))
    assert received.keys() == sent.keys()
    for name, array in sent.items():
        assert received[name].dtype == array.dtype
        assert received[name].shape == array.shape
        assert received[name].tobytes() == array.tobytes()
        assert received[name].flags.aligned
        assert not received[name].flags.writeable or not array.size
    assert pb.AppendRequest.FromString(message).layout == pb.Layout.FromString(split(message).layout)


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=20), arrays(), min_size=1, max_size=6))
def test_filling_in_place_gives_the_same_bytes_as_joining(sent: dict[str, Array]) -> None:
    layout = plan(tuple(Field(name, array.dtype, array.shape) for name, array in sent.items()))

    def fill(out: Any) -> None:
        for name, array in sent.items():
            out[name][...] = array

    assert fill_message(b"\x08\x01", layout, fill) == encode_arrays(b"\x08\x01", sent)


def test_a_sender_that_does_not_pad_is_understood() -> None:
    values = np.arange(5.0)
    layout = plan((Field("x", values.dtype, values.shape),))
    for extra in range(16):
        header = bytes((0x0A, extra)) + bytes(extra) if extra else b""
        message = pb.AppendRequest(layout=pb.Layout.FromString(layout.encoded), payload=values.tobytes()).SerializeToString()
        shifted = (b"\xa2\x01" + bytes((len(header),)) + header) + message  # unknown field 20 of any length
        received = arrays_of(split(shifted))["x"]
        assert received.flags.aligned
        np.testing.assert_array_equal(received, values)


def claim(**changes: Any) -> pb.Field:
    return pb.Field(**{"name": "data/x", "dtype": "float32", "shape": [4], "offset_bytes": 0, **changes})


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ([claim(name="")], "name"),
        ([claim(name="n" * 300)], "name"),
        ([claim(), claim()], "'data/x' is there twice"),
        ([claim(dtype="object")], "dtype 'object'"),
        ([claim(dtype="float32, float32")], "dtype"),
        ([claim(dtype="|V8")], "dtype"),
        ([claim(shape=[-1])], "none negative"),
        ([claim(shape=[1] * 33)], "axes"),
        ([claim(shape=[2**62, 2**62])], "larger than any payload"),
        ([claim(shape=[2**62, 0])], "larger than any payload"),
        ([claim(shape=[2**30, 2**30, 0])], "larger than any payload"),
        ([claim(offset_bytes=-4)], "offset_bytes=-4"),
        ([claim(offset_bytes=2)], "multiple of 4"),
        ([claim(offset_bytes=2**62)], "offset_bytes"),
        ([claim(name=f"f{i}") for i in range(1025)], "1025 fields are too many"),
        ([claim(shape=[5])], "'data/x' float32 .* ends at byte 20, but the payload has 16 bytes"),
        ([claim(offset_bytes=4)], "ends at byte 20"),
        ([claim(shape=[2**38])], "but the payload has 16 bytes"),
    ],
)
def test_false_claims_are_refused_before_anything_is_allocated(fields: list[pb.Field], what: str) -> None:
    message = join(b"", pb.Layout(fields=fields).SerializeToString(), [bytes(16)], 16)
    with pytest.raises(InvalidArgument, match=what):
        arrays_of(split(message))


def test_a_layout_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="not a Layout"):
        parse(b"\x0a\xff")


@given(st.binary(max_size=100), st.binary(max_size=50))
def test_random_layouts_are_refused_or_stay_inside_the_payload(layout: bytes, payload: bytes) -> None:
    message = join(b"", layout, [payload], len(payload))
    try:
        received = arrays_of(split(message))
    except InvalidArgument:
        return
    assert all(array.nbytes <= len(payload) for array in received.values())
