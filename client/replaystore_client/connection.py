"""A connection to one server: the channel, its renewal after a fork, and what gRPC's errors mean. Knows nothing of tables."""

from __future__ import annotations

import ipaddress
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import grpc

from replaystore.errors import DeadlineExceeded, InvalidArgument, Overloaded, PermissionDenied, ReplayStoreError
from replaystore.wire.errors import ERROR_KEY, RETRY_KEY, error_of
from replaystore.wire.methods import MAX_MESSAGE_BYTES, path_of
from replaystore_client import forking
from replaystore_client.identity import TLS_CA, advice_for, tls_of, token_of
from replaystore_client.watchdog import Silence

T = TypeVar("T")

_NOT_CONNECTED = "failed to connect"
"""In gRPC's details when nothing was sent at all."""

FIRST_RETRY_S, LONGEST_RETRY_S = 0.05, 2.0

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own for every client, and for the child after a fork
    ("grpc.keepalive_time_ms", 20_000),  # notices a server whose machine is gone
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # of other pings, one of which may be on its way instead; a minute unless set
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
]

_TOO_LARGE = re.compile(r"message larger than max \((\d+) vs\. (\d+)\)")
"""In gRPC's details when a message was refused for its size."""

_CONNECTION_CODES = frozenset(("UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL"))
"""What gRPC itself says when a connection is lost. With our metadata they mean what that says."""


class ConnectionLost(DeadlineExceeded):
    """The server cannot be reached, or went away; trying again may help. Users see it as DeadlineExceeded."""


class Backoff:
    """Growing pauses with jitter, so that a thousand clients do not come back in the same millisecond."""

    def __init__(self) -> None:
        self._next_s = FIRST_RETRY_S

    def pause_s(self) -> float:
        """How long to wait now; half to all of it is random."""
        pause = self._next_s * random.uniform(0.5, 1.0)
        self._next_s = min(2 * self._next_s, LONGEST_RETRY_S)
        return pause

    def after(self, failure: ReplayStoreError) -> float | None:
        """How long to wait before trying again after `failure`, at least as long as a refusal asks for; None where that cannot help."""
        if isinstance(failure, ConnectionLost):
            return self.pause_s()
        if isinstance(failure, Overloaded) and failure.retry_after_s is not None:
            return max(self.pause_s(), failure.retry_after_s * random.uniform(1.0, 1.5))
        return None


