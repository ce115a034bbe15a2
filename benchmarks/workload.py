"""The workloads, the clock and the words every contestant reports in. NumPy only: it runs in the peers' environments too."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

BATCH = 256
EPISODE = 1000
ENVIRONMENTS = 64
STACK = 4
SEQUENCE = 80
W3_EPISODE = 800

UNIFORM = "sample, uniform"
PRIORITIZED = "sample, prioritized"
LEARNER = "learner step"
ONE = "insert, one step at a time"
ONE_OF_MANY = "insert, one step at a time, 64 streams"
ENVS = "insert, 64 environments at once"
BULK = "insert, blocks of 1000"
LATENCY = "insert to sampled, p50"
RELAYED = "gRPC alone, sent to received, p50"

CROWD_ONE = "1 actor and 1 learner, steps + items"
CROWD = "200 actors and 4 learners, steps + items"
CROWD_SHARE = "crowd, total by that of one of each"
CROWD_APPEND = "crowd, worst append"
CROWD_SHARE_ACTORS = "crowd, least served actor by most served"
CROWD_SHARE_LEARNERS = "crowd, least served learner by most served"
CROWD_THREADS = "crowd, threads of the server"
CROWD_MEMORY = "crowd, memory of the server"

UNITS = {
    LATENCY: "ms",
    RELAYED: "ms",
    CROWD_ONE: "/s",
    CROWD: "/s",
    CROWD_SHARE: "%",
    CROWD_APPEND: "ms",
    CROWD_SHARE_ACTORS: "%",
    CROWD_SHARE_LEARNERS: "%",
    CROWD_THREADS: "threads",
    CROWD_MEMORY: "MB",
}
"""Of figures that are not so many items or steps per second."""

SAMPLED_BYTES = {"W1": 4 * (17 + 6 + 1 + 17) + 1, "W2": 2 * STACK * 7056 + 9, "W3": 4 * SEQUENCE * (64 + 1)}
"""What one sampled item is at the least."""

INSERTED_BYTES = {"W1": 4 * (17 + 6 + 1) + 1, "W2": 7056 + 9, "W3": 4 * (64 + 1)}
"""What one inserted step is at the least."""

Array = np.ndarray[Any, np.dtype[Any]]
Figures = list[tuple[str, str, str, float]]
"""How it was done, workload, figure, value."""


def arguments(*more: tuple[str, dict[str, Any]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=500_000, help="of W1")
    parser.add_argument("--frames", type=int, default=20_000, help="steps of W2")
    parser.add_argument("--sequence-steps", type=int, default=200_000, help="of W3")
    parser.add_argument("--seconds", type=float, default=2.0, help="for every figure")
    for name, options in more:
        parser.add_argument(name, **options)
    return parser.parse_args()


def rows(steps: int, seed: int = 0) -> dict[str, Array]:
    """`steps` steps of W1 with their next observations."""
    rng = np.random.default_rng(seed)
    return _with_next(
        rng.standard_normal((steps + 1, 17), dtype=np.float32), rng.standard_normal((steps, 6), dtype=np.float32), EPISODE, rng
    )


def frames(steps: int, seed: int = 0) -> dict[str, Array]:
    """`steps` steps of W2: single frames of noise."""
    rng = np.random.default_rng(seed)
    return _with_next(rng.integers(0, 256, (steps + 1, 84, 84), np.uint8), rng.integers(0, 18, steps, np.int32), EPISODE, rng)


def vectors(steps: int, seed: int = 0) -> dict[str, Array]:
    """`steps` steps of W3."""
    rng = np.random.default_rng(seed)
    return _with_next(rng.standard_normal((steps + 1, 64), dtype=np.float32), np.zeros(steps, np.int8), W3_EPISODE, rng)


def _with_next(observation: Array, action: Array, episode: int, rng: np.random.Generator) -> dict[str, Array]:
    steps = len(action)
    return {
        "observation": observation[:-1],
        "next_observation": observation[1:],
        "action": action,
        "reward": rng.standard_normal(steps, dtype=np.float32),
        "done": (np.arange(1, steps + 1) % episode) == 0,
    }


def stacks(data: dict[str, Array], start: int, stop: int) -> tuple[Array, Array]:
    """Observations and next observations of W2's steps [start, stop), ``(n, 4, 84, 84)``: as a frame-stacking environment gives them."""
    step = np.arange(start, stop)
    first = step - step % EPISODE
    back = np.arange(STACK - 1, -1, -1)
    now = np.maximum(step[:, None] - back, first[:, None])
    following = np.maximum(step[:, None] + 1 - back, first[:, None])
    every = np.concatenate([data["observation"], data["next_observation"][-1:]])[start - start % EPISODE : stop + 1]
    origin = start - start % EPISODE
    return every[now - origin], every[following - origin]


def sequences(data: dict[str, Array]) -> tuple[Array, Array]:
    """W3's items: observations ``(n, 80, 64)`` and rewards ``(n, 80)``, one after the other."""
    n = len(data["reward"]) // SEQUENCE
    return data["observation"][: n * SEQUENCE].reshape(n, SEQUENCE, 64), data["reward"][: n * SEQUENCE].reshape(n, SEQUENCE)


def errors(n: int = BATCH) -> Array:
    """Made-up errors of a batch."""
    return np.abs(np.random.default_rng(1).standard_normal(n)) + 0.01


def rate(call: Callable[[], object], seconds: float, items: int = BATCH) -> float:
    """Items per second of calls of `items` each, after a warm-up."""
    in_a_row = 10 if seconds >= 0.1 else 2
    for _ in range(2 * in_a_row):
        call()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(in_a_row):
            call()
        count += in_a_row
    return count * items / (time.perf_counter() - started)


def insert_rate(steps: Iterator[object], seconds: float, finish: Callable[[], object] = lambda: None) -> float:
    """Steps per second of an iterator that inserts one step each time it is asked; stops after `seconds`. `finish` is timed too."""
    count, started = 0, time.perf_counter()
    for _ in steps:
        count += 1
        if count % 64 == 0 and time.perf_counter() - started > seconds:
            break
    finish()
    return count / (time.perf_counter() - started)


def milliseconds(times: list[float]) -> float:
    """Median of seconds, in milliseconds."""
    return statistics.median(times) * 1e3


def report(name: str, version: str, figures: Figures, missing: dict[str, str] | None = None) -> None:
    """One line of JSON, the last one printed. `missing`: figures that it does not have, and why."""
    print(json.dumps({"name": name, "version": version, "figures": figures, "missing": missing or {}}))
