"""Where networks compute, and three ways to compute faster on CUDA: bfloat16, torch.compile and CUDA graphs. Elsewhere all are off."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

import replaystore as rs

Tensors = dict[str, torch.Tensor]

WARM_UPS = 3
"""Updates done the plain way before one is recorded (torch's notes on CUDA graphs ask for a few)."""


def pick_device(wish: str = "auto") -> torch.device:
    """``"auto"`` is CUDA, else Apple's MPS, else the CPU; InvalidArgument for one that is not here."""
    if wish != "auto":
        try:
            device = torch.device(wish)
        except RuntimeError:
            raise rs.InvalidArgument(f"device {wish!r} is none: give auto, cuda, mps or cpu") from None
        if device.type == "cuda" and not torch.cuda.is_available():
            raise rs.InvalidArgument(f"device {wish!r}: torch finds no CUDA here; give auto or cpu")
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def precision(device: torch.device, amp: bool) -> AbstractContextManager[Any]:
    """The context in which networks are called: bfloat16 where that is asked for and the device is CUDA. Losses stay in float32."""
    if amp and device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()


def faster(step: Callable[[Tensors], Tensors], device: torch.device, compile: bool, graphs: bool) -> Callable[[Tensors], Tensors]:
    """`step`, which maps tensors by name to tensors by name, compiled or recorded where that is asked for and the device is CUDA."""
    if device.type != "cuda":
        return step
    if compile:
        compiled: Callable[[Tensors], Tensors] = torch.compile(step)
        return compiled
    return Recorded(step) if graphs else step


class Recorded:
    """A step that is run a few times, then recorded with its inputs at fixed places, and replayed from then on.

    What it returns is overwritten by the next call. Inputs keep their names, shapes and dtypes; a call with others runs the plain way.
    """

    def __init__(self, step: Callable[[Tensors], Tensors], graph: Any = None, stream: Any = None) -> None:
        """`graph` and `stream` are what records and where, for tests without CUDA."""
        self._step = step
        self._graph = graph or CudaGraph()
        self._calls = 0
        self._inputs: Tensors | None = None
        self._outputs: Tensors = {}

    def __call__(self, tensors: Tensors) -> Tensors:
        """The step's outputs."""
        if self._inputs is None:
            self._calls += 1
            if self._calls <= WARM_UPS:
                return self._graph.warm_up(lambda: self._step(tensors))
            self._inputs = {name: tensor.clone() for name, tensor in tensors.items()}
            inputs = self._inputs
            self._outputs = self._graph.record(lambda: self._step(inputs))
        elif not _alike(self._inputs, tensors):
            return self._step(tensors)
        for name, place in self._inputs.items():
            place.copy_(tensors[name])
        self._graph.replay()
        return self._outputs


class CudaGraph:
    """torch.cuda.CUDAGraph, with warm-ups on a stream of their own."""

    def __init__(self) -> None:
        self._graph: Any = None

    def warm_up(self, work: Callable[[], Tensors]) -> Tensors:
        """Runs `work` on another stream, as recording will."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            done = work()
        torch.cuda.current_stream().wait_stream(stream)
        return done

    def record(self, work: Callable[[], Tensors]) -> Tensors:
        """Records `work` without running it; returns where its results will be."""
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            return work()

    def replay(self) -> None:
        """Runs what was recorded."""
        self._graph.replay()


def _alike(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(one[name].shape == other[name].shape and one[name].dtype == other[name].dtype for name in one)
