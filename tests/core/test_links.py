"""Links derived again from rows: the kernel against plain Python, whatever was there before and wherever the window begins."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from replaystore.core.links import link_runs, link_runs_reference, rebuild_successors, rebuild_successors_reference


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


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([0, 0, 1, 2]), max_size=20),
    st.lists(st.tuples(st.integers(1, 5), st.integers(-1, 30)), min_size=1, max_size=6),
    st.integers(0, 10_000),
    st.integers(0, 25),
    st.integers(0, 2**31 - 1),
)
def test_new_rows_are_linked_like_by_plain_python(
    old: list[int], runs: list[tuple[int, int]], origin: int, evicted: int, stale: int
) -> None:
    """Runs after rows that are there, some of them removed; each follows a row of its own, there before or in a run before it, or none."""
    start = origin + len(old)
    rows = [count for count, _ in runs]
    starts = [start + sum(rows[:i]) for i in range(len(rows))]
    previous: list[int] = []
    for begin, (_, back) in zip(starts, runs, strict=True):
        free = back >= 0 and origin <= begin - 1 - back and begin - 1 - back not in previous
        ends = back >= 0 and (begin - 1 - back < start or begin - 1 - back + 1 in starts)
        previous.append(begin - 1 - back if free and ends else -1)
    stop, first = start + sum(rows), min(origin + evicted, start)
    removed = np.array([*old, *[0] * sum(rows)], np.uint8)
    successor = np.full(stop - origin, stale, np.int32)
    successor[: len(old)] = 0
    arguments = (np.array(starts), np.array(rows), np.array(previous))
    entered = link_runs(*arguments, removed, successor, origin, first, start)
    links, expected = link_runs_reference(starts, rows, previous, dict(enumerate(removed.tolist(), origin)), first, start)
    assert entered.tolist() == expected
    wanted = dict.fromkeys(range(origin, start), 0) | links
    assert dict(enumerate(successor.tolist(), origin)) == wanted
