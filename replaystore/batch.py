"""Batch: what sampling returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from replaystore.errors import InvalidArgument
from replaystore.sampling import INFO_DTYPES
from replaystore.schema.spaces import nest
from replaystore.schema.views import Episode, Hindsight, Sequence, Transition, View

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]
RewardFunction = Callable[..., Any]
"""``compute_reward(achieved_goal, desired_goal, info)``: arrays with a goal per row in, a reward per row out."""


class Batch:
    """A sampled batch: columns, their successors, and what is known of each item. Arrays have the batch as first axis.

    ``batch.observation``, ``batch.action``, ``batch.reward``, ``batch.next_observation``, ``batch.terminated``, ``batch.truncated``:
    columns (nested ones as dict trees; ``batch["observation/goal"]`` is a single one, ``batch["next_observation/goal"]`` its successor).
    With frame stacking, stacked columns are ``(batch, frame_stack, *shape)``.

    ``batch.discount`` float32, gamma**k · (1 − terminated) with k = ``batch.steps_taken`` int32; ``batch.step_ids`` int64;
    ``batch.probabilities`` float64, of each draw; ``batch.weights`` float32, importance weights divided by their maximum;
    ``batch.priorities`` float32; ``batch.times_sampled`` uint32, this draw counted in; ``batch.ages`` int64, in steps;
    ``batch.policy_version`` int64, −1 unknown.

    Of sequences and episodes: ``batch.mask`` bool ``(batch, T)`` or ``batch.offsets`` int64 ``(batch + 1,)``; ``batch.row_ids`` int64, the
    step id of every place, −1 where padded. Of hindsight: ``batch.relabelled`` bool, ``batch.goal_ids`` int64, −1 where not relabelled.

    ``batch.view`` made it; ``batch.candidates`` anchors could have been drawn, their ``batch.mass`` together is what a draw is in
    proportion to, and ``batch.next_step`` was the table's next step id then.
    """

    __slots__ = ("_columns", "_fields", "_info", "_nested", "candidates", "mass", "next_step", "view")

    def __init__(
        self, fields: Mapping[str, Array], view: View | None = None, candidates: int = 0, mass: float = 0.0, next_step: int = 0
    ) -> None:
        self.view: View = Transition() if view is None else view
        self.candidates, self.mass, self.next_step = candidates, mass, next_step
        self._fields = dict(fields)
        self._columns = _Columns()
        self._info: dict[str, Array] = {}
        for name, array in fields.items():
            kind, _, column = name.partition("/")
            if kind == "data":
                self._columns[column] = array
            elif kind == "next":
                self._columns[f"next_{column}"] = array
            elif kind == "info":
                self._info[column] = array
            elif kind == "window":
                here, following = _unfold(self.view, column, array, fields)
                self._columns[column] = here
                self._columns[f"next_{column}"] = following
        self._nested: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Array:
        if name in self._columns:
            return self._columns[name]
        if name in self._info:
            return self._info[name]
        raise KeyError(f"this batch has no {name!r}; it has {', '.join(self.keys())}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in INFO_DTYPES and name in self._info:
            return self._info[name]
        if name not in self._nested:
            try:
                self._nested[name] = nest(name, self._columns)
            except KeyError:
                raise AttributeError(f"this batch has no {name!r}; it has {', '.join(self.keys())}") from None
        return self._nested[name]

    def __contains__(self, name: object) -> bool:
        return name in self._columns or name in self._info

    def __len__(self) -> int:
        return len(self._info["step_ids"])

    def __repr__(self) -> str:
        arrays = {name: self._columns[name] for name in self._columns}
        shapes = ", ".join(f"{name} {array.dtype.name}{list(array.shape)}" for name, array in arrays.items())
        return f"<Batch of {len(self)}: {shapes}>"

    @property
    def fields(self) -> Mapping[str, Array]:
        """The arrays that it is made of, by the names in `replaystore.sampling`."""
        return self._fields

    def keys(self) -> list[str]:
        """All names that ``batch[name]`` takes."""
        return [*self._columns, *(name for name in self._info if name not in self._columns)]

    def relabel(self, compute_reward: RewardFunction, *, everything: bool = False) -> Batch:
        """The batch with the rewards that go with its goals, from one call of `compute_reward`.

        Args:
            compute_reward: called as ``compute_reward(achieved_goal, desired_goal, info={})`` with ``(rows, *goal_shape)`` arrays of all
                steps taken; returns ``(rows,)`` rewards. ``env.unwrapped.compute_reward`` of a goal environment is one.
            everything: also recomputes the rewards of items whose goal was not changed.

        Returns:
            A batch that shares all other arrays with this one.

        Raises:
            InvalidArgument: this is no batch of a Hindsight view, has no rewards, or `compute_reward` returned another shape.
        """
        view = self.view
        if not isinstance(view, Hindsight):
            raise InvalidArgument(f"only batches of a Hindsight view can be relabelled; this one is of {type(view).__name__}")
        if "data/reward" not in self._fields:
            if any(name.startswith("data/reward/") for name in self._fields):
                raise InvalidArgument("this batch has a reward for each of several agents: choose one with Transition(agent=…)")
            raise InvalidArgument("this batch has no reward column: name 'reward' among the columns to be read")
        achieved, desired = self._fields[f"achieved/{view.achieved}"], self._fields[f"desired/{view.desired}"]
        items = np.arange(len(self)) if everything else np.flatnonzero(self._info["relabelled"])
        reward = self._fields["data/reward"].copy()
        if len(items):
            path = achieved[items]
            steps = path.shape[1]
            goals = np.repeat(desired[items], steps, axis=0)
            computed = np.asarray(compute_reward(path.reshape(len(goals), *path.shape[2:]), goals, info={}))
            if computed.shape != (len(goals),):
                raise InvalidArgument(f"compute_reward must return one reward per row, shape ({len(goals)},); it returned {computed.shape}")
            taken = np.arange(steps) < self._info["steps_taken"][items][:, None]
            terms = view.transition.gamma ** np.arange(steps) * computed.reshape(len(items), steps)
            reward[items] = np.where(taken, terms, 0.0).sum(axis=1)
        return Batch({**self._fields, "data/reward": reward}, view, self.candidates, self.mass, self.next_step)

    def to_torch(self, device: str | torch.device = "cpu") -> TorchBatch:
        """The same batch as tensors on `device`: ``batch.to_torch("cuda").observation``.

        Copies to a CUDA device go through pinned memory, which is used again, and do not block; small arrays travel, and stay, together;
        frames that an observation and the next one share travel once.
        On the CPU, tensors share memory with the arrays where torch can (unsigned 32-bit counts become int64).
        """
        return TorchBatch(self, device)


class TorchBatch:
    """A batch as torch tensors; the names are those of `Batch`."""

    __slots__ = ("_nested", "_tensors")

    def __init__(self, batch: Batch, device: str | torch.device) -> None:
        import torch

        target = torch.device(device)
        self._tensors: dict[str, torch.Tensor] = {}
        self._nested: dict[str, Any] = {}
        wholes: dict[str, Array] = {}
        seen: dict[str, tuple[str, Array, int]] = {}
        """Of each name: what is moved, the array, and where it begins in that."""
        for name in batch.keys():  # noqa: SIM118 - a Batch is no mapping
            array = batch[name]
            if array.dtype.kind == "u" and array.dtype.itemsize > 1:
                array = array.astype(np.int64)
            of = f"window/{name.removeprefix('next_')}"
            window = batch.fields.get(of)
            offset = None if window is None or target.type == "cpu" else _offset(window, array)
            if window is None or offset is None:
                wholes[name] = array
                continue
            wholes[of] = window
            seen[name] = (of, array, offset)
        moved = _moved(wholes, target)
        for name in batch.keys():  # noqa: SIM118
            if name not in seen:
                self._tensors[name] = moved[name]
                continue
            of, array, offset = seen[name]
            strides = [stride // array.itemsize for stride in array.strides]
            self._tensors[name] = moved[of].as_strided(array.shape, strides, moved[of].storage_offset() + offset)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[name]

    def keys(self) -> list[str]:
        """All names that ``batch[name]`` takes."""
        return list(self._tensors)

    def to_torch(self, device: str | torch.device = "cpu") -> TorchBatch:
        """Itself: it is there already."""
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._nested:
            try:
                self._nested[name] = nest(name, self._tensors)
            except KeyError:
                raise AttributeError(f"this batch has no {name!r}; it has {', '.join(self._tensors)}") from None
        return self._nested[name]


def _moved(arrays: Mapping[str, Array], target: torch.device) -> dict[str, torch.Tensor]:
    """Tensors on `target`, of the same names; on the CPU over the same memory, where that may be written into."""
    import torch

    if target.type == "cuda":
        from replaystore.transfer import to_device

        return to_device(arrays, target)
    fit = {name: array if array.flags.writeable and array.flags.aligned else array.copy() for name, array in arrays.items()}
    return {name: torch.from_numpy(array).to(target) for name, array in fit.items()}


def _offset(window: Array, view: Array) -> int | None:
    """Elements before the first one of `view` in the contiguous `window`; None when it is no view of it."""
    if view.dtype != window.dtype or not window.flags.c_contiguous or not np.may_share_memory(window, view):
        return None
    return int(view.__array_interface__["data"][0] - window.__array_interface__["data"][0]) // window.itemsize


class _Columns(dict[str, Array]):
    """Arrays by name; those given as functions are made when they are first looked at."""

    def __getitem__(self, name: str) -> Array:
        value = super().__getitem__(name)
        if isinstance(value, partial):
            value = self[name] = value()
        return value


def _unfold(view: View, column: str, window: Array, fields: Mapping[str, Array]) -> tuple[Any, Any]:
    """A column and its successor out of the frames that they share."""
    frames = _frames(view, column)
    if isinstance(view, Episode) and view.packed:
        offsets = fields["info/offsets"]
        return partial(_take_packed, window, offsets, frames, 0), partial(_take_packed, window, offsets, frames, 1)
    if isinstance(view, Sequence | Episode):
        if not view.stacks(column):
            return window[:, :-1], window[:, 1:]
        strided = np.moveaxis(np.lib.stride_tricks.sliding_window_view(window, frames, axis=1), -1, 2)
        return strided[:, :-1], strided[:, 1:]
    return window[:, :frames], window[:, -frames:]


def _frames(view: View, column: str) -> int:
    if isinstance(view, Hindsight):
        view = view.transition
    return view.frame_stack if view.stacks(column) else 1


def _take_packed(window: Array, offsets: Array, frames: int, ahead: int) -> Array:
    """The frames of each step of packed episodes, of which each has `frames` rows more in the window than steps."""
    items = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    first = np.arange(len(items)) + items * frames + ahead
    taken: Array = window[first] if frames == 1 else window[first[:, None] + np.arange(frames)]
    return taken


def check_reward_function(view: View, reward_fn: RewardFunction | None) -> None:
    """InvalidArgument for a reward function that the view has no use for."""
    if reward_fn is not None and not isinstance(view, Hindsight):
        raise InvalidArgument(f"reward_fn goes with a Hindsight view, not with {type(view).__name__}")
    if reward_fn is not None and not callable(reward_fn):
        raise InvalidArgument(f"reward_fn={reward_fn!r} must be callable: reward_fn(achieved_goal, desired_goal, info)")
