"""Batches of several sources made one: arrays joined, probabilities and weights of the draw from all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.batch import Batch, RewardFunction
from replaystore.schema.views import View

Array = npt.NDArray[Any]


class JoinedBatch(Batch):
    """A batch drawn from several sources; its items lie source by source. As `Batch`, and:

    ``batch.sources`` int32 ``(batch,)``, of each item the index of its source in ``batch.source_names``. ``batch.probabilities`` are the
    source's share of the batch times the probability in the source; ``batch.weights`` are made of those. ``batch.candidates`` and
    ``batch.mass`` are sums over the sources in this batch; ``batch.next_step`` is 0: there is no one moment of several tables.
    """

    __slots__ = ("source_names",)

    def __init__(
        self, fields: Mapping[str, Array], source_names: Sequence[str], view: View, candidates: int = 0, mass: float = 0.0
    ) -> None:
        super().__init__(fields, view, candidates, mass)
        self.source_names = tuple(source_names)

    @property
    def sources(self) -> npt.NDArray[np.int32]:
        """``(batch,)``: of each item the index of its source in `source_names`."""
        return self._info["sources"]

    def relabel(self, compute_reward: RewardFunction, *, everything: bool = False) -> JoinedBatch:
        """As `Batch.relabel`."""
        again = super().relabel(compute_reward, everything=everything)
        return JoinedBatch(again.fields, self.source_names, self.view, self.candidates, self.mass)


@dataclass(frozen=True, slots=True)
class Part:
    """What one source gave for a batch."""

    source: int
    share: float
    """Of the batch, as it was planned."""
    batch: Batch
    random: bool = True
    """Whether its selector draws at random; else its items weigh 1."""


def join(parts: Sequence[Part], source_names: Sequence[str], beta: float, smallest: Mapping[int, float] | None = None) -> JoinedBatch:
    """One batch of all parts.

    Args:
        parts: at least one, of one view.
        source_names: of all sources.
        beta: exponent of the weights (1 / (N · P)) ** beta.
        smallest: weights are divided by the largest that any anchor could have: by source, share times the least probability of an anchor
            in it; None: by the batch's largest.
    """
    batches = [part.batch for part in parts]
    lengths = [len(batch) for batch in batches]
    fields = {name: _join_field(name, [batch.fields[name] for batch in batches]) for name in batches[0].fields}
    shares = np.repeat([part.share for part in parts], lengths)
    random = np.repeat([part.random for part in parts], lengths)
    probabilities = fields["info/probabilities"] * shares
    fields["info/probabilities"] = probabilities
    fields["info/weights"] = _weights(probabilities, random, beta, None if smallest is None else min(smallest.values(), default=0.0))
    fields["info/sources"] = np.repeat(np.array([part.source for part in parts], np.int32), lengths)
    last = {part.source: part.batch for part in parts}.values()
    candidates, mass = sum(batch.candidates for batch in last), sum(batch.mass for batch in last)
    return JoinedBatch(fields, source_names, batches[0].view, candidates, mass)


def _weights(probabilities: Array, random: Array, beta: float, least: float | None) -> npt.NDArray[np.float32]:
    """(1 / (N · P)) ** beta over its maximum, in which N cancels out."""
    weights = np.ones(len(probabilities), np.float32)
    drawn = random & (probabilities > 0)
    if beta and drawn.any():
        least = least if least else float(probabilities[drawn].min())
        weights[drawn] = np.minimum((probabilities[drawn] / least) ** -beta, 1.0)
    return weights


def _join_field(name: str, arrays: Sequence[Array]) -> Array:
    if len(arrays) == 1:
        return arrays[0]
    if name == "info/offsets":
        ends = np.cumsum([0] + [array[-1] for array in arrays])
        return np.concatenate([arrays[0], *(array[1:] + before for array, before in zip(arrays[1:], ends[1:], strict=False))])
    if arrays[0].ndim > 1 and len({array.shape[1] for array in arrays}) > 1:  # episodes, padded to the longest of each part
        longest = max(array.shape[1] for array in arrays)
        arrays = [_padded(array, longest, -1 if name == "info/row_ids" else 0) for array in arrays]
    return np.concatenate(arrays)


def _padded(array: Array, length: int, value: int) -> Array:
    out = np.full((len(array), length, *array.shape[2:]), value, array.dtype)
    out[:, : array.shape[1]] = array
    return out
