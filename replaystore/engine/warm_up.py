"""Compiling every kernel before the first client calls, not while it waits."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from replaystore.core.runs import find_runs
from replaystore.engine.recovery import new_table
from replaystore.engine.table import Table
from replaystore.sampling import SampleRequest
from replaystore.schema.columns import Column
from replaystore.schema.filters import Filter
from replaystore.schema.selectors import (
    Fifo,
    FreeSelector,
    Lifo,
    MaxHeap,
    MinHeap,
    Prioritized,
    RankPrioritized,
    Recency,
    Selector,
    Uniform,
    WithoutReplacement,
)
from replaystore.schema.table_config import Retention, TableConfig
from replaystore.schema.views import Episode, Hindsight, Sequence, Transition, View
from replaystore.steps import RUN_DTYPE, TERMINATED, StepBlock


def warm_up() -> None:
    """Runs a small table through its life in a temporary folder: about a second, or half a minute the first time after an installation."""
    columns = {"observation": Column((2,), "float32"), "action": Column((), "int64"), "small": Column((), "int16")}
    free: tuple[FreeSelector, ...] = (Uniform(), Fifo(), Lifo(), Recency(5.0, newest=1))
    kept: dict[str, Selector] = {"p": Prioritized(), "r": RankPrioritized(), "h": MaxHeap(), "l": MinHeap(), "w": WithoutReplacement()}
    config = TableConfig(columns, kept, retention=Retention(20))
    with tempfile.TemporaryDirectory(prefix="replaystore-") as folder:
        new_table(Path(folder) / "warm", config)
        table = Table("warm", Path(folder) / "warm", "rw")
        for episode in (1, 2):
            runs = np.zeros(1, RUN_DTYPE)
            runs["episode"], runs["rows"], runs["seed"] = episode, 15, -1
            runs["ending"] = TERMINATED if episode == 2 else 0
            arrays = {name: np.zeros((15, *column.shape), column.dtype) for name, column in config.columns.items()}
            arrays["terminated"][-1] = episode == 2
            table.append(StepBlock(arrays, runs), 1.0)
        for selector in (*free, *kept):
            for where in (None, Filter(max_age_steps=15, actors=(0,))):
                request = SampleRequest(4, Transition(n_step=2, frame_stack=2), selector, beta=0.5, where=where, normalise="table")
                batch = table.sample(request, 1.0)
        table.update_priorities(batch.step_ids, np.ones(4), "p")
        goals = Hindsight(Transition((1, 2)), achieved="observation", desired="observation")
        views: tuple[View, ...] = (Sequence(2, frame_stack=2), Episode(), Episode(packed=True), goals, replace(goals, strategy="random"))
        for view in views:
            table.sample(SampleRequest(4, view, Uniform(), seed=1), 1.0)
        table.sample_at(SampleRequest(2, Sequence(2)), [17, 18])  # in pieces
        table.alter(retention=Retention(20, max_times_sampled=1))
        table.changing.delete_steps([25])
        table.changing.delete_episodes(where=Filter(max_length=20))
        table.close()
    find_runs(np.zeros(1, np.int64), 0, np.empty((1, 2), np.int64))