class Connection:
    """A channel to one server. Made when it is first needed; safe for use by several threads."""

    def __init__(self, address: str, token: str | None = None, tls: Any = None) -> None:
        """Arguments as of `Client`."""
        self.address = address
        self._target = _target(address)
        self._credentials, name = tls_of(tls, local_socket=self._target.startswith("unix:"))
        self._options = [*_OPTIONS] if name is None else [*_OPTIONS, ("grpc.ssl_target_name_override", name)]
        if _is_local(self._target):
            self._options.append(("grpc.enable_http_proxy", 0))  # which would hear the token, and has no way to this machine
        token, origin = token_of(token)
        if token is not None and self._credentials is None and not _is_local(self._target):
            raise PermissionDenied(
                f"a token ({origin}) would travel to {address} unencrypted, for anybody to read: pass tls=True or tls=CA_FILE, or set "
                f"{TLS_CA}"
            )
        self._metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
        self._lock = threading.Lock()
        self._channel: Any = None
        self._calls: dict[tuple[str, str], Any] = {}
        self._suspended: list[Any] = []
        self._pid = os.getpid()
        self._closed = False
        forking.hold(self)

    @property
    def pid(self) -> int:
        """The process that this connection is for now."""
        return os.getpid()

    def _renew(self) -> None:
        """After a fork the child has what it needs of its own; what is the parent's is left alone."""
        pid = os.getpid()
        if pid != self._pid:
            self._lock, self._channel, self._calls, self._pid = threading.Lock(), None, {}, pid

    def suspend(self) -> bool:
        """Closes the channel before a fork; the next call opens another. See `forking`."""
        self._renew()
        with self._lock:
            channel, self._channel, self._calls = self._channel, None, {}
            self._suspended = [] if channel is None else [channel]  # kept, so that the child never takes it apart
        if channel is not None:
            channel.close()
        return channel is not None

    def is_quiet(self) -> bool:
        """Whether no call of the closed channel has a thread any more."""
        return all(not getattr(getattr(channel, "_call_state", None), "managed_calls", 0) for channel in self._suspended)

    def _method(self, shape: str, method: str) -> Any:
        self._renew()
        call = self._calls.get((shape, method))
        if call is None or self._closed:
            call = None
            while call is None:
                forking.wait_free()
                with self._lock:
                    if self._closed:
                        raise InvalidArgument(f"this client of {self.address} is closed")
                    if forking.is_free():
                        call = self._calls[(shape, method)] = getattr(self._open_channel(), shape)(path_of(method))
        return call

    def _open_channel(self) -> Any:
        if self._channel is None:
            self._channel = (
                grpc.insecure_channel(self._target, self._options)
                if self._credentials is None
                else grpc.secure_channel(self._target, self._credentials, self._options)
            )
        return self._channel

    def _start(self, shape: str, method: str, request: Any, *, future: bool = False, **options: Any) -> Any:
        """Begins a call; again when its channel was closed before a fork at this very moment."""
        while True:
            call = self._method(shape, method)
            try:
                return (call.future if future else call)(request, metadata=self._metadata, **options)
            except ValueError:
                if self._closed or self._calls.get((shape, method)) is call:
                    raise

    def open_stream(self, method: str, requests: Iterator[bytes]) -> Any:
        """A bidirectional stream of raw messages."""
        return self._start("stream_stream", method, requests)

    def unary(self, method: str, request: bytes, timeout_s: float, again: bytes | None = None) -> bytes:
        """One request, one reply; tried again while the server cannot be reached, with `again` once it may have been carried out."""

        def attempt(remaining_s: float, fresh: bool) -> bytes:
            message = request if fresh or again is None else again
            return bytes(self._start("unary_unary", method, message, timeout=remaining_s))

        return self.retry(attempt, timeout_s)

    def collect(self, method: str, request: bytes, timeout_s: float) -> list[bytes]:
        """One request, all the messages of its reply; `timeout_s` is the longest that the server may be silent, not what all may take."""

        def attempt(remaining_s: float, fresh: bool) -> list[bytes]:
            call = self._start("unary_stream", method, request)
            silence, messages = Silence(call, remaining_s), []
            try:
                for message in call:
                    messages.append(message)
                    silence.heard(timeout_s)
            except grpc.RpcError:
                if silence.broken:
                    raise self.silent(timeout_s) from None
                raise
            finally:
                silence.over()
            return messages

        return self.retry(attempt, timeout_s)

    def upload(self, method: str, requests: Callable[[], Iterable[bytes]], timeout_s: float) -> bytes:
        """All messages of `requests()`, one reply; `timeout_s` is the longest that nothing may move, not what all may take."""

        def attempt(remaining_s: float, fresh: bool) -> bytes:
            silences: list[Silence] = []

            def moving() -> Iterator[bytes]:  # gRPC takes the next message when there is room for it
                for message in requests():
                    yield message
                    for silence in silences:
                        silence.heard(timeout_s)

            call = self._start("stream_unary", method, moving(), future=True)
            silences.append(Silence(call, remaining_s))
            try:
                return bytes(call.result())
            except (grpc.RpcError, grpc.FutureCancelledError) as error:
                if silences[0].broken:
                    raise self.silent(timeout_s) from None
                if isinstance(error, grpc.FutureCancelledError):
                    raise self.lost("the call was cancelled") from None
                raise
            finally:
                silences[0].over()

        return self.retry(attempt, timeout_s)

    def retry(self, attempt: Callable[[float, bool], T], timeout_s: float) -> T:
        """The result of `attempt`, repeated while the connection fails or the server says when to come again.

        Args:
            attempt: is given the seconds that remain, and whether the server cannot have seen an earlier attempt.
            timeout_s: how long to go on.

        Raises:
            DeadlineExceeded: for `timeout_s`; says what was wrong with the connection.
            Overloaded: the server had no room in `timeout_s`, or is known to have none for longer.
        """
        deadline = time.monotonic() + timeout_s
        backoff, fresh = Backoff(), True
        while True:
            try:
                return attempt(max(deadline - time.monotonic(), 0.001), fresh)
            except ConnectionLost as error:
                failure: ReplayStoreError = error
            except grpc.RpcError as error:
                failure = self.translate(error)
            pause = backoff.after(failure)
            if pause is None or time.monotonic() + pause >= deadline:
                raise failure from None
            fresh = fresh and (isinstance(failure, Overloaded) or _NOT_CONNECTED in str(failure))  # neither was carried out
            time.sleep(pause)

    def translate(self, error: Any) -> ReplayStoreError:
        """What a gRPC error means; `ConnectionLost` when trying again may help."""
        code, details = error.code().name, error.details() or ""
        trailing = dict(error.trailing_metadata() or ())
        kind = trailing.get(ERROR_KEY)
        if kind is None and code in _CONNECTION_CODES:
            return self.lost(details)
        if kind is None and code == "UNIMPLEMENTED":
            return ReplayStoreError(f"{self.address} is no replaystore server, or one of another version ({details})")
        if kind is None and code == "DEADLINE_EXCEEDED":
            return DeadlineExceeded(f"{self.address} did not answer in time; raise timeout_s, or see whether the server is alive")
        if kind is None and code == "RESOURCE_EXHAUSTED" and (sizes := _TOO_LARGE.search(details)):
            return InvalidArgument(
                f"a message to or from {self.address} has {sizes[1]} bytes, at most {sizes[2]} are taken: send or ask for less at once "
                "(a writer with a smaller block_rows, fewer items per call), or start the server with a larger --max-message-bytes"
            )
        return error_of(kind, code, details, trailing.get(RETRY_KEY))

    def silent(self, seconds: float) -> ConnectionLost:
        """The error for a server that is connected and says nothing."""
        return ConnectionLost(f"{self.address} did not answer for {seconds:g} s; raise timeout_s, or see whether the server is alive")

    def lost(self, details: str) -> ConnectionLost:
        """The error for a connection that failed with `details`."""
        advice = advice_for(details, encrypts=self._credentials is not None)
        return ConnectionLost(f"no connection to {self.address} ({details}): {advice}")

    def close(self) -> None:
        """Ends everything that still runs over this connection."""
        self._renew()
        with self._lock:
            self._closed = True
            channel, self._channel = self._channel, None
            self._calls = {}
        if channel is not None:
            channel.close()


def _target(address: str) -> str:
    if isinstance(address, str) and address.startswith("unix:") and len(address) > len("unix:"):
        return address if address.startswith("unix:/") else f"unix:{os.path.abspath(address[len('unix:') :])}"
    host, colon, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536 or "/" in host:
        raise InvalidArgument(f"server address {address!r} must be HOST:PORT or unix:PATH, for example localhost:7777")
    return address


def _is_local(target: str) -> bool:
    host = target.rpartition(":")[0].strip("[]")
    if target.startswith("unix:") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
