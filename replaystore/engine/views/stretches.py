"""The Sequence and Episode views of drawn anchors: steps in a row, padded to one length or packed one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.stretch import lengths, packed, stretches
from replaystore.core.walk import Counts, Ids, Links
from replaystore.engine.rows import Rows
from replaystore.engine.views.gathering import Patch, Take, links_of
from replaystore.errors import InvalidArgument
from replaystore.sampling import MAX_ROWS_WALKED
from replaystore.schema.columns import is_observation
from replaystore.schema.views import Episode, Sequence, covers

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_TRUE = np.ones(1, np.bool_)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows of a batch, ids relative to the origin. "Places" are ``(n, T)`` when padded, ``(total,)`` when packed."""

    steps: Ids
    """Of each place."""
    padded: Mask | None
    """Places after an item's last step; None when there are none."""
    taken: Counts
    """``(n,)`` steps of each item."""
    last: Any
    """Index of each item's last place."""
    end: Ids
    """``(n,)`` row after the last step."""
    window: Ids
    """The steps with frames before them and the row after."""
    window_blank: Mask | None
    plain: Ids
    """The window without the frames before it."""
    plain_blank: Mask | None
    stacked: Ids
    """``(places, frame_stack)`` frames of each place."""
    stacked_blank: Mask | None
    info: dict[str, Array]


def sequences(links: Links, view: Sequence, anchors: Ids) -> Stretch:
    """The rows of sequences."""
    return _padded(links, view, anchors, view.burn_in + view.length)


def episodes(links: Links, view: Episode, anchors: Ids) -> Stretch:
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
    frames = view.frame_stack
    if view.packed:
        _check_size(n, total + n * frames, f"{total} steps and {n} x {frames} more for frames and next observations", "")
        return _packed(links, view, anchors, taken)
    sizes = f"{n} items of {longest} steps, as the longest, and {frames} more for frames and next observations"
    _check_size(n, n * (longest + frames), sizes, ", pack them with Episode(packed=True)")
    return _padded(links, view, anchors, longest)


def _check_size(n: int, rows: int, sizes: str, remedy: str) -> None:
    if rows > MAX_ROWS_WALKED:
        raise InvalidArgument(
            f"batch_size={n} episodes: {sizes} are {rows} rows, a batch walks over at most {MAX_ROWS_WALKED}: ask for fewer{remedy}, "
            "or set Episode(max_length=…)"
        )


def _padded(links: Links, view: Sequence | Episode, anchors: Ids, length: int) -> Stretch:
    back = view.frame_stack - 1
    window, blank, taken = stretches(links, anchors, length, back, view.padding == "edge")
    items = np.arange(len(anchors))
    mask = np.arange(length) < taken[:, None]
    whole = bool(mask.all())
    steps = window[:, back:-1]
    row_ids = np.where(mask, steps, -1)
    end = window[items, back + taken]
    window -= links.origin
    steps = np.ascontiguousarray(steps)
    padded = None if whole else ~mask
    plain, plain_blank = window[:, back:], _some(blank[:, back:])
    stacked, stacked_blank = steps, padded
    if back:
        stacked = _sliding(window, view.frame_stack)[:, :length]
        stacked_blank = _some(_sliding(blank, view.frame_stack)[:, :length] | ~mask[:, :, None])
    info: dict[str, Array] = {"mask": mask, "row_ids": row_ids, "steps_taken": taken}
    return Stretch(
        steps, padded, taken, (items, taken - 1), end - links.origin, window, _some(blank), plain, plain_blank, stacked, stacked_blank, info
    )


def _packed(links: Links, view: Episode, anchors: Ids, taken: Counts) -> Stretch:
    frames, n = view.frame_stack, len(anchors)
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(taken, out=offsets[1:])
    window, blank = packed(links, anchors, offsets, frames - 1, view.padding == "edge")
    begins = np.arange(offsets[-1]) + np.repeat(np.arange(n) * frames, taken)  # of each step's frames in the window
    ids = window[begins + frames - 1]
    window -= links.origin
    steps = stacked = ids - links.origin
    plain, stacked_blank = window, None
    if frames > 1:
        of_each = begins[:, None] + np.arange(frames)
        stacked, stacked_blank = window[of_each], _some(blank[of_each])
        before = (offsets[:-1] + np.arange(n) * frames)[:, None] + np.arange(frames - 1)
        plain = np.delete(window, before.ravel())
    end = window[offsets[1:] + np.arange(1, n + 1) * frames - 1]
    info: dict[str, Array] = {"offsets": offsets, "row_ids": ids, "steps_taken": taken}
    return Stretch(steps, None, taken, offsets[1:] - 1, end, window, _some(blank), plain, None, stacked, stacked_blank, info)


def _some(blank: Mask) -> Mask | None:
    return blank if blank.any() else None


def _sliding(window: Array, frames: int) -> Array:
    """``(n, W)`` as ``(n, W - frames + 1, frames)``, a view."""
    return np.lib.stride_tricks.sliding_window_view(window, frames, axis=1)


def expand(
    rows: Rows, names: Mapping[str, str], view: Sequence | Episode, anchors: Ids, info: dict[str, Array]
) -> tuple[dict[str, Array], dict[str, Take]]:
    """The small fields and what to gather, by name; see `replaystore.engine.views.transition.expand`."""
    links = links_of(rows)
    stretch = sequences(links, view, anchors) if isinstance(view, Sequence) else episodes(links, view, anchors)
    here = anchors - rows.origin
    state = view.state_columns if isinstance(view, Sequence) else ()
    takes: dict[str, Take] = {}
    for name, stored in names.items():
        source = rows.array(f"steps/{stored}")
        if covers(state, name):
            takes[f"data/{name}"] = Take(source, here, None)
        elif is_observation(name):
            stacks = view.stacks(name)
            index, blank = (stretch.window, stretch.window_blank) if stacks else (stretch.plain, stretch.plain_blank)
            takes[f"window/{name}"] = Take(source, index, blank)
        elif view.stacks(name):
            takes[f"data/{name}"] = Take(source, stretch.stacked, stretch.stacked_blank)
        else:
            patch = _interrupted(links, source, stretch) if name == "truncated" else None
            takes[f"data/{name}"] = Take(source, stretch.steps, stretch.padded, patch)
    info |= stretch.info
    info["policy_version"] = rows.array("meta/policy_version")[here]
    return {f"info/{name}": array for name, array in info.items()}, takes


def _interrupted(links: Links, truncated: Array, stretch: Stretch) -> Patch | None:
    """An interrupted episode says that it is truncated in its closing row only: so does its last step here."""
    closed = np.flatnonzero((links.kind[stretch.end] == 1) & truncated[stretch.end])
    if not len(closed):
        return None
    last = stretch.last
    places = tuple(part[closed] for part in last) if isinstance(last, tuple) else last[closed]
    return Patch(places, _TRUE, np.zeros(len(closed), np.int64))
