"""Memory of batches is used again, also where every batch has a slightly different size."""

from __future__ import annotations

from typing import Any

import numpy as np

from replaystore.mapping.buffers import BufferPool


def address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def test_a_buffer_serves_sizes_close_to_its_own_and_never_two_arrays() -> None:
    pool, dtype = BufferPool(), np.dtype("float32")
    first = pool.take((1000, 200), dtype)
    second = pool.take((1000, 200), dtype)
    places = {address(first), address(second)}
    assert len(places) == 2
    del first
    other = pool.take((1003, 200), dtype)
    assert other.shape == (1003, 200)
    assert address(other) in places - {address(second)}
    part = other[:3]
    del other
    assert address(pool.take((1000, 200), dtype)) not in {address(part), address(second)}
