"""Which arrays lie where in a payload. Layouts are planned, encoded and checked once and then taken from a cache.

Everything that a received layout claims is checked before anything is made of it; that it lies inside the payload is checked for every
message, because the payload is another each time.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from replaystore.errors import InvalidArgument
from replaystore.sampling import Field
from replaystore.schema.columns import DTYPES
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.framing import ALIGNMENT_BYTES, Bytes, Parts, allocate, join, writable_view

if sys.byteorder != "little":  # arrays go as they are in memory
    raise ImportError("replaystore needs a little-endian machine")

Array = npt.NDArray[Any]

MAX_FIELDS, MAX_NAME_BYTES, MAX_AXES, MAX_LAYOUT_BYTES = 1024, 256, 32, 1 << 17
_MAX_PAYLOAD_BYTES = 1 << 40
_MAX_CACHED_BYTES = 1 << 14  # 256 columns; a cache of the largest layouts allowed would be a few hundred megabytes for anybody to fill
_DTYPES = {name: np.dtype(name) for name in DTYPES}


@dataclass(frozen=True, slots=True)
class Layout:
    """Arrays of a payload."""

    fields: tuple[Field, ...]
    offsets_bytes: tuple[int, ...]
    payload_bytes: int
    """Bytes from the payload's beginning to the end of the last array."""
    encoded: bytes
    """As a protobuf Layout."""
    gaps: tuple[tuple[int, int], ...]
    """(start, stop) of payload bytes that belong to no array."""


_KEPT_PLANS = 512
_plans: dict[int, Layout] = {}
"""By the identity of the fields, which the layout keeps alive: hashing them takes longer than everything else about a small message."""


def plan(fields: tuple[Field, ...]) -> Layout:
    """One array after the other, each at a multiple of 16 bytes."""
    layout = _plans.get(id(fields))
    if layout is None or layout.fields is not fields:
        layout = _plan(fields)
        if layout.fields is fields:  # and not just equal, as where they are made anew for every batch
            if len(_plans) >= _KEPT_PLANS:
                _plans.clear()
            _plans[id(fields)] = layout
    return layout


