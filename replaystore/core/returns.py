"""Discounted sums of the rewards along a transition's steps."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.jit import kernel

Array = npt.NDArray[Any]


@lru_cache(maxsize=256)
def _weights(gamma: float, longest: int) -> npt.NDArray[np.float64]:
    """``gamma ** k`` for k below `longest`."""
    return np.float64(gamma) ** np.arange(longest)


@kernel
def _discounted(reward: Any, path: Any, origin: int, taken: Any, weights: Any, out: Any) -> None:
    longest = path.shape[1]
    for item in range(path.shape[0]):
        count, even, odd, begin = taken[item], 0.0, 0.0, 0
        while begin < longest:
            eight = longest - begin >= 8
            for pair in range(6 if eight else 0, -1, -2):
                at = begin + pair
                even += (weights[at] if at < count else 0.0) * reward[path[item, at] - origin]
                at += 1
                if at < longest:
                    odd += (weights[at] if at < count else 0.0) * reward[path[item, at] - origin]
            begin += 8 if eight else 2
        out[item] = even + odd


def discounted(reward: Array, path: npt.NDArray[np.int64], origin: int, taken: npt.NDArray[np.int32], gamma: float) -> Array:
    """Σ_{i < taken} gamma^i · reward[path[:, i]].

    Args:
        reward: ``(rows, *shape)`` column, element i being row ``origin + i``.
        path: ``(n, longest)`` ids of the steps, the last one taken repeated.
        origin: see `reward`.
        taken: ``(n,)`` how many count.
        gamma: discount per step.

    Returns:
        ``(n, *shape)`` of the reward's dtype. Sums are of float64, in the order of `numpy.einsum` on x86-64: even places and odd ones
        apart, each eight places from their end.
    """
    longest = path.shape[1]
    weights = _weights(float(gamma), longest)
    if reward.ndim == 1 and reward.dtype == np.float32:  # other kernels would be compiled while others wait
        out = np.empty(len(path), np.float32)
        _discounted(reward, path, origin, taken, weights, out)
        return out
    each = np.where(np.arange(longest) < taken[:, None], weights, 0.0)
    summed: Array = np.einsum("nk,nk...->n...", each, reward[path - origin])
    return summed.astype(reward.dtype)
