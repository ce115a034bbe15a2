"""A table against a plain list: whatever is done to it in whatever order, through closing, killing, dropping and making anew."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import replaystore as rs
from replaystore.errors import InvalidArgument, NotReady
from replaystore.steps import OPEN, TERMINATED, TRUNCATED
from replaystore.store import Store
from tests.naive import transition

from .model import LARGEST, Model, Piece, block_of

COLUMNS = {"observation": rs.Column((2,)), "action": rs.Column((), "int64"), "note": rs.Column((), "int16", writable=True)}
STREAMS = 3
EXAMPLES = int(os.environ.get("REPLAYSTORE_MACHINE", "60"))
"""How many stories to play; some thousand make a night of it."""

MEMORY = Path("/dev/shm")  # nothing here is about the disk itself, and syncs cost time

LIMITERS = st.one_of(
    st.builds(rs.MinSize, st.sampled_from([1, 5, 8])),
    st.builds(rs.SampleToInsertRatio, st.sampled_from([0.5, 1.0, 4.0]), st.sampled_from([1, 8]), st.just(64.0)),
)
RETENTIONS = st.builds(rs.Retention, st.sampled_from([None, 8, 30, 100, 2500]), max_times_sampled=st.sampled_from([None, None, 4, 9]))
PRIORITIZED = st.builds(rs.Prioritized, st.sampled_from([0.0, 0.1, 0.6, 1.0, 8.0]), st.sampled_from([0.0, 1e-6, 0.5]))
VIEWS = st.builds(
    rs.Transition,
    n_step=st.integers(1, 4),
    gamma=st.sampled_from([0.0, 0.5, 1.0]),
    frame_stack=st.integers(1, 3),
    padding=st.sampled_from(["edge", "zero"]),
)
ENDINGS = st.sampled_from([(OPEN, True)] * 6 + [(TERMINATED, True), (TRUNCATED, True), (TRUNCATED, False)])
LENGTHS = st.sampled_from([1, 1, 2, 3, 7, 20, 1500])
PARTS = st.lists(st.tuples(st.integers(0, STREAMS - 1), LENGTHS, ENDINGS), min_size=1, max_size=3, unique_by=lambda part: part[0])
ROUNDS = st.lists(st.tuples(PARTS, st.booleans()), min_size=1, max_size=6)
"""Blocks, and whether each is sent twice."""
ASKED = st.tuples(
    VIEWS,
    st.sampled_from([1, 8, 30]),
    st.sampled_from([None, "td", "flat", rs.Uniform()]),
    st.sampled_from([None, 3]),
    st.sampled_from([0.0, 0.5]),
)
CHANGES = st.one_of(LIMITERS, RETENTIONS, PRIORITIZED)


class TableMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="replaystore-machine-", dir=MEMORY if MEMORY.is_dir() else None))
        self.places = 0
        self.numbers = 0
        self.store: Store | None = None

    # -- beginning and end

    @initialize(limiter=LIMITERS, retention=RETENTIONS, selector=PRIORITIZED, rounds=ROUNDS)
    def begin(self, limiter: Any, retention: rs.Retention, selector: rs.Prioritized, rounds: Any) -> None:
        self.store = self.open(self.folder / "0")
        self.make(limiter, retention, selector)
        self.append(rounds)

    def open(self, path: Path) -> Store:
        return rs.open(path, commit_interval_s=3600)  # commits are a rule of their own

    def make(self, limiter: Any, retention: rs.Retention, selector: rs.Prioritized) -> None:
        config = rs.TableConfig(COLUMNS, {"td": selector, "flat": rs.Uniform()}, limiter, retention, seed=self.numbers)
        assert self.store is not None
        self.store.create_table("t", config)
        self.model = Model(config)
        self.streams: list[int | None] = [None] * STREAMS
        self.sent: list[list[Piece]] = []

    def teardown(self) -> None:
        try:
            if self.store is not None:
                self.check_rows()
                self.store.close()
        finally:
            shutil.rmtree(self.folder)

    @property
    def table(self) -> Any:
        assert self.store is not None
        return self.store.table("t")

    # -- inserting

    def piece(self, stream: int, rows: int, ending: tuple[int, bool], *, back: int = 0) -> Piece:
        """The next rows of a stream, `back` of them known already."""
        episode = self.streams[stream]
        if episode is None:
            self.numbers += 1
            episode, back = self.numbers, 0
        have = self.model.have(episode)
        back = min(back, have)
        return Piece(episode, have - back, rows + back + (ending[0] != OPEN), *ending)

    def send(self, pieces: list[Piece]) -> None:
        table, model = self.table, self.model
        anything_new = any(p.first + p.rows > model.have(p.episode) for p in pieces)
        result = table.try_append(block_of(pieces))
        if anything_new and not model.may_insert():
            assert result is None
            return
        applied, duplicates = model.append(pieces)
        assert result is not None
        assert (result.applied_rows, result.duplicate_rows, result.next_step) == (applied, duplicates, len(model.rows))
        self.sent = [*self.sent[-20:], pieces]
        for stream, episode in enumerate(self.streams):
            if episode is not None and episode not in model.open:
                self.streams[stream] = None

    @rule(rounds=ROUNDS)
    def append(self, rounds: list[tuple[list[tuple[int, int, tuple[int, bool]]], bool]]) -> None:
        for parts, twice in rounds:
            self.append_once(parts)
            if twice:
                self.send_again(-1)

    def append_once(self, parts: list[tuple[int, int, tuple[int, bool]]]) -> None:
        pieces = [self.piece(*part) for part in parts]
        for (stream, _, _), piece in zip(parts, pieces, strict=True):
            self.streams[stream] = piece.episode
        self.send(pieces)
        for stream, episode in enumerate(self.streams):  # an episode that the limiter kept out never began
            if episode not in self.model.ids:
                self.streams[stream] = None

    @rule(which=st.integers(0, 19))
    def send_again(self, which: int) -> None:
        if self.sent:
            self.send(self.sent[which % len(self.sent)])

    @rule(stream=st.integers(0, STREAMS - 1), rows=st.integers(1, 5), back=st.integers(1, 5), ending=ENDINGS)
    def send_half_of_it_again(self, stream: int, rows: int, back: int, ending: tuple[int, bool]) -> None:
        if self.streams[stream] is not None:
            self.send([self.piece(stream, rows, ending, back=back)])

    @rule(stream=st.integers(0, STREAMS - 1), ahead=st.integers(1, 3))
    def leave_a_gap(self, stream: int, ahead: int) -> None:
        episode = self.streams[stream]
        have = 0 if episode is None else self.model.have(episode)
        with pytest.raises(InvalidArgument, match=rf"runs\.first\[0\]={have + ahead}: .* has {have} rows here"):
            self.table.try_append(block_of([Piece(episode or self.numbers + 1, have + ahead, 2)]))

    @rule(which=st.integers(0, 50))
    def go_on_after_the_end(self, which: int) -> None:
        if self.model.finished:
            done = self.model.finished[-1 - which % len(self.model.finished)]
            with pytest.raises(InvalidArgument, match=rf"episode {done.episode} ended after {done.length + 1} rows"):
                self.table.try_append(block_of([Piece(done.episode, done.length + 1, 1)]))

    # -- sampling

    @rule(asked=st.lists(ASKED, min_size=1, max_size=5))
    def sample(self, asked: list[tuple[rs.Transition, int, Any, int | None, float]]) -> None:
        for one in asked:
            self.sample_once(*one)

    def sample_once(self, view: rs.Transition, n: int, selector: Any, seed: int | None, beta: float) -> None:
        prioritized = selector in (None, "td")
        assert self.store is not None
        if not self.model.may_sample(n, prioritized):
            with pytest.raises(NotReady, match="table 't': "):
                self.store.sample("t", n, view, beta, seed, selector, timeout_s=0)
            return
        self.check_batch(self.store.sample("t", n, view, beta, seed, selector, timeout_s=0), view, prioritized, beta)

    def check_batch(self, batch: rs.Batch, view: rs.Transition, prioritized: bool, beta: float) -> None:
        model = self.model
        ids = batch.step_ids.tolist()
        assert set(ids) <= model.masses.keys()
        masses = dict(model.masses)
        total = sum(model.masses.values())
        chances = np.array([model.masses[step] / total if prioritized else 1 / len(model.masses) for step in ids])
        assert (chances > 0).all()
        drawn = model.drawn + Counter(ids)
        np.testing.assert_allclose(batch.probabilities, chances, rtol=1e-4)
        weights = (len(model.masses) * chances) ** -beta
        np.testing.assert_allclose(batch.weights, weights / weights.max(), rtol=1e-3)
        alpha, epsilon = model.prioritized.alpha, model.prioritized.epsilon
        for item, step in enumerate(ids):
            row = model.rows[step]
            places = model.ids[row.episode]
            episode, behind = model.cut(step)
            expected = transition(
                episode,
                row.t,
                n_step=view.n_step,
                gamma=view.gamma,
                frame_stack=view.frame_stack,
                padding=view.padding,
                zero=lambda frame: (0, 0),
                kept=lambda t, places=places, behind=behind: places[t] >= model.first and t > behind,
            )
            for name, value in expected.items():
                np.testing.assert_allclose(batch[name][item], np.asarray(value), rtol=1e-6, err_msg=f"{name} of step {step}")
            priority = 1.0 if not prioritized or alpha == 0 else masses[step] ** (1 / alpha) - epsilon
            assert float(batch.priorities[item]) == pytest.approx(min(max(priority, 0), LARGEST), rel=1e-3, abs=1e-5)
            assert batch.times_sampled[item] == drawn[step]
            assert batch["note"][item] == model.note(step)
            assert batch.ages[item] == len(model.rows) - step
            assert batch.policy_version[item] == row.episode % 5
        model.draw(ids)

    @rule(
        places=st.lists(st.integers(-3, 40), min_size=1, max_size=8),
        priorities=st.lists(st.sampled_from([0.0, 0.3, 1.0, 7.0, 1e5, float("nan"), float("inf"), -1.0, 1e300]), min_size=8, max_size=8),
    )
    def update_priorities(self, places: list[int], priorities: list[float]) -> None:
        assert self.store is not None
        ids = [len(self.model.rows) - place for place in places] + [-1, 1 << 62, 0]  # the newest, the future, the past
        values = [*priorities[: len(places)], 1.0, 1.0, 0.5]
        counts = self.store.update_priorities("t", ids, values)
        assert (counts.applied, counts.gone, counts.rejected) == self.model.update(ids, values)

    # -- changing

    @rule(back=st.lists(st.integers(-2, 30), min_size=1, max_size=6))
    def delete_steps(self, back: list[int]) -> None:
        assert self.store is not None
        ids = {len(self.model.rows) - place for place in back} | {self.model.first}
        counts = self.store.delete_steps("t", list(ids))
        deleted = self.model.delete(ids)
        assert (counts.deleted, counts.gone) == (deleted, len(ids) - deleted)

    @rule(which=st.integers(0, 5), finished=st.booleans())
    def delete_episode(self, which: int, finished: bool) -> None:
        assert self.store is not None
        numbers = [done.episode for done in self.model.finished[-6:]] if finished else sorted(self.model.open)
        if numbers:
            episode = numbers[which % len(numbers)]
            ids = {step for step in self.model.ids[episode] if step >= self.model.first and self.model.removed.get(step) != 1}
            counts = self.store.delete_episodes("t", [episode])
            assert (counts.deleted, counts.gone) == (len(ids), int(not ids))
            self.model.delete(ids)

    @rule(length=st.integers(0, 3))
    def delete_short_episodes(self, length: int) -> None:
        assert self.store is not None
        model = self.model
        short = [done for done in model.finished if done.length <= length and done.last_step >= model.first]
        ids = {step for done in short for step in model.ids[done.episode] if step >= model.first and model.removed.get(step) != 1}
        assert self.store.delete_episodes("t", where=rs.Filter(max_length=length)).deleted == len(ids)
        model.delete(ids)

    @rule(places=st.lists(st.integers(-2, 40), min_size=1, max_size=8), value=st.integers(-1000, 1000))
    def write_notes(self, places: list[int], value: int) -> None:
        assert self.store is not None
        ids = [len(self.model.rows) - place for place in places] + [-1, 0]
        values = [value + i for i in range(len(ids))]
        self.table.commit()  # or the commit thread is asked to, and goes on beside us
        counts = self.store.update_columns("t", ids, {"note": values})
        assert (counts.applied, counts.gone) == self.model.write(ids, values)

    @rule(change=CHANGES)
    def alter(self, change: Any) -> None:
        assert self.store is not None
        if isinstance(change, rs.Prioritized):
            changes: dict[str, Any] = {"selector": {"td": change, "flat": rs.Uniform()}}
        else:
            changes = {"retention" if isinstance(change, rs.Retention) else "rate_limiter": change}
        self.store.alter_table("t", **changes)
        self.model.alter(**changes)

    # -- living on

    @rule()
    def commit(self) -> None:
        self.table.commit()
        assert self.table.durable_step == len(self.model.rows)

    @rule()
    def publish(self) -> None:
        self.table.commit()
        self.table.publish()

    @rule()
    def reopen(self) -> None:
        assert self.store is not None
        path = self.store.path
        self.store.close()
        self.store = self.open(path)
        assert self.table.durable_step == len(self.model.rows)

    @rule()
    def crash(self) -> None:
        """What a killed process leaves behind is found by the next one; both go on drawing the same."""
        assert self.store is not None
        self.places += 1
        path = self.folder / str(self.places)
        shutil.copytree(self.store.path, path)
        old, self.store = self.store, self.open(path)
        same = 0.0 not in self.model.masses.values()
        self.model.crash()
        view, may = rs.Transition(n_step=2), self.model.may_sample(4, True)
        batches = [store.sample("t", 4, view, timeout_s=0) for store in (old, self.store) if may and (same or store is self.store)]
        old.close()
        shutil.rmtree(old.path)
        for name in batches[0].keys() if batches else ():
            np.testing.assert_array_equal(batches[0][name], batches[-1][name], err_msg=name)
        if batches:
            self.check_batch(batches[-1], view, True, 0.0)
        self.check_rows()

    @rule()
    def snapshot(self) -> None:
        """A copy taken while the table goes on is a store that holds the same; what is done to the copy leaves the table alone."""
        assert self.store is not None
        self.places += 1
        path = self.folder / str(self.places)
        self.store.snapshot("t", path)
        original, self.store = self.store, self.open(path)
        try:
            self.figures()
            self.check_rows()
            self.store.update_priorities("t", self.model.anchors, np.full(len(self.model.anchors), 1e6))
            if self.model.may_insert():
                self.table.append(block_of([Piece(1 << 40, 0, 5)]), 0)
        finally:
            self.store.close()
            self.store = original
            shutil.rmtree(path)
        self.check_rows()

    @rule(limiter=LIMITERS, retention=RETENTIONS, selector=PRIORITIZED)
    def drop_and_create(self, limiter: Any, retention: rs.Retention, selector: rs.Prioritized) -> None:
        assert self.store is not None
        self.store.drop_table("t")
        assert self.store.tables() == []
        self.make(limiter, retention, selector)

    # -- what must always be so

    @invariant()
    def figures(self) -> None:
        if self.store is None:
            return
        stats, model = self.store.stats("t"), self.model
        assert (stats.first_step, stats.next_step) == (model.first, len(model.rows))
        assert stats.anchors == len(model.masses)
        assert (stats.inserted_steps, stats.sampled_items) == (model.inserted, model.sampled)
        assert (stats.episodes, stats.open_episodes) == (len(model.finished), len(model.open))
        assert (stats.blocked_insert is None) == model.may_insert()
        assert stats.total_priority["td"] == pytest.approx(sum(model.masses.values()), rel=1e-4)
        assert self.store.describe("t").config == model.config

    @rule()
    def check_rows(self) -> None:
        """Every row, link, priority and count, and every finished episode."""
        assert self.store is not None
        model = self.model
        live = ["replay/successor", "replay/priority.td", "replay/times_sampled", "replay/removed", "note"]
        names = ["observation", "action", "reward", "terminated", "truncated", *live]
        meta = {"meta/episode": "episode", "meta/step_in_episode": "t", "meta/kind": "kind", "meta/previous": "previous"}
        found = self.store.read_steps("t", -5, 1 << 40, [*names, *meta])
        ids = range(model.first, len(model.rows))
        kept = model.rows[model.first :]
        assert found["step_id"].tolist() == list(ids)
        for name in (*names[:5], *meta):
            wanted = [getattr(row, meta.get(name, name)) for row in kept]
            np.testing.assert_array_equal(found[name], np.array(wanted).reshape(found[name].shape), err_msg=name)
        assert found["replay/removed"].tolist() == [model.removed.get(step, 0) for step in ids]
        assert found["note"].tolist() == [model.note(step) for step in ids]
        assert found["replay/successor"].tolist() == [model.successor(step) for step in ids]
        masses = [model.masses.get(step, 0.0) for step in ids]
        np.testing.assert_allclose(found["replay/priority.td"], masses, rtol=1e-4)
        assert (found["replay/priority.td"] > 0).tolist() == [mass > 0 for mass in masses]
        assert Counter(dict(zip(ids, found["replay/times_sampled"].tolist(), strict=True))) == Counter({s: model.drawn[s] for s in ids})
        episodes = self.store.episodes("t")
        given = ("episode", "first_step", "last_step", "length", "return", "ending", "seed")
        assert list(zip(*(episodes[name].tolist() for name in given), strict=True)) == [
            (done.episode, done.first_step, done.last_step, done.length, done.total, done.ending, done.seed) for done in model.finished
        ]


def test_a_table_is_what_a_plain_list_would_be() -> None:
    story = settings(
        max_examples=EXAMPLES,
        stateful_step_count=30,
        deadline=None,
        derandomize=EXAMPLES <= 120,
        phases=[Phase.generate, *([Phase.shrink] if "REPLAYSTORE_MACHINE" in os.environ else [])],  # shrinking takes minutes
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(TableMachine, settings=story)
