"""The random numbers of `replaystore.core.random` in plain Python integers: slow, and plain to check against the papers."""

from __future__ import annotations

from collections.abc import MutableSequence

_WORD = (1 << 64) - 1


def seed_words(seed: int) -> list[int]:
    """Four outputs of splitmix64 started at `seed`: the state that its authors recommend for xoshiro256++. Never all zero."""
    words = []
    x = seed & _WORD
    for _ in range(4):
        x = (x + 0x9E3779B97F4A7C15) & _WORD
        z = x
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
        words.append(z ^ (z >> 31))
    return words


def _rotated(x: int, bits: int) -> int:
    return ((x << bits) | (x >> (64 - bits))) & _WORD


def next_u64(state: MutableSequence[int]) -> int:
    """64 random bits; `state` (4 words) moves on."""
    result = (_rotated((state[0] + state[3]) & _WORD, 23) + state[0]) & _WORD
    shifted = (state[1] << 17) & _WORD
    state[2] ^= state[0]
    state[3] ^= state[1]
    state[1] ^= state[2]
    state[0] ^= state[3]
    state[2] ^= shifted
    state[3] = _rotated(state[3], 45)
    return result


def next_unit(state: MutableSequence[int]) -> float:
    """A float from [0, 1) with 53 random bits."""
    return (next_u64(state) >> 11) / (1 << 53)


def next_below(state: MutableSequence[int], n: int) -> int:
    """An integer from [0, n), without bias."""
    if n < 1 << 32:
        while True:
            product = (next_u64(state) >> 32) * n
            if product % (1 << 32) >= (1 << 32) % n:
                return product >> 32
    mask = (1 << (n - 1).bit_length()) - 1
    while True:
        value = next_u64(state) & mask
        if value < n:
            return value
