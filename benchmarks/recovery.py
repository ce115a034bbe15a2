"""How fast a table opens after a crash and after a close, and what durability costs while inserting.

    python benchmarks/recovery.py --steps 10000000

Rows of 4 float32 observations, an int64 action and the bookkeeping, about 80 bytes each, in blocks of 4096 rows of 16 streams.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

import replaystore as rs
from replaystore.steps import RUN_DTYPE, StepBlock
from replaystore.store import Store

COLUMNS = {"observation": rs.Column((4,), "float32"), "action": rs.Column((), "int64")}
BLOCK_ROWS, STREAMS = 4096, 16


def blocks(steps: int, rows: int = BLOCK_ROWS) -> list[StepBlock]:
    """Blocks of endless episodes, one per stream; all share their columns' memory."""
    each = rows // STREAMS
    chance = np.random.default_rng(1)
    columns = {
        "observation": chance.standard_normal((rows, 4), np.float32),
        "action": chance.integers(0, 9, rows),
        "reward": np.ones(rows, np.float32),
        "terminated": np.zeros(rows, bool),
        "truncated": np.zeros(rows, bool),
    }
    made = []
    for block in range(steps // rows):
        runs = np.zeros(STREAMS, RUN_DTYPE)
        runs["episode"] = np.arange(1, STREAMS + 1)
        runs["first"], runs["rows"], runs["policy_version"], runs["seed"] = block * each, each, -1, -1
        made.append(StepBlock(columns, runs))
    return made


def die(store: Store) -> None:
    """As if the process had been killed."""
    for table in store._tables.values():
        table.close(save=False)
    store.close()


def fill(path: Path, steps: int, **options: object) -> tuple[Store, float]:
    """A store with a table of `steps` rows; rows per second of inserting them."""
    store = rs.open(path, **options)
    store.create_table("t", rs.TableConfig(COLUMNS, selector=rs.Prioritized()))
    table, work = store.table("t"), blocks(steps)
    started = time.perf_counter()
    for block in work:
        table.append(block, 60.0)
    return store, len(work) * BLOCK_ROWS / (time.perf_counter() - started)


def opening(path: Path) -> tuple[Store, float]:
    started = time.perf_counter()
    store = rs.open(path, commit_interval_s=60)
    return store, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="replaystore-bench-", dir=arguments.folder))
    steps: int = arguments.steps
    report: dict[str, object] = {"steps": steps // BLOCK_ROWS * BLOCK_ROWS, "cpus": os.cpu_count()}
    try:
        fill(folder / "warm", 10 * BLOCK_ROWS)[0].close()
        store, _ = fill(folder / "a", steps, commit_interval_s=60)
        rows = store.stats("t").next_step
        report["rows not yet durable"] = rows - store.stats("t").durable_step
        die(store)
        store, seconds = opening(folder / "a")
        report["killed, rows checked against CRC: seconds, M rows/s"] = round(seconds, 2), round(rows / seconds / 1e6, 1)
        die(store)
        store, seconds = opening(folder / "a")
        report["killed, rows durable: seconds, M rows/s"] = round(seconds, 2), round(rows / seconds / 1e6, 1)
        store.close()
        store, seconds = opening(folder / "a")
        report["closed: seconds, M rows/s"] = round(seconds, 2), round(rows / seconds / 1e6, 1)
        store.close()
        shutil.rmtree(folder / "a")
        few = min(steps, 2_000_000)
        ways = {"commit every 60 s": {"commit_interval_s": 60.0}, "interval 200 ms": {}, "fsync": {"durability": "fsync"}}
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(3):  # in turns: the machine's mood is shared
            for name, options in ways.items():
                store, rate = fill(folder / "b", few, **options)
                die(store)
                shutil.rmtree(folder / "b")
                rates[name].append(rate)
        report["inserts, M rows/s, best of 3"] = {name: round(max(found) / 1e6, 2) for name, found in rates.items()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
