"""What the machine can do: copying, loopback, ping-pong, gRPC alone, random reads past the page cache.

Ping-pong is measured twice: at once again and again, and with a pause before each, as a learner that waits for an actor meets it: a CPU
that has had nothing to do is slower to wake, on some virtual machines by far.
"""

from __future__ import annotations

import mmap
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from relay import relayed
from workload import RELAYED, Figures, arguments, report

DEPTH = 32
MESSAGE = 1 << 20


def memcpy(bytes_: int, seconds: float, threads: int = 1) -> float:
    """Bytes per second of copying between two buffers that are there already, by so many threads together."""
    source, target = np.ones(bytes_, np.uint8), np.ones(bytes_, np.uint8)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    if threads == 1:
        return _best(lambda: np.copyto(target, source), bytes_, seconds)
    with ThreadPoolExecutor(threads) as pool:
        return _best(lambda: list(pool.map(lambda part: np.copyto(*part), parts)), bytes_, seconds)


def _best(call: Callable[[], object], amount: int, seconds: float) -> float:
    best, until = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < until:
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return amount / best


def _pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def loopback(seconds: float) -> float:
    """Bytes per second through a TCP connection to this machine, in messages of 1 MiB."""
    near, far = _pair()
    message, received = bytes(MESSAGE), 0
    buffer = bytearray(MESSAGE)

    def send() -> None:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            near.sendall(message)
        near.close()

    sender = threading.Thread(target=send)
    started = time.perf_counter()
    sender.start()
    while count := far.recv_into(buffer):
        received += count
    sender.join()
    far.close()
    return received / (time.perf_counter() - started)


def ping_pong(rounds: int, pause_s: float = 0.0) -> float:
    """Seconds for one byte there and back between two processes, the median; with a pause before each, which is not counted."""
    near, far = _pair()
    child = os.fork()
    if child == 0:
        near.close()
        while byte := far.recv(1):
            far.sendall(byte)
        os._exit(0)
    far.close()

    def there_and_back() -> None:
        near.sendall(b"x")
        near.recv(1)

    median = _median(there_and_back, rounds, pause_s)
    near.close()
    os.waitpid(child, 0)
    return median


def ping_pong_threads(rounds: int, pause_s: float = 0.0) -> float:
    """The same between two threads of this process, by a queue each way."""
    there: SimpleQueue[int | None] = SimpleQueue()
    back: SimpleQueue[int] = SimpleQueue()

    def answer() -> None:
        while (value := there.get()) is not None:
            back.put(value)

    def there_and_back() -> None:
        there.put(1)
        back.get()

    thread = threading.Thread(target=answer)
    thread.start()
    median = _median(there_and_back, rounds, pause_s)
    there.put(None)
    thread.join()
    return median


def _median(call: Callable[[], object], rounds: int, pause_s: float) -> float:
    times = []
    for _ in range(rounds):
        if pause_s:
            time.sleep(pause_s)
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def random_reads(path: Path, size: int, block: int, seconds: float) -> float:
    """Bytes per second of O_DIRECT reads at random places, by 32 threads of one read each at a time."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)

    def read(seed: int) -> int:
        buffer = mmap.mmap(-1, block)  # page-aligned, as O_DIRECT wants it
        places = (np.random.default_rng(seed).integers(0, size // block, 4096) * block).tolist()
        done, until = 0, time.perf_counter() + seconds
        while True:
            for place in places:
                os.preadv(descriptor, [buffer], place)
                done += 1
                if done % 16 == 0 and time.perf_counter() > until:
                    return done

    try:
        started = time.perf_counter()
        with ThreadPoolExecutor(DEPTH) as pool:
            total = sum(pool.map(read, range(DEPTH)))
        return total * block / (time.perf_counter() - started)
    finally:
        os.close(descriptor)


def main() -> None:
    args = arguments()
    small = args.seconds < 0.5
    missing: dict[str, str] = {}
    found: Figures = [
        ("one thread", "machine", "memcpy", memcpy((8 if small else 256) << 20, args.seconds) / 1e9),
        ("two threads", "machine", "memcpy, 2 threads", memcpy((8 if small else 256) << 20, args.seconds, 2) / 1e9),
        ("TCP, best of 4", "machine", "loopback", max(loopback(args.seconds / 4) for _ in range(4)) / 1e9),
    ]
    at_once, paused = (50, 10) if small else (5000, 300)
    for way, measured in (("TCP, two processes", ping_pong), ("two threads", ping_pong_threads)):
        found.append((way, "machine", "ping-pong", measured(at_once) * 1e6))
        found.append((way, "machine", "ping-pong after 3 ms", measured(paused, 0.003) * 1e6))
    found.append(("three processes", "machine", RELAYED, relayed(20 if small else 300)))
    size = (4 if small else 1024) << 20
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path = Path(folder) / "random"
        piece = np.random.default_rng(0).bytes(1 << 20)
        with path.open("wb") as file:
            for _ in range(size >> 20):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        for block in (4096, 32768):
            try:
                value = random_reads(path, size, block, args.seconds) / 1e9
            except OSError as error:
                missing[f"random read, {block >> 10} KiB"] = f"not possible here: {error}"
                continue
            found.append((f"{DEPTH} threads, O_DIRECT", "machine", f"random read, {block >> 10} KiB", value))
    report("machine", os.uname().release, found, missing)


if __name__ == "__main__":
    main()
