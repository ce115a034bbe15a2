"""Stores whose rows say which they are, and what must hold of every copy of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.engine.checking.verify import verify
from replaystore.store import Store


def config(**changes: Any) -> rs.TableConfig:
    columns = {"observation": rs.Column((5,), "float32"), "action": rs.Column((), "int64")}
    return rs.TableConfig(columns, **{"seed": 7, "selector": rs.Prioritized(0.7), **changes})


class Actor:
    """Endless streams: position t of an episode has observation t, action 10 t, reward t; episodes end by chance."""

    def __init__(self, api: Any, table: str, *, streams: int = 4, seed: int = 0, **options: Any) -> None:
        self.writer = api.writer(table, streams=streams, actor=seed, **options)
        self._rng = np.random.default_rng(seed)
        self._clock, self._first = np.zeros(streams, np.int64), np.ones(streams, bool)

    def play(self, rounds: int, ends: float = 0.02) -> None:
        """`rounds` rows of every stream, and what they end with; acknowledged."""
        for _ in range(rounds):
            over = (self._rng.random(len(self._clock)) < ends) & ~self._first
            following = np.where(self._first, 0, self._clock + 1)
            observations = np.repeat(following[:, None], 5, 1).astype("float32")
            rewards, never = self._clock.astype("float32"), np.zeros(len(self._clock), bool)
            self.writer.append_batch(10 * self._clock, rewards, over, never, observations, reset_mask=self._first)
            self._clock, self._first = following, over
        self.writer.flush()


def check(store: Store, table: str) -> None:
    """Every row is what its position says, every link leads where it should, counters count."""
    stats = store.stats(table)
    first = stats.first_step
    rows = store.read_steps(table, first, stats.next_step)
    live = store.read_steps(table, first, stats.next_step, ["replay/successor"])
    position, kind, previous = rows["meta/step_in_episode"], rows["meta/kind"], rows["meta/previous"]
    np.testing.assert_array_equal(rows["observation"], np.repeat(position[:, None], 5, 1))
    np.testing.assert_array_equal(rows["action"], np.where(kind == 0, 10 * position, 0))
    assert ((previous == -1) == (position == 0)).all()
    kept = previous >= first
    before = previous[kept] - first
    np.testing.assert_array_equal(position[before] + 1, position[kept])
    np.testing.assert_array_equal(rows["meta/episode"][before], rows["meta/episode"][kept])
    successor = np.zeros(len(position), np.int32)
    successor[before] = rows["step_id"][kept] - previous[kept]
    np.testing.assert_array_equal(live["replay/successor"], successor)
    assert stats.anchors == np.count_nonzero(successor)
    assert stats.open_episodes >= np.count_nonzero((successor == 0) & (kind == 0))  # of some every row is evicted
    for name in stats.total_priority:
        path = "replay/priority" if name == "default" else f"replay/priority.{name}"
        leaves = store.read_steps(table, first, stats.next_step, [path])[path]
        assert ((leaves > 0) == (successor > 0)).all()
        assert stats.total_priority[name] == pytest.approx(leaves.sum(dtype=float), rel=1e-9)
    episodes = store.episodes(table)
    assert stats.episodes == len(episodes["episode"])
    closing = rows["step_id"][kind == 1]
    np.testing.assert_array_equal(episodes["last_step"][episodes["last_step"] >= first], closing)
    there = episodes["last_step"] >= first
    np.testing.assert_array_equal(position[episodes["last_step"][there] - first], episodes["length"][there])
    whole = episodes["first_step"] >= first
    assert (position[episodes["first_step"][whole] - first] == 0).all()
    np.testing.assert_array_equal(episodes["return"], episodes["length"] * (episodes["length"] - 1) / 2)


def whole(path: Path) -> None:
    """A closed store that `replaystore verify` finds nothing wrong with."""
    assert [str(finding) for finding in verify(path).findings] == []


def contents(store: Store, table: str) -> dict[str, Any]:
    """Everything that a copy must have too."""
    stats = store.stats(table)
    paths = [name for name in store.describe(table).rows_per_chunk if name.startswith(("steps/", "meta/", "replay/"))]
    names = [path.removeprefix("steps/") for path in paths]
    rows = store.read_steps(table, stats.first_step, stats.next_step, names)
    counters = ("first_step", "next_step", "anchors", "episodes", "open_episodes", "inserted_steps", "sampled_items", "total_priority")
    figures = {name: getattr(stats, name) for name in (*counters, "max_priority", "oldest_time", "newest_time")}
    return {**rows, **{f"episodes/{name}": values for name, values in store.episodes(table).items()}, **figures}


def same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for name, values in a.items():
        np.testing.assert_array_equal(values, b[name], err_msg=name)


def shared_files(folder: Path) -> dict[Path, bytes]:
    """The files below `folder` that have another name elsewhere, and what is in them."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and os.stat(path).st_nlink > 1}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with rs.open(tmp_path / "data", commit_interval_s=0.02) as opened:
        yield opened


def filled(store: Store, rounds: int = 2000, **changes: Any) -> Actor:
    """Table "t" with a writer that goes on; some priorities are set."""
    store.create_table("t", config(**changes))
    actor = Actor(store, "t")
    actor.play(rounds)
    batch = store.sample("t", 256)
    store.update_priorities("t", batch.step_ids, np.arange(256) / 16)
    return actor
