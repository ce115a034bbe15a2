"""Which rows of a moment go into a copy, and under which ids: all as they are, or whole episodes numbered from 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.links import DELETED
from replaystore.engine.checking.invariants import LOST, STEP
from replaystore.engine.copies.moment import Moment
from replaystore.errors import InvalidArgument
from replaystore.schema.columns import is_reward

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]


class AllRows:
    """Rows keep their ids; with `most`, only the newest so many."""

    left_out_rows = 0

    def __init__(self, moment: Moment, most: int | None) -> None:
        self._moment = moment
        self.first = moment.first_step if most is None else max(moment.first_step, moment.next_step - most)
        self.stop = moment.next_step
        self.episodes = moment.episodes

    def ids(self, start: int, stop: int) -> Ids:
        """Ids in the table of the rows [start, stop) of the copy, ``(stop - start,)``."""
        return np.arange(start, stop)

    def translate(self, ids: Ids) -> Ids:
        """Ids in the copy of rows of the table."""
        return ids

    def open_episodes(self) -> list[list[Any]]:
        """The episodes going on, as in a checkpoint."""
        found: list[list[Any]] = self._moment.checkpoint["open"]
        return found


class RenumberedRows:
    """Rows get ids from 0 on. Left out are episodes that are not whole any more: their first row was evicted, or a row was deleted."""

    first = 0

    def __init__(self, moment: Moment) -> None:
        self._moment = moment
        ids = np.arange(moment.first_step, moment.next_step)
        previous = moment.rows("meta/previous", moment.first_step, moment.next_step)
        begins = moment.rows("meta/step_in_episode", moment.first_step, moment.next_step) == 0
        lost = moment.rows("meta/kind", moment.first_step, moment.next_step) == LOST
        spoiled = (previous < moment.first_step) & ~(begins & (previous == -1)) | lost
        spoiled |= moment.rows("replay/removed", moment.first_step, moment.next_step) == DELETED
        if lost.any():  # they may have been the ends of episodes
            spoiled |= _newest(moment) & ~np.isin(ids, [row[2] for row in moment.checkpoint["open"]])
        if spoiled.any():
            episode = moment.rows("meta/episode", moment.first_step, moment.next_step)
            ids = ids[~np.isin(episode, episode[spoiled])]
        self._ids: Ids = ids
        self.stop = len(ids)
        self.left_out_rows = moment.next_step - moment.first_step - len(ids)
        if not len(ids) and self.left_out_rows:
            raise InvalidArgument(
                f"table {moment.name!r}: none of its episodes still has all of its steps, so there is nothing to number from 0; "
                "take the snapshot without rebase"
            )
        self._episodes = np.flatnonzero(self._has(moment.episode_rows("first_step")) & self._has(moment.episode_rows("last_step")))
        self.episodes = len(self._episodes)

    def _has(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Whether rows of the table are in the copy."""
        places = np.searchsorted(self._ids, ids)
        found = places < len(self._ids)
        found[found] = self._ids[places[found]] == ids[found]
        return found

    def ids(self, start: int, stop: int) -> Ids:
        """Ids in the table of the rows [start, stop) of the copy, ``(stop - start,)``."""
        return self._ids[start:stop]

    def translate(self, ids: Ids) -> Ids:
        """Ids in the copy of rows of the table."""
        return np.searchsorted(self._ids, ids)

    def episode_rows(self, name: str) -> Array:
        """``episodes/NAME`` of the copy, ``(episodes,)``."""
        rows = self._moment.episode_rows(name)[self._episodes]
        return self.translate(rows) if name in ("first_step", "last_step") else rows

    def open_episodes(self) -> list[list[Any]]:
        """The episodes going on, as in a checkpoint."""
        found = [row for row in self._moment.checkpoint["open"] if self._has(np.array(row[1:3])).all()]
        return [[row[0], *self.translate(np.array(row[1:3])).tolist(), *row[3:]] for row in found]


def open_episodes_of(moment: Moment) -> list[list[Any]]:
    """The episodes going on, as in a checkpoint, from the rows alone: what a reader has instead of a journal. Their seeds are not known."""
    first, stop = moment.first_step, moment.next_step
    previous = moment.rows("meta/previous", first, stop)
    found: list[list[Any]] = []
    for last in (first + np.flatnonzero(_newest(moment))).tolist():
        ids = [last]
        while (before := int(previous[ids[-1] - first])) >= first:
            ids.append(before)
        of_last, of_first = np.array([last]), np.array([ids[-1]])
        rewards = [f"steps/{name}" for name in moment.config.columns if is_reward(name)]
        total = sum(float(moment.take(path, np.array(ids)).sum(dtype=np.float64)) for path in rewards)
        number, position, actor = (moment.take(f"meta/{name}", of_last).item() for name in ("episode", "step_in_episode", "actor"))
        found.append([number, ids[-1], last, position + 1, total, actor, -1, moment.take("meta/insert_time", of_first).item()])
    return found


def _newest(moment: Moment) -> npt.NDArray[np.bool_]:
    """Whether each row kept is a step that no row follows yet, ``(next_step - first_step,)``."""
    first, stop = moment.first_step, moment.next_step
    newest: npt.NDArray[np.bool_] = moment.rows("meta/kind", first, stop) == STEP
    previous = moment.rows("meta/previous", first, stop)
    newest[previous[previous >= first] - first] = False
    return newest
