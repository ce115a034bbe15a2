"""Two hundred actors and four learners at one server, against one of each. ``python crowd.py --steps 20000 --seconds 5`` prints everything.

Every actor is an Append stream of its own and every learner a Sample stream, all with `WINDOW` messages in flight, as fast as the server
answers. The load comes from two processes, actors in one and learners in the other, and is as cheap as can be: blocks are built
beforehand and only numbered, replies are not decoded. What it costs nevertheless is reported beside the server's own time.

Run as ``crowd.py actors|learners ADDRESS COUNT SECONDS`` this is the load.
"""

from __future__ import annotations

import asyncio
import json
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np

import replaystore as rs
from replaystore.sampling import SampleRequest
from replaystore.steps import RUN_DTYPE, StepBlock
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.blocks import encode_block
from replaystore.wire.framing import prefix
from replaystore.wire.methods import MAX_MESSAGE_BYTES, path_of
from replaystore.wire.samples import encode_query, encode_sample_request
from replaystore_client import Client
from workload import (
    BATCH,
    CROWD,
    CROWD_APPEND,
    CROWD_MEMORY,
    CROWD_ONE,
    CROWD_SHARE,
    CROWD_SHARE_ACTORS,
    CROWD_SHARE_LEARNERS,
    CROWD_THREADS,
    Figures,
    arguments,
    report,
)

TABLE = "crowd"
ACTORS, LEARNERS = 200, 4
ROWS = 64
"""Of a block."""
WINDOW = 2
"""Messages in flight, of every stream: one on its way while the next is made."""
CONFIG = rs.TableConfig({"observation": rs.Column((17,), "float32"), "action": rs.Column((6,), "float32")}, seed=0)


class Blocks:
    """The blocks of one endless episode, as messages: one is encoded, the others differ in their position only."""

    def __init__(self, episode: int) -> None:
        self._episode, self._next = episode, 0
        message, other = self._encoded(0), self._encoded(2**40)
        self._place = next(at for at in range(len(message)) if message[at] != other[at]) - 5  # the sixth byte of eight is the first set
        self._message = bytearray(message)

    def _encoded(self, first: int) -> bytes:
        rng = np.random.default_rng(self._episode)
        columns: dict[str, Any] = {
            "observation": rng.standard_normal((ROWS, 17), dtype=np.float32),
            "action": rng.standard_normal((ROWS, 6), dtype=np.float32),
            "reward": np.ones(ROWS, np.float32),
            "terminated": np.zeros(ROWS, bool),
            "truncated": np.zeros(ROWS, bool),
        }
        return encode_block(StepBlock(columns, np.array([(self._episode, first, ROWS, 0, -1, -1)], RUN_DTYPE)), 1)

    def next(self) -> bytes:
        """The next block."""
        struct.pack_into("<q", self._message, self._place, self._next)
        self._next += ROWS
        return bytes(self._message)


async def exchange(call: Any, message: Callable[[], bytes], answers: Callable[[bytes], bool], seconds: float) -> tuple[int, list[float]]:
    """Keeps WINDOW messages in flight: how many were answered in time, and how long each took, the last ones too."""
    sent: deque[float] = deque()
    took: list[float] = []
    count = 0
    until = time.monotonic() + seconds
    while (now := time.monotonic()) < until or sent:
        if now < until and len(sent) < WINDOW:
            sent.append(now)
            await call.write(message())
        elif answers(await call.read()):
            took.append(time.monotonic() - sent.popleft())
            count += time.monotonic() < until
    await call.done_writing()
    return count, took


async def act(channel: Any, number: int, start: asyncio.Event, seconds: float) -> tuple[int, list[float]]:
    """One actor: how many blocks were acknowledged in time, and how long each took, the last ones too."""
    blocks = Blocks(time.monotonic_ns() % (1 << 40) * 1000 + number + 1)
    call = channel.stream_stream(path_of("Append"))()
    await call.write(prefix(pb.AppendHeader(table=TABLE).SerializeToString(), b"", 0))
    await call.read()
    await start.wait()
    return await exchange(call, blocks.next, lambda reply: pb.AppendReply.FromString(reply).HasField("ack"), seconds)


async def learn(channel: Any, number: int, start: asyncio.Event, seconds: float) -> tuple[int, list[float]]:
    """One learner: how many batches it got in time, and how long each took, the last ones too."""
    message = encode_sample_request(number + 1, encode_query(TABLE, SampleRequest(BATCH, rs.Transition())), 0.0, None, 60.0)
    call = channel.stream_stream(path_of("Sample"))()
    await start.wait()
    return await exchange(call, lambda: message, lambda reply: True, seconds)


async def load(kind: str, address: str, count: int, seconds: float) -> None:
    """All the streams of a kind; prints what each got."""
    options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options) for _ in range(count)]
    start = asyncio.Event()
    one = act if kind == "actors" else learn
    running = [asyncio.ensure_future(one(channel, number, start, seconds)) for number, channel in enumerate(channels)]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    started = cpu()
    start.set()
    done = await asyncio.gather(*running)
    used = cpu() - started
    times = sorted(time_ for _, took in done for time_ in took)
    found = {
        "each": [number for number, _ in done],
        "all": len(times),
        "median_s": times[len(times) // 2] if times else None,
        "worst_s": times[-1] if times else None,
        "cpu_s": used,
    }
    print(json.dumps(found), flush=True)


def cpu() -> float:
    """CPU seconds of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def of_process(pid: int) -> dict[str, float]:
    """CPU seconds, threads, and megabytes that are its own, of a process."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return {
        "cpu_s": (int(ticks[11]) + int(ticks[12])) / 100,
        "threads": int(fields["Threads"]),
        "own_mb": int(fields["RssAnon"].split()[0]) / 1024,
    }


