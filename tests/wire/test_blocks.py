"""Blocks go over the wire by remembered layouts just as they would without."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from replaystore.steps import RUN_DTYPE, StepBlock
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.blocks import decode_block, encode_block, encode_block_reference
from replaystore.wire.framing import split
from replaystore.wire.layout import arrays_of

COLUMNS = {
    "observation": ("float32", (3,)),
    "action": ("int8", ()),
    "reward": ("float64", ()),
    "pixels": ("uint8", (2, 5)),
    "done": ("bool", ()),
}


@st.composite
def blocks(draw: st.DrawFn) -> StepBlock:
    """Of some columns in some order, not all of them contiguous."""
    names = draw(st.permutations(list(COLUMNS)))[: draw(st.integers(1, len(COLUMNS)))]
    rows, runs = draw(st.integers(1, 5)), draw(st.sampled_from([1, 1, 2, 7]))
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    columns = {}
    for name in names:
        dtype, shape = COLUMNS[name]
        values = chance.integers(0, 2, (2 * rows, *shape)).astype(dtype)
        columns[name] = values[::2] if draw(st.booleans()) else values[:rows]
    table = np.zeros(runs, RUN_DTYPE)
    for name in RUN_DTYPE.names or ():
        table[name] = chance.integers(-(2**62), 2**62, runs) if RUN_DTYPE[name].kind == "i" else chance.integers(0, 256, runs)
    return StepBlock(columns, table, draw(st.integers(-(2**31), 2**31 - 1)))


@settings(max_examples=150, deadline=None)
@given(blocks(), st.integers(1, 2**40), st.booleans())
def test_messages_are_those_of_the_reference_and_come_back_as_they_went(block: StepBlock, sequence: int, aligned: bool) -> None:
    message = encode_block(block, sequence)
    assert message == encode_block(block, sequence) == encode_block_reference(block, sequence)
    if not aligned:
        message = b"\x9a\x06\x01x" + message  # a field of a later version, which shifts the payload
    parts = split(message)
    header = pb.AppendHeader.FromString(parts.header)
    received = decode_block(parts, header.actor)
    arrays = arrays_of(parts)
    assert (header.sequence, received.actor, list(received.columns)) == (sequence, block.actor, list(block.columns))
    assert received.runs.dtype == RUN_DTYPE
    assert received.runs.tolist() == block.runs.tolist()
    for name, array in block.columns.items():
        found = received.columns[name]
        assert found.dtype == array.dtype
        assert found.tobytes() == array.tobytes() == arrays[f"data/{name}"].tobytes()
        assert found.flags.aligned
