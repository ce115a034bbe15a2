"""kill -9 in the middle of writing, sampling and evicting: every acknowledged step is there, right and in order."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import replaystore as rs
from replaystore.engine.checking.invariants import Leaves, RowChecker, check_episodes
from replaystore.engine.checking.verify import verify
from replaystore.store import Store

WRITER = """
import sys
import numpy as np
import replaystore as rs

store = rs.open(sys.argv[1], commit_interval_s=0.01)
columns = {"observation": rs.Column((5,), "float32"), "action": rs.Column((), "int64")}
store.create_table("t", rs.TableConfig(columns, selector=rs.Prioritized(), retention=rs.Retention(20_000)), exist_ok=True)
streams = 4
writer = store.writer("t", streams=streams, block_rows=64, actor=int(sys.argv[2]))
clock = np.zeros(streams, np.int64)
first = np.ones(streams, bool)
rng = np.random.default_rng(int(sys.argv[2]))
while True:
    for _ in range(50):
        ends = (rng.random(streams) < 0.02) & ~first
        following = np.where(first, 0, clock + 1)
        observations = np.repeat(following[:, None], 5, 1).astype("float32")
        writer.append_batch(10 * clock, clock.astype("float32"), ends, np.zeros(streams, bool), observations, reset_mask=first)
        clock, first = following, ends
    writer.flush()
    print(store.table("t").next_step, flush=True)
    if store.stats("t").anchors > 100:
        batch = store.sample("t", 64)
        store.update_priorities("t", batch.step_ids, rng.random(64))
"""


LEAVES = [Leaves("replay/priority", zero_allowed=False)]


def check(store: Store, acknowledged: int) -> None:
    stats = store.stats("t")
    assert stats.next_step >= acknowledged
    rows = store.read_steps("t", stats.first_step, stats.next_step, None)
    rows |= store.read_steps("t", stats.first_step, stats.next_step, ["replay/successor", "replay/times_sampled", "replay/priority"])
    position, kind = rows["meta/step_in_episode"], rows["meta/kind"]
    np.testing.assert_array_equal(rows["observation"], np.repeat(position[:, None], 5, 1))
    np.testing.assert_array_equal(rows["action"], np.where(kind == 0, 10 * position, 0))
    checker = RowChecker(stats.first_step, LEAVES)
    found = checker.feed({"steps/reward": rows["reward"], "steps/terminated": rows["terminated"], **rows})
    episodes = store.episodes("t")
    assert found + checker.finish() + check_episodes(episodes, checker) == []
    assert (stats.anchors, stats.steps) == (checker.anchors, checker.next - checker.first)
    assert stats.total_priority["default"] == pytest.approx(rows["replay/priority"].sum(dtype=float), rel=1e-9)
    assert len(np.unique(episodes["episode"])) == len(episodes["episode"])
    np.testing.assert_array_equal(episodes["return"], episodes["length"] * (episodes["length"] - 1) / 2)


def test_killed_again_and_again(tmp_path: Path) -> None:
    chance = random.Random(5)
    acknowledged = 0
    for round_number in range(7):
        process = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "data", str(round_number)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(chance.randint(2, 60)):
            line = process.stdout.readline()
            assert line, "the writer died by itself"
            acknowledged = int(line)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        if rest:
            acknowledged = int(rest[-1])
        process.wait()
        process.stdout.close()
        assert verify(tmp_path / "data").findings == []
        with rs.open(tmp_path / "data") as store:
            check(store, acknowledged)
    assert acknowledged > 20_000, "the rounds must reach retention"


CHANGER = """
import sys
import numpy as np
import replaystore as rs

store = rs.open(sys.argv[1], commit_interval_s=0.01)
columns = {"observation": rs.Column((2,)), "action": rs.Column((), "int64"), "note": rs.Column((), "int64", writable=True)}
queue = dict(rate_limiter=rs.Queue(5000), retention=rs.Retention(max_times_sampled=1))
store.create_table("t", rs.TableConfig(columns, rs.Fifo(), **queue), exist_ok=True)
writer = store.writer("t", block_rows=64)
writer.reset(np.zeros(2, "f4"))
number = 0
while True:
    for t in range(40):
        writer.append(t, 1.0, False, False, np.zeros(2, "f4"))
    writer.flush()
    stop = store.table("t").next_step
    doomed = [stop - 1, stop - 7, stop - 30]
    print("deleted", *doomed[: store.delete_steps("t", doomed).deleted], flush=True)
    written = [stop - 2, stop - 3, max(0, stop - 900)]
    if store.update_columns("t", written, {"note": np.full(3, stop)}).applied == 3:
        print("written", stop, *written, flush=True)
    print("drawn", *store.sample("t", 8).step_ids.tolist(), flush=True)
"""


def test_killed_while_it_deletes_writes_back_and_uses_up(tmp_path: Path) -> None:
    """Whatever was acknowledged is there: deleted rows, values, and steps that a queue has given away."""
    chance = random.Random(9)
    deleted: set[int] = set()
    drawn: list[int] = []
    notes: dict[int, set[int]] = {}
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", CHANGER, tmp_path / "data"], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(chance.randint(10, 200))]
        process.send_signal(signal.SIGKILL)
        for line in [*lines, *process.stdout.read().splitlines()]:
            what, *words = line.split() or [""]
            numbers = [int(word) for word in words]
            if what == "deleted":
                deleted |= set(numbers)
            elif what == "written":
                for step in numbers[1:]:
                    notes[step] = {numbers[0]}
            elif what == "drawn":
                drawn += numbers
        process.wait()
        process.stdout.close()
        assert verify(tmp_path / "data").findings == []
        with rs.open(tmp_path / "data") as store:
            stats = store.stats("t")
            rows = store.read_steps("t", 0, stats.next_step, ["replay/removed", "replay/successor", "note"])
            first, removed = stats.first_step, rows["replay/removed"]
            assert all(removed[step - first] == 1 for step in deleted if step >= first)
            assert all(removed[step - first] in (1, 2) for step in drawn if step >= first)
            assert not any(rows["replay/successor"][step - first] > 0 for step in {*deleted, *drawn} if step >= first)
            # the last change may have been made and not been heard of
            newest = {step for step in notes if step >= stats.next_step - 1000}
            assert all(rows["note"][step - first] in notes[step] for step in notes.keys() - newest if step >= first)
            assert all(rows["note"][step - first] >= max(notes[step]) for step in newest)
    assert len(drawn) == len(set(drawn)), "a step was given away twice"
    assert len(deleted) > 50
