"""Conditions on rows, vectorised, against one `if` after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import replaystore as rs
from replaystore.engine.conditions import Facts, passes, passes_at, rows_back
from replaystore.engine.rows import Rows

NOW = 1000.0


def table_of(steps: list[tuple[int, int, int]], ending_every: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Rows of interleaved streams: (stream, actor, version) each; every `ending_every`-th row of a stream closes its episode."""
    rows: dict[str, list[Any]] = {name: [] for name in ("episode", "previous", "insert_time", "actor", "policy_version", "kind")}
    ended: dict[str, list[Any]] = {name: [] for name in ("episode", "last_step", "return", "length", "ending")}
    going: dict[int, list[int]] = {}
    number = 100
    for step, (stream, actor, version) in enumerate(steps):
        if stream not in going:
            number += 1
            going[stream] = [number]
        mine = going[stream]
        rows["episode"].append(mine[0])
        rows["previous"].append(mine[-1] if len(mine) > 1 else -1)
        rows["insert_time"].append(NOW - 100 + step)
        rows["actor"].append(actor)
        rows["policy_version"].append(version)
        mine.append(step)
        closes = len(mine) - 1 == ending_every
        rows["kind"].append(int(closes))
        if closes:
            for name, value in zip(ended, (mine[0], step, float(step % 5), ending_every - 1, 1 + step % 2), strict=True):
                ended[name].append(value)
            del going[stream]
    return {f"meta/{k}": np.array(v) for k, v in rows.items()}, {k: np.array(v, float if k == "return" else int) for k, v in ended.items()}


def meets(where: rs.Filter, step: int, stop: int, row: dict[str, Any], episode: dict[str, Any] | None, highest: int) -> bool:
    version = row["policy_version"]
    measured = [
        (stop - step, where.min_age_steps, where.max_age_steps),
        (NOW - row["insert_time"], where.min_age_s, where.max_age_s),
        (version, where.min_policy_version, where.max_policy_version),
    ]
    if where.min_age_versions is not None or where.max_age_versions is not None:
        if version < 0:
            return False
        measured.append((highest - version, where.min_age_versions, where.max_age_versions))
    if where.about_episodes:
        if episode is None:
            return False
        measured += [(episode["return"], where.min_return, where.max_return), (episode["length"], where.min_length, where.max_length)]
        if where.ended is not None and {"terminated": 1, "truncated": 2}[where.ended] != episode["ending"]:
            return False
    if where.actors is not None and row["actor"] not in where.actors:
        return False
    return all((low is None or value >= low) and (high is None or value <= high) for value, low, high in measured)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


small, versions = st.integers(0, 30), st.integers(-1, 6)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_like_one_condition_after_the_other(data: st.DataObject) -> None:
    steps = data.draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), versions), min_size=1, max_size=40))
    arrays, episodes = table_of(steps, data.draw(st.integers(2, 4)))
    stop, first = len(steps), data.draw(st.integers(0, len(steps)))
    bounds = {
        name: sorted(data.draw(st.tuples(values, values)))
        for name, values in {
            "age_steps": small, "age_s": st.integers(50, 110), "age_versions": small, "policy_version": versions,
            "return": st.integers(0, 5), "length": st.integers(1, 4),
        }.items()
    }  # fmt: skip
    chosen = data.draw(st.sets(st.sampled_from([f"{end}_{name}" for name in bounds for end in ("min", "max")]), max_size=3))
    conditions: dict[str, Any] = {name: bounds[name[4:]][name[:3] == "max"] for name in chosen}
    conditions["actors"] = data.draw(maybe(st.lists(st.integers(0, 3), min_size=1, max_size=2)))
    conditions["ended"] = data.draw(maybe(st.sampled_from(["terminated", "truncated"])))
    where = rs.Filter(**conditions)
    origin = data.draw(st.integers(0, first))
    rows = Rows(lambda path: arrays[path][origin:], origin, first, stop)
    highest = max(version for _, _, version in steps)
    facts = Facts(NOW, highest, lambda name: episodes[name])
    of_episode = {n: {k: v[i] for k, v in episodes.items()} for i, n in enumerate(episodes["episode"].tolist())}
    expected = [
        meets(
            where, i, stop, {k[5:]: v[i] for k, v in arrays.items()}, of_episode.get(arrays["meta/episode"][i]), highest
        )
        for i in range(first, stop)
    ]  # fmt: skip
    assert passes(rows, where, facts).tolist() == expected
    if not where.about_episodes:
        some = np.arange(first, stop)[::-2]
        assert passes_at(rows, some, where, facts).tolist() == [expected[i - first] for i in some]


def test_rows_of_episodes() -> None:
    arrays, _ = table_of([(0, 0, 0), (1, 0, 0), (0, 0, 0), (1, 0, 0), (0, 0, 0), (0, 0, 0)], 3)
    rows = Rows(lambda path: arrays[path], 0, 1, 6)
    assert rows_back(rows, np.array([4])).tolist() == [2, 4]
    assert rows_back(rows, np.array([3, 5])).tolist() == [1, 3, 5]
    assert rows_back(rows, np.array([0, 99])).tolist() == []
