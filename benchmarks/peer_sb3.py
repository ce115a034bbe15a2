"""Stable-Baselines3 on W1 and W2, in process, in RAM, frames stored once per step as a stack (``optimize_memory_usage``)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from workload import (
    BATCH,
    EPISODE,
    LEARNER,
    ONE,
    PRIORITIZED,
    STACK,
    UNIFORM,
    Figures,
    arguments,
    frames,
    insert_rate,
    rate,
    report,
    rows,
    stacks,
)

WAY = "in process, RAM"
MISSING = "it has no such buffer"


def one_at_a_time(buffer: Any, given: tuple[Any, ...]) -> Iterator[None]:
    observation, following, action, reward, done = given
    for t in range(len(reward)):
        buffer.add(observation[t], following[t], action[t], reward[t], done[t : t + 1], [{}])
        yield


def main() -> None:
    args = arguments()
    found: Figures = []
    data = rows(args.steps)
    vector = spaces.Box(-np.inf, np.inf, (17,), np.float32)
    buffer = ReplayBuffer(args.steps, vector, spaces.Box(-1, 1, (6,), np.float32), device="cpu", handle_timeout_termination=False)
    given = tuple(data[name] for name in ("observation", "next_observation", "action", "reward", "done"))
    found.append((WAY, "W1", ONE, insert_rate(one_at_a_time(buffer, given), args.seconds)))
    buffer.reset()
    for _ in one_at_a_time(buffer, given):
        pass
    found.append((WAY, "W1", UNIFORM, rate(lambda: buffer.sample(BATCH), args.seconds)))

    data = frames(args.frames)
    pictures = ReplayBuffer(
        args.frames,
        spaces.Box(0, 255, (STACK, 84, 84), np.uint8),
        spaces.Discrete(18),
        device="cpu",
        optimize_memory_usage=True,
        handle_timeout_termination=False,
    )

    def block(start: int) -> tuple[Any, ...]:
        stop = min(start + EPISODE, args.frames)
        return *stacks(data, start, stop), *(data[name][start:stop] for name in ("action", "reward", "done"))

    found.append((WAY, "W2", ONE, insert_rate(one_at_a_time(pictures, block(0)), args.seconds)))
    pictures.reset()
    for start in range(0, args.frames, EPISODE):
        for _ in one_at_a_time(pictures, block(start)):
            pass
    found.append((WAY, "W2", UNIFORM, rate(lambda: pictures.sample(BATCH), args.seconds)))
    missing = {f"{workload} {figure}": MISSING for workload in ("W1", "W2") for figure in (PRIORITIZED, LEARNER)} | {"W3": MISSING}
    report("sb3", version("stable-baselines3"), found, missing)


if __name__ == "__main__":
    main()
