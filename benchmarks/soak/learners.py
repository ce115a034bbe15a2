"""Learners, tables that come and go, and parameters: ``python -m benchmarks.soak.learners ADDRESS FOLDER SERIAL KINDS PACE_S``.

`KINDS` are names from `WORK`, with commas; each runs in a thread with a client of its own. It ends when standard input does.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import replaystore as rs
from benchmarks.soak.ledger import BATCHES, CROWD, LIMITED, LIMITED_BATCHES, PARAMETERS, TABLES, TEMPORARY, Entry, Ledger, fail
from replaystore_client import Client

Stop = threading.Event
PATIENCE_S = 300.0
"""For any one answer: that a machine is slow is no error."""
BURST = 50
"""Batches at once of learners that rest in between."""
TABLES_PACE = 4
"""Tables come and go so much slower than batches."""
WEIGHTS = 16_384
"""Float32 numbers of a set of parameters: 64 KiB."""


def prioritized(client: Client, entry: Entry, stop: Stop, pace_s: float) -> None:
    """Draws by priority and sends new ones with each request."""
    with client.sampler(CROWD, 256, view=rs.Transition(n_step=3), beta=0.4, selector="td", prefetch=4, timeout_s=PATIENCE_S) as sampler:
        _iterate(sampler, entry, stop, pace_s, lambda batch: sampler.update_priorities(batch.step_ids, np.abs(batch.reward)))


def sequences(client: Client, entry: Entry, stop: Stop, pace_s: float) -> None:
    """Large batches."""
    with client.sampler(CROWD, 128, view=rs.Sequence(32), selector="all", prefetch=2, timeout_s=PATIENCE_S) as sampler:
        _iterate(sampler, entry, stop, pace_s)


def limited(client: Client, entry: Entry, stop: Stop, pace_s: float) -> None:
    """Draws from the table with the limiter as fast as it may, so that it waits for actors, then rests, so that they wait for it."""
    with client.sampler(LIMITED, 64, prefetch=2, timeout_s=PATIENCE_S) as sampler:
        while not stop.wait(BURST * pace_s):
            for _ in range(BURST):
                if stop.is_set():
                    return
                entry.sending()
                batch = next(sampler)
                entry.answered()
                _check(batch)


def single(client: Client, entry: Entry, stop: Stop, pace_s: float) -> None:
    """Single calls, each from a client of its own; and updates that are calls of their own."""
    while not stop.wait(pace_s):
        with Client(client.address, timeout_s=PATIENCE_S) as other:
            entry.sending()
            batch = other.sample(CROWD, 64, selector="td")
            entry.answered()
            _check(batch)
            other.update_priorities(CROWD, batch.step_ids, np.ones(len(batch)), selector="td")


def tables(client: Client, entry: Entry, stop: Stop, pace_s: float) -> None:
    """Makes tables and drops them, every other one under a writer and a learner who wait."""
    config = rs.TableConfig({"observation": rs.Column((8,)), "action": rs.Column((), "int64")}, rs.Prioritized())
    for turn in itertools.count():
        if stop.wait(TABLES_PACE * pace_s):
            return
        name = f"{TEMPORARY}-{os.getpid()}-{turn}"
        entry.sending()
        client.create_table(name, config)
        with client.writer(name) as writer:
            for episode in range(2):
                writer.reset(np.full(8, episode))
                for step in range(25):
                    writer.append(step, 1.0, step == 24, False, np.full(8, step))
            writer.flush()
            if client.stats(name).inserted_steps != 50:
                raise AssertionError(f"{name} has {client.stats(name).inserted_steps} steps, not 50")
            _check(client.sample(name, 32))
            if turn % 2:
                client.drop_table(name)
            else:
                _drop_under_a_waiting_learner(client, name)
        entry.answered()


def _drop_under_a_waiting_learner(client: Client, name: str) -> None:
    client.alter_table(name, rate_limiter=rs.MinSize(1000))
    with client.sampler(name, 32, prefetch=2, timeout_s=PATIENCE_S) as sampler:
        dropping = threading.Timer(0.05, client.drop_table, (name,))
        dropping.start()
        try:
            next(sampler)
        except rs.NotFound:
            pass
        else:
            raise AssertionError(f"a learner got a batch of {name}, whose limiter lets none through")
        finally:
            dropping.join()


def publish(client: Client, entry: Entry, stop: Stop, pace_s: float) -> None:
    """Publishes sets of parameters: every number of a set is the same."""
    for turn in itertools.count():
        if stop.wait(pace_s):
            return
        entry.sending()
        client.publish_parameters("policy", {"weight": np.full(WEIGHTS, turn % 1000, np.float32)})
        entry.answered()


def fetch(client: Client, entry: Entry, stop: Stop, pace_s: float) -> None:
    """Waits for the next set, again and again."""
    version = 0
    while not stop.is_set():
        found = client.fetch_parameters("policy", newer_than=version, timeout_s=1.0)
        if found is None:
            continue
        weights, newer = found[0]["weight"], found[1]
        if newer <= version or (weights != weights[0]).any():
            raise AssertionError(f"version {newer} after {version}: torn or old")
        version = newer


WORK: dict[str, tuple[Callable[[Client, Entry, Stop, float], None], int, bool | None]] = {
    "prioritized": (prioritized, BATCHES, False),
    "sequences": (sequences, BATCHES, False),
    "local": (sequences, BATCHES, True),
    "limited": (limited, LIMITED_BATCHES, None),
    "single": (single, BATCHES, None),
    "tables": (tables, TABLES, None),
    "publish": (publish, PARAMETERS, None),
    "fetch": (fetch, PARAMETERS, None),
}
"""What a thread does, how its answers are counted, and by which way batches come."""


def _iterate(sampler: Any, entry: Entry, stop: Stop, pace_s: float, then: Callable[[Any], Any] = lambda batch: None) -> None:
    while not stop.wait(pace_s):
        entry.sending()
        batch = next(sampler)
        entry.answered()
        _check(batch)
        then(batch)


def _check(batch: Any) -> None:
    if not (np.isfinite(batch.weights).all() and (batch.probabilities > 0).all()):
        raise AssertionError(f"weights {batch.weights.min()} to {batch.weights.max()}, probabilities from {batch.probabilities.min()}")


def run(address: str, folder: Path, serial: int, kinds: list[str], pace_s: float) -> None:
    """All threads of this process, until standard input ends."""
    ledger, stop = Ledger(folder / f"ledger-{serial}", len(kinds)), Stop()

    def work(index: int, kind: str) -> None:
        function, group, local = WORK[kind]
        try:
            with Client(address, timeout_s=PATIENCE_S, local=local) as client:
                function(client, ledger.join(index, group), stop, pace_s)
        except rs.DeadlineExceeded as error:
            if not stop.is_set():  # closing waits for a few seconds only, which may be too short for a slow machine
                fail(folder, f"{kind} in process {serial}", f"{type(error).__name__}: {error}")
        except BaseException as error:
            fail(folder, f"{kind} in process {serial}", f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=part, daemon=True) for part in enumerate(kinds)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    if any(thread.is_alive() for thread in threads):
        fail(folder, f"process {serial}", f"a client still waits {PATIENCE_S:g} s after it was to stop")


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4].split(","), float(sys.argv[5]))
