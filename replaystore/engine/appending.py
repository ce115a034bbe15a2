"""What a planned block is on disk: the arrays of steps/, meta/ and episodes/."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.episodes import FinishedEpisode, Plan, row_meta
from replaystore.storage.layout import EPISODE_DTYPES, META_DTYPES

Array = npt.NDArray[Any]

_META = tuple((name, f"meta/{name}") for name in META_DTYPES)
_EPISODES = tuple((name, f"episodes/{name}", np.dtype(dtype)) for name, dtype in EPISODE_DTYPES.items())


def step_arrays(plan: Plan, now: float) -> dict[str, Array]:
    """Every array of steps/ and meta/ by path, ``(rows, …)``, of a plan's rows, inserted at `now` (seconds since 1970)."""
    meta = row_meta(plan)
    meta["insert_time"], meta["actor"] = np.empty(plan.rows), np.empty(plan.rows, np.int32)
    meta["insert_time"].fill(now)
    meta["actor"].fill(plan.block.actor)
    arrays: dict[str, Array] = {f"steps/{name}": np.ascontiguousarray(array) for name, array in plan.block.columns.items()}
    for name, path in _META:
        arrays[path] = meta[name]
    return arrays


def episode_arrays(finished: list[FinishedEpisode]) -> dict[str, Array]:
    """Every array of episodes/ by path, a row per finished episode; empty when there is none."""
    if not finished:
        return {}
    columns: dict[str, list[Any]] = {
        "episode": [done.episode for done in finished],
        "first_step": [done.state.first_step for done in finished],
        "last_step": [done.state.last_step for done in finished],
        "length": [done.state.rows - 1 for done in finished],
        "return": [done.state.total for done in finished],
        "ending": [done.ending for done in finished],
        "actor": [done.state.actor for done in finished],
        "policy_version": [done.policy_version for done in finished],
        "seed": [done.state.seed for done in finished],
        "start_time": [done.state.start_time for done in finished],
        "end_time": [done.end_time for done in finished],
    }
    return {path: np.array(columns[name], dtype) for name, path, dtype in _EPISODES}
