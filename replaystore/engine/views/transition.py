"""The Transition view of drawn anchors: decided under the table's lock, gathered outside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.walk import Counts, Ids, Links, backward, draw_limits, forward, pad_edge
from replaystore.engine.rows import Rows
from replaystore.engine.views.gathering import Take, links_of
from replaystore.schema.columns import is_observation
from replaystore.schema.views import MAX_N_STEP, Transition

Array = npt.NDArray[Any]

_LIMITS = np.arange(MAX_N_STEP + 1)


class Walk:
    """Which rows each item is made of."""

    __slots__ = ("end", "links", "path", "taken")

    def __init__(self, rows: Rows, view: Transition, anchors: Ids, rng: npt.NDArray[np.uint64], *, backwards: bool = False) -> None:
        low, high = view.step_range
        limits = _LIMITS[high : high + 1] if low == high else draw_limits(rng, low, high, len(anchors))
        self.links: Links = links_of(rows, backwards=backwards or view.frame_stack > 1)
        path, taken, end = forward(self.links, anchors, limits, high)
        self.path: Ids = path
        """``(n, longest)`` steps taken, the last one repeated."""
        self.taken: Counts = taken
        self.end: Ids = end
        """``(n,)`` the row after the last step."""


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
    terminated, truncated = rows.array("steps/terminated"), rows.array("steps/truncated")
    kind, end = walk.links.kind, walk.end
    last = walk.path[:, -1] - rows.origin  # padded with the last step taken
    ended = terminated[last]
    small: dict[str, Array] = {}
    takes: dict[str, Take] = {}
    here = anchors - rows.origin
    following = end - rows.origin
    stacks = _Stacks(rows, view, anchors, walk) if view.frame_stack > 1 else None
    for name, stored in names.items():
        source = rows.array(f"steps/{stored}")
        group = name.partition("/")[0]
        if group == "reward":
            small[f"data/{name}"] = n_step_return(source, walk.path - rows.origin, walk.taken, view.gamma)
        elif name == "terminated":
            small["data/terminated"] = ended
        elif name == "truncated":  # an interrupted episode says so in its closing row only
            small["data/truncated"] = truncated[last] | ((kind[following] == 1) & truncated[following])
        elif stacks is not None and view.stacks(name):
            takes |= stacks.takes(name, source)
        else:
            takes[f"data/{name}"] = Take(source, here, None)
            if group == "observation":
                takes[f"next/{name}"] = Take(source, following, None)
    info["policy_version"] = rows.array("meta/policy_version")[here]
    info["discount"] = (view.gamma**walk.taken * ~ended).astype(np.float32)
    info["steps_taken"] = walk.taken
    small |= {f"info/{name}": array for name, array in info.items()}
    return small, takes


class _Stacks:
    """Windows of frames; found once for all stacked columns."""

    def __init__(self, rows: Rows, view: Transition, anchors: Ids, walk: Walk) -> None:
        self._rows, self._view, self._anchors, self._walk = rows, view, anchors, walk
        self._windows: dict[str, tuple[Ids, npt.NDArray[np.bool_] | None]] = {}

    def takes(self, name: str, source: Array) -> dict[str, Take]:
        frames, end = self._view.frame_stack, self._walk.end
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


def n_step_return(reward: Array, path: Ids, taken: Counts, gamma: float) -> Array:
    """Σ_{i < taken} gamma^i · reward[path[:, i]], ``(n, *reward_shape)``, of the reward's dtype."""
    if path.shape[1] == 1:
        return reward[path[:, 0]]
    steps = np.arange(path.shape[1])
    weights = np.where(steps < taken[:, None], float(gamma) ** steps, 0.0)
    summed: Array = np.einsum("nk,nk...->n...", weights, reward[path])
    return summed.astype(reward.dtype)
