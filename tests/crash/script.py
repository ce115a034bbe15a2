"""A scripted life of one table, and an oracle that knows every row it was given: what any crash may and may not leave behind.

A row's content follows from its episode and its place in it, so a row is right or wrong without being remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import replaystore as rs
from replaystore.engine.checking.verify import verify
from replaystore.errors import NotFound
from replaystore.steps import OPEN, RUN_DTYPE, TERMINATED, TRUNCATED, StepBlock
from replaystore.store import Store

MOST_STEPS = 700
COLUMNS = {
    "observation": rs.Column((3,), "float32"),
    "action": rs.Column((), "int64"),
    "note": rs.Column((), "int32", writable=True),
}
CONFIG = rs.TableConfig(COLUMNS, selector=rs.Prioritized(), retention=rs.Retention(MOST_STEPS), seed=3)
ALTERED = rs.MinSize(5)


@dataclass(eq=False)
class Change:
    """A deletion (value 1), or a value written into rows."""

    ids: set[int]
    value: int
    number: int | None = None
    """Of the table's changes since it was opened, once it was acknowledged."""
    durable: bool = False


def note_of(row: tuple[int, int, int]) -> int:
    """What a row's note was inserted as."""
    return 3 * row[0] + row[1]


class Oracle:
    """Every row offered, in order of ids; how much of it was acknowledged, and how much was called durable."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int]] = []  # episode, place in it, how it ends there (0: a step); the index is the step id
        self.acknowledged = 0
        self.durable = 0
        self.created = self.altered = False
        self.parameters = 0
        self.deletions: list[Change] = []
        self.writings: list[Change] = []
        self.unsure = False
        """Whether nobody knows which changes were made."""

    def offer(self, start: int, rows: list[tuple[int, int, int]]) -> None:
        """`rows` are about to be appended at `start`."""
        assert start >= self.acknowledged
        self.rows[start:] = rows

    def keep(self, stop: int) -> Oracle:
        """An oracle of what is left after a crash that cut at `stop`."""
        left = Oracle()
        left.rows = self.rows[:stop]
        left.acknowledged = left.durable = stop
        left.created, left.altered, left.parameters = self.created, self.altered, self.parameters
        left.deletions, left.writings, left.unsure = self.deletions, self.writings, self.unsure
        return left

    def told(self, changes: int) -> None:
        """So many changes since opening are durable."""
        for change in (*self.deletions, *self.writings):
            change.durable = change.durable or (change.number is not None and change.number <= changes)

    def settled(self, *, durable: bool) -> None:
        """The store was closed, or its process died: changes are numbered anew."""
        for change in (*self.deletions, *self.writings):
            change.durable = change.durable or (durable and change.number is not None)
            change.number = None if change.number is None else 1 << 40

    def _check_changes(self, removed: np.ndarray, notes: np.ndarray, first: int, stop: int, power: bool) -> None:
        """What was deleted and written, against what must and may be."""
        if self.unsure:
            return
        for step, found in enumerate(removed.tolist(), first):
            mine = [change for change in self.deletions if step in change.ids]
            must = any(change.durable if power else change.number is not None for change in mine)
            assert found in ({1} if must else {0, 1} if mine else {0}), (step, found)
        for step, found in enumerate(notes.tolist(), first):
            may = [note_of(self.rows[step])]
            for change in self.writings:
                if step in change.ids:
                    certain = change.durable if power else change.number is not None
                    may = [*([] if certain else may), change.value]
            assert found in may, (step, found, may)

    def check(self, store: Store, *, power: bool = False) -> None:
        """Compares an opened store with what it must and may hold; `power`: only what was durable must be there."""
        if "t" not in store.tables():
            assert not self.created, "a table that was created is gone"
            return
        table, stats = store.table("t"), store.stats("t")
        least = self.durable if power else self.acknowledged
        assert least <= stats.next_step <= len(self.rows), (least, stats.next_step, len(self.rows))
        assert stats.first_step <= max(0, len(self.rows) - MOST_STEPS), "retention took more than it may"
        assert table.config.rate_limiter in ((ALTERED,) if self.altered else (CONFIG.rate_limiter, ALTERED))
        self._check_rows(store, stats.first_step, stats.next_step, power)
        self._check_episodes(store, stats.next_step)
        self._check_use(store, stats)
        found = store.fetch_parameters("policy")
        version = 0 if found is None else found[1]
        assert version in (self.parameters, self.parameters + 1) if not power else version <= self.parameters + 1
        if found is not None:
            np.testing.assert_array_equal(found[0]["w"], np.full(50, version))

    def _check_rows(self, store: Store, first: int, stop: int, power: bool) -> None:
        rows = store.read_steps("t", first, stop)
        live = store.read_steps("t", first, stop, ["replay/successor", "replay/priority", "replay/removed"])
        self._check_changes(live["replay/removed"], rows["note"], first, stop, power)
        expected = np.array(self.rows[first:stop], np.int64).reshape(-1, 3)
        episode, place, ending = expected.T
        np.testing.assert_array_equal(rows["meta/episode"], episode)
        np.testing.assert_array_equal(rows["meta/step_in_episode"], place)
        np.testing.assert_array_equal(rows["meta/kind"], ending > 0)
        for name, values in columns_of(self.rows[first:stop]).items():
            if name == "note":
                continue
            np.testing.assert_array_equal(rows[name], values, err_msg=name)
        newest: dict[int, int] = {}
        previous = np.empty(stop, np.int64)
        for step, (number, _, _) in enumerate(self.rows[:stop]):
            previous[step] = newest.get(number, -1)
            newest[number] = step
        np.testing.assert_array_equal(rows["meta/previous"], previous[first:])
        successor = np.zeros(stop, np.int32)
        known = previous >= 0
        successor[previous[known]] = np.flatnonzero(known) - previous[known]
        deleted = first + np.flatnonzero(live["replay/removed"] == 1)
        successor[deleted] = successor[previous[deleted][previous[deleted] >= 0]] = 0
        np.testing.assert_array_equal(live["replay/successor"], successor[first:])
        np.testing.assert_array_equal(live["replay/priority"] > 0, successor[first:] > 0)
        assert np.isfinite(live["replay/priority"]).all()

    def _check_episodes(self, store: Store, stop: int) -> None:
        episodes, table = store.episodes("t"), store.table("t")
        going: dict[int, int] = {}
        finished = []
        for number, place, ending in self.rows[:stop]:
            going[number] = place + 1
            if ending:
                finished.append((number, going.pop(number) - 1, ending))
        assert episodes["episode"].tolist() == [number for number, _, _ in finished]
        assert episodes["length"].tolist() == [length for _, length, _ in finished]
        assert episodes["ending"].tolist() == [ending for _, _, ending in finished]
        assert episodes["return"].tolist() == [length * (length + 1) / 2 for _, length, _ in finished]
        assert {number: state.rows for number, state in table._book.open.items()} == going
        assert {number: state.total for number, state in table._book.open.items()} == {n: r * (r + 1) / 2 for n, r in going.items()}
        steps = sum(not ending for _, _, ending in self.rows[:stop])
        assert store.stats("t").inserted_steps == steps

    def _check_use(self, store: Store, stats: rs.TableStats) -> None:
        if stats.anchors >= 8:
            batch = store.sample("t", 8, timeout_s=0)
            assert ((batch.step_ids >= stats.first_step) & (batch.step_ids < stats.next_step)).all()
            expected = columns_of([self.rows[step] for step in batch.step_ids.tolist()])
            np.testing.assert_array_equal(batch["action"], expected["action"])
            assert store.update_priorities("t", batch.step_ids, np.ones(8)).applied == 8
        start = stats.next_step
        result = store.table("t").append(block_of([(10**9, 0, 0), (10**9, 1, 0)]), 0)
        assert (result.applied_rows, result.next_step) == (2, start + 2)


def columns_of(rows: list[tuple[int, int, int]]) -> dict[str, np.ndarray]:
    """The columns of rows, each given as episode, place and ending."""
    episode, place, ending = np.array(rows, np.int64).reshape(-1, 3).T
    step = ending == 0
    return {
        "observation": np.stack([episode, place, -place], axis=1).astype("float32"),
        "action": np.where(step, 1000 * episode + place, 0),
        "reward": np.where(step, place + 1, 0).astype("float32"),
        "note": (3 * episode + place).astype("int32"),
        "terminated": ending == TERMINATED,
        "truncated": ending == TRUNCATED,
    }


def block_of(rows: list[tuple[int, int, int]]) -> StepBlock:
    """A block of rows; neighbours of one episode are one run."""
    runs: list[list[int]] = []
    for episode, place, ending in rows:
        if runs and runs[-1][0] == episode:
            runs[-1][2] += 1
            runs[-1][3] = ending
        else:
            runs.append([episode, place, 1, ending])
    made = np.zeros(len(runs), RUN_DTYPE)
    for name, values in zip(("episode", "first", "rows", "ending"), zip(*runs, strict=True), strict=True):
        made[name] = values
    made["policy_version"], made["seed"] = -1, made["episode"]
    return StepBlock(columns_of(rows), made)


def abandon(store: Store) -> None:
    """Lets go of a store as if its process had died: nothing more is written, only memory and the lock are given back."""
    for table in store._tables.values():
        table.close(save=False)
    store._closed = True
    if store._committer is not None:
        store._wake.set()
        store._committer.join()
    if store._file_lock is not None:
        store._file_lock.release()


def finish(store: Store, *, thoroughly: bool) -> None:
    """Lets go of a recovered store; `thoroughly` closes it, and every promise of the format must then be kept by its files."""
    if thoroughly:
        store.close()
        findings = verify(store.path).findings
        assert not findings, "\n".join(map(str, findings))
    else:
        abandon(store)


class Script:
    """The scripted life; the same calls at every run. `oracle` and `store` are the moment's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.oracle = Oracle()
        self.store: Store | None = None
        self._streams = [[1, 0], [2, 0]]  # episode, rows so far
        self._next_episode = 3
        self._round = 0

    def open(self) -> None:
        self.store = rs.open(self.path, commit_interval_s=3600)

    def create(self) -> None:
        assert self.store is not None
        self.store.create_table("t", CONFIG, exist_ok=True)
        self.oracle.created = True

    def parameters(self) -> None:
        assert self.store is not None
        version = self.store.publish_parameters("policy", {"w": np.full(50, self.oracle.parameters + 1)})
        self.oracle.parameters = version

    def alter(self) -> None:
        assert self.store is not None
        self.store.alter_table("t", rate_limiter=ALTERED)
        self.oracle.altered = True

    def rows_of_a_round(self, rows: int) -> list[tuple[int, int, int]]:
        """Rows of both streams; every third round the second one's episode ends."""
        made = []
        for stream in self._streams:
            episode, place = stream
            ends = stream is self._streams[1] and self._round % 3 == 2
            for offset in range(rows):
                last = ends and offset == rows - 1
                made.append((episode, place + offset, TERMINATED + self._round % 2 if last else OPEN))
            stream[1] += rows
            if ends:
                stream[:] = [self._next_episode, 0]
                self._next_episode += 1
        self._round += 1
        return made

    def write(self, rows: int = 60) -> None:
        """One block, acknowledged; then a learner's call on it."""
        assert self.store is not None
        table = self.store.table("t")
        made = self.rows_of_a_round(rows)
        self.oracle.offer(table.next_step, made)
        result = table.append(block_of(made), 1.0)
        self.oracle.acknowledged = result.next_step
        self.oracle.durable = max(self.oracle.durable, result.durable_step)
        batch = self.store.sample("t", 8)
        self.store.update_priorities("t", batch.step_ids, np.linspace(0, 3, 8))

    def remove(self) -> None:
        """Deletes the newest rows, the ends of open episodes among them, and some older ones."""
        assert self.store is not None
        table = self.store.table("t")
        stop = table.next_step
        self._change(self.oracle.deletions, Change({stop - 1, stop - 61, stop - 70, max(0, stop - 300), table.first_step}, 1))

    def annotate(self) -> None:
        """Writes into rows of several chunks."""
        self.commit()
        assert self.store is not None
        table = self.store.table("t")
        ids = set(range(table.first_step, table.next_step, 50)) | {table.next_step - 1}
        ids = {step for step in ids if not any(step in change.ids for change in self.oracle.deletions)}
        self._change(self.oracle.writings, Change(ids, 10**6 + len(self.oracle.writings)))

    def _change(self, changes: list[Change], change: Change) -> None:
        assert self.store is not None
        changes.append(change)
        ids = sorted(change.ids)
        if changes is self.oracle.deletions:
            self.store.delete_steps("t", ids)
        else:
            counts = self.store.update_columns("t", ids, {"note": np.full(len(ids), change.value)})
            assert counts.applied == len(ids)
        change.number = self.store.table("t")._files.changes

    def commit(self) -> None:
        assert self.store is not None
        self.store.table("t").commit()
        self.told()

    def publish(self) -> None:
        """Readers see what is durable; files that retention has passed by go."""
        assert self.store is not None
        self.store.table("t").publish()

    def told(self) -> None:
        """Notes what anybody who asks is told to be durable by now."""
        try:
            assert self.store is not None
            table = self.store.table("t")
            self.oracle.durable = max(self.oracle.durable, table.durable_step)
            self.oracle.told(table._files.durable_changes)
        except (NotFound, rs.InvalidArgument):
            pass

    def die(self) -> None:
        assert self.store is not None
        abandon(self.store)
        self.oracle.settled(durable=False)
        self.store = None

    def close(self) -> None:
        assert self.store is not None
        self.store.close()
        self.oracle.durable = self.oracle.acknowledged
        self.oracle.settled(durable=True)
        self.store = None

    def steps(self) -> list[Callable[[], None]]:
        """The life, call by call."""

        def repeat(times: int, *parts: Callable[[], None]) -> list[Callable[[], None]]:
            return [part for _ in range(times) for part in parts]

        return [
            *(self.open, self.create, self.write, self.parameters),
            *repeat(2, self.write, self.commit),
            *(self.write, self.alter, self.remove),
            *repeat(2, self.write, self.write, self.annotate, self.commit),
            *(self.publish, self.write, self.write, self.remove, self.annotate, self.die, self.open),
            *repeat(2, self.write, self.write, self.commit, self.publish),
            *(self.parameters, self.write, self.remove, self.annotate, self.close, self.open),
            *repeat(2, self.write, self.commit, self.write),
            *(self.publish, self.die, self.open, self.write, self.close),
        ]

    def run(self) -> None:
        """All of it."""
        for step in self.steps():
            step()
