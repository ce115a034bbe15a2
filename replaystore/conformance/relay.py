"""A connection that is lost at a chosen moment."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

_PIECE_BYTES = 1 << 16
_LOOK_EVERY_S = 0.2


class LosingRelay:
    """Passes connections on to `target` (``host:port``); the first answer that comes when `lost()` is true never arrives, and its
    connection is closed. All later ones are left alone.
    """

    def __init__(self, target: str, lost: Callable[[], bool]) -> None:
        host, _, port = target.rpartition(":")
        self._target, self._lost = (host.strip("[]"), int(port)), lost
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_LOOK_EVERY_S)
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self.cut = False
        """Whether it has happened."""
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name="replaystore-relay", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            try:
                far = socket.create_connection(self._target, 10.0)
            except OSError:
                near.close()
                continue
            for one in (near, far):
                one.settimeout(_LOOK_EVERY_S)
            self._start(lambda near=near, far=far: self._pass(near, far, down=False))  # type: ignore[misc]
            self._start(lambda near=near, far=far: self._pass(far, near, down=True))  # type: ignore[misc]

    def _pass(self, source: socket.socket, sink: socket.socket, *, down: bool) -> None:
        try:
            while not self._closing.is_set():
                try:
                    piece = source.recv(_PIECE_BYTES)
                except TimeoutError:
                    continue
                if not piece:
                    return
                if down and not self.cut and self._lost():
                    self.cut = True
                    return
                sink.settimeout(10.0)
                sink.sendall(piece)
                sink.settimeout(_LOOK_EVERY_S)
        except OSError:
            return
        finally:
            for one in (source, sink):
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                one.close()

    def close(self) -> None:
        """Ends every connection."""
        self._closing.set()
        self._listener.close()
        for thread in self._threads:
            thread.join(5.0)
