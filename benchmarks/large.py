"""Many W1 steps: filled, sampled beside a table of a million, reopened; the time that takes, and the memory of the process."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import replaystore as rs
from ours import CONFIG
from workload import BATCH, errors, rate

STREAMS = 64
BESIDE = 1_000_000
ROUNDS, BATCHES = 15, 200
MOST_COPIED = 20_000_000
"""A larger table is not copied for the opening after a crash."""


def own_bytes() -> int:
    """Memory that is neither file cache nor shared (RssAnon)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon here: this benchmark needs Linux")


def fill(store: Any, table: str, steps: int) -> None:
    """Episodes of 1000 steps of 64 environments side by side."""
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((64, STREAMS, 17), dtype=np.float32)
    actions = rng.standard_normal((64, STREAMS, 6), dtype=np.float32)
    no, rewards = np.zeros(STREAMS, bool), np.ones(STREAMS, np.float32)
    store.create_table(table, CONFIG)
    with store.writer(table, streams=STREAMS) as writer:
        for t in range(steps // STREAMS):
            if t % 1000 == 0:
                for stream in range(STREAMS):
                    writer.reset(observations[0, stream], stream=stream)
            writer.append_batch(actions[t % 64], rewards, no, no, observations[(t + 1) % 64])


def cpu_per_batch(step: Callable[[str], object], table: str) -> float:
    """Microseconds of this thread's CPU time."""
    started = time.thread_time()
    for _ in range(BATCHES):
        step(table)
    return (time.thread_time() - started) / BATCHES * 1e6


def compare(store: Any, large: str, small: str) -> None:
    """CPU time per batch of both tables, in turn."""
    made = errors()

    def learner_step(table: str) -> None:
        batch = store.sample(table, BATCH, selector="priority", beta=0.4)
        store.update_priorities(table, batch.step_ids, made, selector="priority")

    for name, step in (
        ("uniform", lambda table: store.sample(table, BATCH, selector="uniform")),
        ("prioritized", lambda table: store.sample(table, BATCH, selector="priority", beta=0.4)),
        ("learner step", learner_step),
    ):
        pairs = [(cpu_per_batch(step, large), cpu_per_batch(step, small)) for _ in range(ROUNDS)]
        of_large, of_small = (sorted(values) for values in zip(*pairs, strict=True))
        print(
            f"beside    {BESIDE:,} steps, {name}: {median(of_large):.0f} against {median(of_small):.0f} µs of CPU time per batch, "
            f"{median(a / b for a, b in pairs):.2f} times (of the least: {of_large[0] / of_small[0]:.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000_000)
    steps = parser.parse_args().steps
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    try:
        store = rs.open(folder)
        before = own_bytes()
        started = time.perf_counter()
        fill(store, "w1", steps)
        elapsed = time.perf_counter() - started
        stats = store.stats("w1")
        print(
            f"filled    {stats.inserted_steps:,} steps in {elapsed:.1f} s: {stats.inserted_steps / elapsed:,.0f} steps/s, "
            f"{stats.bytes_on_disk / 1e9:.2f} GB on disk"
        )
        for selector in ("uniform", "priority"):
            items = rate(lambda s=selector: store.sample("w1", BATCH, selector=s), 3.0)
            print(f"sampled   {selector}: {items:,.0f} items/s")
        print(f"memory    index {stats.index_bytes / stats.steps:.3f} bytes/step; own memory grew by {(own_bytes() - before) / 1e6:.1f} MB")
        fill(store, "beside", BESIDE)
        compare(store, "w1", "beside")
        store.drop_table("beside")
        started = time.perf_counter()
        store.close()
        print(f"closed    in {time.perf_counter() - started:.2f} s")
        started, cpu = time.perf_counter(), time.process_time()
        store = rs.open(folder)
        print(f"reopened  in {time.perf_counter() - started:.3f} s, {time.process_time() - cpu:.3f} s of CPU time")
        if steps <= MOST_COPIED:
            store.table("w1")._files.state["clean"] = 0  # as a crash leaves it
            store.sample("w1", BATCH)
            crashed = folder.with_name(folder.name + "-crashed")
            shutil.copytree(folder, crashed)
            store.close()
            started = time.perf_counter()
            store = rs.open(crashed)
            print(f"recovered in {time.perf_counter() - started:.3f} s after a crash")
            store.close()
            shutil.rmtree(crashed)
        else:
            store.close()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
