"""Batches one ahead: while the network computes on one, the next is sampled and copied to the device by a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from queue import Empty, Full, Queue
from typing import Any

import numpy as np
import torch

_LOOK_S = 0.1


def batch_seed(seed: int, update: int) -> int:
    """The seed of the batch that a run with `seed` learns from in this update: batches can be drawn ahead, and again after a restart."""
    return int(np.random.SeedSequence([seed, update]).generate_state(1, np.uint64)[0] >> 1)


def ahead(make: Callable[[int], Any], first: int, stop: int, device: torch.device, depth: int = 2) -> Generator[Any, None, None]:
    """``make(i).to_torch(device)`` for i from `first` to below `stop`, in order, at most `depth` of them before they are asked for.

    One thread that is not the caller's calls `make`. On CUDA, copies go through pinned memory on a stream of their own, and the caller's
    stream waits for those of the batch that it gets. An error of `make` comes out where its batch would have. Closing ends the thread.
    """
    ready: Queue[tuple[Any, Any, BaseException | None]] = Queue(depth)
    ended = threading.Event()
    copying = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def put(item: tuple[Any, Any, BaseException | None]) -> bool:
        while not ended.is_set():
            try:
                ready.put(item, timeout=_LOOK_S)
                return True
            except Full:
                continue
        return False

    def work() -> None:
        try:
            for index in range(first, stop):
                if copying is None:
                    item = (make(index).to_torch(device), None, None)
                else:
                    with torch.cuda.stream(copying):
                        batch = make(index).to_torch(device)
                        item = (batch, copying.record_event(), None)
                if not put(item):
                    return
        except BaseException as error:
            put((None, None, error))

    thread = threading.Thread(target=work, name="replaystore-feeding", daemon=True)
    thread.start()
    try:
        for _ in range(first, stop):
            batch, copied, error = ready.get()
            if error is not None:
                raise error
            if copied is not None:
                current = torch.cuda.current_stream(device)
                current.wait_event(copied)
                for name in batch.keys():  # noqa: SIM118 - no mapping
                    batch[name].record_stream(current)  # its memory is not given to the next copy before this one is used
            yield batch
    finally:
        ended.set()
        while thread.is_alive():
            try:
                ready.get_nowait()
            except Empty:
                thread.join(_LOOK_S)
