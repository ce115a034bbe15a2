"""Random numbers whose whole state is four words that the caller owns.

xoshiro256++ 1.0, seeded by splitmix64 (Blackman & Vigna 2021, "Scrambled linear pseudorandom number generators", ACM TOMS 47(4); the
public-domain algorithms of prng.di.unimi.it). The state is a ``uint64[4]`` array that is changed in place, so a table can keep it in a
mapped page and go on after a crash where it was. `replaystore.core.random_reference` is the same in plain Python.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from replaystore.core.jit import kernel
from replaystore.core.random_reference import seed_words

State = npt.NDArray[np.uint64]

_FRACTION = 1.0 / 9007199254740992.0  # 2**-53
_S17, _S23, _S45, _S11, _S32 = np.uint64(17), np.uint64(23), np.uint64(45), np.uint64(11), np.uint64(32)
_S27, _S30, _S31 = np.uint64(27), np.uint64(30), np.uint64(31)
_STEP, _MIX_1, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_R23, _R45 = np.uint64(64 - 23), np.uint64(64 - 45)
_LOW32 = np.uint64(0xFFFFFFFF)
_ONE = np.uint64(1)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@kernel
def _seed(seed: int, state: State) -> None:
    x = np.uint64(seed)
    for i in range(4):
        x += _STEP
        z = (x ^ (x >> _S30)) * _MIX_1
        z = (z ^ (z >> _S27)) * _MIX_2
        state[i] = z ^ (z >> _S31)


def seed_state(seed: int) -> State:
    """A fresh state, ``uint64[4]``, for `seed` (any int; its low 64 bits count)."""
    state = np.empty(4, np.uint64)
    if 0 <= seed < 1 << 63:
        _seed(seed, state)
    else:
        state[:] = seed_words(seed)
    return state


@kernel
def next_u64(state: State) -> np.uint64:
    """64 random bits. `state` is ``uint64[4]`` and moves on."""
    s0, s1, s2, s3 = state[0], state[1], state[2], state[3]
    mixed = s0 + s3
    result = ((mixed << _S23) | (mixed >> _R23)) + s0
    shifted = s1 << _S17
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= shifted
    s3 = (s3 << _S45) | (s3 >> _R45)
    state[0], state[1], state[2], state[3] = s0, s1, s2, s3
    return result  # type: ignore[no-any-return]


@kernel
def next_unit(state: State) -> float:
    """A float64 from [0, 1): one of 2**53 equally likely values."""
    return float(next_u64(state) >> _S11) * _FRACTION


@kernel
def next_below(state: State, n: int) -> int:
    """An int64 from [0, n), every value exactly as likely as any other; `n` at least 1.

    Up to 2**32: Lemire 2019, "Fast random integer generation in an interval", on the upper 32 bits. Above: bits under a mask, again until
    they are below n.
    """
    bound = np.uint64(n)
    if bound <= _LOW32:
        product = (next_u64(state) >> _S32) * bound
        if (product & _LOW32) < bound:
            least = (_LOW32 - bound + _ONE) % bound
            while (product & _LOW32) < least:
                product = (next_u64(state) >> _S32) * bound
        return np.int64(product >> _S32)  # type: ignore[return-value]
    mask = _ALL
    while (mask >> _ONE) >= bound - _ONE:
        mask = mask >> _ONE
    value = next_u64(state) & mask
    while value >= bound:
        value = next_u64(state) & mask
    return np.int64(value)  # type: ignore[return-value]
