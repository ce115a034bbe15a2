"""What a sampler asks for and the fields that come back, before and after the wire.

A sampled batch is a set of named arrays, its *fields*, whatever carried it:

    data/COLUMN     the column at the anchor (rewards: the n-step sum; terminated, truncated: at the last step taken); of sequences and
                    episodes at every step: (batch, T, …), packed (total, …)
    next/COLUMN     observation columns, one row after the last step taken
    window/COLUMN   observation columns when `data` and `next` share frames. Transition: (batch, frame_stack + 1, …); sequences and
                    padded episodes: (batch, T + frame_stack, …); both are views of it. Packed episodes: one after the other, length +
                    frame_stack rows each, (total + batch · frame_stack, …)
    achieved/COLUMN hindsight: achieved goals one row after each step taken, (batch, n_step, …), the last one repeated
    desired/COLUMN  hindsight: the goal in force, (batch, …)
    info/NAME       what is known of each item: `INFO_DTYPES`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from replaystore.errors import InvalidArgument
from replaystore.schema.filters import Filter
from replaystore.schema.record import check_number
from replaystore.schema.selectors import FREE_SELECTORS, FreeSelector
from replaystore.schema.views import Transition, View

MAX_BATCH_SIZE = 1 << 20

_SELECTORS = (str, *FREE_SELECTORS)

MAX_ROWS_WALKED = 1 << 24
"""Of one batch: items times the rows that the view looks at for each. More is some gigabytes of indices for a request of fifty bytes."""

INFO_DTYPES: Mapping[str, str] = {
    "step_ids": "int64",
    "probabilities": "float64",
    "weights": "float32",
    "priorities": "float32",
    "times_sampled": "uint32",
    "ages": "int64",
    "policy_version": "int64",
    "discount": "float32",
    "steps_taken": "int32",
    "mask": "bool",
    "row_ids": "int64",
    "offsets": "int64",
    "relabelled": "bool",
    "goal_ids": "int64",
}
"""The info fields, each ``(batch,)`` but for mask and row_ids, ``(batch, T)``, or row_ids of packed episodes, ``(total,)``, and offsets,
``(batch + 1,)``. Only Transition and Hindsight have discount; sequences and episodes mask (unless packed: offsets) and row_ids; Hindsight
relabelled and goal_ids."""


def derive_seed(seed: int, index: int) -> int:
    """Seed of a sampler's batch number `index`: SplitMix64 (Steele et al. 2014) of both, from 0 to 2**63 - 1; the same everywhere."""
    mask = (1 << 64) - 1
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 1


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One batch asked for."""

    batch_size: int
    view: View = field(default_factory=Transition)
    selector: str | FreeSelector | None = None
    """Name of one of the table's selectors, or a selector that needs no priorities; None is the table's first."""

    beta: float = 0.0
    """Exponent of the importance weights (1 / (N · P)) ** beta, divided by the batch's largest."""

    seed: int | None = None
    """Draws with this seed instead of the table's own stream of random numbers."""

    columns: tuple[str, ...] | None = None
    """Only these columns are read; a name stands for everything nested below it. None reads all."""

    where: Filter | None = None
    """Only anchors that pass are drawn."""

    normalise: str = "batch"
    """Importance weights are divided by the largest of the batch, or (``"table"``) by the largest that any anchor could have."""

    def __post_init__(self) -> None:
        if type(self.batch_size) is not int or not 1 <= self.batch_size <= MAX_BATCH_SIZE:
            check_number("batch_size", self.batch_size, 1, MAX_BATCH_SIZE, whole=True)
        if type(self.beta) is not float or not 0.0 <= self.beta <= 100.0:
            if callable(self.beta):
                raise InvalidArgument(f"beta={self.beta!r}: a schedule is for samplers, which count batches; one sample takes a number")
            check_number("beta", self.beta, 0.0, 100.0)
        if self.seed is not None:
            check_number("seed", self.seed, 0, 2**63 - 1, whole=True)
        if self.selector is not None and not isinstance(self.selector, _SELECTORS):
            raise InvalidArgument(
                f"selector={self.selector!r} must be the name of one of the table's selectors, or one that needs no priorities: "
                + ", ".join(kind.__name__ for kind in FREE_SELECTORS)
            )
        if self.where is not None and not isinstance(self.where, Filter):
            raise InvalidArgument(
                f"where={self.where!r} must be a replaystore.Filter, for example replaystore.Filter(max_age_steps=10_000)"
            )
        if self.normalise not in ("batch", "table"):
            raise InvalidArgument(f"normalise={self.normalise!r} must be 'batch' or 'table'")
        if not isinstance(self.view, View):
            raise InvalidArgument(f"view {self.view!r} must be a replaystore view, for example replaystore.Transition(n_step=3)")
        rows = self.view.rows
        if self.batch_size * rows > MAX_ROWS_WALKED:
            raise InvalidArgument(
                f"batch_size={self.batch_size} items of {rows} rows each (steps and stacked frames) are {self.batch_size * rows} rows, a "
                f"batch walks over at most {MAX_ROWS_WALKED}: ask for at most {MAX_ROWS_WALKED // rows} items"
            )
        if self.columns is not None:
            columns = (self.columns,) if isinstance(self.columns, str) else tuple(self.columns)
            if not all(isinstance(name, str) for name in columns):
                raise InvalidArgument(f"columns={self.columns!r} must be names of columns")
            object.__setattr__(self, "columns", columns)


