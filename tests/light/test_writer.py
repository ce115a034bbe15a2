"""The writer: whatever the order of calls, block sizes and refusals, the blocks hold each stream's rows once and in order."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replaystore.errors import InvalidArgument, NotReady, SchemaMismatch
from replaystore.schema.columns import STANDARD_COLUMNS, Column
from replaystore.steps import OPEN, TERMINATED, TRUNCATED, StepBlock
from replaystore.writer import Writer

COLUMNS = {**STANDARD_COLUMNS, "observation": Column((2,), "float32"), "action": Column((), "int64"), "note": Column((), "float32")}


class Sink:
    """Keeps copies of blocks; refuses when told to."""

    def __init__(self) -> None:
        self.blocks: list[StepBlock] = []
        self.refusing = False

    def send(self, block: StepBlock, timeout_s: float) -> None:
        if self.refusing:
            raise NotReady("not now")
        block.check(COLUMNS)
        self.blocks.append(StepBlock({n: a.copy() for n, a in block.columns.items()}, block.runs.copy(), block.actor))

    def flush(self, durable: bool, timeout_s: float) -> None:
        pass

    def close(self, timeout_s: float) -> None:
        pass

    def poll(self) -> None:
        pass

    def episodes(self) -> list[dict[str, Any]]:
        """Episodes in the order of their first rows, put together from runs; positions must be without gaps."""
        found: dict[int, dict[str, Any]] = {}
        for block in self.blocks:
            row = 0
            for run in block.runs:
                episode = found.setdefault(int(run["episode"]), {"rows": [], "ending": OPEN, "versions": [], "seed": int(run["seed"])})
                assert episode["ending"] == OPEN
                assert int(run["first"]) == len(episode["rows"])
                for i in range(row, row + int(run["rows"])):
                    episode["rows"].append(
                        tuple(block.columns[n][i].tolist() for n in ("observation", "action", "reward", "terminated", "truncated"))
                    )
                    episode["versions"].append(int(run["policy_version"]))
                row += int(run["rows"])
                episode["ending"] = int(run["ending"])
        return list(found.values())


class Oracle:
    """What should have been written, as plain lists per stream."""

    def __init__(self, streams: int) -> None:
        self.finished: dict[int, list[dict[str, Any]]] = defaultdict(list)
        self.current: list[dict[str, Any] | None] = [None] * streams
        self.observation: list[list[float]] = [[] for _ in range(streams)]
        self.version = -1

    def reset(self, s: int, observation: list[float], seed: int = -1) -> None:
        if self.current[s] is not None:
            self.end(s, TRUNCATED)
        self.current[s] = {"rows": [], "ending": OPEN, "versions": [], "seed": seed}
        self.observation[s] = observation

    def step(self, s: int, action: int, reward: float, terminated: bool, truncated: bool, following: list[float]) -> None:
        episode = self.current[s]
        assert episode is not None
        episode["rows"].append((self.observation[s], action, reward, terminated, truncated))
        episode["versions"].append(self.version)
        self.observation[s] = following
        if terminated or truncated:
            self.end(s, TERMINATED if terminated else TRUNCATED)

    def end(self, s: int, ending: int) -> None:
        episode = self.current[s]
        assert episode is not None
        self.current[s] = None
        if episode["rows"]:
            episode["rows"].append((self.observation[s], 0, 0.0, ending == TERMINATED, ending == TRUNCATED))
            episode["versions"].append(self.version)
            episode["ending"] = ending
            self.finished[s].append(episode)


def by_content(episodes: list[dict[str, Any]]) -> list[str]:
    return sorted(map(repr, episodes))


OPERATION = st.tuples(
    st.sampled_from(["step", "step", "step", "batch", "batch", "reset", "flush", "version", "refuse"]),
    st.integers(0, 2),  # stream
    st.sampled_from(["", "", "", "terminated", "truncated"]),
    st.integers(0, 7),  # streams masked in a batch, as bits
)


@settings(max_examples=150, deadline=None)
@given(st.lists(OPERATION, max_size=60), st.sampled_from([1, 3, 8, 1000]))
def test_every_row_once_and_in_order(operations: list[tuple[str, int, str, int]], block_rows: int) -> None:
    sink, oracle, clock = Sink(), Oracle(3), 0
    writer = Writer(COLUMNS, sink, streams=3, block_rows=block_rows, interval_s=1e9)

    def fresh() -> list[float]:
        nonlocal clock
        clock += 1
        return [float(clock), float(-clock)]

    for operation, s, ending, bits in operations:
        terminated, truncated = ending == "terminated", ending == "truncated"
        sink.refusing = operation == "refuse"
        if operation == "reset" or (operation in ("step", "refuse") and oracle.current[s] is None):
            first = fresh()
            try:
                writer.reset(first, stream=s, seed=clock)
            except NotReady:
                continue
            oracle.reset(s, first, clock)
        elif operation in ("step", "refuse"):
            following = fresh()
            try:
                given = following if clock % 3 else np.array(following, np.float32)
                writer.append(clock, clock / 2, terminated, truncated, given, stream=s, note=1.0)
            except NotReady:
                continue
            oracle.step(s, clock, clock / 2, terminated, truncated, following)
        elif operation == "batch":
            mask = [bool(bits >> i & 1) or oracle.current[i] is None for i in range(3)]
            following_all = [fresh() for _ in range(3)]
            ends = [terminated and i == s for i in range(3)], [truncated and i == s for i in range(3)]
            writer.append_batch(
                np.array([1, 2, 3]),
                np.array([0.5, 1.5, 2.5]),
                *map(np.array, ends),
                np.array(following_all),
                reset_mask=mask,
                note=np.zeros(3),
            )
            for i in range(3):
                if mask[i]:
                    oracle.reset(i, following_all[i])
                else:
                    oracle.step(i, i + 1, i + 0.5, ends[0][i], ends[1][i], following_all[i])
        elif operation == "version":
            oracle.version = writer.policy_version = clock
        else:
            writer.flush()
    sink.refusing = False
    writer.close()
    for s in range(3):
        if oracle.current[s] is not None:
            oracle.end(s, TRUNCATED)
    assert by_content(sink.episodes()) == by_content([episode for s in range(3) for episode in oracle.finished[s]])


def test_rows_of_a_stream_lie_together() -> None:
    sink = Sink()
    with Writer(COLUMNS, sink, streams=4, block_rows=64, interval_s=1e9) as writer:
        writer.append_batch(
            np.zeros(4, int), np.zeros(4), np.zeros(4, bool), np.zeros(4, bool), np.zeros((4, 2)), reset_mask=np.ones(4), note=np.zeros(4)
        )
        for i in range(40):
            writer.append_batch(np.full(4, i), np.zeros(4), np.zeros(4, bool), np.zeros(4, bool), np.zeros((4, 2)), note=np.zeros(4))
    assert max(int(run["rows"]) for block in sink.blocks for run in block.runs) >= 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"next_observation": [1.0, 2.0, 3.0]}, r"column 'observation' takes shape \(2,\), got \(3,\)"),
        ({"action": 1.5}, "'action' is int64; float64 values do not fit"),
        ({"reward": [1.0]}, r"column 'reward' takes shape \(\), got \(1,\)"),
        ({"unknown": 1.0}, "there is no column 'unknown'"),
        ({"note": None}, "'note'"),
    ],
)
def test_a_bad_value_is_named_and_nothing_is_recorded(change: dict[str, Any], message: str) -> None:
    sink = Sink()
    writer = Writer(COLUMNS, sink)
    writer.reset([0.0, 0.0])
    good: dict[str, Any] = {
        "action": 1,
        "reward": 1.0,
        "terminated": False,
        "truncated": False,
        "next_observation": [1.0, 1.0],
        "note": 2.0,
    }
    with pytest.raises(SchemaMismatch, match=message):
        writer.append(**{**good, **change})
    missing = {name: value for name, value in good.items() if name != "note"}
    with pytest.raises(SchemaMismatch, match="column 'note' was not given"):
        writer.append(**missing)
    writer.append(**good)
    writer.close()
    (episode,) = sink.episodes()
    assert len(episode["rows"]) == 2


def test_calls_out_of_order_say_what_to_do() -> None:
    writer = Writer(COLUMNS, Sink(), streams=2)
    with pytest.raises(InvalidArgument, match=r"stream 0 has no open episode: call reset\(observation, stream=0\)"):
        writer.append(1, 1.0, False, False, [0.0, 0.0], note=0.0)
    with pytest.raises(InvalidArgument, match="stream=2 must be from 0 to 1"):
        writer.reset([0.0, 0.0], stream=2)
    writer.reset([0.0, 0.0], stream=0)
    with pytest.raises(InvalidArgument, match="stream 1 has no open episode: reset it, or set reset_mask"):
        writer.append_batch([0, 0], [0.0, 0.0], [False] * 2, [False] * 2, np.zeros((2, 2)), note=np.zeros(2))
    writer.close()
    with pytest.raises(InvalidArgument, match="closed"):
        writer.reset([0.0, 0.0])


@pytest.mark.parametrize("together", [False, True])
def test_an_endless_interval_leaves_the_clock_out(together: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days go by between calls: still only full blocks are sent, and what is flushed."""
    days = iter(range(0, 10**9, 86_400))
    monkeypatch.setattr("replaystore.writer._now", lambda: float(next(days)))
    for interval_s, alone in ((math.inf, False), (0.05, True)):
        sink = Sink()
        writer = Writer(COLUMNS, sink, block_rows=10, interval_s=interval_s)
        writer.reset([0.0, 0.0])
        for step in range(7):
            ends = step == 3
            if together:
                writer.append_batch([1], [0.5], [ends], [False], [[1.0, 1.0]], reset_mask=[step == 4], note=[0.0])
            else:
                if step == 4:
                    writer.reset([0.0, 0.0])
                writer.append(1, 0.5, ends, False, [1.0, 1.0], note=0.0)
        assert bool(sink.blocks) == alone
        writer.flush()
        assert sum(int(run["rows"]) for block in sink.blocks for run in block.runs) >= 7
