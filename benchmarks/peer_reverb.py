"""Reverb on W1, W2 and W3, over gRPC on loopback with the server in a process of its own: one actor, trajectory writer, trajectory dataset.

Of W1 it gets at most the first 200,000 steps, since it takes minutes to write more. W2's items are trajectories of five
single frames (the stack and its successor), W3's of 80 steps.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import reverb
import tensorflow as tf

from workload import (
    BATCH,
    LATENCY,
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
    milliseconds,
    rate,
    report,
    rows,
    vectors,
)

WAY = "gRPC, dataset"
MOST_STEPS = 200_000
LENGTH = {"W1": 2, "W2": STACK + 1, "W3": SEQUENCE}
SHAPES = {"W1": ((17,), np.float32), "W2": ((84, 84), np.uint8), "W3": ((64,), np.float32)}


def serve() -> None:
    """The server's process: prints its port, lives until its input ends."""

    def table(name: str, selector: Any, times: int = 0, size: int = 10_000_000) -> Any:
        return reverb.Table(name, selector, reverb.selectors.Fifo(), size, reverb.rate_limiters.MinSize(1), max_times_sampled=times)

    tables = [
        table(f"{w} {kind}", make()) for w in LENGTH for kind, make in (("uniform", reverb.selectors.Uniform), ("priority", _priority))
    ]
    server = reverb.Server([*tables, table("insert", reverb.selectors.Uniform()), table(LATENCY, reverb.selectors.Fifo(), times=1)])
    print(server.port, flush=True)
    sys.stdin.read()
    server.stop()


def _priority() -> Any:
    return reverb.selectors.Prioritized(0.6)


def steps(client: Any, tables: tuple[str, ...], workload: str, data: dict[str, Any]) -> Iterator[None]:
    """Inserts one step each time it is asked, and an item as soon as there are steps for one."""
    length = LENGTH[workload]
    names = ("observation",) if workload == "W3" else ("observation", "action")
    with client.trajectory_writer(num_keep_alive_refs=length) as writer:
        since = 0
        for t in range(len(data["reward"])):
            writer.append({name: data[name][t] for name in (*names, "reward")})
            since += 1
            if since >= length and (workload != "W3" or since % length == 0):
                history = {name: writer.history[name][-length:] for name in (*names, "reward")}
                for table in tables:
                    writer.create_item(table, 1.0, history)
            writer.flush(block_until_num_items=200)
            if data["done"][t]:
                writer.end_episode(clear_buffers=True)
                since = 0
            yield
        writer.flush()


def dataset(address: str, workload: str, kind: str) -> Any:
    length, (shape, dtype) = LENGTH[workload], SHAPES[workload]
    action = {"W1": ((6,), np.float32), "W2": ((), np.int32)}
    columns = {"observation": (shape, dtype), "reward": ((), np.float32)} | ({"action": action[workload]} if workload in action else {})
    found = reverb.TrajectoryDataset(
        server_address=address,
        table=f"{workload} {kind}",
        dtypes={name: dtype for name, (_, dtype) in columns.items()},
        shapes={name: tf.TensorShape((length, *shape)) for name, (shape, _) in columns.items()},
        max_in_flight_samples_per_worker=2 * BATCH,
        num_workers_per_iterator=2,
    )
    return iter(found.batch(BATCH, drop_remainder=True).prefetch(2))


def waited_for(client: Any, address: str, count: int) -> float:
    """Median milliseconds from an actor's append to the item in the hands of a client that waits for it; the actor is another process."""
    actor = subprocess.Popen([sys.executable, __file__, "--actor", address, str(count + 20)])
    times = []
    try:
        for number, sample in enumerate(client.sample(LATENCY, num_samples=count + 20, emit_timesteps=False)):
            if number >= 20:
                times.append(time.monotonic() - float(np.asarray(sample.data[0]).ravel()[0]))
    finally:
        actor.terminate()
        actor.wait()
    return milliseconds(times)


def act(address: str, count: int) -> None:
    client = reverb.Client(address)
    observation = np.zeros(17, np.float32)
    with client.trajectory_writer(num_keep_alive_refs=1) as writer:
        for _ in range(count):
            time.sleep(0.003)
            writer.append({"sent": np.float64(time.monotonic()), "observation": observation})
            writer.create_item(LATENCY, 1.0, {"sent": writer.history["sent"][-1:]})
            writer.flush()


def main() -> None:
    args = arguments()
    found: Figures = []
    made = errors()
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = f"localhost:{int(server.stdout.readline())}"
        client = reverb.Client(address)
        workloads = {"W1": rows(min(args.steps, MOST_STEPS)), "W2": frames(args.frames), "W3": vectors(args.sequence_steps)}
        for workload, data in reversed(workloads.items()):  # before the large tables, and W1's many small items last
            found.append((WAY, workload, ONE, insert_rate(steps(client, ("insert",), workload, data), args.seconds)))
        for workload, data in workloads.items():
            for _ in steps(client, (f"{workload} uniform", f"{workload} priority"), workload, data):
                pass
            for figure, kind in ((UNIFORM, "uniform"), (PRIORITIZED, "priority"), (LEARNER, "priority")):
                batches = dataset(address, workload, kind)

                def step(batches: Any = batches, table: str = f"{workload} {kind}", updating: bool = figure == LEARNER) -> None:
                    sample = next(batches)
                    if updating:
                        client.mutate_priorities(table, dict(zip(sample.info.key.numpy().tolist(), made.tolist(), strict=True)))

                found.append((WAY, workload, figure, rate(step, args.seconds)))
                del batches
        found.append(("gRPC", "W1", LATENCY, waited_for(client, address, max(20, int(100 * args.seconds)))))
    finally:
        assert server.stdin is not None
        server.stdin.close()
        server.terminate()
        server.wait()
    report("reverb", version("dm-reverb"), found)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve()
    elif "--actor" in sys.argv:
        act(sys.argv[2], int(sys.argv[3]))
    else:
        main()