def ids_of(step_ids: Any, name: str = "step_ids") -> npt.NDArray[np.int64]:
    """Step ids from anything array-like, ``int64 (n,)``; InvalidArgument, which calls them `name`, when it cannot be that."""
    ids = _array(step_ids, name)
    if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu"):
        raise InvalidArgument(f"{name} must be one-dimensional whole numbers, got {ids.dtype} {ids.shape}")
    return ids.astype(np.int64)


def anchors_of(step_ids: Any) -> npt.NDArray[np.int64]:
    """The same where there must be at least one."""
    ids = ids_of(step_ids)
    if not len(ids):
        raise InvalidArgument("step_ids is empty: name at least one step to read")
    return ids


def priorities_of(step_ids: Any, priorities: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.floating[Any]]]:
    """Ids, ``int64 (n,)``, and their priorities, float32 or float64 ``(n,)``, from anything array-like; InvalidArgument otherwise."""
    ids, values = _array(step_ids, "step_ids"), _array(priorities, "priorities")
    if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu") or values.shape != ids.shape or values.dtype.kind not in "fiub":
        raise InvalidArgument(
            "step_ids and priorities must be one-dimensional and of one length, ids whole numbers; "
            f"got {ids.dtype} {ids.shape} and {values.dtype} {values.shape}"
        )
    return ids.astype(np.int64), values.astype(np.float32 if values.dtype == np.float32 else np.float64)


def _array(values: Any, name: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InvalidArgument(f"{name} cannot be made an array: {error}") from None


def check_as_of(as_of: int | None) -> int | None:
    """A step id that rows are seen up to, or None for all; InvalidArgument when it cannot be that."""
    if as_of is not None:
        check_number("as_of", as_of, 1, 2**63 - 1, whole=True)
    return as_of


@dataclass(frozen=True, slots=True)
class Field:
    """Name, dtype and full shape of one array of a batch."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class PreparedSample(Protocol):
    """Anchors already drawn and pinned: nothing that they need leaves the disk before `close`."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The arrays of the batch, in a fixed order."""

    def fill(self, out: Mapping[str, npt.NDArray[Any]]) -> None:
        """Gathers every field into ``out[field.name]``. May run in any thread, without the table's lock."""

    def close(self) -> None:
        """Unpins. To be called exactly once, whatever happened."""
