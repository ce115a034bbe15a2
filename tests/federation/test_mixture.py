"""Several tables sampled as one: exact shares, the probabilities of the draw really made, updates that go home."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.server.thread import start_in_thread
from replaystore.store import Store
from replaystore_client import Client
from tests.core.statistics import check_counts

from .conftest import fill, play


def check_origin(batch: Any) -> None:
    """Every item is from the table that it says; ids are those of that table."""
    np.testing.assert_array_equal(batch.observation[:, 0], batch.sources + 1)
    np.testing.assert_array_equal(batch.observation[:, 1], batch.step_ids)
    np.testing.assert_array_equal(batch.next_observation[:, 1], batch.step_ids + 1)


@pytest.fixture
def two(api: Any) -> Any:
    fill(api, "online", 1, 40, selector=rs.Prioritized(alpha=1.0, epsilon=0.0))
    fill(api, "offline", 2, 60, selector=rs.Prioritized(alpha=1.0, epsilon=0.0))
    return api


def test_shares_are_exact_over_many_batches(two: Any) -> None:
    mixture = rs.Mixture({"online": 0.3, "offline": 0.7})
    totals = np.zeros(2)
    with two.sampler(mixture, 33, columns=["observation"], seed=1) as sampler:
        for number, batch in zip(range(1, 200), sampler, strict=False):
            assert len(batch) == 33
            assert batch.source_names == ("online", "offline")
            check_origin(batch)
            totals += np.bincount(batch.sources, minlength=2)
            assert np.all(np.abs(totals - np.array([0.3, 0.7]) * 33 * number) < 1)


def test_probabilities_and_weights_are_those_of_the_draw_from_all_tables(two: Any) -> None:
    rng = np.random.default_rng(4)
    values = [rng.random(40) + 0.1, rng.random(60) + 0.1]
    for table, priorities in zip(("online", "offline"), values, strict=True):
        two.update_priorities(table, np.arange(len(priorities)), priorities)
    exact = np.concatenate([0.25 * values[0] / values[0].sum(), 0.75 * values[1] / values[1].sum()])
    counts = np.zeros(100, np.int64)
    mixture = rs.Mixture({"online": 1, "offline": 3})
    for normalise in ("batch", "table"):
        batch = two.sample(mixture, 64, beta=0.7, seed=5, normalise=normalise)
        place = batch.step_ids + 40 * batch.sources
        np.testing.assert_allclose(batch.probabilities, exact[place], rtol=1e-5)
        weights = exact[place] ** -0.7
        largest = weights.max() if normalise == "batch" else (exact**-0.7).max()
        np.testing.assert_allclose(batch.weights, weights / largest, rtol=1e-4)
        assert batch.candidates == 100
    with two.sampler(mixture, 100_000, columns=[], seed=6, where=rs.Filter(min_age_steps=0)) as sampler:
        for _ in range(10):
            batch = next(sampler)
            counts += np.bincount(batch.step_ids + 40 * batch.sources, minlength=100)
    for part, share in ((slice(0, 40), 0.25), (slice(40, 100), 0.75)):  # shares are exact, so each table is a draw of its own
        assert counts[part].sum() == 1_000_000 * share
        check_counts(counts[part], exact[part] / share)  # 4 tests at 1e-6 each; stratified draws vary less than that allows


def test_updates_go_home(two: Any) -> None:
    mixture = rs.Mixture({"online": 0.5, "offline": 0.5})
    with two.sampler(mixture, 8, prefetch=1) as sampler:
        ids, sources = np.array([3, 3, 59, 39]), np.array([0, 1, 1, 0])
        sampler.update_priorities(ids, [5.0, 6.0, 7.0, np.nan], sources=sources)
        batch = next(sampler)
        sampler.update_priorities(batch, np.full(8, 2.0))
        with pytest.raises(rs.InvalidArgument, match="which table"):
            sampler.update_priorities(batch.step_ids, np.ones(8))
        with pytest.raises(rs.InvalidArgument, match="of one length"):
            sampler.update_priorities(batch, np.ones(7))
        with pytest.raises(rs.InvalidArgument, match="sources=2 must be from 0 to 1"):
            sampler.update_priorities([1], [1.0], sources=[2])
        with pytest.raises(rs.InvalidArgument, match="sources=-1"):
            sampler.update_priorities([1], [1.0], sources=[-1])
    assert sampler.updates == rs.UpdateCounts(3 + 8, 0, 1)
    assert sampler.updates_by_source == {"online": rs.UpdateCounts(1 + 4, 0, 1), "offline": rs.UpdateCounts(2 + 4, 0, 0)}
    again = two.sample_at("online", [3], columns=[]).priorities, two.sample_at("offline", [3, 59], columns=[]).priorities
    expected = [5.0 if 3 not in batch.step_ids[batch.sources == 0] else 2.0], [6.0, 7.0]
    got = [float(again[0][0])], [float(value) for value in again[1]]
    for source, ids_of_source in ((1, [3, 59]),):
        hit = np.isin(ids_of_source, batch.step_ids[batch.sources == source])
        assert got[1] == [2.0 if was else value for was, value in zip(hit, expected[1], strict=True)]
    assert got[0] == expected[0]


def test_a_seed_gives_the_same_batches_and_sample_gives_the_first(two: Any) -> None:
    mixture = rs.Mixture({"online": 0.5, "offline": 0.5})

    def run() -> list[Any]:
        with two.sampler(mixture, 9, view=rs.Transition(n_step=(1, 4)), seed=11, prefetch=3) as sampler:
            return [next(sampler) for _ in range(4)]

    one, other = run(), run()
    for left, right in zip(one, other, strict=True):
        for name in ("observation", "next_observation", "step_ids", "sources", "probabilities", "steps_taken"):
            np.testing.assert_array_equal(left[name], right[name])
    alone = two.sample(mixture, 9, view=rs.Transition(n_step=(1, 4)), seed=11)
    np.testing.assert_array_equal(alone.step_ids, one[0].step_ids)
    assert any(not np.array_equal(one[0].step_ids, later.step_ids) for later in one[1:])


def test_a_seed_gives_the_same_batches_on_both_sides(store: Store) -> None:
    fill(store, "online", 1, 40, selector=rs.Prioritized())
    fill(store, "offline", 2, 60, selector=rs.RankPrioritized())
    mixture = rs.Mixture({"online": 0.37, "offline": 0.63})
    options: Any = {"view": rs.Transition(n_step=(1, 3)), "seed": 12, "beta": rs.Linear(0.4, 1.0, steps=3)}
    with (
        start_in_thread(store) as server,
        Client(server.address) as client,
        store.sampler(mixture, 11, **options) as here,
        client.sampler(mixture, 11, **options) as there,
    ):
        for one, other, _ in zip(here, there, range(5), strict=False):
            assert one.keys() == other.keys()
            for name in one.keys():  # noqa: SIM118 - a Batch is no mapping
                if name != "times_sampled":
                    np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_beta_may_be_a_schedule(two: Any) -> None:
    two.update_priorities("online", np.arange(40), np.linspace(0.1, 5, 40))
    mixture = rs.Mixture({"online": 0.5, "offline": 0.5})
    with two.sampler(mixture, 16, beta=rs.Linear(0.0, 1.0, steps=4), seed=1) as sampler:
        for beta in (0.0, 0.25, 0.5, 0.75, 1.0, 1.0):
            assert sampler.beta == beta
            batch = next(sampler)
            expected = batch.probabilities**-beta
            np.testing.assert_allclose(batch.weights, expected / expected.max(), rtol=1e-5)
        sampler.beta = 0.5
        assert sampler.beta == 0.5


def test_a_table_that_is_not_ready_holds_the_batch_back(api: Any) -> None:
    fill(api, "online", 1, 5)
    api.create_table("offline", rs.TableConfig({"observation": rs.Column((2,)), "action": rs.Column((), "int64")}))
    with api.sampler(rs.Mixture({"online": 0.5, "offline": 0.5}), 4, timeout_s=0.1) as sampler:
        with pytest.raises(rs.NotReady):
            next(sampler)
        play(api, "offline", 2, 6)
        sampler._timeout_s = 30.0
        for source in sampler._sources:
            source.sampler._timeout_s = 30.0
        for _ in range(3):
            batch = next(sampler)
            assert batch.sources.tolist() == [0, 0, 1, 1]
            check_origin(batch)


def test_tables_must_have_the_same_columns(api: Any) -> None:
    fill(api, "online", 1, 5)
    api.create_table("other", rs.TableConfig({"observation": rs.Column((3,)), "action": rs.Column((), "int64"), "extra": rs.Column(())}))
    mixture = rs.Mixture({"online": 0.5, "other": 0.5})
    with pytest.raises(rs.SchemaMismatch, match=r"'extra' is missing in 'online' \(online\) and float32\[\] in 'other'.*columns=\["):
        api.sample(mixture, 4)
    with pytest.raises(rs.SchemaMismatch, match=r"'observation' is float32\[2\] in 'online'"):
        api.sampler(mixture, 4, columns=["observation", "action"])
    with pytest.raises(rs.NotReady):
        api.sample(mixture, 4, columns=["action"], timeout_s=0.01)
    with pytest.raises(rs.NotFound, match="nowhere"):
        api.sample(rs.Mixture({"online": 0.5, "nowhere": 0.5}), 4)
    with pytest.raises(rs.InvalidArgument, match="log="):
        api.sampler(mixture, 4, log="somewhere")


@pytest.mark.parametrize("view", [rs.Sequence(6), rs.Episode(), rs.Episode(packed=True), rs.Transition(n_step=2, frame_stack=3)])
def test_views_are_joined_as_if_they_came_from_one_table(api: Any, view: Any) -> None:
    for table, tag, lengths in (("online", 1, (3, 9)), ("offline", 2, (5, 2, 12))):
        api.create_table(table, rs.TableConfig({"observation": rs.Column((2,)), "action": rs.Column((), "int64")}))
        for length in lengths:
            play(api, table, tag, length)
    batch = api.sample(rs.Mixture({"online": 0.4, "offline": 0.6}), 10, view=view, seed=2)
    assert np.bincount(batch.sources).tolist() == [4, 6]
    for item in range(10):
        alone = api.sample_at(batch.source_names[batch.sources[item]], batch.step_ids[item : item + 1], view=view)
        for name in alone.keys():  # noqa: SIM118 - a Batch is no mapping
            if name in ("probabilities", "times_sampled", "offsets", "ages", "weights"):
                continue
            mine = alone[name]
            if isinstance(view, rs.Episode) and view.packed and name not in ("step_ids", "priorities", "policy_version", "steps_taken"):
                got = batch[name][batch["offsets"][item] : batch["offsets"][item + 1]]
                np.testing.assert_array_equal(got, mine, err_msg=name)
            elif mine.ndim > 1 and batch[name].shape[1] > mine.shape[1]:
                np.testing.assert_array_equal(batch[name][item, : mine.shape[1]], mine[0], err_msg=name)
                if name != "observation":  # where the mask is False there may be the final one, which is shared with next_observation
                    assert np.all(batch[name][item, mine.shape[1] :] == (-1 if name == "row_ids" else 0)), name
            else:
                np.testing.assert_array_equal(batch[name][item], mine[0], err_msg=name)
