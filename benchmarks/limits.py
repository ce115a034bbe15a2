"""What the machine can do: copying, loopback, ping-pong, random reads past the page cache."""

from __future__ import annotations

import mmap
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from workload import Figures, arguments, report

DEPTH = 32
MESSAGE = 1 << 20


def memcpy(bytes_: int, seconds: float) -> float:
    """Bytes per second of copying between two buffers that are there already, one thread."""
    source, target = np.ones(bytes_, np.uint8), np.ones(bytes_, np.uint8)
    return _best(lambda: np.copyto(target, source), bytes_, seconds)


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


def ping_pong(rounds: int) -> float:
    """Seconds for one byte there and back between two processes."""
    near, far = _pair()
    child = os.fork()
    if child == 0:
        near.close()
        while byte := far.recv(1):
            far.sendall(byte)
        os._exit(0)
    far.close()
    started = time.perf_counter()
    for _ in range(rounds):
        near.sendall(b"x")
        near.recv(1)
    elapsed = time.perf_counter() - started
    near.close()
    os.waitpid(child, 0)
    return elapsed / rounds


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
        ("TCP", "machine", "loopback", loopback(args.seconds) / 1e9),
        ("TCP", "machine", "ping-pong", ping_pong(100 if small else 5000) * 1e6),
    ]
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
