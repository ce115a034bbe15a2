"""What every selector, filter and view costs per sampled item and per inserted step, in tables of different sizes.

``python costs.py --steps 1000000 100000000`` prints the table of docs/SAMPLING.md. One table is filled; the others are forks of it
under another selector, which share its files. Times are CPU time of the calling thread, batch 256, with the table's pages in memory:
for samples the median call, for inserts the best of three rounds, less that of a table with `Uniform`. 10^8 steps take about 10 GB
of disk and some minutes.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import replaystore as rs

BATCH = 256
STREAMS = 64
EPISODE = 200
COLUMNS = {"observation": rs.Column((4,), "float32"), "action": rs.Column((), "int8"), "goal": rs.Column((2,), "float32")}
SELECTORS: dict[str, rs.Selector] = {
    "Uniform()": rs.Uniform(),
    "Prioritized()": rs.Prioritized(),
    "RankPrioritized()": rs.RankPrioritized(),
    "Fifo()": rs.Fifo(),
    "Lifo()": rs.Lifo(),
    "MinHeap()": rs.MinHeap(),
    "MaxHeap()": rs.MaxHeap(),
    "Recency(100_000)": rs.Recency(100_000),
    "Recency(None, newest=1)": rs.Recency(None, newest=1),
    "WithoutReplacement()": rs.WithoutReplacement(),
}


def fill(store: rs.Store, name: str, steps: int, actor: int = 0) -> float:
    """Appends `steps` from 64 environments; seconds per step."""
    observation = np.random.default_rng(0).standard_normal((STREAMS, 4), dtype=np.float32)
    action, reward = np.zeros(STREAMS, np.int8), np.ones(STREAMS, np.float32)
    goal = np.zeros((STREAMS, 2), np.float32)
    no = np.zeros(STREAMS, bool)
    started = time.thread_time()
    with store.writer(name, streams=STREAMS, actor=actor) as writer:
        for t in range(max(1, steps // STREAMS)):
            if t % EPISODE == 0:
                for stream in range(STREAMS):
                    writer.reset(observation[stream], stream=stream)
            writer.append_batch(action, reward, no, np.full(STREAMS, t % EPISODE == EPISODE - 1), observation, goal=goal)
    return (time.thread_time() - started) / max(STREAMS, steps // STREAMS * STREAMS)


def touch(store: rs.Store, name: str) -> None:
    """Reads a byte of every page of a table, so that what is measured is not the disk."""
    files = store.table(name)._files
    for column in files.steps.columns.values():
        rows = column.array[store.stats(name).first_step - files.steps.origin : files.next_step - files.steps.origin]
        rows.reshape(-1).view(np.uint8)[::4096].max()


def per_item(call: Callable[[], object], items: int = BATCH, seconds: float = 1.0) -> float:
    """Median seconds per item of repeated calls, after a warm-up."""
    times: list[float] = []
    call()
    call()
    until = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < until:
        started = time.thread_time()
        call()
        times.append(time.thread_time() - started)
    return statistics.median(times) / items


def measure(folder: Path, steps: int) -> dict[str, tuple[float, float | None, str]]:
    """Name: seconds per item sampled, seconds per step inserted beyond `Uniform`'s, index bytes per step."""
    found: dict[str, tuple[float, float | None, str]] = {}
    more = min(steps, 400_000)
    with rs.open(folder) as store:
        store.create_table("base", rs.TableConfig(COLUMNS))
        fill(store, "base", steps // 2, actor=0)
        fill(store, "base", steps - steps // 2, actor=1)
        store.table("base").publish()
        insert: dict[str, float] = {}
        for name, selector in SELECTORS.items():
            store.fork("base", "fork", selector=selector)
            stats = store.stats("fork")
            if name in ("Prioritized()", "RankPrioritized()", "MinHeap()", "MaxHeap()"):
                ids = np.random.default_rng(1).integers(stats.first_step, stats.next_step, 100_000)
                store.update_priorities("fork", ids, np.random.default_rng(2).exponential(size=len(ids)))
            touch(store, "fork")
            sampled = per_item(lambda: store.sample("fork", BATCH))
            insert[name] = min(fill(store, "fork", more) for _ in range(3))
            found[name] = sampled, insert[name] - insert["Uniform()"], f"{stats.index_bytes / stats.steps:.2f}"
            store.drop_table("fork")
        half = rs.Filter(max_age_steps=steps // 2)
        mask = rs.Filter(actors=(1,))
        store.fork("base", "prioritized", selector=rs.Prioritized())
        touch(store, "base")
        touch(store, "prioritized")
        for name, table, where in (
            ("Uniform(), half by age", "base", half),
            ("Uniform(), half by actor", "base", mask),
            ("Prioritized(), half by age", "prioritized", half),
            ("Prioritized(), half by actor", "prioritized", mask),
        ):
            found[name] = per_item(lambda t=table, w=where: store.sample(t, BATCH, where=w)), None, ""  # type: ignore[misc]
        views: dict[str, rs.View] = {
            "Transition()": rs.Transition(),
            "Transition(n_step=5)": rs.Transition(n_step=5),
            "Transition(n_step=(1, 5))": rs.Transition(n_step=(1, 5)),
            "Transition(frame_stack=4)": rs.Transition(frame_stack=4),
            "Sequence(80)": rs.Sequence(80),
            "Sequence(40, burn_in=40, period=40)": rs.Sequence(40, burn_in=40, period=40),
            "Episode(), 200 steps": rs.Episode(),
            "Episode(packed=True), 200 steps": rs.Episode(packed=True),
            "Hindsight(), future": rs.Hindsight(rs.Transition(), achieved="goal", desired="goal"),
        }
        for name, view in views.items():
            found[name] = per_item(lambda v=view: store.sample("base", BATCH, view=v)), None, ""  # type: ignore[misc]
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[1_000_000])
    sizes = parser.parse_args().steps
    results = []
    for steps in sizes:
        folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
        try:
            results.append(measure(folder, steps))
        finally:
            shutil.rmtree(folder)
    print("| | " + " | ".join(f"sample at {n:,}, µs/item | insert, ns/step | index, bytes/step" for n in sizes) + " |")
    print("|---" * (1 + 3 * len(sizes)) + "|")
    for name in results[0]:
        cells = []
        for result in results:
            sampled, insert, index = result[name]
            cells += [f"{sampled * 1e6:.2f}", "" if insert is None else f"{max(insert, 0.0) * 1e9:.0f}", index]
        print(f"| `{name}` | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
