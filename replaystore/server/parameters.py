"""The parameter channel: learners publish named arrays, actors fetch what is newer than theirs, waiting for it if they like."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import numpy.typing as npt

from replaystore.errors import InvalidArgument
from replaystore.server.bounds import Bounds, Hold
from replaystore.server.observing.figures import Figures
from replaystore.server.options import ServerOptions
from replaystore.server.translate import Call
from replaystore.server.waiting import Waker, bounded_wait, in_thread, to_the_end
from replaystore.v1 import service_pb2 as pb
from replaystore.wire.parameters import Assembly, encode_parts
from replaystore.wire.samples import parse_message

if TYPE_CHECKING:
    from replaystore.store import Store


class ParameterService:
    """Serves PublishParameters and FetchParameters."""

    def __init__(self, store: Store, options: ServerOptions, disk: ThreadPoolExecutor, figures: Figures, bounds: Bounds) -> None:
        self._store, self._options, self._disk, self._figures, self._bounds = store, options, disk, figures, bounds
        self._waiting: set[Waker] = set()
        self._remove = store.on_parameters(self._published)

    def close(self) -> None:
        """Lets go of the store."""
        self._remove()

    def _published(self) -> None:
        for waker in list(self._waiting):
            waker.wake()

    async def publish(self, _: Any, call: Call) -> bytes:
        """PublishParameters."""
        assembly, hold = Assembly(self._options.max_parameters_bytes), Hold(self._bounds.others)
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                hold.require(len(message))
                assembly.add(message)
                if assembly.header is not None:
                    call.require(assembly.header.name)
            if assembly.header is None:
                raise InvalidArgument("a parameter set has at least one message")
            name, size = assembly.header.name, assembly.header.payload_bytes

            async def work() -> int:
                with self._bounds.publishing(name, size, self._store.parameter_bytes()):
                    return await in_thread(self._disk, lambda: self._store.publish_parameters(name, assembly.arrays()))

            version = await to_the_end(work())  # it counts also when its publisher leaves early
        finally:
            hold.close()
        self._figures.parameters_published += 1
        return bytes(pb.PublishParametersReply(version=version).SerializeToString())

    async def fetch(self, message: bytes, call: Call) -> None:
        """FetchParameters. Waiters cost a set entry and no thread."""
        request = parse_message(pb.FetchParametersRequest, message, "request")
        call.require(request.name)
        wait_s = bounded_wait("timeout_s", request.timeout_s, self._options.max_wait_s)
        found = await self._newer(request.name, request.newer_than, wait_s)
        if found is not None:
            arrays, version = found
            hold = Hold(self._bounds.others)
            try:
                await hold.wait(sum(array.nbytes for array in arrays.values()), self._options.max_wait_s)
                for part in encode_parts(arrays, version=version):
                    await call.write(part)
            finally:
                hold.close()
            self._figures.parameters_fetched += 1

    async def _newer(self, name: str, newer_than: int, timeout_s: float) -> tuple[dict[str, npt.NDArray[Any]], int] | None:
        deadline = time.monotonic() + timeout_s
        waker = Waker()
        self._waiting.add(waker)
        try:
            while True:
                found = self._store.fetch_parameters(name, newer_than=newer_than)
                remaining = deadline - time.monotonic()
                if found is not None or remaining <= 0:
                    return found and ({key: np.asarray(array) for key, array in found[0].items()}, found[1])
                await waker.wait(remaining)
        finally:
            self._waiting.discard(waker)
