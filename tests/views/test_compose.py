"""Every view with every selector and a filter: one draw, then the view; and the same as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.schema.columns import INFO_NAMES
from replaystore.store import Store
from tests.views.worlds import COLUMNS, observation

SELECTORS: dict[str, Any] = {
    "uniform": rs.Uniform(),
    "prioritized": rs.Prioritized(),
    "rank": rs.RankPrioritized(),
    "fifo": rs.Fifo(),
    "lifo": rs.Lifo(),
    "min": rs.MinHeap(),
    "max": rs.MaxHeap(),
    "recency": rs.Recency(20.0, newest=1),
    "once": rs.WithoutReplacement(),
}
VIEWS: list[Any] = [
    rs.Transition((1, 3), frame_stack=2),
    rs.Sequence(4, period=2, frame_stack=2),
    rs.Episode(frame_stack=2),
    rs.Episode(packed=True),
    rs.Hindsight(rs.Transition(2, frame_stack=2)),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with rs.open(tmp_path_factory.mktemp("store") / "data") as opened:
        opened.create_table("t", rs.TableConfig(COLUMNS, SELECTORS, seed=4))
        with opened.writer("t") as writer:
            for number in range(8):
                writer.reset(observation((0, number, 0)))
                for t in range(5 + number):
                    writer.append(t, float(number), t == 4 + number, False, observation((0, number, t + 1)), state=[0, 0])
        yield opened


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: f"{type(view).__name__}-{getattr(view, 'packed', '')}")
@pytest.mark.parametrize("selector", SELECTORS)
def test_every_selector(store: Store, selector: str, view: Any) -> None:
    where = rs.Filter(min_length=7)
    batch = store.sample("t", 6, view=view, selector=selector, where=where, beta=0.5, seed=1)
    steps = store.read_steps("t", 0, 1000, ["meta/step_in_episode", "observation/frame"])
    t, number = steps["meta/step_in_episode"][batch.step_ids], steps["observation/frame"][batch.step_ids][:, 1] - 1
    assert (number >= 2).all()
    assert (t % view.anchors.period == 0).all()
    if isinstance(view, rs.Episode):
        assert (t == 0).all()
        np.testing.assert_array_equal(batch.steps_taken, 5 + number)
    if isinstance(view, rs.Sequence | rs.Episode) and not getattr(view, "packed", False):
        np.testing.assert_array_equal(batch.mask.sum(axis=1), batch.steps_taken)
        np.testing.assert_array_equal(batch.row_ids[:, 0], batch.step_ids)
    if getattr(view, "packed", False):
        np.testing.assert_array_equal(batch.row_ids[batch.offsets[:-1]], batch.step_ids)
    assert batch.weights.shape == (6,)
    assert batch.candidates > 0


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: f"{type(view).__name__}-{getattr(view, 'packed', '')}")
def test_tensors(store: Store, view: Any) -> None:
    batch = store.sample("t", 6, view=view, selector="uniform", seed=1)
    tensors = batch.to_torch()
    for name in batch.keys():  # noqa: SIM118 - a Batch is no mapping
        np.testing.assert_array_equal(tensors[name].numpy(), batch[name])


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: f"{type(view).__name__}-{getattr(view, 'packed', '')}")
def test_only_the_columns_asked_for(store: Store, view: Any) -> None:
    full, some = store.sample("t", 6, view=view, seed=1), store.sample("t", 6, view=view, seed=1, columns=["action", "observation/frame"])
    columns = {name for name in some.keys() if name not in INFO_NAMES}  # noqa: SIM118 - a Batch is no mapping
    assert columns == {"action", "observation/frame", "next_observation/frame"}
    for name in columns:
        np.testing.assert_array_equal(some[name], full[name])


def test_a_reader_sees_the_same(store: Store) -> None:
    store.table("t").commit()
    store.table("t").publish()
    with rs.open(store.path, "r") as reader:
        for view in VIEWS:
            one, other = (side.sample("t", 6, view=view, seed=1, selector="uniform") for side in (store, reader))
            for name in one.keys():  # noqa: SIM118 - a Batch is no mapping
                if name != "times_sampled":
                    np.testing.assert_array_equal(one[name], other[name])
