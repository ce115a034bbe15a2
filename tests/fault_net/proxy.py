"""A bad network between two programs on this machine: delays, cuts, holds back, throttles. Knows bytes and no protocol."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

_CHUNK_BYTES = 1 << 16
_LOOK_EVERY_S = 0.02
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes closing send RST and throw away what is on its way."""


@dataclass
class Weather:
    """What the network is like now."""

    delay_s: float = 0.0
    """Before each piece is passed on, either way."""
    bytes_per_s: float = float("inf")
    held: set[str] = field(default_factory=set)
    """Directions, "up" to the server and "down" from it, that pass nothing; what is sent waits, as in a router's buffer."""
    cut_after_bytes: dict[str, int] = field(default_factory=dict)
    """By direction: the connection is reset when so many more bytes have passed, wherever in a message that is."""
    refusing: bool = False
    """New connections are reset at once."""


class Link:
    """One connection through the proxy."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near, self.far = near, far
        self.abandoned = False
        """For ever without a word, as when the other machine lost its power."""
        self.ended = threading.Event()

    def end(self, how: str) -> None:
        """Cuts it, with ``"rst"`` or ``"fin"``."""
        self.ended.set()
        for one in (self.near, self.far):
            try:
                if how == "rst":
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                else:
                    one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other side was quicker
            one.close()


class FaultProxy:
    """Listens at `address` and passes everything on to `target`, as well as `weather` allows."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self.weather = Weather()
        self.passed_bytes = {"up": 0, "down": 0}
        self.connections = self.cuts = 0
        self._lock = threading.Lock()
        self._links: set[Link] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._closed = False
        self._threads = [threading.Thread(target=self._accept, name="proxy-accept", daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.weather.refusing or self._closed:
                near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                near.close()
                continue
            try:
                link = Link(near, socket.create_connection(self._target, timeout=5))
            except OSError:
                near.close()
                continue
            self.connections += 1
            with self._lock:
                self._links.add(link)
            for direction, source, sink in (("up", link.near, link.far), ("down", link.far, link.near)):
                source.settimeout(_LOOK_EVERY_S)
                thread = threading.Thread(target=self._pump, args=(link, direction, source, sink), name=f"proxy-{direction}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pump(self, link: Link, direction: str, source: socket.socket, sink: socket.socket) -> None:
        while not link.ended.is_set():
            if link.abandoned or direction in self.weather.held:
                time.sleep(_LOOK_EVERY_S)
                continue
            try:
                piece = source.recv(_CHUNK_BYTES if self.weather.bytes_per_s == float("inf") else 1024)
                if not piece:
                    break
                self._pass_on(link, direction, piece, sink)
            except TimeoutError:
                continue
            except OSError:
                break
        if not link.ended.is_set():
            link.end("fin")
        with self._lock:
            self._links.discard(link)

    def _pass_on(self, link: Link, direction: str, piece: bytes, sink: socket.socket) -> None:
        weather = self.weather
        if weather.delay_s:
            time.sleep(weather.delay_s)
        time.sleep(len(piece) / weather.bytes_per_s)
        while (link.abandoned or direction in self.weather.held) and not link.ended.is_set():
            time.sleep(_LOOK_EVERY_S)
        left = weather.cut_after_bytes.get(direction)
        if left is not None and len(piece) >= left:
            weather.cut_after_bytes.pop(direction, None)
            sink.settimeout(5)
            sink.sendall(piece[:left])
            self.cuts += 1
            link.end("rst")
            return
        if left is not None:
            weather.cut_after_bytes[direction] = left - len(piece)
        sink.settimeout(5)
        sink.sendall(piece)
        sink.settimeout(_LOOK_EVERY_S)
        self.passed_bytes[direction] += len(piece)

    # -- what a test does

    def heal(self) -> None:
        """Fine weather from now on. Connections that were cut or abandoned stay so."""
        self.weather = Weather()

    def cut(self, how: str = "rst") -> int:
        """Ends every connection; returns how many."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.end(how)
        self.cuts += len(links)
        return len(links)

    def abandon(self) -> None:
        """Connections that there are stay open and silent for ever; new ones pass."""
        with self._lock:
            for link in self._links:
                link.abandoned = True

    def close(self) -> None:
        """Ends everything and waits for the threads."""
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(10)  # from now on there are no new connections
        self.cut("rst")
        for thread in self._threads:
            thread.join(5)


FAULTS = ("rst", "fin", "black hole", "half open up", "half open down", "delay", "throttle", "cut up", "cut down", "refuse")


def inject(proxy: FaultProxy, fault: str, rng: random.Random) -> None:
    """Lets one thing go wrong; `FaultProxy.heal` ends it."""
    if fault in ("rst", "fin"):
        proxy.cut(fault)
    elif fault == "black hole":
        proxy.weather = Weather(held={"up", "down"})
    elif fault.startswith("half open"):
        proxy.weather = Weather(held={fault.split()[-1]})
    elif fault == "delay":
        proxy.weather = Weather(delay_s=rng.uniform(0.01, 0.1))
    elif fault == "throttle":
        proxy.weather = Weather(bytes_per_s=rng.uniform(5e3, 5e4))
    elif fault.startswith("cut"):
        proxy.weather = Weather(cut_after_bytes={fault.split()[-1]: rng.randrange(1, 3000)})
    elif fault == "refuse":
        proxy.weather = Weather(refusing=True)
        proxy.cut("rst")
    else:
        raise ValueError(fault)
