"""A message from one process to another that waits for it, through a gRPC server that only hands it on; the clients are ours in shape.

What `latency.py` takes beyond this is ours to save: encoding, the insert itself, the draw and the gather. Like there, both sides are
synchronous clients, each with a queue to gRPC's own thread, and the sender pauses before each message.

Run as a program this is the server (``relay.py serve``) or the sender (``relay.py send ADDRESS COUNT``).
"""

from __future__ import annotations

import asyncio
import struct
import subprocess
import sys
import time
from queue import SimpleQueue
from typing import Any

import grpc

from workload import milliseconds

PAUSE_S = 0.003
BYTES = 200
"""Of a message, about as many as a step of W1 takes."""


async def serve() -> None:
    """Hands on what Send brings to whoever waits in Receive, until its input ends."""
    messages: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(_: Any, context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            messages.put_nowait(message)
            await context.write(b"taken")

    async def give(_: Any, context: Any) -> None:
        while await context.read() is not grpc.aio.EOF:
            await context.write(await messages.get())

    server = grpc.aio.server()
    handlers = {"Send": grpc.stream_stream_rpc_method_handler(take), "Receive": grpc.stream_stream_rpc_method_handler(give)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("relay", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


def send(address: str, count: int) -> None:
    """Messages that hold the time at which they were sent."""
    with grpc.insecure_channel(address) as channel:
        requests: SimpleQueue[bytes | None] = SimpleQueue()
        call = channel.stream_stream("/relay/Send")(iter(requests.get, None))
        for _ in range(count):
            time.sleep(PAUSE_S)
            requests.put(struct.pack("<d", time.monotonic()).ljust(BYTES))
            next(call)
        requests.put(None)


def relayed(count: int) -> float:
    """Median milliseconds of `count` messages."""
    server = subprocess.Popen([sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    sender = subprocess.Popen([sys.executable, __file__, "send", address, str(count + 20)])
    times = []
    try:
        with grpc.insecure_channel(address) as channel:
            requests: SimpleQueue[bytes | None] = SimpleQueue()
            call = channel.stream_stream("/relay/Receive")(iter(requests.get, None))
            for number in range(count + 20):
                requests.put(b"next")
                (sent,) = struct.unpack_from("<d", next(call))
                if number >= 20:
                    times.append(time.monotonic() - sent)
            requests.put(None)
    finally:
        for process in (sender, server):
            process.terminate()
            process.communicate()
    return milliseconds(times)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve())
    else:
        send(sys.argv[2], int(sys.argv[3]))
