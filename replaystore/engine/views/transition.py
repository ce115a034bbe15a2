"""The Transition view of drawn anchors: decided under the table's lock, gathered outside it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.returns import discounted
from replaystore.core.walk import Ids, Links, Transitions, backward, draw_limits, pad_edge, transitions
from replaystore.engine.rows import Rows
from replaystore.engine.views.gathering import Take, links_of
from replaystore.schema.columns import is_observation, is_reward
from replaystore.schema.views import MAX_N_STEP, Transition

Array = npt.NDArray[Any]

_LIMITS = np.arange(MAX_N_STEP + 1)


@lru_cache(maxsize=256)
def _powers(gamma: float, longest: int) -> npt.NDArray[np.float64]:
    """``gamma ** k`` for k from 0 to `longest`."""
    return np.float64(gamma) ** np.arange(longest + 1, dtype=np.int32)


class Walk:
    """Which rows each item is made of."""

    __slots__ = ("found", "links")

    def __init__(self, rows: Rows, view: Transition, anchors: Ids, rng: npt.NDArray[np.uint64], *, backwards: bool = False) -> None:
        low, high = view.step_range
        limits = _LIMITS[high : high + 1] if low == high else draw_limits(rng, low, high, len(anchors))
        self.links: Links = links_of(rows, backwards=backwards or view.frame_stack > 1)
        truncated, versions = rows.array("steps/truncated"), rows.array("meta/policy_version")
        self.found: Transitions = transitions(self.links, truncated, versions, anchors, limits, high, _powers(float(view.gamma), high))


def expand(
    rows: Rows, names: Mapping[str, str], view: Transition, anchors: Ids, walk: Walk, info: dict[str, Array]
) -> tuple[dict[str, Array], dict[str, Take]]:
    """The small fields and what to gather, by name.

    Args:
        rows: the table at this moment.
        names: of columns, in the batch and in the table.
        view: n-step, discount, frame stack.
        anchors: ``(n,)``.
        walk: of these.
        info: what the draw gave; added to.
    """
    found = walk.found
    here, following = found.here, found.following
    small: dict[str, Array] = {}
    takes: dict[str, Take] = {}
    stacks = _Stacks(rows, view, anchors, walk) if view.frame_stack > 1 else None
    for name, stored in names.items():
        if name == "terminated":
            small["data/terminated"] = found.terminated
            continue
        if name == "truncated":
            small["data/truncated"] = found.truncated
            continue
        source = rows.array(f"steps/{stored}")
        if is_reward(name):
            if found.path.shape[1] == 1:
                small[f"data/{name}"] = source.take(here, 0, None, "clip")
            else:
                small[f"data/{name}"] = discounted(source, found.path, rows.origin, found.taken, view.gamma)
        elif stacks is not None and view.stacks(name):
            takes |= stacks.takes(name, source)
        else:
            takes[f"data/{name}"] = Take(source, here, None)
            if is_observation(name):
                takes[f"next/{name}"] = Take(source, following, None)
    info["policy_version"], info["discount"], info["steps_taken"] = found.versions, found.discount, found.taken
    for name, array in info.items():
        small[f"info/{name}"] = array
    return small, takes


class _Stacks:
    """Windows of frames; found once for all stacked columns."""

    def __init__(self, rows: Rows, view: Transition, anchors: Ids, walk: Walk) -> None:
        self._rows, self._view, self._anchors, self._walk = rows, view, anchors, walk
        self._windows: dict[str, tuple[Ids, npt.NDArray[np.bool_] | None]] = {}

    def takes(self, name: str, source: Array) -> dict[str, Take]:
        frames, end = self._view.frame_stack, self._walk.found.end
        if not is_observation(name):
            return {f"data/{name}": Take(source, *self._window("data", self._anchors, frames))}
        if self._view.n_step == 1:  # both stacks are parts of one window, which travels once
            return {f"window/{name}": Take(source, *self._window("window", end, frames + 1))}
        return {
            f"data/{name}": Take(source, *self._window("data", self._anchors, frames)),
            f"next/{name}": Take(source, *self._window("next", end, frames)),
        }

    def _window(self, kind: str, ids: Ids, length: int) -> tuple[Ids, npt.NDArray[np.bool_] | None]:
        if kind not in self._windows:
            window = backward(self._walk.links, ids, length)
            blank = None
            if self._view.padding == "zero":
                missing = window < 0
                blank = missing if missing.any() else None
            pad_edge(window)
            self._windows[kind] = (window - self._rows.origin, blank)
        return self._windows[kind]
