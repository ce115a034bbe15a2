"""Sequences looked over as a whole are those that are walked step by step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replaystore.core import straight, stretch, walk
from tests.core.test_stretch import ORIGIN, ROWS, Rows, ids


def check_alike(links: walk.Links, anchors: walk.Ids, length: int) -> None:
    expected = stretch.stretches(links, anchors, length, 0, True)
    found, in_pieces = straight.stretches(links, anchors, length)
    for name in ("window", "blank", "row_ids", "taken", "end"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype, name
        assert np.array_equal(one, other), name
    real = expected.row_ids >= 0
    assert (found.steps[real] == expected.steps[real]).all()
    assert (found.steps[~real] == np.repeat(anchors - links.origin, length - expected.taken)).all()
    in_a_row = bool((expected.row_ids == anchors[:, None] + np.arange(length)).all())
    assert in_a_row or not in_pieces
    if in_pieces:
        assert not found.blank.any()


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(ROWS, st.integers(1, 9))
def test_interleaved_streams(rows: Rows, length: int) -> None:
    check_alike(rows.links(), ids(rows.anchors), length)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    st.integers(1, 700),
    st.integers(300, 1000),
    st.lists(st.tuples(st.sampled_from(["used", "ended", "closing", "cut", "far"]), st.integers(0, 999)), max_size=4),
    st.sampled_from([0, 1, ORIGIN]),
)
def test_one_stream_with_few_exceptions(length: int, rows: int, exceptions: list[tuple[str, int]], origin: int) -> None:
    successor, kind, terminated = np.ones(rows, np.int32), np.zeros(rows, np.uint8), np.zeros(rows, np.bool_)
    for what, row in exceptions:
        at = row % rows
        if what == "used":
            successor[at] = -successor[at]
        elif what == "ended":
            terminated[at] = True
        elif what == "closing":
            kind[at] = 1
        else:
            successor[at] = 0 if what == "cut" else 2
    previous = np.arange(rows) - 1 + origin
    links = walk.Links(successor, previous, kind, terminated, np.zeros(0, np.uint8), origin, origin, origin + rows)
    after = np.arange(rows) + np.abs(successor)
    anchors = np.flatnonzero((successor > 0) & (after < rows))[::37]
    check_alike(links, anchors + origin, length)
    whole, in_pieces = straight.stretches(links, anchors[:1] + origin, length)
    assert exceptions or in_pieces == (length < rows)
    assert (whole.steps is whole.row_ids) == (origin == 0 and whole.taken[0] == length)


@pytest.mark.parametrize("dtype", ["int8", "bool", "float16", "float32", "int64", "datetime64[s]", "S2"])
@pytest.mark.parametrize("shape", [(), (2,), (2, 1)])
def test_pieces(dtype: str, shape: tuple[int, ...]) -> None:
    source = np.arange(40 * int(np.prod(shape))).reshape(40, *shape).astype(dtype)
    if source.strides[0] not in straight.RUN_BYTES:
        return
    firsts = np.array([3, 0, 35, 3])
    out = np.empty((4, 5, *shape), dtype)
    straight.copy_pieces(source, firsts, out)
    assert (out == source[firsts[:, None] + np.arange(5)]).all()
    fixed = source.copy()
    fixed.flags.writeable = False
    straight.copy_pieces(fixed, firsts[:0], out[:0])
