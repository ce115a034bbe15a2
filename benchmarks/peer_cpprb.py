"""cpprb on W1, W2 and W3, in process, in RAM. W3's items are rows of 80 steps, since it has no sequences of its own."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import cpprb
import numpy as np

from workload import (
    BATCH,
    BULK,
    EPISODE,
    LEARNER,
    ONE,
    PRIORITIZED,
    SEQUENCE,
    STACK,
    UNIFORM,
    Figures,
    arguments,
    errors,
    frames,
    insert_rate,
    rate,
    report,
    rows,
    sequences,
    stacks,
    vectors,
)

WAY = "in process, RAM"
W1 = {"obs": {"shape": 17}, "act": {"shape": 6}, "rew": {}, "next_obs": {"shape": 17}, "done": {"dtype": np.bool_}}
W2 = {"obs": {"shape": (84, 84, STACK), "dtype": np.uint8}, "act": {"dtype": np.int32}, "rew": {}, "done": {"dtype": np.bool_}}
W3 = {"obs": {"shape": (SEQUENCE, 64)}, "rew": {"shape": SEQUENCE}}
FRAMES = {"next_of": "obs", "stack_compress": "obs"}  # each frame once
NAMES = {"obs": "observation", "act": "action", "rew": "reward", "next_obs": "next_observation", "done": "done"}


def one_at_a_time(buffer: Any, given: dict[str, Any]) -> Iterator[None]:
    for t in range(len(given["rew"])):
        buffer.add(**{name: values[t] for name, values in given.items()})
        if given["done"][t]:
            buffer.on_episode_end()
        yield


def fill(buffer: Any, given: dict[str, Any], block: int = 1000) -> None:
    for start in range(0, len(given["rew"]), block):
        buffer.add(**{name: values[start : start + block] for name, values in given.items()})


def stacked(data: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    now, following = (np.moveaxis(values, 1, -1) for values in stacks(data, start, stop))
    return {
        "obs": now,
        "next_obs": following,
        "act": data["action"][start:stop],
        "rew": data["reward"][start:stop],
        "done": data["done"][start:stop],
    }


def sampling(workload: str, uniform: Any, prioritized: Any, seconds: float) -> Figures:
    made = errors()

    def learner_step() -> None:
        batch = prioritized.sample(BATCH, beta=0.4)
        prioritized.update_priorities(batch["indexes"], made)

    return [
        (WAY, workload, UNIFORM, rate(lambda: uniform.sample(BATCH), seconds)),
        (WAY, workload, PRIORITIZED, rate(lambda: prioritized.sample(BATCH, beta=0.4), seconds)),
        (WAY, workload, LEARNER, rate(learner_step, seconds)),
    ]


def main() -> None:
    args = arguments()
    seconds = args.seconds
    found: Figures = []
    data = rows(args.steps)
    given = {name: data[path] for name, path in NAMES.items()}
    buffers = cpprb.ReplayBuffer(args.steps, W1), cpprb.PrioritizedReplayBuffer(args.steps, W1, alpha=0.6)
    found.append((WAY, "W1", ONE, insert_rate(one_at_a_time(buffers[0], given), seconds)))
    blocks = (buffers[0].add(**{n: v[t % args.steps : t % args.steps + 1000] for n, v in given.items()}) for t in range(0, 1 << 40, 1000))
    found.append((WAY, "W1", BULK, insert_rate(blocks, seconds) * min(1000, args.steps)))
    for buffer in buffers:
        fill(buffer, given)
    found += sampling("W1", *buffers, seconds)
    del buffers, given, data

    data = frames(args.frames)
    buffers = cpprb.ReplayBuffer(args.frames, W2, **FRAMES), cpprb.PrioritizedReplayBuffer(args.frames, W2, alpha=0.6, **FRAMES)
    some = stacked(data, 0, min(args.frames, 2 * EPISODE))
    found.append((WAY, "W2", ONE, insert_rate(one_at_a_time(buffers[0], some), seconds)))
    for buffer in buffers:
        buffer.clear()
        for start in range(0, args.frames, EPISODE):
            buffer.add(**stacked(data, start, min(start + EPISODE, args.frames)))
            buffer.on_episode_end()
    found += sampling("W2", *buffers, seconds)
    del buffers, some, data

    observation, reward = sequences(vectors(args.sequence_steps))
    buffers = cpprb.ReplayBuffer(len(reward), W3), cpprb.PrioritizedReplayBuffer(len(reward), W3, alpha=0.6)
    for buffer in buffers:
        fill(buffer, {"obs": observation, "rew": reward}, 100)
    found += sampling("W3", *buffers, seconds)
    report("cpprb", version("cpprb"), found)


if __name__ == "__main__":
    main()
