"""The Transition view of drawn anchors: decided under the table's lock, gathered outside it.

Small fields (rewards, flags, what is known of each item) are read at once; the columns that weigh something are only named, with the
rows to take, and gathered by `fill` straight into wherever the batch is to lie: an array, or a message on its way out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.walk import backward, forward, pad_edge
from replaystore.engine.rows import Rows
from replaystore.errors import InvalidArgument
from replaystore.sampling import Field, SampleRequest
from replaystore.schema.columns import Column
from replaystore.schema.views import Transition

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Take:
    """Rows to gather into a field."""

    source: Array
    index: Ids
    blank: npt.NDArray[np.bool_] | None
    """Where True, zeros instead (frames before an episode's start)."""


class TransitionSample:
    """A `PreparedSample`."""

    __slots__ = ("_close", "_small", "_takes", "fields")

    def __init__(self, small: Mapping[str, Array], takes: Mapping[str, _Take], close: Callable[[], None]) -> None:
        self._small, self._takes, self._close = small, takes, close
        fields = [Field(name, take.source.dtype, (*take.index.shape, *take.source.shape[1:])) for name, take in takes.items()]
        fields += [Field(name, array.dtype, array.shape) for name, array in small.items()]
        self.fields = tuple(fields)

    def fill(self, out: Mapping[str, Array]) -> None:
        """Gathers every field into ``out[field.name]``."""
        for name, take in self._takes.items():
            # "clip" skips the bounds check that makes the default three times slower; every index is known to be inside
            np.take(take.source, take.index, axis=0, out=out[name], mode="clip")
            if take.blank is not None:
                out[name][take.blank] = 0
        for name, array in self._small.items():
            out[name][...] = array

    def close(self) -> None:
        """Lets the rows go."""
        self._close()


def prepare(
    rows: Rows,
    columns: Mapping[str, Column],
    request: SampleRequest,
    anchors: Ids,
    info: dict[str, Array],
    close: Callable[[], None],
) -> TransitionSample:
    """The view of `anchors` (``(n,)`` step ids); `info` are the fields that the draw itself gave, by name without ``info/``."""
    view = request.view
    chosen = choose_columns(columns, request.columns)
    successor, kind = rows.array("replay/successor"), rows.array("meta/kind")
    terminated, truncated = rows.array("steps/terminated"), rows.array("steps/truncated")
    path, taken, end = forward(successor, kind, terminated, rows.origin, anchors, view.n_step)
    last = path[:, -1] - rows.origin  # padded with the last step taken
    ended = terminated[last]
    small: dict[str, Array] = {}
    takes: dict[str, _Take] = {}
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
            takes[f"data/{name}"] = _Take(source, here, None)
            if is_observation:
                takes[f"next/{name}"] = _Take(source, end - rows.origin, None)
    info["policy_version"] = rows.array("meta/policy_version")[here]
    info["discount"] = (view.gamma**taken * ~ended).astype(np.float32)
    info["steps_taken"] = taken
    small |= {f"info/{name}": array for name, array in info.items()}
    return TransitionSample(small, takes, close)


class _Stacks:
    """Windows of frames; found once for all stacked columns."""

    def __init__(self, rows: Rows, view: Transition, anchors: Ids, end: Ids) -> None:
        self._rows, self._view, self._anchors, self._end = rows, view, anchors, end
        self._windows: dict[str, tuple[Ids, npt.NDArray[np.bool_] | None]] = {}

    def takes(self, name: str, source: Array, is_observation: bool) -> dict[str, _Take]:
        frames = self._view.frame_stack
        if not is_observation:
            return {f"data/{name}": _Take(source, *self._window("data", self._anchors, frames))}
        if self._view.n_step == 1:  # both stacks are parts of one window, which travels once
            return {f"window/{name}": _Take(source, *self._window("window", self._end, frames + 1))}
        return {
            f"data/{name}": _Take(source, *self._window("data", self._anchors, frames)),
            f"next/{name}": _Take(source, *self._window("next", self._end, frames)),
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


def choose_columns(columns: Mapping[str, Column], wanted: Iterable[str] | None) -> list[str]:
    """The columns that a request asks for; a name stands for all nested below it."""
    if wanted is None:
        return list(columns)
    chosen: list[str] = []
    for name in wanted:
        found = [column for column in columns if column == name or column.startswith(f"{name}/")]
        if not found:
            raise InvalidArgument(f"columns: there is no column {name!r}; the table has {', '.join(columns)}")
        chosen += [column for column in found if column not in chosen]
    return chosen
