"""Every view gives the same batches, whichever way they come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.store import Store
from replaystore_client import Client
from tests.local.conftest import compare_lives, config, play, same
from tests.views.worlds import EPISODES, HINDSIGHTS, SEQUENCES, TRANSITIONS

Clients = tuple[Client, Client]
VIEWS = {"transition": TRANSITIONS, "sequence": SEQUENCES, "episode": EPISODES, "hindsight": HINDSIGHTS}


def compare(clients: Clients, table: str, size: int, batches: int = 3, **asked: Any) -> None:
    """Samplers of both kinds with one seed. The first batch of each comes by wire."""
    local, wire = (client.sampler(table, size, prefetch=1, seed=3, timeout_s=5.0, **asked) for client in clients)
    with local, wire:
        for _ in range(batches):
            same(next(local), next(wire))
        assert (local.path, local.path_reason) == ("local", "")
        assert (wire.path, wire.path_reason) == ("wire", "local=False")


@pytest.mark.parametrize("kind", VIEWS)
def test_of_any_view_of_any_rows(shared_store: Store, clients: Clients, kind: str) -> None:
    compare_lives(shared_store, VIEWS[kind], 70, lambda table, view, size: compare(clients, table, size, view=view))


def test_of_filters_selectors_and_single_columns(shared_store: Store, clients: Clients) -> None:
    selectors = {"p": rs.Prioritized(), "u": rs.Uniform(), "r": rs.RankPrioritized()}
    shared_store.create_table("t", config(selector=selectors, extras={"note": rs.Column((3,), "int16", writable=True)}))
    with shared_store.writer("t") as writer:
        writer.reset(np.zeros(1024))
        for t in range(100):
            writer.append(t, t + 1.0, t == 99, False, np.full(1024, t + 1), note=np.full(3, t))
    shared_store.update_priorities("t", np.arange(100), np.arange(100) % 7)
    for asked in (
        {"selector": "p", "beta": 0.5},
        {"selector": "r", "beta": 0.5, "normalise": "table"},
        {"selector": "u", "where": rs.Filter(max_age_steps=30)},
        {"selector": "u", "columns": ["note"]},
        {"selector": "u", "columns": ["reward"]},
        {"selector": rs.Recency(20.0), "view": rs.Transition(n_step=(1, 3))},
    ):
        compare(clients, "t", 32, **asked)


def test_of_columns_that_are_written_into(shared_store: Store, clients: Clients) -> None:
    shared_store.create_table("w", config(extras={"note": rs.Column((), "int64", writable=True)}))
    with shared_store.writer("w") as writer:
        writer.reset(np.zeros(1024))
        for t in range(50):
            writer.append(t, 0.0, t == 49, False, np.zeros(1024), note=0)
    with clients[0].sampler("w", 64, prefetch=1) as sampler:
        next(sampler)
        for value in (5, 6):
            shared_store.update_columns("w", np.arange(50), {"note": np.arange(50) * value})
            batch = next(sampler)
            assert sampler.path == "local"
            np.testing.assert_array_equal(batch["note"], batch.step_ids * value)


def test_of_one_agent_of_several(shared_store: Store, clients: Clients) -> None:
    columns = {name: rs.Column((2,)) for name in ("observation/a", "observation/b", "action/a", "action/b")}
    shared_store.create_table("agents", rs.TableConfig(columns | {"reward/a": rs.Column(()), "reward/b": rs.Column(())}, seed=1))
    with shared_store.writer("agents") as writer:
        both = lambda value: {"a": np.full(2, value), "b": np.full(2, -value)}  # noqa: E731
        writer.reset(both(0))
        for t in range(30):
            writer.append(both(t), {"a": t, "b": -t}, t == 29, False, both(t + 1))
    for agent in ("a", "b"):
        compare(clients, "agents", 16, view=rs.Transition(agent=agent, frame_stack=2))


def test_of_several_batches_to_a_message(shared_store: Store, clients: Clients) -> None:
    shared_store.create_table("many", config())
    play(shared_store, "many", 80)
    local, wire = (client.sampler("many", 4, prefetch=16, seed=5) for client in clients)
    with local, wire:
        for _ in range(60):
            same(next(local), next(wire))
        assert local.path == "local"
        assert local._together > 1


def test_single_calls(shared_store: Store, clients: Clients) -> None:
    local, wire = clients
    shared_store.create_table("calls", config())
    play(shared_store, "calls", 80)
    for seed in range(4):
        batch = local.sample("calls", 16, view=rs.Sequence(5), seed=seed)
        but = ("info/probabilities", "info/times_sampled")
        again = wire.sample_at("calls", batch.step_ids, view=rs.Sequence(5), seed=seed, as_of=batch.next_step)
        for name, array in again.fields.items():
            if name not in but:
                assert array.tobytes() == batch.fields[name].tobytes(), name
        same(local.sample_at("calls", batch.step_ids, seed=seed), wire.sample_at("calls", batch.step_ids, seed=seed))
    assert local._single._idle[0]._local["calls"].path == "local"
