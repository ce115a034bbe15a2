"""Hindsight goals: which row's achieved goal an item pretends to have wanted."""

from __future__ import annotations

from typing import Any

import numpy as np

from replaystore.core.indexes.uniform import ROWS_PER_TRY, TRIES_PER_DRAW
from replaystore.core.jit import kernel
from replaystore.core.random import State, next_below, next_unit
from replaystore.core.walk import DELETED, Ids, Links, draw_limits

FUTURE, FINAL, EPISODE = 0, 1, 2


@kernel
def _later(successor: Any, origin: int, stop: int, step: int, most: int) -> tuple[int, int]:
    """How many rows follow `step`, and the last of them; stops after `most`."""
    count = 0
    while count < most:
        distance = abs(successor[step - origin])
        if distance == 0 or step + distance >= stop:
            break
        step += distance
        count += 1
        while count < most and step + 1 < stop and successor[step - origin] == 1:  # nothing to wait for: the next address is known
            step += 1
            count += 1
    return count, step


@kernel
def _earlier(previous: Any, removed: Any, origin: int, first: int, step: int, most: int) -> tuple[int, int]:
    """How many rows precede `step`, and the first of them; stops after `most`."""
    known = removed.shape[0] > 0
    count = 0
    while count < most:
        before = previous[step - origin]
        if before < first or (known and removed[before - origin] == DELETED):
            break
        step = before
        count += 1
    return count, step


@kernel
def _draw_goals(
    successor: Any, previous: Any, removed: Any, origin: int, first: int, stop: int, anchors: Any, strategy: int, state: Any, most: int,
    goals: Any,
) -> bool:  # fmt: skip
    left = most
    for item in range(anchors.shape[0]):
        if goals[item] < 0:
            continue
        step = anchors[item]
        after, last = _later(successor, origin, stop, step, left)
        left -= after
        if after == 0:
            goals[item] = -1
        elif strategy == FINAL:
            goals[item] = last
        else:
            before, chosen = 0, step
            if strategy == EPISODE:
                before, chosen = _earlier(previous, removed, origin, first, step, left)
                left -= before
                hops = next_below(state, before + 1 + after)
            else:
                hops = 1 + next_below(state, after)
            goals[item] = _later(successor, origin, stop, chosen, hops)[1]
        if left <= 0:
            return False
    return True


@kernel
def _try_anchors(successor: Any, origin: int, first: int, stop: int, state: Any, ids: Any, tries: int) -> int:
    done = 0
    while done < ids.shape[0] and tries > 0:
        step = first + next_below(state, stop - first)
        tries -= 1
        distance = successor[step - origin]
        if distance > 0 and step + distance < stop:
            ids[done] = step
            done += 1
    return done


@kernel
def _mark(state: Any, ratio: float, goals: Any) -> None:
    for item in range(goals.shape[0]):
        goals[item] = 0 if next_unit(state) < ratio else -1


def choose_items(state: State, ratio: float, n: int) -> Ids:
    """``(n,)``: 0 with probability `ratio`, else −1; `state` moves on."""
    goals = np.empty(n, np.int64)
    _mark(state, ratio, goals)
    return goals


def draw_anchors(links: Links, state: State, n: int) -> Ids:
    """``(n,)``: uniform over the anchors that can be seen, of which there is at least one; `state` moves on.

    Unlike for `UniformIndex.draw` a row whose successor is hidden is no anchor: what was drawn at a past moment is drawn again.
    """
    ids = np.empty(n, np.int64)
    window = links.stop - links.first
    tries = TRIES_PER_DRAW * n + window // ROWS_PER_TRY
    done = int(_try_anchors(links.successor, links.origin, links.first, links.stop, state, ids, tries))
    if done < n:
        distances = links.successor[links.first - links.origin : links.stop - links.origin]
        anchors = links.first + np.flatnonzero((distances > 0) & (np.arange(window) + distances < window))
        ids[done:] = anchors[draw_limits(state, 0, len(anchors) - 1, n - done)]
    return ids


def draw_goals(links: Links, anchors: Ids, goals: Ids, strategy: int, state: State, most: int) -> bool:
    """Puts a row into every place of `goals` that is not −1; False when that takes looking at more than `most` rows.

    Args:
        links: the rows.
        anchors: ``(n,)`` steps that have a successor.
        goals: ``(n,)``, changed in place.
        strategy: `FUTURE`: uniform over the rows after the anchor, up to the last known of its episode; `FINAL`: that last row;
            `EPISODE`: uniform over the episode's rows, as far as they are kept.
        state: random numbers, moves on.
        most: rows.
    """
    return bool(
        _draw_goals(
            links.successor, links.previous, links.removed, links.origin, links.first, links.stop, anchors, strategy, state, most, goals
        )
    )
