"""The W1 workload and the clock, shared by every contestant. NumPy only: it runs in the peers' environment too."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

BATCH = 256
EPISODE = 1000


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=3.0)
    return parser.parse_args()


def rows(steps: int, seed: int = 0) -> dict[str, np.ndarray]:
    """`steps` steps of W1 with their next observations."""
    rng = np.random.default_rng(seed)
    observation = rng.standard_normal((steps + 1, 17), dtype=np.float32)
    done = (np.arange(1, steps + 1) % EPISODE) == 0
    return {
        "observation": observation[:-1],
        "next_observation": observation[1:],
        "action": rng.standard_normal((steps, 6), dtype=np.float32),
        "reward": rng.standard_normal(steps, dtype=np.float32),
        "done": done,
    }


def rate(call: Callable[[], object], seconds: float, items: int = BATCH) -> float:
    """Items per second of calls of `items` each, after a warm-up."""
    for _ in range(20):
        call()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(10):
            call()
        count += 10
    return count * items / (time.perf_counter() - started)


def report(name: str, version: str, figures: dict[str, float]) -> None:
    print(json.dumps({"name": name, "version": version, **figures}))
