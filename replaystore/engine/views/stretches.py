"""The Sequence and Episode views of drawn anchors: steps in a row, padded to one length or packed one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core import straight
from replaystore.core.stretch import Mask, Stretches, lengths, offsets_of, packed, stretches
from replaystore.core.walk import Ids, Links
from replaystore.engine.rows import Rows
from replaystore.engine.views.gathering import Patch, Take, links_of
from replaystore.errors import InvalidArgument
from replaystore.sampling import MAX_ROWS_WALKED
from replaystore.schema.columns import is_observation
from replaystore.schema.views import Episode, Sequence, covers

Array = npt.NDArray[Any]

_TRUE = np.ones(1, np.bool_)


class Places:
    """The rows of a batch, and how they lie: ``(n, T)`` places when padded, ``(total,)`` when packed."""

    def __init__(self, found: Stretches, view: Sequence | Episode, *, is_packed: bool, in_pieces: bool = False) -> None:
        self.found, self._frames, self._packed = found, view.frame_stack, is_packed
        self.in_pieces = in_pieces
        """Whether the steps of each item lie in a row, none missing, and nothing before them is asked for."""
        self.window_blank = None if in_pieces else _some(found.blank)
        self.info: dict[str, Array] = {"row_ids": found.row_ids, "steps_taken": found.taken}
        self.padded: Mask | None = None
        """Places after an item's last step; None when there are none."""
        if is_packed:
            self._offsets = self.info["offsets"] = offsets_of(found.taken)
        else:
            mask = self.info["mask"] = np.ones(found.row_ids.shape, np.bool_) if in_pieces else found.row_ids >= 0
            self.padded = None if in_pieces or mask.all() else ~mask

    @cached_property
    def plain(self) -> tuple[Ids, Mask | None]:
        """The window without the frames before the first step."""
        back, window = self._frames - 1, self.found.window
        if not back:
            return window, self.window_blank
        if not self._packed:
            return window[:, back:], _some(self.found.blank[:, back:])
        n = len(self.found.taken)
        before = (self._offsets[:-1] + np.arange(n) * self._frames)[:, None] + np.arange(back)
        return np.delete(window, before.ravel()), None

    @cached_property
    def stacked(self) -> tuple[Ids, Mask | None]:
        """The frames of each place: with one axis more."""
        frames, window, blank = self._frames, self.found.window, self.found.blank
        if self._packed:
            begins = np.arange(self._offsets[-1]) + np.repeat(np.arange(len(self.found.taken)) * frames, self.found.taken)
            of_each = begins[:, None] + np.arange(frames)
            return window[of_each], _some(blank[of_each])
        hidden = _sliding(blank, frames)[:, :-1]
        if self.padded is not None:
            hidden = hidden | self.padded[:, :, None]
        return _sliding(window, frames)[:, :-1], _some(hidden)

    def last(self, items: Ids) -> Any:
        """Index of the last place of some items."""
        if self._packed:
            return self._offsets[items + 1] - 1
        return items, self.found.taken[items] - 1


def _some(blank: Mask) -> Mask | None:
    return blank if blank.any() else None


def _sliding(window: Array, frames: int) -> Array:
    """``(n, W)`` as ``(n, W - frames + 1, frames)``, a view."""
    return np.lib.stride_tricks.sliding_window_view(window, frames, axis=1)


def sequences(links: Links, view: Sequence, anchors: Ids) -> Places:
    """The rows of sequences."""
    length = view.burn_in + view.length
    if view.frame_stack == 1:
        found, in_pieces = straight.stretches(links, anchors, length)
        return Places(found, view, is_packed=False, in_pieces=in_pieces)
    found = stretches(links, anchors, length, view.frame_stack - 1, view.padding == "edge")
    return Places(found, view, is_packed=False)


def episodes(links: Links, view: Episode, anchors: Ids) -> Places:
    """The rows of episodes.

    Raises:
        InvalidArgument: they are more than a batch may have.
    """
    limit = 2**31 - 1 if view.max_length is None else view.max_length
    taken = lengths(links, anchors, limit, MAX_ROWS_WALKED)
    if taken is None:
        raise InvalidArgument(
            f"the {len(anchors)} episodes drawn have more than {MAX_ROWS_WALKED} steps together, the most that a batch walks over: ask for "
            "fewer, or set Episode(max_length=…)"
        )
    n, longest, total = len(anchors), int(taken.max()), int(taken.sum(dtype=np.int64))
    frames, edge = view.frame_stack, view.padding == "edge"
    if view.packed:
        _check_size(n, total + n * frames, f"{total} steps and {n} x {frames} more for frames and next observations", "")
        return Places(packed(links, anchors, taken, frames - 1, edge), view, is_packed=True)
    sizes = f"{n} items of {longest} steps, as the longest, and {frames} more for frames and next observations"
    _check_size(n, n * (longest + frames), sizes, ", pack them with Episode(packed=True)")
    return Places(stretches(links, anchors, longest, frames - 1, edge), view, is_packed=False)


def _check_size(n: int, rows: int, sizes: str, remedy: str) -> None:
    if rows > MAX_ROWS_WALKED:
        raise InvalidArgument(
            f"batch_size={n} episodes: {sizes} are {rows} rows, a batch walks over at most {MAX_ROWS_WALKED}: ask for fewer{remedy}, "
            "or set Episode(max_length=…)"
        )


def expand(
    rows: Rows, names: Mapping[str, str], view: Sequence | Episode, anchors: Ids, info: dict[str, Array]
) -> tuple[dict[str, Array], dict[str, Take]]:
    """The small fields and what to gather, by name; see `replaystore.engine.views.transition.expand`."""
    links = links_of(rows)
    places = sequences(links, view, anchors) if isinstance(view, Sequence) else episodes(links, view, anchors)
    found = places.found
    here = anchors - rows.origin
    state = view.state_columns if isinstance(view, Sequence) else ()
    takes: dict[str, Take] = {}
    for name, stored in names.items():
        source = rows.array(f"steps/{stored}")
        if covers(state, name):
            takes[f"data/{name}"] = Take(source, here, None)
        elif is_observation(name):
            index, blank = (found.window, places.window_blank) if view.stacks(name) else places.plain
            takes[f"window/{name}"] = Take(source, index, blank)
        elif view.stacks(name) and name not in ("terminated", "truncated"):
            takes[f"data/{name}"] = Take(source, *places.stacked)
        else:
            patch = _interrupted(links, source, places) if name == "truncated" else None
            takes[f"data/{name}"] = Take(source, found.steps, places.padded, patch, here if places.in_pieces else None)
    info |= places.info
    info["policy_version"] = rows.array("meta/policy_version")[here]
    return {f"info/{name}": array for name, array in info.items()}, takes


def _interrupted(links: Links, truncated: Array, places: Places) -> Patch | None:
    """An interrupted episode says that it is truncated in its closing row only: so does its last step here."""
    end = places.found.end
    closed = np.flatnonzero((links.kind[end] == 1) & truncated[end])
    return Patch(places.last(closed), _TRUE, np.zeros(len(closed), np.int64)) if len(closed) else None
