"""read_steps, episodes and the parameter channel on both sides."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from tests.conformance.conftest import config, play

Fill = Callable[..., str]


def test_read_steps_clips_to_what_is_kept(filled: Fill, api: Any) -> None:
    name = filled(20, retention=rs.Retention(10))
    for start, stop, expected in [
        (0, 100, range(11, 21)),
        (15, 18, range(15, 18)),
        (0, 11, []),
        (18, 12, []),
        (500, 600, []),
        (-5, 13, [11, 12]),
    ]:
        steps = api.read_steps(name, start, stop, ["action"])
        assert steps.keys() == {"step_id", "action"}
        assert steps["step_id"].tolist() == list(expected), (start, stop)
        assert len(steps["action"]) == len(steps["step_id"])
        assert steps["action"].dtype == np.int64


def test_read_steps_names(filled: Fill, api: Any) -> None:
    name = filled(5, selector=rs.Prioritized())
    columns = {"observation", "action", "reward", "terminated", "truncated"}
    meta = {"episode", "step_in_episode", "previous", "kind", "insert_time", "actor", "policy_version"}
    everything = api.read_steps(name, 0, 3)
    assert everything.keys() == {"step_id"} | columns | {f"meta/{part}" for part in meta}
    assert everything["observation"].shape == (3, 2)
    assert abs(everything["meta/insert_time"] - time.time()).max() < 3600
    some = api.read_steps(name, 0, 3, ["replay/priority", "replay/times_sampled", "meta/kind"])
    assert some.keys() == {"step_id", "replay/priority", "replay/times_sampled", "meta/kind"}
    assert api.read_steps(name, 0, 3, "action").keys() == {"step_id", "action"}
    with pytest.raises(rs.InvalidArgument, match="no column 'none'"):
        api.read_steps(name, 0, 3, ["none"])


def test_read_steps_in_pieces(api: Any, table: str) -> None:
    """More than fits one message."""
    api.create_table(table, config(extras={"observation2": rs.Column((1024, 256), "float32")}))
    with api.writer(table) as writer:
        writer.reset([0, 0])
        for t in range(24):
            writer.append(t, 1.0, t == 23, False, [0, t + 1], observation2=np.full((1024, 256), t, "f4"))
    steps = api.read_steps(table, 0, 100)
    assert steps["observation2"].shape == (25, 1024, 256)
    assert steps["observation2"][:24, 0, 0].tolist() == list(range(24))
    assert steps["step_id"].tolist() == list(range(25))


def test_what_was_read_is_the_readers_own(filled: Fill, api: Any) -> None:
    name = filled(5)
    api.read_steps(name, 0, 5)["action"][:] = 99
    assert api.read_steps(name, 0, 5)["action"].tolist() == [0, 1, 2, 3, 4]


def test_episodes_by_position(api: Any, table: str) -> None:
    api.create_table(table, config())
    assert api.episodes(table)["length"].tolist() == []
    with api.writer(table, policy_version=6) as writer:
        for length in range(1, 7):
            play(writer, length)
    found = api.episodes(table)
    assert found["length"].tolist() == [1, 2, 3, 4, 5, 6]
    assert found["return"].tolist() == [1, 3, 6, 10, 15, 21]
    assert found["policy_version"].tolist() == [6] * 6
    assert (found["start_time"] <= found["end_time"]).all()
    assert found["episode"].dtype == np.int64
    for start, stop in [(0, 2), (-2, None), (2, None), (None, -4), (1, -1), (4, 2), (10, 20)]:
        assert api.episodes(table, start, stop)["length"].tolist() == [1, 2, 3, 4, 5, 6][start:stop], (start, stop)


def test_parameters(api: Any, table: str) -> None:
    name = f"policy-{table}"
    assert api.fetch_parameters(name) is None
    arrays = {"layer.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(3), "mask": np.array([True, False])}
    assert api.publish_parameters(name, arrays) == 1
    fetched, version = api.fetch_parameters(name)
    assert version == 1
    assert fetched.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(fetched[key], array)
        assert fetched[key].dtype == array.dtype
    assert api.fetch_parameters(name, newer_than=1) is None
    assert api.publish_parameters(name, {"other": np.zeros(2)}) == 2
    fetched, version = api.fetch_parameters(name, newer_than=1)
    assert (version, set(fetched)) == (2, {"other"})


def test_fetching_waits_for_a_publication(api: Any, table: str) -> None:
    name = f"policy-{table}"
    started = time.monotonic()
    assert api.fetch_parameters(name, timeout_s=0.2) is None
    assert time.monotonic() - started >= 0.2
    timer = threading.Timer(0.2, lambda: api.publish_parameters(name, {"w": np.ones(3)}))
    timer.start()
    fetched = api.fetch_parameters(name, timeout_s=20)
    timer.join()
    assert fetched is not None
    assert fetched[1] == 1


@pytest.mark.parametrize(
    ("arrays", "said"),
    [({}, "at least one"), ({"w": np.array(["text"])}, "dtype"), ({"w": np.array([None])}, "dtype")],
    ids=["none", "text", "objects"],
)
def test_parameters_are_arrays_of_numbers(api: Any, table: str, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(rs.InvalidArgument, match=said):
        api.publish_parameters(f"policy-{table}", arrays)


def test_large_parameters(api: Any, table: str) -> None:
    arrays = {f"w{i}": np.random.default_rng(i).random((1000, 1000)) for i in range(3)}
    api.publish_parameters(f"policy-{table}", arrays)
    fetched, _ = api.fetch_parameters(f"policy-{table}")
    for key, array in arrays.items():
        np.testing.assert_array_equal(fetched[key], array)


def test_closing_twice_is_fine(side: Any) -> None:
    with side.api as api:
        assert api.tables() == []
    api.close()
