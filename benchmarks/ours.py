"""replaystore on W1, W2 and W3: ``--part embedded`` in this process, ``--part served`` over gRPC, the server in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import replaystore as rs
from latency import waiting_learner
from replaystore_client import Client
from workload import (
    BATCH,
    ENVIRONMENTS,
    ENVS,
    LATENCY,
    LEARNER,
    ONE,
    ONE_OF_MANY,
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
    vectors,
)

SELECTORS = {"uniform": rs.Uniform(), "priority": rs.Prioritized(alpha=0.6)}
CONFIG = rs.TableConfig(
    {"observation": rs.Column((17,), "float32"), "action": rs.Column((6,), "float32")},
    selector=SELECTORS,
    seed=0,
)
TABLES = {
    "W1": CONFIG,
    "W2": rs.TableConfig({"observation": rs.Column((84, 84), "uint8"), "action": rs.Column((), "int32")}, selector=SELECTORS, seed=0),
    "W3": rs.TableConfig({"observation": rs.Column((64,), "float32"), "action": rs.Column((), "int8")}, selector=SELECTORS, seed=0),
}
READ: dict[str, dict[str, Any]] = {
    "W1": {},
    "W2": {"view": rs.Transition(frame_stack=STACK)},
    "W3": {"view": rs.Sequence(SEQUENCE, period=SEQUENCE), "columns": ("observation", "reward")},
}

PREFETCH = {
    "gRPC": {"W1": (4, 32), "W2": (4,), "W3": (4,)},
    "local path": {"W1": (4, 32), "W2": (4, 16), "W3": (4, 16)},
    "embedded": {"W1": (4,), "W2": (4,), "W3": (4,)},
}
"""Batches that a client's sampler has under way. They travel several to a message; priorities are as late."""


def one_at_a_time(writer: Any, data: dict[str, Any], streams: int = 1) -> Iterator[None]:
    """Inserts a step of the next stream each time it is asked."""
    observation, following, action, reward = (data[name] for name in ("observation", "next_observation", "action", "reward"))
    done = data["done"].tolist()
    for stream in range(streams):
        writer.reset(observation[0], stream=stream)
    for t in range(len(reward)):
        for stream in range(streams):
            writer.append(action[t], reward[t], False, done[t], following[t], stream=stream)
            if done[t]:
                writer.reset(following[t], stream=stream)
            yield


def at_once(writer: Any, data: dict[str, Any]) -> Iterator[None]:
    """Inserts a step of every stream each time it is asked."""
    batches = {name: np.ascontiguousarray(np.broadcast_to(v[:, None], (len(v), ENVIRONMENTS, *v.shape[1:]))) for name, v in data.items()}
    nothing, everything = np.zeros(ENVIRONMENTS, bool), np.ones(ENVIRONMENTS, bool)
    for stream in range(ENVIRONMENTS):
        writer.reset(data["observation"][0], stream=stream)
    for t, last in enumerate(data["done"].tolist()):
        following = batches["next_observation"][t]
        writer.append_batch(batches["action"][t], batches["reward"][t], nothing, batches["done"][t], following)
        if last:
            writer.append_batch(batches["action"][t], batches["reward"][t], nothing, nothing, following, reset_mask=everything)
        yield


def inserting(api: Any, workload: str, data: dict[str, Any], seconds: float, way: str) -> Figures:
    """Insert rates, each into a table of its own."""

    def timed(figure: str, streams: int, steps: Callable[[Any], Iterator[None]], each: int = 1) -> tuple[str, str, str, float]:
        api.create_table("insert", TABLES[workload])
        with api.writer("insert", streams=streams) as writer:
            made = steps(writer)
            next(made)
            value = insert_rate(made, seconds, writer.flush) * each
        api.drop_table("insert")
        return way, workload, figure, value

    some = {name: values[:5_000] for name, values in data.items()}  # of each of many streams
    found = [timed(ONE, 1, lambda writer: one_at_a_time(writer, data))]
    if workload == "W1":
        found.append(timed(ONE_OF_MANY, ENVIRONMENTS, lambda writer: one_at_a_time(writer, some, ENVIRONMENTS)))
        found.append(timed(ENVS, ENVIRONMENTS, lambda writer: at_once(writer, some), ENVIRONMENTS))
    return found


