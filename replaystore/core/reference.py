"""What the kernels compute, in plain Python over lists and dicts: slow, short, and what the kernels are tested against.

Sums are made in the kernels' order, so results agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableSequence, Sequence

from replaystore.core.random_reference import next_unit

FANOUT = 64


def sum_siblings(children: Sequence[float]) -> float:
    """64 values in the tree's order: 8 lanes, then the lanes in pairs."""
    lanes = [0.0] * 8
    for i, value in enumerate(children):
        lanes[i % 8] += value
    a, b, c, d, e, f, g, h = lanes
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


def levels_of(leaves: Mapping[int, float], first: int, stop: int) -> list[dict[int, float]]:
    """The live nodes of each level by index, the leaves at 0, up to the first above them that has at most 64."""
    levels = [{i: leaves[i] for i in range(first, stop)}]
    while len(levels) == 1 or len(levels[-1]) > FANOUT:
        below = levels[-1]
        parents = range(min(below) // FANOUT, max(below) // FANOUT + 1)
        levels.append({k: sum_siblings([below.get(FANOUT * k + i, 0.0) for i in range(FANOUT)]) for k in parents})
    return levels


def total(leaves: Mapping[int, float], first: int, stop: int) -> float:
    """The sum of the leaves [first, stop), added up as the tree does."""
    return sum(levels_of(leaves, first, stop)[-1].values()) if stop > first else 0.0


def draw(leaves: Mapping[int, float], first: int, stop: int, state: MutableSequence[int], n: int, stratified: bool = True) -> list[int]:
    """`n` ids in proportion to their leaves; `state` are the four words of `replaystore.core.random_reference`."""
    levels = levels_of(leaves, first, stop)
    mass = total(leaves, first, stop)
    ids = []
    for i in range(n):
        target = next_unit(state) * mass
        if stratified:
            target = (i * mass + target) / n
        candidates = sorted(levels[-1])
        for level in reversed(levels):
            node, left = -1, target
            for child in (k for k in candidates if level.get(k, 0.0) > 0.0):
                node, left = child, target
                if target < level[child]:
                    break
                target -= level[child]
            target = left
            candidates = [FANOUT * node + j for j in range(FANOUT)]
        ids.append(node)
    return ids


def forward(
    successor: Mapping[int, int], kind: Mapping[int, int], terminated: Mapping[int, bool], anchor: int, n_step: int
) -> tuple[list[int], int, int]:
    """One n-step transition: its path padded with the last step, how many steps were taken, the row after the last of them."""
    path = [anchor]
    end = anchor + successor[anchor]
    while len(path) < n_step and not terminated[path[-1]] and kind[end] == 0 and successor[end] > 0:
        path.append(end)
        end = end + successor[end]
    taken = len(path)
    return path + [path[-1]] * (n_step - taken), taken, end


def discounted(rewards: Sequence[float], taken: int, gamma: float) -> float:
    """What the first `taken` of the rewards on a path come to."""
    terms = [(gamma**k if k < taken else 0.0) * reward for k, reward in enumerate(rewards)]
    sums = [0.0, 0.0]
    while terms:
        chunk, terms = (terms[:8], terms[8:]) if len(terms) >= 8 else (terms[:2], terms[2:])
        for place in range(len(chunk) - 1, -1, -1):
            sums[place % 2] += chunk[place]
    return sums[0] + sums[1]


def backward(previous: Mapping[int, int], first: int, step: int, length: int) -> list[int]:
    """The `length` rows up to `step`, oldest first; −1 before the episode's first row and below `first`."""
    rows = [step]
    while len(rows) < length:
        before = previous[rows[-1]] if rows[-1] >= first else -1
        rows.append(before if before >= first else -1)
    return rows[::-1]


def pad_edge(window: Sequence[int]) -> list[int]:
    """The window with every −1 replaced by its oldest real id."""
    oldest = next(row for row in window if row >= 0)
    return [row if row >= 0 else oldest for row in window]
