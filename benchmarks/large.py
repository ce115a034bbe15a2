"""Ten million W1 steps: filled, sampled, reopened; how long each takes and how much memory of its own the process needs."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

import replaystore as rs
from ours import CONFIG
from workload import BATCH, rate


def own_bytes() -> int:
    """Memory that is neither file cache nor shared (RssAnon)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon here: this benchmark needs Linux")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000_000)
    steps = parser.parse_args().steps
    streams, per_call = 64, 64
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((per_call, streams, 17), dtype=np.float32)
    actions = rng.standard_normal((per_call, streams, 6), dtype=np.float32)
    no, rewards = np.zeros(streams, bool), np.ones(streams, np.float32)
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    try:
        store = rs.open(folder)
        store.create_table("w1", CONFIG)
        store.table("w1").stats()
        before = own_bytes()
        started = time.perf_counter()
        with store.writer("w1", streams=streams) as writer:
            for t in range(steps // streams):
                if t % 1000 == 0:
                    for stream in range(streams):
                        writer.reset(observations[0, stream], stream=stream)
                writer.append_batch(actions[t % per_call], rewards, no, no, observations[(t + 1) % per_call])
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
        started = time.perf_counter()
        store.close()
        print(f"closed    in {time.perf_counter() - started:.2f} s")
        started = time.perf_counter()
        store = rs.open(folder)
        print(f"reopened  in {time.perf_counter() - started:.3f} s")
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
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
