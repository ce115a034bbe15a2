"""The kernel that finds all that is small of n-step transitions against NumPy, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replaystore.core.walk import Links, forward, transitions
from replaystore.engine.views.transition import _powers

ORIGIN = 100


@st.composite
def tables(draw: Any) -> tuple[Links, Any, Any, Any]:
    """Streams of rows in turn, used-up steps among them, with any flags; the anchors are all rows that have a successor."""
    n = draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    streams = draw(st.integers(1, 3))
    of = rng.integers(0, streams, n)
    successor = np.zeros(n, np.int32)
    for stream in range(streams):
        rows = np.flatnonzero(of == stream)
        successor[rows[:-1]] = np.diff(rows) * rng.choice([1, 1, 1, -1, 0], max(0, len(rows) - 1))
    kind, terminated, truncated = (rng.random(n) < 0.2).astype(np.uint8), rng.random(n) < 0.1, rng.random(n) < 0.3
    links = Links(successor, np.zeros(0, np.int64), kind, terminated, np.zeros(0, np.uint8), ORIGIN, ORIGIN, ORIGIN + n)
    anchors = ORIGIN + np.flatnonzero(successor)
    return links, truncated, rng.integers(-1, 9, n), rng.choice(anchors, 8) if len(anchors) else anchors


@given(tables(), st.lists(st.integers(1, 6), min_size=8, max_size=8), st.booleans(), st.sampled_from([0, 0.0, 0.5, 0.97, 0.99, 1]))
@settings(max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
def test_like_numpy(table: tuple[Links, Any, Any, Any], several: list[int], alike: bool, gamma: Any) -> None:
    links, truncated, versions, anchors = table
    limits, high = (np.array(several[:1]), several[0]) if alike else (np.array(several)[: len(anchors)], 6)
    found = transitions(links, truncated, versions, anchors, limits, high, _powers(float(gamma), high))
    path, taken, end = forward(links, anchors, limits, high)
    last, following = path[:, -1] - ORIGIN, end - ORIGIN
    ended = links.terminated[last]
    expected = (
        path,
        taken,
        end,
        anchors - ORIGIN,
        following,
        versions[anchors - ORIGIN],
        ended,
        truncated[last] | ((links.kind[following] == 1) & truncated[following]),
        (gamma**taken * ~ended).astype(np.float32),
    )
    for name, mine, plain in zip(found._fields, found, expected, strict=True):
        assert (mine.dtype, mine.shape, mine.tobytes()) == (plain.dtype, plain.shape, plain.tobytes()), name


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.9, 0.99, 0.997, 1.0])
def test_powers_are_those_of_any_array(gamma: float) -> None:
    taken = np.random.default_rng(0).integers(1, 1025, 5000).astype(np.int32)
    assert (gamma**taken).tobytes() == _powers(gamma, 1024)[taken].tobytes()
    for longest in range(1, 40):
        assert _powers(gamma, longest).tobytes() == _powers(gamma, 1024)[: longest + 1].tobytes()
