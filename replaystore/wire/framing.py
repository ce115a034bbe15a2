"""The outer level of messages that carry arrays, written and read by hand so that the payload is copied once or not at all.

The bytes are exactly what protobuf makes of the messages in proto/replaystore/v1/data.proto: header = 1, layout = 2, padding = 3,
payload = 4, query = 5, each length-delimited. Reading follows protobuf's rules: any order, unknown fields skipped, a message field that
occurs twice is merged, a bytes field that occurs twice has its last value. Knows nothing of what header, layout and query mean.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.errors import InvalidArgument

Bytes = npt.NDArray[np.uint8]

ALIGNMENT_BYTES = 16
"""The payload begins at a multiple of this in the message, and CPython keeps the contents of `bytes` so aligned: views are aligned too."""

HEADER, LAYOUT, PADDING, PAYLOAD, QUERY = 1, 2, 3, 4, 5

MAX_OUTER_FIELDS = 64
"""Occurrences of fields at the outer level. There is need for five; a message of millions would keep a server busy for minutes."""

MAX_SMALL_BYTES = 1 << 20
"""Of header, layout and query each: they are copied, and parsed on the event loop."""

_NAMES = {HEADER: "header", LAYOUT: "layout", QUERY: "query"}
_LENGTH_DELIMITED = 2
_ZEROS = bytes(ALIGNMENT_BYTES)

_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.restype = ctypes.py_object
_new_bytes.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t]
_BYTES_HEAD = bytes.__basicsize__ - 1


def varint(value: int) -> bytes:
    """A non-negative number as protobuf's base-128 varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _delimited(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | _LENGTH_DELIMITED,)) + varint(len(content)) + content


def prefix(header: bytes, layout: bytes, payload_bytes: int, query: bytes = b"") -> bytes:
    """Everything of a message but the payload itself, which is to follow at once and begins aligned."""
    parts = b"".join(_delimited(number, content) for number, content in ((HEADER, header), (QUERY, query), (LAYOUT, layout)) if content)
    if not payload_bytes:
        return parts
    tail = bytes((PAYLOAD << 3 | _LENGTH_DELIMITED,)) + varint(payload_bytes)
    padding = _ZEROS[: -(len(parts) + 2 + len(tail)) % ALIGNMENT_BYTES]
    return parts + _delimited(PADDING, padding) + tail


def join(header: bytes, layout: bytes, pieces: Iterable[Any], payload_bytes: int, query: bytes = b"") -> bytes:
    """A whole message; `pieces` are the payload's buffers in order, `payload_bytes` long together."""
    return b"".join((prefix(header, layout, payload_bytes, query), *pieces))


class _Memory:
    """Lets NumPy write into a `bytes` object that nobody else sees, and keeps it alive."""

    __slots__ = ("__array_interface__", "message")

    def __init__(self, message: bytes) -> None:
        self.message = message
        self.__array_interface__ = {
            "shape": (len(message),),
            "typestr": "|u1",
            "data": (id(message) + _BYTES_HEAD, False),
            "version": 3,
        }


def writable_view(message: bytes) -> Bytes:
    """A `bytes` object as writable memory. Only for its one owner: a message just made or just received, never hashed or shared."""
    return np.asarray(_Memory(message))


def allocate(header: bytes, layout: bytes, payload_bytes: int) -> tuple[bytes, Bytes]:
    """A message whose payload is still to be written, and the payload as a writable array over it, uint8 ``(payload_bytes,)``.

    The payload is uninitialised memory: every byte of it must be written before the message leaves this process.
    """
    start = prefix(header, layout, payload_bytes)
    message: bytes = _new_bytes(None, len(start) + payload_bytes)
    whole = writable_view(message)
    whole[: len(start)] = np.frombuffer(start, np.uint8)
    return message, whole[len(start) :]


@dataclass(slots=True)
class Parts:
    """A message taken apart. `payload` is a slice of `message`, not a copy."""

    message: bytes
    header: bytes = b""
    layout: bytes = b""
    query: bytes = b""
    payload_start: int = 0
    payload_bytes: int = 0


def split(message: bytes) -> Parts:
    """Takes a message apart. InvalidArgument when it is cut short or no protobuf at all."""
    parts = Parts(message)
    position, size, count = 0, len(message), 0
    try:
        while position < size:
            count += 1
            if count > MAX_OUTER_FIELDS:
                raise InvalidArgument(f"message: more than {MAX_OUTER_FIELDS} fields at the outer level")
            tag = message[position]
            position += 1
            if tag > 0x7F:
                tag, position = _read_varint(message, position - 1)
            number, kind = tag >> 3, tag & 7
            if kind != _LENGTH_DELIMITED:
                position = _skip(message, position, number, kind)
                continue
            length = message[position]
            position += 1
            if length > 0x7F:
                length, position = _read_varint(message, position - 1)
            stop = position + length
            if stop > size:
                raise InvalidArgument(f"message: field {number} claims {length} bytes, only {size - position} follow")
            if number == PAYLOAD:
                parts.payload_start, parts.payload_bytes = position, length
            elif length > MAX_SMALL_BYTES and number in (HEADER, LAYOUT, QUERY):
                raise InvalidArgument(f"message: {_NAMES[number]} has {length} bytes; at most {MAX_SMALL_BYTES} are allowed")
            elif number == HEADER:
                parts.header += message[position:stop]
            elif number == LAYOUT:
                parts.layout += message[position:stop]
            elif number == QUERY:
                parts.query += message[position:stop]
            elif number == 0:
                raise InvalidArgument(f"message: field number 0 at byte {position}")
            position = stop
    except IndexError:
        raise InvalidArgument(f"message: cut short after {size} bytes") from None
    return parts


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise InvalidArgument(f"message: a number of more than 64 bits at byte {position}")


def _skip(message: bytes, position: int, number: int, kind: int) -> int:
    """The position after a field that is not length-delimited."""
    if kind == 0:
        position = _read_varint(message, position)[1]
    elif kind in (1, 5):
        position += 8 if kind == 1 else 4
    else:
        raise InvalidArgument(f"message: field {number} has wire type {kind}, which is not used here")
    if number == 0 or position > len(message):
        raise InvalidArgument(f"message: field {number} is cut short or has no number")
    return position
