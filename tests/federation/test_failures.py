"""Whatever fails when: batches stay whole, shares add up, and an error is raised only when nobody is left."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import replaystore as rs
from replaystore.federated import federation

COLUMNS = {"x": rs.Column((), "int64")}
CANDIDATES = (10, 40, 25, 5)


class FakeTable:
    """The verbs that a source needs; call number i to `next` fails when i is in `failing`."""

    def __init__(self, index: int, failing: set[int]) -> None:
        self.index, self.failing, self.calls = index, failing, 0

    def describe(self, name: str) -> Any:
        return SimpleNamespace(config=rs.TableConfig(COLUMNS))

    def stats(self, name: str) -> Any:
        return SimpleNamespace(anchors=CANDIDATES[self.index], total_priority={})

    def sampler(self, name: str, batch_size: int, **options: Any) -> FakeSampler:
        return FakeSampler(self)


class FakeSampler:
    def __init__(self, table: FakeTable) -> None:
        self.table, self.line, self.updates, self.closed = table, [], rs.UpdateCounts(0, 0, 0), False

    def ask(self, size: int) -> None:
        self.line.append(size)

    def __next__(self) -> rs.Batch:
        assert not self.closed
        self.table.calls += 1
        if self.table.calls in self.table.failing:
            raise rs.DeadlineExceeded(f"call {self.table.calls}")
        size, candidates = self.line.pop(0), CANDIDATES[self.table.index]
        fields = {
            "data/x": np.full(size, self.table.index),
            "info/step_ids": np.arange(size),
            "info/probabilities": np.full(size, 1 / candidates),
            "info/weights": np.ones(size, np.float32),
        }
        return rs.Batch(fields, candidates=candidates, mass=float(candidates), next_step=99)

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module", autouse=True)
def hardly_any_pauses() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(federation, "FIRST_PAUSE_S", 0.0005)
        patch.setattr(federation, "LONGEST_PAUSE_S", 0.001)
        yield


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    failing=st.lists(st.sets(st.integers(1, 40)), min_size=1, max_size=4),
    size=st.integers(1, 30),
    prefetch=st.integers(1, 5),
    shares=st.sampled_from(["mass", "candidates", "given"]),
)
@example(failing=[{1}, {6}, set()], size=11, prefetch=5, shares="mass")  # one that goes had brought more than its share
def test_batches_stay_whole(failing: list[set[int]], size: int, prefetch: int, shares: str) -> None:
    tables = [FakeTable(index, calls) for index, calls in enumerate(failing)]
    sources = {f"s{index}": (table, "t") for index, table in enumerate(tables)}
    how: Any = {name: index + 1 for index, name in enumerate(sources)} if shares == "given" else shares
    got = 0
    with rs.FederatedSampler(sources, size, how, prefetch=prefetch, beta=1.0, timeout_s=20.0) as sampler:
        for _ in range(60):
            try:
                batch = next(sampler)
            except rs.DeadlineExceeded:
                assert len(sampler.missing) == len(tables)
                continue
            got += 1
            assert len(batch) == size
            np.testing.assert_array_equal(batch.x, batch.sources)
            of_each = {int(source): batch.probabilities[batch.sources == source] for source in np.unique(batch.sources)}
            total = 0.0
            for source, probabilities in of_each.items():
                assert np.ptp(probabilities) == 0
                total += probabilities[0] * CANDIDATES[source]
            assert total <= 1 + 1e-9
            if len(of_each) == len(tables):
                assert total == pytest.approx(1)
            assert batch.weights.max() == 1
            np.testing.assert_allclose(batch.weights, batch.probabilities.min() / batch.probabilities, rtol=1e-6)
    assert got >= 60 - max(map(len, failing)) * len(failing)
    for thread in sampler._threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in sampler._threads)


class Reordering(FakeSampler):
    """Puts what it was asked for first behind the rest, as a sampler does with a request that the server's limiter refused."""

    def __next__(self) -> rs.Batch:
        self.line.append(self.line.pop(0))
        return super().__next__()


def test_pieces_may_come_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeTable, "sampler", lambda self, *arguments, **options: Reordering(self))
    sources = {"a": (FakeTable(0, set()), "t"), "b": (FakeTable(1, set()), "t")}
    with rs.FederatedSampler(sources, 7, {"a": 0.5, "b": 0.5}, prefetch=4) as sampler:
        counts = [np.bincount(next(sampler).sources).tolist() for _ in range(8)]
    assert {tuple(count) for count in counts} == {(3, 4), (4, 3)}
    assert np.sum(counts, axis=0).tolist() == [28, 28]
