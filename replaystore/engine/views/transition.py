"""The Transition view of drawn anchors: decided under the table's lock, gathered outside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.walk import backward, forward, pad_edge
from replaystore.engine.rows import Rows
from replaystore.engine.views.gathering import GatheredSample, Take, choose_columns
from replaystore.sampling import SampleRequest
from replaystore.schema.columns import Column
from replaystore.schema.views import Transition

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]


def prepare(
    rows: Rows,
    columns: Mapping[str, Column],
    request: SampleRequest,
    view: Transition,
    anchors: Ids,
    info: dict[str, Array],
    rng: npt.NDArray[np.uint64],
    close: Callable[[], None],
) -> GatheredSample:
    """See `replaystore.engine.views.prepare`."""
    chosen = choose_columns(columns, request.columns)
    successor, kind = rows.array("replay/successor"), rows.array("meta/kind")
    terminated, truncated = rows.array("steps/terminated"), rows.array("steps/truncated")
    path, taken, end = forward(successor, kind, terminated, rows.origin, anchors, view.step_range[1])
    last = path[:, -1] - rows.origin  # padded with the last step taken
    ended = terminated[last]
    small: dict[str, Array] = {}
    takes: dict[str, Take] = {}
    here = anchors - rows.origin
    stacks = _Stacks(rows, view, anchors, end)
    for name in chosen:
        source = rows.array(f"steps/{name}")
        is_observation = name == "observation" or name.startswith("observation/")
        if name == "reward":
            small["data/reward"] = n_step_return(source, path - rows.origin, taken, view.gamma)
        elif name == "terminated":
            small["data/terminated"] = ended
        elif name == "truncated":  # an interrupted episode says so in its closing row only
            small["data/truncated"] = truncated[last] | ((kind[end - rows.origin] == 1) & truncated[end - rows.origin])
        elif view.stacks(name):
            takes |= stacks.takes(name, source, is_observation)
        else:
            takes[f"data/{name}"] = Take(source, here, None)
            if is_observation:
                takes[f"next/{name}"] = Take(source, end - rows.origin, None)
    info["policy_version"] = rows.array("meta/policy_version")[here]
    info["discount"] = (view.gamma**taken * ~ended).astype(np.float32)
    info["steps_taken"] = taken
    small |= {f"info/{name}": array for name, array in info.items()}
    return GatheredSample(small, takes, close)


class _Stacks:
    """Windows of frames; found once for all stacked columns."""

    def __init__(self, rows: Rows, view: Transition, anchors: Ids, end: Ids) -> None:
        self._rows, self._view, self._anchors, self._end = rows, view, anchors, end
        self._windows: dict[str, tuple[Ids, npt.NDArray[np.bool_] | None]] = {}

    def takes(self, name: str, source: Array, is_observation: bool) -> dict[str, Take]:
        frames = self._view.frame_stack
        if not is_observation:
            return {f"data/{name}": Take(source, *self._window("data", self._anchors, frames))}
        if self._view.n_step == 1:  # both stacks are parts of one window, which travels once
            return {f"window/{name}": Take(source, *self._window("window", self._end, frames + 1))}
        return {
            f"data/{name}": Take(source, *self._window("data", self._anchors, frames)),
            f"next/{name}": Take(source, *self._window("next", self._end, frames)),
        }

    def _window(self, kind: str, ids: Ids, length: int) -> tuple[Ids, npt.NDArray[np.bool_] | None]:
        if kind not in self._windows:
            rows = self._rows
            window = backward(rows.array("meta/previous"), rows.origin, rows.first, ids, length)
            blank = None
            if self._view.padding == "zero":
                missing = window < 0
                blank = missing if missing.any() else None
            pad_edge(window)
            self._windows[kind] = (window - rows.origin, blank)
        return self._windows[kind]


def n_step_return(reward: Array, path: Ids, taken: npt.NDArray[np.int32], gamma: float) -> Array:
    """Σ_{i < taken} gamma^i · reward[path[:, i]], ``(n, *reward_shape)``, of the reward's dtype."""
    if path.shape[1] == 1:
        return reward[path[:, 0]]
    steps = np.arange(path.shape[1])
    weights = np.where(steps < taken[:, None], float(gamma) ** steps, 0.0)
    summed: Array = np.einsum("nk,nk...->n...", weights, reward[path])
    return summed.astype(reward.dtype)
