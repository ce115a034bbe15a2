"""A saved table in the memory of a device: whole columns are read once, batches are drawn and gathered there.

For data that fits beside the network. Items are those of `replaystore.Transition`, drawn uniformly with replacement; frames are kept once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

import replaystore as rs

_BLOCK_BYTES = 64 << 20
_SPARE = 0.9
"""Of the memory that is free, so much may be taken."""
_LINK_BYTES, _FRAME_BYTES = 128, 16
"""For each row: what is known of its neighbours while they are looked up, and of each frame of its stack, at most."""

_SUCCESSOR, _PREVIOUS, _KIND, _REMOVED = "replay/successor", "meta/previous", "meta/kind", "replay/removed"
_WIDER = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}
"""What torch can gather instead of numbers that it cannot."""


class PreloadedBatch:
    """Tensors by name, as `replaystore.Batch.to_torch` has them, on the device of the table."""

    __slots__ = ("_tensors",)

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[name]

    def __len__(self) -> int:
        return len(self._tensors["step_ids"])

    def keys(self) -> list[str]:
        """All names that ``batch[name]`` takes."""
        return list(self._tensors)

    def to_torch(self, device: Any = None) -> PreloadedBatch:
        """Itself: it is there already."""
        return self


class Preloaded:
    """The columns of a table as it stood when it was read, and which rows its transitions are made of."""

    def __init__(
        self,
        api: Any,
        table: str,
        view: rs.Transition,
        device: torch.device | str,
        columns: Sequence[str] = ("observation", "action", "reward", "terminated"),
        report: Callable[[dict[str, Any]], None] = lambda figures: None,
    ) -> None:
        """Reads the table.

        Args:
            api: an open store, or a `replaystore_client.Client`.
            table: its name.
            view: n_step (one number), gamma, frame_stack and padding.
            device: where the columns go.
            columns: their names; one stands for all nested below it.
            report: called now and then with ``{"preloaded": share of the rows}``.

        Raises:
            InvalidArgument: the columns do not fit into the device's memory; the view is another; the table dropped rows meanwhile, or
                holds no step that can be sampled.
        """
        low, high = view.step_range
        if low != high or view.agent is not None:
            raise rs.InvalidArgument(f"a preloaded table makes transitions of one n_step and one agent, not {view}")
        self.view, self.device = view, torch.device(device)
        stats = api.stats(table)
        self.first_step, self._stop = stats.first_step, stats.next_step
        self._rows = self._stop - self.first_step
        there = api.describe(table).config.columns
        below = {wanted: {name for name in there if name == wanted or name.startswith(f"{wanted}/")} for wanted in columns}
        for wanted, found in below.items():
            if not found:
                raise rs.InvalidArgument(f"columns: there is no column {wanted!r}; the table has {', '.join(there)}")
        self._names = [name for name in there if any(name in found for found in below.values())]
        self._zeros = int(view.frame_stack > 1 and view.padding == "zero")  # one row of zeros more, for frames that are not there
        shapes = {name: ((self._rows + self._zeros, *there[name].shape), there[name].dtype) for name in self._names}
        self.nbytes = sum(math.prod(shape) * np.dtype(_WIDER.get(dtype, dtype)).itemsize for shape, dtype in shapes.values())
        """Of the columns, on the device."""
        self._check_room(table)
        self._columns = {
            name: torch.zeros(shape, dtype=getattr(torch, _WIDER.get(dtype, dtype)), device=self.device)
            for name, (shape, dtype) in shapes.items()
        }
        self._find_items(self._read(api, table, report))
        if not len(self._anchors):
            raise rs.InvalidArgument(f"table {table!r} holds no step to learn from; `replaystore ls` shows what the store holds")

    def __len__(self) -> int:
        """Steps that can be sampled."""
        return len(self._anchors)

    @property
    def step_ids(self) -> torch.Tensor:
        """Their ids, ``int64 (len,)``, on the device."""
        ids: torch.Tensor = self._anchors + self.first_step
        return ids

    def sample(self, batch_size: int, seed: int) -> PreloadedBatch:
        """Draws uniformly, with replacement; the same seed gives the same batch on a device of the same kind."""
        generator = torch.Generator(self.device).manual_seed(seed)
        return self._items(torch.randint(len(self._anchors), (batch_size,), generator=generator, device=self.device))

    def sample_at(self, step_ids: Any) -> PreloadedBatch:
        """Exactly these steps, ``(n,)``; NotFound for one that cannot be sampled."""
        ids = torch.as_tensor(step_ids, device=self.device) - self.first_step
        items = torch.searchsorted(self._anchors, ids).clamp(max=len(self._anchors) - 1)
        unknown = self._anchors[items] != ids
        if bool(unknown.any()):
            raise rs.NotFound(f"step_ids: {int(ids[unknown][0]) + self.first_step} is no step that can be sampled")
        return self._items(items)

    # -- making items

    def _items(self, items: torch.Tensor) -> PreloadedBatch:
        here, end = self._anchors[items], self._end[items]
        tensors = {"step_ids": here + self.first_step, "discount": self._discount[items], "steps_taken": self._taken[items]}
        tensors["weights"] = torch.ones(len(items), device=self.device)
        for name, column in self._columns.items():
            group = name.partition("/")[0]
            if group == "reward" or name in ("terminated", "truncated"):
                tensors[name] = self._of_items[name][items]
                continue
            tensors[name] = self._take(name, column, here)
            if group == "observation":
                tensors[f"next_{name}"] = self._take(name, column, end)
        return PreloadedBatch(tensors)

    def _take(self, name: str, column: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        if not self.view.stacks(name):
            return column.index_select(0, rows)
        frames = self._window.index_select(0, rows)
        return column.index_select(0, frames.reshape(-1)).reshape(*frames.shape, *column.shape[1:])

    # -- reading

    def _check_room(self, table: str) -> None:
        free = _free_bytes(self.device)
        needed = self.nbytes + (_LINK_BYTES + _FRAME_BYTES * self.view.frame_stack) * self._rows
        if free is not None and needed > _SPARE * free:
            raise rs.InvalidArgument(
                f"table {table!r} does not fit: its {len(self._names)} columns and links take {needed / 1e9:.2f} GB, {self.device} has "
                f"{free / 1e9:.2f} GB free: sample from the store instead, or name fewer columns"
            )

    def _read(self, api: Any, table: str, report: Callable[[dict[str, Any]], None]) -> dict[str, torch.Tensor]:
        """Fills the columns; returns the links, each ``(rows,)``."""
        wanted = [*self._names, _SUCCESSOR, _PREVIOUS, _KIND, _REMOVED, "terminated", "truncated"]
        kinds = {_SUCCESSOR: torch.int32, _PREVIOUS: torch.int64}
        names = (_SUCCESSOR, _PREVIOUS, _KIND, _REMOVED, "terminated", "truncated")
        links = {name: torch.zeros(self._rows, dtype=kinds.get(name, torch.uint8), device=self.device) for name in names}
        per_block = max(1, _BLOCK_BYTES // max(1, self.nbytes // max(1, self._rows)))
        for begin in range(self.first_step, self._stop, per_block):
            end = min(begin + per_block, self._stop)
            rows = api.read_steps(table, begin, end, columns=list(dict.fromkeys(wanted)))
            if len(rows["step_id"]) != end - begin:
                raise rs.InvalidArgument(
                    f"table {table!r} dropped steps below {end} while it was being read: end its writers first, or read a snapshot of it"
                )
            part = slice(begin - self.first_step, end - self.first_step)
            for name, column in self._columns.items():
                array = rows[name]
                column[part] = torch.from_numpy(array.astype(_WIDER.get(array.dtype.name, array.dtype), copy=False)).to(self.device)
            for name, link in links.items():
                link[part] = torch.from_numpy(rows[name]).to(self.device, link.dtype)
            report({"preloaded": round((end - self.first_step) / self._rows, 3)})
        return links

    def _find_items(self, links: dict[str, torch.Tensor]) -> None:
        """The anchors, and for each what its transition comes to."""
        count = torch.arange(self._rows, device=self.device)
        distance, kind = links[_SUCCESSOR].long(), links[_KIND]
        following = count + distance.abs()
        following[(distance == 0) | (following >= self._rows)] = -1
        self._anchors = torch.nonzero((distance > 0) & (following >= 0)).squeeze(1)
        terminated = links["terminated"].bool()
        n, gamma = self.view.step_range[1], self.view.gamma
        step, end = self._anchors, following[self._anchors]
        taken = torch.ones_like(step)
        rewards = {name: column for name, column in self._columns.items() if name.partition("/")[0] == "reward"}
        sums = {name: column[step].double() for name, column in rewards.items()}
        going = torch.ones_like(step, dtype=torch.bool)
        for power in range(1, n):
            further = following[end]
            going = going & ~terminated[step] & (kind[end] == 0) & (further >= 0)
            step, end = torch.where(going, end, step), torch.where(going, further, end)
            taken += going
            for name, column in rewards.items():
                weight = (going.double() * gamma**power).reshape(-1, *[1] * (column.dim() - 1))
                sums[name] += weight * column[step].double()
        ended, truncated = terminated[step], links["truncated"].bool()
        self._end, self._taken = end, taken.int()
        self._discount = (gamma ** taken.double() * ~ended).float()
        self._of_items = {name: sums[name].to(column.dtype) for name, column in rewards.items()}
        self._of_items["terminated"] = ended
        # an interrupted episode says so in its closing row only
        self._of_items["truncated"] = truncated[step] | ((kind[end] == 1) & truncated[end])
        if self.view.frame_stack > 1:
            self._window = self._windows(links[_PREVIOUS] - self.first_step, links[_REMOVED] == 1)

    def _windows(self, previous: torch.Tensor, deleted: torch.Tensor) -> torch.Tensor:
        """The rows of the stack that ends at each row, ``int64 (rows, frame_stack)``, oldest first."""
        step = torch.arange(self._rows, device=self.device)
        frames = [step]
        for _ in range(self.view.frame_stack - 1):
            before = torch.where(step >= 0, previous[step.clamp(min=0)], -1)
            before = torch.where((before < 0) | deleted[before.clamp(min=0)], -1, before)
            missing = frames[0] if self.view.padding == "edge" else torch.full_like(before, self._rows)
            frames.insert(0, torch.where(before < 0, missing, before))
            step = before
        return torch.stack(frames, dim=1)


def _free_bytes(device: torch.device) -> int | None:
    """Bytes that can be had there, None where nobody says."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "cpu" and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
