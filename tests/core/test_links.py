"""Links derived again from rows: the kernel against plain Python, whatever was there before and wherever the window begins."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from replaystore.core.links import rebuild_successors, rebuild_successors_reference


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 4), st.sampled_from([0, 0, 1, 2])), max_size=60),
    st.integers(0, 10_000),
    st.integers(0, 20),
    st.integers(0, 2**31 - 1),
)
def test_the_kernel_links_like_plain_python(rows: list[tuple[int, int]], origin: int, before: int, stale: int) -> None:
    """Rows of interleaved streams (-1 begins an episode in stream 0), some removed, of which the first `before` are evicted."""
    streams, removed = [stream for stream, _ in rows], [how for _, how in rows]
    newest: dict[int, int] = {}
    previous = []
    for step, stream in enumerate(streams, origin):
        previous.append(-1 if stream < 0 else newest.get(stream, -1))
        newest[max(stream, 0)] = step
    stop = origin + len(streams)
    first = min(origin + before, stop)
    successor = np.full(len(streams), stale, np.int32)
    rebuild_successors(np.array(previous, np.int64), np.array(removed, np.uint8), successor, origin, first, first, stop)
    expected = rebuild_successors_reference(previous[first - origin :], removed[first - origin :], first, stop)
    assert dict(zip(range(first, stop), successor[first - origin :].tolist(), strict=True)) == expected
    assert (successor[: first - origin] == stale).all(), "rows below the first one kept are not touched"
