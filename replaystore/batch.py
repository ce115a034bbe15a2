"""Batch: what sampling returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from replaystore.sampling import INFO_DTYPES
from replaystore.schema.spaces import nest

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]


class Batch:
    """A sampled batch: columns, their successors, and what is known of each item. Arrays have the batch as first axis.

    ``batch.observation``, ``batch.action``, ``batch.reward``, ``batch.next_observation``, ``batch.terminated``, ``batch.truncated``:
    columns (nested ones as dict trees; ``batch["observation/goal"]`` is a single one, ``batch["next_observation/goal"]`` its successor).
    With frame stacking, stacked columns are ``(batch, frame_stack, *shape)``.

    ``batch.discount`` float32, gamma**k · (1 − terminated) with k = ``batch.steps_taken`` int32; ``batch.step_ids`` int64;
    ``batch.probabilities`` float64, of each draw; ``batch.weights`` float32, importance weights divided by their maximum;
    ``batch.priorities`` float32; ``batch.times_sampled`` uint32, this draw counted in; ``batch.ages`` int64, in steps;
    ``batch.policy_version`` int64, −1 unknown.
    """

    __slots__ = ("_columns", "_info", "_nested")

    def __init__(self, fields: Mapping[str, Array], frame_stack: int = 1) -> None:
        self._columns: dict[str, Array] = {}
        self._info: dict[str, Array] = {}
        for name, array in fields.items():
            kind, _, column = name.partition("/")
            if kind == "data":
                self._columns[column] = array
            elif kind == "next":
                self._columns[f"next_{column}"] = array
            elif kind == "window":
                self._columns[column] = array[:, :frame_stack]
                self._columns[f"next_{column}"] = array[:, -frame_stack:]
            else:
                self._info[column] = array
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
        shapes = ", ".join(f"{name} {array.dtype.name}{list(array.shape)}" for name, array in self._columns.items())
        return f"<Batch of {len(self)}: {shapes}>"

    def keys(self) -> list[str]:
        """All names that ``batch[name]`` takes."""
        return [*self._columns, *(name for name in self._info if name not in self._columns)]

    def to_torch(self, device: str | torch.device = "cpu") -> TorchBatch:
        """The same batch as tensors on `device`: ``batch.to_torch("cuda").observation``.

        Copies to a CUDA device go through pinned memory and do not block; on the CPU, tensors share memory with the arrays where torch
        can (unsigned 32-bit counts become int64).
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
        for name in batch.keys():  # noqa: SIM118 - a Batch is no mapping
            array = batch[name]
            if array.dtype.kind == "u" and array.dtype.itemsize > 1:
                array = array.astype(np.int64)
            if not array.flags.writeable or not array.flags.aligned:
                array = array.copy()
            tensor = torch.from_numpy(array)
            if target.type == "cuda":
                tensor = tensor.pin_memory().to(target, non_blocking=True)
            elif target.type != "cpu":
                tensor = tensor.to(target)
            self._tensors[name] = tensor

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._nested:
            try:
                self._nested[name] = nest(name, self._tensors)
            except KeyError:
                raise AttributeError(f"this batch has no {name!r}; it has {', '.join(self._tensors)}") from None
        return self._nested[name]
