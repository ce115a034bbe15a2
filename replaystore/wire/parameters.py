"""Sets of named arrays in pieces: ParametersPart messages out of arrays, and arrays out of messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.errors import InvalidArgument
from replaystore.sampling import Field
from replaystore.schema.columns import DTYPES
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.framing import join, split
from replaystore.wire.layout import Layout, check_size, parse, payload_pieces, plan, sendable
from replaystore.wire.methods import PART_BYTES
from replaystore.wire.samples import parse_message

Array = npt.NDArray[Any]


def check_parameters(arrays: Mapping[str, Any]) -> dict[str, Array]:
    """Contiguous little-endian arrays by name; InvalidArgument names what cannot travel."""
    checked = {}
    for name, value in arrays.items():
        array = np.asarray(value)
        if array.dtype.name not in DTYPES:
            raise InvalidArgument(f"parameter {name!r} has dtype {array.dtype}; use one of {', '.join(DTYPES)}")
        checked[str(name)] = sendable(array)
    if not checked:
        raise InvalidArgument("a parameter set must hold at least one array")
    return checked


def encode_parts(arrays: Mapping[str, Array], *, name: str = "", version: int = 0) -> Iterator[bytes]:
    """The messages that carry `arrays`, which `check_parameters` has seen."""
    layout = plan(tuple(Field(key, array.dtype, array.shape) for key, array in arrays.items()))
    payload = memoryview(b"".join(payload_pieces(layout, list(arrays.values()))))
    first = pb.ParametersHeader(name=name, version=version, payload_bytes=len(payload)).SerializeToString()
    yield join(first, layout.encoded, [payload[:PART_BYTES]], min(PART_BYTES, len(payload)))
    for start in range(PART_BYTES, len(payload), PART_BYTES):
        piece = payload[start : start + PART_BYTES]
        yield join(b"", b"", [piece], len(piece))


class Assembly:
    """Puts the pieces together. Holds no more than what has really arrived, and never more than `limit_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._layout: Layout | None = None
        self._payload = bytearray()
        self.header: Any = None
        """The ParametersHeader of the first message; None before it."""

    def add(self, message: bytes) -> None:
        """Takes the next message; InvalidArgument when it contradicts what came before."""
        parts = split(message)
        if self.header is None:
            self.header = parse_message(pb.ParametersHeader, parts.header, "header")
            self._layout = parse(parts.layout)
            claimed = self.header.payload_bytes
            if claimed > self._limit_bytes:
                raise InvalidArgument(
                    f"parameter set {self.header.name!r} has {claimed} bytes (header.payload_bytes), and at most {self._limit_bytes} are "
                    "taken: publish fewer or smaller arrays, or start the server with a larger --max-parameters-bytes"
                )
            if claimed < 0:
                raise InvalidArgument(f"header.payload_bytes={claimed} must be from 0 to {self._limit_bytes}")
            check_size(self._layout, claimed)
        elif parts.layout:
            raise InvalidArgument("layout: only the first message of a parameter set has one")
        received = len(self._payload) + parts.payload_bytes
        if received > self.header.payload_bytes:
            raise InvalidArgument(f"payload: {received} bytes came, header.payload_bytes said {self.header.payload_bytes}")
        # a copy: a view would keep the whole message, and with it padding that counts nowhere
        self._payload += memoryview(message)[parts.payload_start : parts.payload_start + parts.payload_bytes]

    def arrays(self) -> dict[str, Array]:
        """The arrays, writable, in memory of their own."""
        if self._layout is None or len(self._payload) != self.header.payload_bytes:
            raise InvalidArgument("payload: the parameter set ended before all of it had come")
        whole = np.frombuffer(self._payload, np.uint8)
        return {
            field.name: np.ndarray(field.shape, field.dtype, whole, offset)
            for field, offset in zip(self._layout.fields, self._layout.offsets_bytes, strict=True)
        }