@lru_cache(maxsize=512)
def _plan(fields: tuple[Field, ...]) -> Layout:
    offsets, gaps, end = [], [], 0
    message = pb.Layout()
    for field in fields:
        start = -(-end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        if start > end:
            gaps.append((end, start))
        offsets.append(start)
        end = start + field.nbytes
        message.fields.add(name=field.name, dtype=field.dtype.name, shape=field.shape, offset_bytes=start)
    return Layout(fields, tuple(offsets), end, message.SerializeToString(), tuple(gaps))


def parse(encoded: bytes) -> Layout:
    """The layout that a message claims, with everything checked but its size against the payload.

    Raises:
        InvalidArgument: names the field that is wrong.
    """
    return _parse_cached(encoded) if len(encoded) <= _MAX_CACHED_BYTES else _parse(encoded)


def _parse(encoded: bytes) -> Layout:
    if len(encoded) > MAX_LAYOUT_BYTES:
        raise InvalidArgument(f"layout: {len(encoded)} bytes are too many; at most {MAX_LAYOUT_BYTES} are allowed")
    message = pb.Layout()
    try:
        message.ParseFromString(encoded)
    except DecodeError as error:
        raise InvalidArgument(f"layout: not a Layout message ({error})") from None
    if len(message.fields) > MAX_FIELDS:
        raise InvalidArgument(f"layout: {len(message.fields)} fields are too many; at most {MAX_FIELDS} are allowed")
    fields, offsets, end = [], [], 0
    names: set[str] = set()
    for claim in message.fields:
        field = _check(claim, names)
        names.add(field.name)
        fields.append(field)
        offsets.append(claim.offset_bytes)
        end = max(end, claim.offset_bytes + field.nbytes)
    return Layout(tuple(fields), tuple(offsets), end, encoded, ())


_parse_cached = lru_cache(maxsize=512)(_parse)


def _check(claim: Any, names: set[str]) -> Field:
    name = claim.name
    if not name or len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidArgument(f"layout: field name {name[:40]!r} must have 1 to {MAX_NAME_BYTES} bytes")
    if name in names:
        raise InvalidArgument(f"layout: field {name!r} is there twice")
    dtype = _DTYPES.get(claim.dtype)
    if dtype is None:
        raise InvalidArgument(f"layout: field {name!r} has dtype {claim.dtype[:40]!r}; use one of {', '.join(DTYPES)}")
    shape = tuple(claim.shape)
    if len(shape) > MAX_AXES or any(n < 0 for n in shape):
        raise InvalidArgument(f"layout: field {name!r} has shape {shape[:MAX_AXES]}; at most {MAX_AXES} axes, none negative, are allowed")
    # an axis of length 0 makes any product 0, so the other axes are bounded one by one as well
    if any(n > _MAX_PAYLOAD_BYTES for n in shape) or math.prod(n for n in shape if n) * dtype.itemsize > _MAX_PAYLOAD_BYTES:
        raise InvalidArgument(f"layout: field {name!r} of shape {shape} {dtype.name} is larger than any payload may be")
    offset = claim.offset_bytes
    if not 0 <= offset <= _MAX_PAYLOAD_BYTES or offset % dtype.itemsize:
        raise InvalidArgument(f"layout: field {name!r} has offset_bytes={offset}; it must be a multiple of {dtype.itemsize}, not negative")
    return Field(name, dtype, shape)


def sendable(array: Array) -> Array:
    """The same, contiguous and little-endian, as payloads are."""
    dtype = array.dtype if array.dtype.isnative else array.dtype.newbyteorder("<")
    return np.ascontiguousarray(array, dtype).reshape(array.shape)


def encode_arrays(header: bytes, arrays: Mapping[str, Array], query: bytes = b"") -> bytes:
    """A whole message that carries `arrays`, which are copied once, or twice where they are not `sendable`."""
    contiguous = {name: sendable(array) for name, array in arrays.items()}
    layout = plan(tuple(Field(name, array.dtype, array.shape) for name, array in contiguous.items()))
    return join(header, layout.encoded, payload_pieces(layout, list(contiguous.values())), layout.payload_bytes, query)


def payload_pieces(layout: Layout, arrays: list[Array]) -> list[Any]:
    """The buffers that make up the payload, zeros between the arrays counted in."""
    pieces: list[Any] = []
    end = 0
    for offset, array in zip(layout.offsets_bytes, arrays, strict=True):
        if offset > end:
            pieces.append(bytes(offset - end))
        pieces.append(array.reshape(-1).view(np.uint8))
        end = offset + array.nbytes
    return pieces


def fill_message(header: bytes, layout: Layout, fill: Callable[[Mapping[str, Array]], None]) -> bytes:
    """A whole message whose arrays `fill` writes straight into their places."""
    message, payload = allocate(header, layout.encoded, layout.payload_bytes)
    for start, stop in layout.gaps:
        payload[start:stop] = 0
    fill(_arrays(layout, payload, 0))
    return message


def arrays_of(parts: Parts, *, writable: bool = False) -> dict[str, Array]:
    """The arrays of a received message by name: views of it, aligned, in the layout's order.

    Args:
        parts: the message, checked by `split`.
        writable: only for whoever received the message and keeps it to himself.

    Raises:
        InvalidArgument: the layout is wrong or reaches beyond the payload.
    """
    layout = parse(parts.layout)
    check_size(layout, parts.payload_bytes)
    return _arrays(layout, *payload_of(parts, layout, writable=writable))


def payload_of(parts: Parts, layout: Layout, *, writable: bool = False) -> tuple[bytes | Bytes, int]:
    """What a received message's arrays are views of, and where in it the payload begins, aligned. The layout's size has been checked."""
    if parts.payload_start % ALIGNMENT_BYTES and layout.payload_bytes:
        # a sender that does not pad: one copy, because unaligned arrays are slow or refused further on
        payload = np.frombuffer(parts.message, np.uint8, layout.payload_bytes, parts.payload_start).copy()
        payload.flags.writeable = writable
        return payload, 0
    return writable_view(parts.message) if writable else parts.message, parts.payload_start


def check_size(layout: Layout, payload_bytes: int) -> None:
    """InvalidArgument unless every array lies inside a payload of so many bytes."""
    if layout.payload_bytes > payload_bytes:
        for field, offset in zip(layout.fields, layout.offsets_bytes, strict=True):
            if offset + field.nbytes > payload_bytes:
                raise InvalidArgument(
                    f"payload: field {field.name!r} {field.dtype.name} {field.shape} at {offset} ends at byte {offset + field.nbytes}, "
                    f"but the payload has {payload_bytes} bytes"
                )


def _arrays(layout: Layout, buffer: bytes | Bytes, start: int) -> dict[str, Array]:
    return {
        field.name: np.ndarray(field.shape, field.dtype, buffer, start + offset)
        for field, offset in zip(layout.fields, layout.offsets_bytes, strict=True)
    }


@cache
def _dtypes(names: tuple[str, ...]) -> tuple[np.dtype[Any], ...]:
    """To compare with: asking a dtype for its name takes ten times as long."""
    return tuple(np.dtype(name) for name in names)


def take(arrays: Mapping[str, Array], name: str, dtypes: str | tuple[str, ...]) -> Array:
    """The one-dimensional array `name` of one of `dtypes`, or InvalidArgument."""
    allowed = (dtypes,) if isinstance(dtypes, str) else dtypes
    array = arrays.get(name)
    if array is None:
        raise InvalidArgument(f"payload: field {name!r} is missing")
    if array.ndim != 1 or array.dtype not in _dtypes(allowed):
        raise InvalidArgument(f"payload: field {name!r} must be {' or '.join(allowed)} with one axis, got {array.dtype.name} {array.shape}")
    return array
