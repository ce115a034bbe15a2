"""A million draws through a table for every selector, alone and under filters and views, against the exact distribution.

Every test has a fixed seed and a chance of `FALSE_POSITIVES` to fail for a sampler that is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.engine.recovery import new_table
from replaystore.engine.table import Table
from replaystore.sampling import SampleRequest
from replaystore.steps import RUN_DTYPE, StepBlock
from tests.core.statistics import check_counts, check_means, strata
from tests.engine.model import World, chances

DRAWS, BATCH, STRATA = 1 << 20, 1 << 14, 256

SELECTORS: dict[str, Any] = {
    "uniform": rs.Uniform(),
    "stratified": rs.Prioritized(0.6, 0.1),
    "independent": rs.Prioritized(0.6, 0.1, stratified=False),
    "rank": rs.RankPrioritized(0.7),
    "recency": rs.Recency(40.0),
    "combined": rs.Recency(None, newest=3),
    "pass": rs.WithoutReplacement(),
}
KEEPS = ("stratified", "independent", "rank")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    """Episodes of 5 to 19 steps of two actors, interleaved in pieces of 3 rows; priorities 0 to 9.9."""
    folder = tmp_path_factory.mktemp("draws") / "t"
    config = rs.TableConfig({"observation": rs.Column((), "int64"), "action": rs.Column((), "int64")}, SELECTORS, seed=3)
    new_table(folder, config)
    table = Table("t", folder, "rw")
    open_episodes: dict[int, tuple[int, int, int]] = {}
    next_episode = 1
    for piece in range(110):
        actor = piece % 2
        episode, done, length = open_episodes.pop(actor, (next_episode, 0, 6 + 2 * (next_episode % 8)))
        next_episode += done == 0
        rows = min(3, length - done)
        ends = done + rows == length
        runs = np.zeros(1, RUN_DTYPE)
        runs["episode"], runs["first"], runs["rows"], runs["seed"] = episode, done, rows, -1
        runs["ending"], runs["policy_version"] = (1 + episode % 2) if ends else 0, piece // 10
        arrays = {name: np.zeros(rows, column.dtype) for name, column in config.columns.items()}
        arrays["observation"][:] = 1000 * episode + done + np.arange(rows)
        arrays["reward"] += episode % 5
        if ends:
            arrays["terminated" if episode % 2 == 0 else "truncated"][-1] = True
        else:
            open_episodes[actor] = episode, done + rows, length
        table.append(StepBlock(arrays, runs, actor), 1.0)
    ids = np.arange(table.next_step)
    for name in KEEPS:
        table.update_priorities(ids, PRIORITIES[: len(ids)], name)
    yield table
    table.close()


PRIORITIES = np.random.default_rng(0).permutation(400) / 40.0

VIEWS = {"transition": rs.Transition(n_step=3), "sequence": rs.Sequence(4, period=3), "episode": rs.Episode(max_length=2)}
FILTERS = {
    "all": None,
    "ages": rs.Filter(min_age_steps=40, max_age_steps=200),
    "actor": rs.Filter(actors=(1,), max_age_versions=6),
    "episodes": rs.Filter(min_return=10.0, ended="terminated"),
}


def draw(table: Table, name: str, where: Any, view: Any, n: int, total: int) -> tuple[Any, Any, list[Any]]:
    """How often each id was drawn, the probabilities reported, and the ids of each batch."""
    counts, reported, batches = np.zeros(table.next_step, np.int64), np.zeros(table.next_step), []
    seeds = iter(range(10**6))
    while counts.sum() < total:
        request = SampleRequest(n, view, name, seed=next(seeds), where=where, columns=("action",))
        prepared = table.try_prepare(request)
        assert prepared is not None
        out = {field.name: np.empty(field.shape, field.dtype) for field in prepared.fields}
        prepared.fill(out)
        prepared.close()
        ids = out["info/step_ids"]
        counts += np.bincount(ids, minlength=len(counts))
        reported[ids] = out["info/probabilities"]
        batches.append(ids)
    return counts, reported, batches


def check(table: Table, name: str, where: Any, view: Any, total: int) -> None:
    selector, n = SELECTORS[name], STRATA if name in ("stratified", "rank") else BATCH
    world = World.of(table, 0.0, 10)
    ids = world.eligible(where, view.anchors)
    assert len(ids) > 5
    priorities = dict(enumerate(PRIORITIES.tolist()))
    expected = chances(selector, ids, priorities, world.stop, n)
    share = np.zeros(table.next_step)
    share[list(expected)] = list(expected.values())
    counts, reported, batches = draw(table, name, where, view, n, total)
    np.testing.assert_allclose(reported[counts > 0], share[counts > 0], rtol=1e-5)
    if name == "pass":
        assert counts[ids].sum() == counts.sum()
        assert counts[ids].max() - counts[ids].min() <= 2  # begins and ends in the middle of a pass
        assert all(np.bincount(batch, minlength=len(counts))[ids].min() >= len(batch) // len(ids) - 1 for batch in batches)
    elif name == "combined":
        newest = ids[-3:]
        assert all(batch[:3].tolist() == newest[::-1] for batch in batches)
        rest = np.bincount(np.concatenate([batch[3:] for batch in batches]), minlength=len(counts))
        check_counts(rest[ids], np.full(len(ids), 1.0 / len(ids)))
    elif name in ("stratified", "rank"):  # what lies where in the mass: by id, or by rank
        order = ids if name == "stratified" else sorted(ids, key=lambda step: -priorities[step])
        mean, variance = strata(share[order], n)
        check_means(counts[order], mean * len(batches), variance * len(batches))
    else:
        check_counts(counts[ids], share[ids])


@pytest.mark.parametrize("name", SELECTORS)
def test_every_selector_draws_as_it_says(table: Table, name: str) -> None:
    check(table, name, None, rs.Transition(), DRAWS)


@pytest.mark.parametrize("where", [name for name in FILTERS if name != "all"])
@pytest.mark.parametrize("name", SELECTORS)
def test_under_a_filter(table: Table, name: str, where: str) -> None:
    check(table, name, FILTERS[where], rs.Transition(), DRAWS // 4)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("where", FILTERS)
def test_priorities_filters_and_views_together(table: Table, where: str, view: str) -> None:
    check(table, "independent", FILTERS[where], VIEWS[view], DRAWS // 4)


def test_a_pass_is_in_random_order(table: Table) -> None:
    ids = World.of(table, 0.0, 10).anchors()
    firsts = np.zeros(table.next_step, np.int64)
    state = SampleRequest(len(ids), selector="pass", columns=("action",))
    table.try_prepare(SampleRequest(1, selector="pass", columns=("action",)))
    for _ in range(2000):
        prepared = table.try_prepare(state)
        assert prepared is not None
        out = {field.name: np.empty(field.shape, field.dtype) for field in prepared.fields}
        prepared.fill(out)
        prepared.close()
        firsts[out["info/step_ids"][1]] += 1
    assert len(ids) > 100
    check_counts(firsts[ids], np.full(len(ids), 1 / len(ids)))
