"""Arrays on their way to a CUDA device: through page-locked memory, small ones together. Imports torch: only where that is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[Any]
Room = Callable[[int], torch.Tensor]

SMALL_BYTES = 1 << 16
"""What arrays up to here take is the call for each of them, not the bytes."""
_ALIGNED_BYTES = 64


def locked(size: int) -> torch.Tensor:
    """``uint8 (size,)`` of page-locked memory.

    torch keeps such memory when a tensor over it goes, and hands it out again once the copies that were begun from it are done: it notes an
    event for each (its caching host allocator). So nothing is locked anew for every batch, and nothing is written into that still travels.
    """
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


def to_device(arrays: Mapping[str, Array], target: torch.device, room: Room = locked) -> dict[str, torch.Tensor]:
    """Copies on `target`, for which its current stream waits and the caller does not. The arrays may be written into again at once.

    Args:
        arrays: of dtypes that torch has; in any layout.
        target: a CUDA device.
        room: gives so many bytes to copy from, ``uint8 (size,)``.

    Returns:
        Tensors of the same shapes. Small ones share memory: who keeps one keeps all of those.
    """
    moved: dict[str, torch.Tensor] = {}
    together: list[tuple[str, int]] = []
    size = 0
    for name, array in arrays.items():
        if array.nbytes <= SMALL_BYTES:
            together.append((name, size))
            size += -(-array.nbytes // _ALIGNED_BYTES) * _ALIGNED_BYTES
        else:
            (moved[name],) = _copied([(array, 0)], array.nbytes, target, room)
    small = _copied([(arrays[name], offset) for name, offset in together], size, target, room)
    moved.update(zip((name for name, _ in together), small, strict=True))
    return moved


def _copied(parts: list[tuple[Array, int]], size: int, target: torch.device, room: Room) -> list[torch.Tensor]:
    """Arrays and where each goes in `size` bytes; as tensors in one copy of these on `target`."""
    here = room(size)
    memory = here.numpy()
    for array, offset in parts:
        np.copyto(np.ndarray(array.shape, array.dtype, memory, offset), array)
    there = here.to(target, non_blocking=True)
    # `data`, as views of one tensor count changes together: what is done in place to one would spoil what autograd has noted of another
    return [
        there[offset : offset + math.prod(array.shape) * array.itemsize].view(_torch_dtype(array.dtype)).view(array.shape).data
        for array, offset in parts
    ]


_DTYPES: dict[np.dtype[Any], torch.dtype] = {}


def _torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    found = _DTYPES.get(dtype)
    if found is None:
        found = _DTYPES[dtype] = torch.from_numpy(np.empty(0, dtype)).dtype
    return found
