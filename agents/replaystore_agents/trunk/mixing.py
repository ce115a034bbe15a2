"""Batches from two tables, so many items of each: fine-tuning on fresh steps beside saved ones. Knows samplers; nothing of learning."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import torch

import replaystore as rs


def split(batch_size: int, share: float) -> tuple[int, int]:
    """How many fresh and how many saved items a batch has, `share` of it saved; each at least one.

    Raises:
        InvalidArgument: there is no such share, or the batch is too small for both.
    """
    if not 0.0 < share < 1.0 or batch_size < 2:
        raise rs.InvalidArgument(f"share={share} of batches of {batch_size} must be above 0 and below 1, of at least 2 items")
    saved = min(max(round(share * batch_size), 1), batch_size - 1)
    return batch_size - saved, saved


class MixedSampler:
    """Two samplers as one: every batch has the fresh items first, then the saved ones, always as many of each.

    Priorities and everything that is noted of a batch are those of the fresh items; weights are normalised within each part.
    """

    def __init__(self, fresh: Any, saved: Any) -> None:
        """Both are entered and left with this one."""
        self._fresh, self._saved = fresh, saved
        self._waiting: rs.Batch | None = None

    @property
    def beta(self) -> float:
        """Of the fresh items."""
        beta: float = self._fresh.beta
        return beta

    @beta.setter
    def beta(self, beta: float) -> None:
        self._fresh.beta = beta

    def __next__(self) -> MixedBatch:
        if self._waiting is None:
            self._waiting = next(self._fresh)
        saved = next(self._saved)  # when this fails, the fresh items stay for the next call
        fresh, self._waiting = self._waiting, None
        return MixedBatch(fresh, saved)

    def update_priorities(self, ids: Any, errors: Any) -> None:
        """Of the fresh items; `errors` are of the whole batch."""
        self._fresh.update_priorities(ids, errors[: len(ids)])

    def __enter__(self) -> Self:
        self._saved.__enter__()
        self._fresh.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._fresh.__exit__(kind, error, trace)
        finally:
            self._saved.__exit__(kind, error, trace)


class MixedBatch:
    """As `replaystore.Batch`, as far as loops need it; single figures are those of the fresh items."""

    def __init__(self, fresh: rs.Batch, saved: rs.Batch) -> None:
        self._parts = (fresh, saved)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._parts[0], name)

    def to_torch(self, device: Any = "cpu") -> dict[str, torch.Tensor]:
        """The columns that both have, joined."""
        fresh, saved = (part.to_torch(device) for part in self._parts)
        both = [name for name in fresh.keys() if name in set(saved.keys())]  # noqa: SIM118 - no mappings
        return {name: torch.cat([fresh[name], saved[name]]) for name in both if fresh[name].shape[1:] == saved[name].shape[1:]}
