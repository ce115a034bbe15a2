"""Blocks of steps to and from AppendRequest messages."""

from __future__ import annotations

import numpy as np

from replaystore.errors import InvalidArgument
from replaystore.steps import RUN_DTYPE, StepBlock
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.framing import Parts
from replaystore.wire.layout import arrays_of, encode_arrays, take

_RUN_FIELDS = tuple((name, f"run/{name}", RUN_DTYPE[name].name) for name in RUN_DTYPE.names or ())


def encode_block(block: StepBlock, sequence: int) -> bytes:
    """An AppendRequest; the block's arrays are copied."""
    header = pb.AppendHeader(sequence=sequence, actor=block.actor).SerializeToString()
    arrays = {f"data/{name}": array for name, array in block.columns.items()}
    arrays |= {path: block.runs[name] for name, path, _ in _RUN_FIELDS}
    return encode_arrays(header, arrays)


def decode_block(parts: Parts, actor: int) -> StepBlock:
    """The block of a received message; its columns are views of the message. Whether it fits a table is checked by `StepBlock.check`.

    Raises:
        InvalidArgument: the message contradicts itself.
    """
    arrays = arrays_of(parts)
    episodes = take(arrays, "run/episode", "int64")
    runs = np.empty(len(episodes), RUN_DTYPE)
    for name, path, dtype in _RUN_FIELDS:
        values = take(arrays, path, dtype)
        if len(values) != len(runs):
            raise InvalidArgument(f"payload: field {path!r} has {len(values)} runs, 'run/episode' has {len(runs)}")
        runs[name] = values
    columns = {}
    for name, array in arrays.items():
        kind, _, column = name.partition("/")
        if kind == "data":
            if array.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
                raise InvalidArgument(f"payload: field {name!r} is bool and holds bytes other than 0 and 1")
            columns[column] = array
        elif kind != "run":
            raise InvalidArgument(f"payload: field {name!r} must begin with 'data/' or 'run/'")
    return StepBlock(columns, runs, actor)
