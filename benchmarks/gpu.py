"""How busy the store keeps a learner's device: Double DQN with the network of Mnih et al. (2015) on W2, from a saved table.

``python benchmarks/gpu.py --device cuda`` prints the updates per second on batches that lie in the device's memory already, on a preloaded
table, and on batches from the store, one ahead, in alternating rounds; the last two also as a share of the first. Goal: at least 95 %.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

import replaystore as rs
from replaystore_agents.algorithms.base import spaces_of
from replaystore_agents.algorithms.dqn import DQN, DQNConfig
from replaystore_agents.trunk.devices import pick_device
from replaystore_agents.trunk.feeding import ahead
from replaystore_agents.trunk.preloaded import Preloaded
from workload import BATCH, STACK, arguments, frames

COLUMNS = ("observation", "action", "reward", "terminated")
VIEW = rs.Transition(frame_stack=STACK)
FOR_EVER = 1 << 40


def fill(store: Any, steps: int) -> None:
    columns = {"observation": rs.Column((84, 84), "uint8"), "action": rs.Column((), "int32", space={"kind": "Discrete", "n": 18})}
    store.create_table("frames", rs.TableConfig(columns))
    data = frames(steps)
    with store.writer("frames") as writer:
        writer.reset(data["observation"][0])
        for t in range(steps):
            writer.append(data["action"][t], data["reward"][t], bool(data["done"][t]), False, data["next_observation"][t])
            if data["done"][t] and t + 1 < steps:
                writer.reset(data["observation"][t + 1])


def rate(agent: DQN, batches: Iterator[Any], seconds: float) -> float:
    """Updates per second, by the device's end."""
    wait: Callable[[], object] = torch.cuda.synchronize if agent.device.type == "cuda" else lambda: None
    for _ in range(3):
        agent.learn(next(batches), weighted=False)
    wait()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        agent.learn(next(batches), weighted=False)
        count += 1
        if count % 50 == 0:
            wait()
    wait()
    return count / (time.perf_counter() - started)


def main() -> None:
    options = arguments(("--device", {"default": "auto"}), ("--rounds", {"type": int, "default": 3}))
    device = pick_device(options.device)
    with tempfile.TemporaryDirectory(dir=".") as folder, ExitStack() as stack:
        with rs.open(Path(folder) / "data") as store:
            fill(store, options.frames)
        api = stack.enter_context(rs.open(Path(folder) / "data", mode="r"))
        agent = DQN(spaces_of(api.describe("frames").config, STACK), DQNConfig(device=str(device), n_step=1))

        def sample(index: int) -> rs.Batch:
            batch: rs.Batch = api.sample("frames", BATCH, view=VIEW, seed=index, selector=rs.Uniform(), columns=COLUMNS)
            return batch

        there = Preloaded(api, "frames", VIEW, device, COLUMNS)
        fixed = [sample(index).to_torch(device) for index in range(8)]
        ways: dict[str, Callable[[], Any]] = {
            "in memory": lambda: (fixed[i % len(fixed)] for i in range(FOR_EVER)),
            "preloaded": lambda: (there.sample(BATCH, i) for i in range(FOR_EVER)),
            "from the store, one ahead": lambda: ahead(sample, 0, FOR_EVER, device),
        }
        found: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, batches in ways.items():
                with closing(batches()) as running:
                    found[way].append(rate(agent, running, options.seconds))
        median = {way: statistics.median(rates) for way, rates in found.items()}
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        print(json.dumps({"device": name, "torch": torch.__version__, "batch": BATCH, "updates_per_s": found}))
        for way, updates in median.items():
            print(f"{way:28} {updates:10.1f} updates/s {100 * updates / median['in memory']:6.1f} %   spread {np.ptp(found[way]):.1f}")


if __name__ == "__main__":
    main()
