"""The loops of the rank index: an array-based binary max-heap whose entries know their ids, and whose ids know their places.

Place k ≥ 1 of the heap is ``keys[k - 1]``, float32, and ``slots[k - 1]``, uint32. The slot of an id is ``id & mask``, its place in the ring
`places`, int32, 0 for ids that are not in the heap. All ids of the heap are of one window [first, first + mask + 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replaystore.core.harmonic import harmonic, place_at
from replaystore.core.jit import kernel
from replaystore.core.random import next_unit

_ALL, _HALF = np.uint32(0xFFFFFFFF), np.uint64(32)


@kernel
def _put(keys: Any, slots: Any, places: Any, place: int, key: float, slot: int) -> None:
    keys[place - 1], slots[place - 1] = key, slot
    places[slot] = place


@kernel
def _rise(keys: Any, slots: Any, places: Any, place: int, key: float, slot: int) -> None:
    """Puts an entry at `place`, which is free, or as far above as it belongs."""
    while place > 1 and keys[(place >> 1) - 1] < key:
        above = place >> 1
        _put(keys, slots, places, place, keys[above - 1], slots[above - 1])
        place = above
    _put(keys, slots, places, place, key, slot)


@kernel
def _sink(keys: Any, slots: Any, places: Any, size: int, place: int, key: float, slot: int) -> None:
    """Puts an entry at `place`, which is free, or as far below as it belongs."""
    while 2 * place <= size:
        child = 2 * place
        if child < size and keys[child] > keys[child - 1]:
            child += 1
        if keys[child - 1] <= key:
            break
        _put(keys, slots, places, place, keys[child - 1], slots[child - 1])
        place = child
    _put(keys, slots, places, place, key, slot)


@kernel
def _move(keys: Any, slots: Any, places: Any, size: int, place: int, key: float, slot: int) -> None:
    if place > 1 and keys[(place >> 1) - 1] < key:
        _rise(keys, slots, places, place, key, slot)
    else:
        _sink(keys, slots, places, size, place, key, slot)


@kernel
def _remove(keys: Any, slots: Any, places: Any, size: int, slot: int) -> int:
    place = places[slot]
    places[slot] = 0
    size -= 1
    if place <= size:
        _move(keys, slots, places, size, place, keys[size], slots[size])
    return size


@kernel
def change(
    leaves: Any, origin: int, first: int, stop: int, keys: Any, slots: Any, places: Any, size: int, ids: Any
) -> tuple[int, int]:  # fmt: skip
    """The leaves of `ids` changed: enters, moves and removes entries. There is room for all. Returns size and how many changed."""
    mask, changed = places.shape[0] - 1, 0
    for i in range(ids.shape[0]):
        if not first <= ids[i] < stop:
            continue
        slot, key = ids[i] & mask, leaves[ids[i] - origin]
        place = places[slot]
        if key > 0.0 and place == 0:
            size += 1
            _rise(keys, slots, places, size, key, slot)
        elif key > 0.0 and key != keys[place - 1]:
            _move(keys, slots, places, size, place, key, slot)
        elif not key > 0.0 and place > 0:
            size = _remove(keys, slots, places, size, slot)
        else:
            continue
        changed += 1
    return size, changed


@kernel
def remove_range(first: int, stop: int, keys: Any, slots: Any, places: Any, size: int) -> tuple[int, int]:
    """Removes the ids of [first, stop), one by one. Returns size and how many were removed."""
    mask, before = places.shape[0] - 1, size
    for step in range(first, stop):
        if places[step & mask] > 0:
            size = _remove(keys, slots, places, size, step & mask)
    return size, before - size


@kernel
def gather(leaves: Any, origin: int, first: int, stop: int, keys: Any, slots: Any, mask: int) -> int:
    """Writes the entries of [first, stop), in order of ids; returns how many."""
    size = 0
    for step in range(first, stop):
        key = leaves[step - origin]
        if key > 0.0:
            keys[size], slots[size] = key, step & mask
            size += 1
    return size


@kernel
def keep_from(first: int, kept_from: int, keys: Any, slots: Any, places: Any, size: int) -> int:
    """Of the entries, with ids from `first` on, keeps those from `kept_from` on, in no heap's order; returns how many."""
    mask, kept = places.shape[0] - 1, 0
    for i in range(size):
        slot = np.int64(slots[i])
        if first + ((slot - first) & mask) >= kept_from:
            keys[kept], slots[kept] = keys[i], slot
            kept += 1
        else:
            places[slot] = 0
    return kept


@kernel
def pack(keys: Any, slots: Any, packed: Any) -> None:
    """An entry in one number, ``uint64[size]``: the larger the key the smaller it is. `keys` are float32 above 0 seen as uint32."""
    for i in range(packed.shape[0]):
        packed[i] = (np.uint64(keys[i] ^ _ALL) << _HALF) | np.uint64(slots[i])


@kernel
def unpack(packed: Any, keys: Any, slots: Any, places: Any) -> None:
    """The entries again, at places in the order of `packed`."""
    for i in range(packed.shape[0]):
        keys[i], slots[i] = _ALL ^ np.uint32(packed[i] >> _HALF), np.uint32(packed[i])
        places[slots[i]] = i + 1


@kernel
def lengthen(start: int, end: int, old_mask: int, slots: Any, places: Any) -> None:
    """The ring of places has become longer where it is: the ids [start, end) move, whose slots are beyond its old end."""
    mask = places.shape[0] - 1
    for step in range(start, end):
        place = places[step & old_mask]
        if place > 0:
            places[step & old_mask], places[step & mask] = 0, place
            slots[place - 1] = step & mask


@kernel
def draw(
    first: int, slots: Any, mask: int, size: int, table: Any, alpha: float, state: Any, stratified: bool, ids: Any, probabilities: Any
) -> None:
    """Fills `ids` and `probabilities` with draws of P(place k) = k^−alpha / H(size, alpha); `size` is above 0."""
    n, total = ids.shape[0], harmonic(table, alpha, size)
    for i in range(n):
        target = next_unit(state) * total
        place = place_at(table, alpha, size, (i * total + target) / n if stratified else target)
        ids[i] = first + ((np.int64(slots[place - 1]) - first) & mask)
        probabilities[i] = float(place) ** -alpha / total
