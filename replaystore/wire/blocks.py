"""Blocks of steps to and from AppendRequest messages."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.errors import InvalidArgument
from replaystore.sampling import Field
from replaystore.steps import RUN_DTYPE, Form, StepBlock
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.framing import Parts, prefix
from replaystore.wire.layout import Layout, check_size, encode_arrays, parse, payload_of, plan

_RUN_FIELDS = tuple((name, f"run/{name}", RUN_DTYPE[name].name) for name in RUN_DTYPE.names or ())
_MAX_CACHED_BYTES = 1 << 14  # as of layouts themselves
_FEW_BYTES = 1 << 12
_KEPT_FORMS = 512
_outgoing: dict[Any, _Outgoing] = {}
"""By what decides the layout: building it, or hashing its fields, takes longer than everything else about a small block."""


def encode_block(block: StepBlock, sequence: int) -> bytes:
    """An AppendRequest; the block's arrays are copied."""
    header = pb.AppendHeader(sequence=sequence, actor=block.actor).SerializeToString()
    key = len(block.runs), *((name, array.dtype.str, array.shape) for name, array in block.columns.items())
    form = _outgoing.get(key)
    if form is None:
        if len(_outgoing) >= _KEPT_FORMS:
            _outgoing.clear()
        form = _outgoing[key] = _Outgoing(block)
    return b"".join((prefix(header, form.layout.encoded, form.layout.payload_bytes), *form.pieces(block)))


def encode_block_reference(block: StepBlock, sequence: int) -> bytes:
    """The same without remembering layouts."""
    header = pb.AppendHeader(sequence=sequence, actor=block.actor).SerializeToString()
    arrays = {f"data/{name}": array for name, array in block.columns.items()}
    arrays |= {path: block.runs[name] for name, path, _ in _RUN_FIELDS}
    return encode_arrays(header, arrays)


class _Outgoing:
    """Where the arrays of alike blocks go in their payloads."""

    __slots__ = ("_columns", "_one", "_runs", "layout")

    def __init__(self, block: StepBlock) -> None:
        fields = [Field(f"data/{name}", array.dtype, array.shape) for name, array in block.columns.items()]
        fields += [Field(path, RUN_DTYPE[name], (len(block.runs),)) for name, path, _ in _RUN_FIELDS]
        self.layout = layout = plan(tuple(fields))
        gaps, end = [], 0
        for field, offset in zip(fields, layout.offsets_bytes, strict=True):
            gaps.append(bytes(offset - end))
            end = offset + field.nbytes
        count = len(block.columns)
        self._columns, self._runs = gaps[:count], list(zip(gaps[count:], RUN_DTYPE.names or (), strict=True))
        stop = layout.offsets_bytes[count] - len(gaps[count])
        places = [(offset - stop, field.dtype) for field, offset in zip(fields[count:], layout.offsets_bytes[count:], strict=True)]
        self._one = _struct(places) if len(block.runs) == 1 else None

    def pieces(self, block: StepBlock) -> list[Any]:
        """The payload: buffers one after the other."""
        pieces: list[Any] = []
        for gap, array in zip(self._columns, block.columns.values(), strict=True):
            if gap:
                pieces.append(gap)
            pieces.append(array if array.flags.c_contiguous else np.ascontiguousarray(array))
        if self._one is not None:
            pieces.append(self._one.pack(*block.runs.item()))
        else:
            for gap, name in self._runs:
                pieces.append(gap)
                pieces.append(np.ascontiguousarray(block.runs[name]))
        return pieces


def decode_block(parts: Parts, actor: int) -> StepBlock:
    """The block of a received message; its columns are views of the message. Whether it fits a table is checked by `StepBlock.check`.

    Raises:
        InvalidArgument: the message contradicts itself.
    """
    form = _form(parts.layout) if len(parts.layout) <= _MAX_CACHED_BYTES else BlockForm(parse(parts.layout))
    check_size(form.layout, parts.payload_bytes)
    buffer, start = payload_of(parts, form.layout)
    columns = {}
    for name, dtype, shape, offset in form.columns:
        array: npt.NDArray[Any] = np.ndarray(shape, dtype, buffer, start + offset)
        if dtype == np.bool_ and not _are_flags(array):
            raise InvalidArgument(f"payload: field {f'data/{name}'!r} is bool and holds bytes other than 0 and 1")
        columns[name] = array
    return StepBlock(columns, form.read_runs(buffer, start), actor, form)


class BlockForm(Form):
    """How the blocks of one layout lie in their payloads."""

    __slots__ = ("_count", "_one", "_runs", "columns", "layout")

    def __init__(self, layout: Layout) -> None:
        """InvalidArgument for a layout that no block has."""
        super().__init__()
        self.layout = layout
        places = {field.name: (field, offset) for field, offset in zip(layout.fields, layout.offsets_bytes, strict=True)}
        self._runs = []
        for name, path, dtype in _RUN_FIELDS:
            if path not in places:
                raise InvalidArgument(f"payload: field {path!r} is missing")
            field, offset = places[path]
            if len(field.shape) != 1 or field.dtype != RUN_DTYPE[name]:
                raise InvalidArgument(f"payload: field {path!r} must be {dtype} with one axis, got {field.dtype.name} {field.shape}")
            self._runs.append((name, offset))
        (self._count,) = places[_RUN_FIELDS[0][1]][0].shape
        for _, path, _ in _RUN_FIELDS:
            (count,) = places[path][0].shape
            if count != self._count:
                raise InvalidArgument(f"payload: field {path!r} has {count} runs, 'run/episode' has {self._count}")
        self.columns = []
        """(name, dtype, shape, offset in the payload) of each column."""
        for path, (field, offset) in places.items():
            kind, _, column = path.partition("/")
            if kind == "data":
                self.columns.append((column, field.dtype, field.shape, offset))
            elif kind != "run":
                raise InvalidArgument(f"payload: field {path!r} must begin with 'data/' or 'run/'")
        self._one = _struct([(offset, RUN_DTYPE[name]) for name, offset in self._runs]) if self._count == 1 else None

    def read_runs(self, buffer: Any, start: int) -> npt.NDArray[np.void]:
        """The runs of a payload that begins at `start`, ``(runs,)`` of `RUN_DTYPE`."""
        if self._one is not None:
            return np.array(self._one.unpack_from(buffer, start), RUN_DTYPE).reshape(1)
        runs = np.empty(self._count, RUN_DTYPE)
        for name, offset in self._runs:
            runs[name] = np.ndarray((self._count,), RUN_DTYPE[name], buffer, start + offset)
        return runs


def _struct(places: list[tuple[int, np.dtype[Any]]]) -> struct.Struct | None:
    """Reads the numbers at these offsets at once, as numpy takes ten times as long to look at one number; None if not in this order."""
    format, end = "<", 0
    for offset, dtype in places:
        if offset < end:
            return None
        format += f"{offset - end}x{dtype.char if dtype.char != 'l' else 'q'}"
        end = offset + dtype.itemsize
    return struct.Struct(format)


def _are_flags(array: npt.NDArray[Any]) -> bool:
    """Whether every byte of a bool array is 0 or 1."""
    if array.nbytes <= _FEW_BYTES:
        return not array.tobytes().translate(None, b"\0\1")
    return not array.size or bool(array.view(np.uint8).max() <= 1)


@lru_cache(maxsize=512)
def _form(encoded: bytes) -> BlockForm:
    return BlockForm(parse(encoded))
