"""replaystore on W1: embedded, and over gRPC on loopback with the server in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import replaystore as rs
from replaystore_client import Client
from workload import BATCH, arguments, rate, report, rows

CONFIG = rs.TableConfig(
    {"observation": rs.Column((17,), "float32"), "action": rs.Column((6,), "float32")},
    selector={"uniform": rs.Uniform(), "priority": rs.Prioritized(alpha=0.6)},
    seed=0,
)


def fill(api: Any, steps: int) -> float:
    """Writes all steps with one writer of 64 streams; steps per second."""
    streams = 64
    data = rows(steps // streams)
    batches = {name: np.ascontiguousarray(np.broadcast_to(v[:, None], (len(v), streams, *v.shape[1:]))) for name, v in data.items()}
    nothing = np.zeros(streams, bool)
    started = time.perf_counter()
    with api.writer("w1", streams=streams) as writer:
        for stream in range(streams):
            writer.reset(data["observation"][0], stream=stream)
        for t in range(steps // streams):
            done = batches["done"][t]
            writer.append_batch(batches["action"][t], batches["reward"][t], nothing, done, batches["next_observation"][t])
            if done[0]:
                for stream in range(streams):
                    writer.reset(batches["next_observation"][t, stream], stream=stream)
    return steps / (time.perf_counter() - started)


def measure(api: Any, seconds: float, prefix: str) -> dict[str, float]:
    """The three figures by single calls, then by the streaming sampler."""

    def learner_step() -> None:
        batch = api.sample("w1", BATCH, selector="priority", beta=0.4)
        api.update_priorities("w1", batch.step_ids, errors, selector="priority")

    errors = np.abs(np.random.default_rng(1).standard_normal(BATCH))
    figures = {
        f"{prefix} uniform, call": rate(lambda: api.sample("w1", BATCH, selector="uniform"), seconds),
        f"{prefix} prioritized, call": rate(lambda: api.sample("w1", BATCH, selector="priority", beta=0.4), seconds),
        f"{prefix} learner step, call": rate(learner_step, seconds),
    }
    for name, selector, updating in (("uniform", "uniform", False), ("prioritized", "priority", False), ("learner step", "priority", True)):
        with api.sampler("w1", BATCH, selector=selector, beta=0.4, prefetch=4) as sampler:

            def step(sampler: Any = sampler, updating: bool = updating) -> None:
                batch = next(sampler)
                if updating:
                    sampler.update_priorities(batch.step_ids, errors)

            figures[f"{prefix} {name}, sampler"] = rate(step, seconds)
    return figures


def main() -> None:
    args = arguments()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        with rs.open(f"{folder}/embedded") as store:
            store.create_table("w1", CONFIG)
            figures["embedded insert, 64 streams"] = fill(store, args.steps)
            figures |= measure(store, args.seconds, "embedded")
        command = [
            sys.executable,
            "-m",
            "replaystore.cli.main",
            "serve",
            "--path",
            f"{folder}/served",
            "--listen",
            "127.0.0.1:0",
            "--json-ready",
        ]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            ready = json.loads(server.stdout.readline())
            with Client(ready["listen"]) as client:
                client.create_table("w1", CONFIG)
                figures["gRPC insert, 64 streams"] = fill(client, args.steps)
                figures |= measure(client, args.seconds, "gRPC")
        finally:
            server.terminate()
            server.wait()
    report("replaystore", rs.__version__, figures)


if __name__ == "__main__":
    main()
