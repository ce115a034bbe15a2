"""Random sampling with nothing in the page cache, beside plain random reads of the same blocks: 32 threads of O_DIRECT reads.

    python benchmarks/cold.py --frames 600000 --rounds 5

A table of W2 (frame stacks of 4) and one of W1 are filled, closed and dropped from the page cache before every turn. A turn of plain
reading and a turn of sampling alternate; sampling counts only the blocks of the wide columns that its items lie on: of W2 the pages of
five frames in a row, of W1 those of an observation, the next, and an action. The narrow columns have `--before` seconds to come into
memory.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import shutil
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import replaystore as rs
from ours import READ, TABLES
from replaystore.steps import RUN_DTYPE, StepBlock
from workload import BATCH

DEPTH = 32
PAGE = 4096
WIDE = {"W1": ("observation", "action"), "W2": ("observation",)}
BLOCK_BYTES = {"W1": PAGE, "W2": 9 * PAGE}
ROWS = {"W1": 65536, "W2": 1024}


def fill(path: Path, workload: str, steps: int) -> None:
    """A closed store with a table of `steps` rows of one stream."""
    rng, rows = np.random.default_rng(0), ROWS[workload]
    config = TABLES[workload]
    columns: dict[str, Any] = {}
    for name, column in config.columns.items():
        kind = np.dtype(column.dtype)
        values = rng.integers(0, 2, (rows, *column.shape)) if kind.kind != "f" else rng.standard_normal((rows, *column.shape))
        columns[name] = np.zeros(rows, kind) if name in ("terminated", "truncated") else values.astype(kind)
    with rs.open(path) as store:
        store.create_table("t", config)
        for block in range(steps // rows):
            runs = np.zeros(1, RUN_DTYPE)
            runs["episode"], runs["first"], runs["rows"], runs["policy_version"], runs["seed"] = 1, block * rows, rows, -1, -1
            store.table("t").append(StepBlock(columns, runs), 60.0)


def drop(folder: Path) -> None:
    """Takes the files out of the page cache. Nothing may have them mapped."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def plain(folder: Path, block: int, seconds: float) -> float:
    """Bytes per second of O_DIRECT reads of `block` bytes at random places of the files, by 32 threads of one read each at a time."""
    files = [os.open(path, os.O_RDONLY | os.O_DIRECT) for path in folder.glob("c.*")]
    size = os.fstat(files[0]).st_size

    def read(seed: int) -> int:
        buffer = mmap.mmap(-1, block)  # page-aligned, as O_DIRECT wants it
        rng, done = np.random.default_rng(seed), 0
        places = zip(
            rng.integers(0, len(files), 1 << 16).tolist(), (rng.integers(0, (size - block) // PAGE, 1 << 16) * PAGE).tolist(), strict=True
        )
        for file, place in places:
            os.preadv(files[file], [buffer], place)
            done += 1
            if done % 4 == 0 and time.perf_counter() > until:
                break
        return done

    until = time.perf_counter() + seconds
    started = time.perf_counter()
    with ThreadPoolExecutor(DEPTH) as pool:
        total = sum(pool.map(read, range(DEPTH)))
    elapsed = time.perf_counter() - started
    for file in files:
        os.close(file)
    return total * block / elapsed


def pages_of(table: Any, workload: str, step_ids: np.ndarray[Any, Any]) -> int:
    """Distinct pages of the wide columns that a batch's items lie on; columns begin at the start of a page in every chunk file."""
    total = 0
    for layout, _, _ in table.mapped_columns():
        name = layout.path.removeprefix("steps/")
        if name not in WIDE[workload]:
            continue
        view = READ[workload].get("view", rs.Transition())
        before, after = (view.frame_stack - 1, 1) if name == "observation" else (0, 0)
        first = np.maximum(step_ids - before, 0) * layout.row_bytes // PAGE
        last = ((step_ids + after + 1) * layout.row_bytes - 1) // PAGE
        total += len(np.unique(np.concatenate([np.arange(a, b + 1) for a, b in zip(first.tolist(), last.tolist(), strict=True)])))
    return total


def sampling(path: Path, workload: str, seconds: float, threads: int, before_s: float) -> tuple[float, float]:
    """Items per second and bytes of wide columns per second of a store just opened, from `before_s` after its first batch on."""
    with rs.open(path) as store:
        table = store.table("t")
        options = READ[workload]
        store.sample("t", BATCH, **options)
        time.sleep(before_s)
        until = time.perf_counter() + seconds
        drawn: list[Any] = []

        def work() -> None:
            while time.perf_counter() < until:
                drawn.append(np.array(store.sample("t", BATCH, **options).step_ids))

        started = time.perf_counter()
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        elapsed = time.perf_counter() - started
        pages = sum(pages_of(table, workload, ids) for ids in drawn)
    return len(drawn) * BATCH / elapsed, pages * PAGE / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30_000_000, help="of W1")
    parser.add_argument("--frames", type=int, default=600_000, help="steps of W2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="for every turn")
    parser.add_argument("--threads", type=int, default=2, help="that sample")
    parser.add_argument("--before", type=float, default=8.0, help="seconds between the first batch and the count")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument("--workloads", nargs="*", default=["W2", "W1"])
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="replaystore-bench-", dir=arguments.folder))
    try:
        for workload in arguments.workloads:
            path = folder / workload
            fill(path, workload, arguments.frames if workload == "W2" else arguments.steps)
            found: list[tuple[float, float, float]] = []
            for _ in range(arguments.rounds):
                drop(path)
                reference = plain(path / "t/steps/observation", BLOCK_BYTES[workload], arguments.seconds)
                drop(path)
                found.append((reference, *sampling(path, workload, arguments.seconds, arguments.threads, arguments.before)))
            references, items, rates = (statistics.median(column) for column in zip(*found, strict=True))
            print(
                json.dumps(
                    {
                        "workload": workload,
                        "block bytes": BLOCK_BYTES[workload],
                        "plain reads, MB/s": round(references / 1e6),
                        "sampled, MB/s": round(rates / 1e6),
                        "sampled, items/s": round(items),
                        "ratio, median of rounds": round(statistics.median(rate / reference for reference, _, rate in found), 3),
                    }
                )
            )
            shutil.rmtree(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