def together(address: str, server: int, actors: int, learners: int, seconds: float) -> dict[str, Any]:
    """So many actors and learners at once."""
    parts = []
    for kind, count in (("actors", actors), ("learners", learners)):
        command = [sys.executable, __file__, kind, address, str(count), str(seconds)]
        parts.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    try:
        for part in parts:
            assert part.stdout is not None
            if part.stdout.readline() != "ready\n":
                raise RuntimeError(f"the load ended with {part.wait()} before it was ready")
        before = of_process(server)
        for part in parts:
            assert part.stdin is not None
            part.stdin.write("go\n")
            part.stdin.flush()
        time.sleep(seconds / 2)
        meanwhile = of_process(server)
        acted, learned = (json.loads(part.stdout.readline()) for part in parts if part.stdout is not None)
        server_cpu_s = of_process(server)["cpu_s"] - before["cpu_s"]
    finally:
        for part in parts:
            part.kill()
            part.communicate()
    steps, items = sum(acted["each"]) * ROWS / seconds, sum(learned["each"]) * BATCH / seconds
    return {
        "steps_s": steps,
        "items_s": items,
        "total_s": steps + items,
        "actors": acted,
        "learners": learned,
        "server_cpu_s": server_cpu_s,
        "load_cpu_s": acted["cpu_s"] + learned["cpu_s"],
        "threads": meanwhile["threads"],
        "own_mb": meanwhile["own_mb"],
    }


def measure(address: str, server: int, steps: int, seconds: float, actors: int = ACTORS, learners: int = LEARNERS) -> dict[str, Any]:
    """The crowd between two runs of one of each, on a table of `steps` steps."""
    with Client(address) as client:
        client.create_table(TABLE, CONFIG)
        with client.writer(TABLE) as writer:
            observation, action = np.zeros(17, np.float32), np.zeros(6, np.float32)
            writer.reset(observation)
            for _ in range(steps):
                writer.append(action, 1.0, False, False, observation)
        before = together(address, server, 1, 1, seconds)
        crowd = together(address, server, actors, learners, seconds)
        after = together(address, server, 1, 1, seconds)
        client.drop_table(TABLE)
    one = before if before["total_s"] > after["total_s"] else after
    return {"one": one, "crowd": crowd, "share": 2 * crowd["total_s"] / max(1.0, before["total_s"] + after["total_s"])}


def figures(found: dict[str, Any]) -> Figures:
    """What of it goes into the suite's table."""
    one, crowd = found["one"], found["crowd"]
    way = "gRPC"
    least = {name: min(crowd[name]["each"]) / max(1, max(crowd[name]["each"])) for name in ("actors", "learners")}
    return [
        (way, "W1", CROWD_ONE, one["total_s"]),
        (way, "W1", CROWD, crowd["total_s"]),
        (way, "W1", CROWD_SHARE, 100 * found["share"]),
        (way, "W1", CROWD_APPEND, 1e3 * crowd["actors"]["worst_s"]),
        (way, "W1", CROWD_SHARE_ACTORS, 100 * least["actors"]),
        (way, "W1", CROWD_SHARE_LEARNERS, 100 * least["learners"]),
        (way, "W1", CROWD_THREADS, crowd["threads"]),
        (way, "W1", CROWD_MEMORY, crowd["own_mb"]),
    ]


def main() -> None:
    from ours import serving

    args = arguments(("--brief", {"action": "store_true", "help": "one line for the suite"}))
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder, serving(f"{folder}/store") as (address, server):
        small = args.seconds < 0.1
        counts = (16, 2) if small else (ACTORS, LEARNERS)
        found = measure(address, server, min(args.steps, 20_000), max(args.seconds, 0.2), *counts)
    if args.brief:
        report("replaystore", rs.__version__, figures(found))
        return
    for name in ("one", "crowd"):
        part = found[name]
        print(f"{name}: {part['steps_s']:,.0f} steps/s + {part['items_s']:,.0f} items/s")
        for kind in ("actors", "learners"):
            each, who = part[kind]["each"], part[kind]
            print(
                f"  {kind}: {min(each)} to {max(each)} messages each; "
                f"median {1e3 * who['median_s']:.3g} ms, worst {1e3 * who['worst_s']:.3g} ms"
            )
        messages = max(1, part["actors"]["all"] + part["learners"]["all"])
        print(
            f"  CPU: server {part['server_cpu_s']:.2f} s, {1e6 * part['server_cpu_s'] / messages:.0f} µs per message; load "
            f"{part['load_cpu_s']:.2f} s, {1e6 * part['load_cpu_s'] / messages:.0f} µs"
        )
        print(f"  server: {part['threads']} threads, {part['own_mb']:.0f} MB of its own")
    print(f"total of the crowd by that of one of each: {found['share']:.0%}")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ("actors", "learners"):
        asyncio.run(load(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
    else:
        main()
