"""What a server counts, by itself."""

from __future__ import annotations

import random
import threading
from bisect import bisect_left
from types import SimpleNamespace

import numpy as np
import pytest

import replaystore as rs
from replaystore.server.observing import figures
from replaystore.server.observing.figures import BOUNDS_S, FOLD_EVERY, Durations, Figures, Seen, TableFigures, Waits


def test_durations_against_a_naive_count() -> None:
    chance, durations = random.Random(5), Durations()
    naive, total = [0] * (len(BOUNDS_S) + 1), 0.0
    assert durations.counts == naive
    for number in range(3000):
        seconds = chance.choice([chance.choice(BOUNDS_S), chance.expovariate(1.0), 10 ** chance.uniform(-7, 5), 0.0])
        durations.add(seconds)
        naive[bisect_left(BOUNDS_S, seconds)] += 1
        total += seconds
        if number % 700 == 0:
            assert durations.counts == naive
    assert (durations.counts, durations.count) == (naive, 3000)
    assert durations.sum_s == pytest.approx(total)


def test_quantiles() -> None:
    durations = Durations()
    assert durations.quantile(0.5) is None
    for seconds in (0.0009, 0.0009, 0.03, 5000.0):
        durations.add(seconds)
    assert durations.quantile(0.5) == 0.001
    assert durations.quantile(0.75) == 0.05
    assert durations.quantile(1.0) is None, "beyond the last bound"


def test_what_nobody_asks_for_does_not_pile_up() -> None:
    table = TableFigures()
    for _ in range(3 * FOLD_EVERY + 5):
        table.append["ack"].add(1e-4)
        table.applied(1, 0, 10, 1e-4, 0.0, 1e-4)
        table.sample["send"].add(1e-4)
        table.answered(1, 10, 0, 0.0, 1e-4, 1e-4, None)
        table.committed(0.01, 1)
    for durations in (*table.append.values(), *table.sample.values()):
        assert len(durations._fresh) <= FOLD_EVERY
        assert durations.count == 3 * FOLD_EVERY + 5
    assert not table.commit._fresh
    assert (table.blocks, table.rows, table.received_bytes, table.committed_rows) == (773, 773, 7730, 773)


def test_nothing_is_lost_to_those_who_ask_meanwhile() -> None:
    durations, done = Durations(), threading.Event()

    def ask() -> None:
        while not done.is_set():
            assert durations.count >= 0

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    for _ in range(20_000):
        durations.add(1e-3)
    done.set()
    for thread in asking:
        thread.join(60)
    assert durations.count == 20_000


def test_waits_count_those_who_still_wait_and_never_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10**18]
    monkeypatch.setattr(figures, "time", SimpleNamespace(monotonic_ns=lambda: now[0]))
    waits = Waits()
    first = waits.begin()
    now[0] += 2 * 10**9
    second = waits.begin()
    now[0] += 10**9
    assert (waits.begun, waits.waiting, waits.seconds) == (2, 2, 4.0)
    waits.end(first)
    now[0] += 10**9
    assert (waits.begun, waits.waiting, waits.seconds) == (2, 1, 5.0)
    waits.end(second)
    now[0] += 10**12
    assert (waits.waiting, waits.seconds) == (0, 5.0)
    now[0] -= 10**13
    waits.begin()
    now[0] -= 1
    assert waits.seconds == 5.0


def test_ages_and_lags() -> None:
    fields = {"info/ages": np.array([1, 5, 9]), "info/policy_version": np.array([-1, 3, 7])}
    assert Seen.of(fields, 8) == (3, 15, 2, 6)


def test_tables_that_are_gone_are_forgotten_and_errors_have_names() -> None:
    counted = Figures()
    kept = counted.table("a")
    counted.table("b")
    counted.keep(["a", "c"])
    assert counted.tables == {"a": kept}
    for error in (rs.NotReady("x"), rs.NotReady("y"), ValueError("z")):
        counted.refused(error)
    assert counted.errors == {"NotReady": 2, "Unexpected": 1}