def fill(api: Any, workload: str, data: dict[str, Any]) -> None:
    """All steps, as one stream, into the table that is sampled."""
    api.create_table(workload, TABLES[workload])
    with api.writer(workload) as writer:
        for _ in one_at_a_time(writer, data):
            pass


def sampling(api: Any, workload: str, seconds: float, way: str) -> Figures:
    """Sampling and learner steps by single calls, then by the streaming sampler."""
    made = errors()
    read = READ[workload]

    def learner_step() -> None:
        batch = api.sample(workload, BATCH, selector="priority", beta=0.4, **read)
        api.update_priorities(workload, batch.step_ids, made, selector="priority")

    call = f"{way}, calls"
    found: Figures = [
        (call, workload, UNIFORM, rate(lambda: api.sample(workload, BATCH, selector="uniform", **read), seconds)),
        (call, workload, PRIORITIZED, rate(lambda: api.sample(workload, BATCH, selector="priority", beta=0.4, **read), seconds)),
        (call, workload, LEARNER, rate(learner_step, seconds)),
    ]
    for ahead in PREFETCH[way][workload]:
        for figure, selector in ((UNIFORM, "uniform"), (PRIORITIZED, "priority"), (LEARNER, "priority")):
            with api.sampler(workload, BATCH, selector=selector, beta=0.4, prefetch=ahead, **read) as sampler:

                def step(sampler: Any = sampler, updating: bool = figure == LEARNER) -> None:
                    batch = next(sampler)
                    if updating:
                        sampler.update_priorities(batch.step_ids, made)

                found.append((f"{way}, sampler" if ahead == 4 else f"{way}, {ahead} ahead", workload, figure, rate(step, seconds)))
    return found


@contextmanager
def serving(path: str) -> Iterator[tuple[str, int]]:
    """A server in a process of its own; its address and its process id."""
    command = [sys.executable, "-m", "replaystore.cli.main", "serve", "--path", path, "--listen", "127.0.0.1:0", "--json-ready"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            raise RuntimeError(f"the server ended with {server.wait()} before it was ready")
        yield json.loads(line)["listen"], server.pid
    finally:
        server.terminate()
        server.wait()
        assert server.stdout is not None
        server.stdout.close()


def clients(address: str) -> dict[str, Client]:
    """By gRPC, and by the local path where that is taken."""
    return {"gRPC": Client(address, local=False), "local path": Client(address, local=True)}


def main() -> None:
    args = arguments(("--part", {"choices": ("embedded", "served"), "required": True}))
    workloads = {"W1": rows(args.steps), "W2": frames(args.frames), "W3": vectors(args.sequence_steps)}
    found: Figures = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        if args.part == "embedded":
            with rs.open(f"{folder}/embedded") as store:
                for workload, data in workloads.items():
                    found += inserting(store, workload, data, args.seconds, "embedded")
                    fill(store, workload, data)
                    found += sampling(store, workload, args.seconds, "embedded")
        else:
            with serving(f"{folder}/served") as (address, _):
                ways = clients(address)
                for workload, data in workloads.items():
                    found += inserting(ways["gRPC"], workload, data, args.seconds, "gRPC")
                    fill(ways["gRPC"], workload, data)
                    for way, client in ways.items():
                        found += sampling(client, workload, args.seconds, way)
                for way, client in ways.items():
                    found.append((way, "W1", LATENCY, waiting_learner(client, address, max(20, int(100 * args.seconds)))))
                for client in ways.values():
                    client.close()
    report("replaystore", rs.__version__, found)


if __name__ == "__main__":
    main()
