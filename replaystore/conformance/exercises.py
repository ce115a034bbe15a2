"""The exercises: what a client is asked to do, what is there before, and what must hold afterwards."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import replaystore as rs

if TYPE_CHECKING:
    from replaystore.store import Store

Said = Mapping[str, Any]
"""What the client printed."""

COLUMNS = {"observation": rs.Column((2,), "float32"), "action": rs.Column((), "int64")}
STEPS = 12
"""Of the one episode in tables that are filled beforehand: step t has observation (t, 0), action t, reward t / 2; it terminates."""


class Differs(Exception):
    """What an exercise found."""


@dataclass(frozen=True, slots=True)
class Exercise:
    """One of them. The table that it is about has its name."""

    name: str
    task: str
    """For whoever writes the client."""
    prepare: Callable[[Store], Any]
    check: Callable[[Store, Said], None]
    """Raises `Differs`."""
    loses: bool = False
    """The connection is lost when the first block has been applied, before its acknowledgement arrives."""


def _same(said: Said, **expected: Any) -> None:
    for name, value in expected.items():
        if name not in said:
            raise Differs(f"the client did not print {name!r}")
        if not _close(said[name], value):
            raise Differs(f"{name} is {said[name]!r}, not {value!r}")


def _close(one: Any, other: Any) -> bool:
    if isinstance(other, list):
        return isinstance(one, list) and len(one) == len(other) and all(_close(*pair) for pair in zip(one, other, strict=True))
    if isinstance(other, bool) or not isinstance(other, float):
        return bool(one == other)
    return isinstance(one, int | float) and math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-6)


def _nothing(store: Store) -> None:
    """Nothing is needed."""


def _make(store: Store, name: str, filled: bool, **options: Any) -> None:
    store.create_table(name, rs.TableConfig(COLUMNS, **options))
    if filled:
        with store.writer(name) as writer:
            writer.reset([0, 0])
            for t in range(STEPS):
                writer.append(t, t / 2, t == STEPS - 1, False, [t + 1, 0])


def _empty(name: str, **options: Any) -> Callable[[Store], None]:
    return lambda store: _make(store, name, False, **options)


def _filled(name: str, **options: Any) -> Callable[[Store], None]:
    return lambda store: _make(store, name, True, **options)


def _info(store: Store, said: Said) -> None:
    _same(said, protocol=1, path=str(store.path.absolute()))


def _create(store: Store, said: Said) -> None:
    _same(said, again="AlreadyExists")
    config = store.describe("create").config
    wanted = rs.TableConfig(COLUMNS, rs.Prioritized(alpha=0.5, epsilon=0.001))
    if config != wanted:
        raise Differs(f"the table's configuration is {config}, not {wanted}")


def _rows(store: Store, table: str, episodes: list[tuple[int, bool, bool]], actor: int) -> None:
    """Each episode of so many steps, terminated, truncated: the values are those of `STEPS`."""
    rows = store.read_steps(table, 0, 1 << 40)
    observation, action, reward, terminated, truncated, kind = [], [], [], [], [], []
    for steps, ends, cut in episodes:
        for t in range(steps):
            observation.append([float(t), 0.0])
            action.append(t)
            reward.append(t / 2)
            terminated.append(ends and t == steps - 1)
            truncated.append(cut and t == steps - 1)
            kind.append(0)
        if ends or cut:
            observation.append([float(steps), 0.0])
            action.append(0)
            reward.append(0.0)
            terminated.append(ends)
            truncated.append(cut)
            kind.append(1)
    wanted = {
        "observation": observation, "action": action, "reward": reward, "terminated": terminated, "truncated": truncated,
        "meta/kind": kind, "meta/actor": [actor] * len(kind),
    }  # fmt: skip
    for name, values in wanted.items():
        if not _close(rows[name].tolist(), values):
            raise Differs(f"column {name} of table {table} is {rows[name].tolist()}, not {values}")
    numbers = rows["meta/episode"].tolist()
    if len(set(numbers)) != len(episodes):
        raise Differs(f"the rows are of {len(set(numbers))} episodes, not of {len(episodes)}")


def _append(store: Store, said: Said) -> None:
    _rows(store, "append", [(STEPS, True, False)], 7)
    _same(said, next_step=STEPS + 1)


def _runs(store: Store, said: Said) -> None:
    _rows(store, "runs", [(3, False, True), (2, False, False)], 0)
    _same(said, applied_rows=6)


def _retry(store: Store, said: Said) -> None:
    _rows(store, "retry", [(STEPS, True, False)], 0)
    _same(said, duplicate_rows=4)


def _gap(store: Store, said: Said) -> None:
    _same(said, error="InvalidArgument", status="INVALID_ARGUMENT")
    if store.stats("gap").next_step:
        raise Differs("the table has rows")


def _batch(store: Store, table: str, said: Said, view: rs.Transition, size: int = 8) -> None:
    batch = store.sample(table, size, view=view, seed=42, beta=0.5)
    for name in ("step_ids", "reward", "next_observation", "terminated", "discount", "weights"):
        _same(said, **{name: getattr(batch, name).tolist()})


def _updates(store: Store, said: Said) -> None:
    _same(said, applied=3, gone=1, rejected=1)
    priorities = store.sample_at("updates", [1, 2, 3]).priorities.tolist()
    if not _close(priorities, [0.5, 1.5, 2.5]):
        raise Differs(f"the priorities of steps 1, 2, 3 are {priorities}, not 0.5, 1.5, 2.5")


def _riding(store: Store, said: Said) -> None:
    _same(said, applied=4)
    priorities = store.sample_at("riding", [0, 1, 2, 3]).priorities.tolist()
    if not _close(priorities, [4.0] * 4):
        raise Differs(f"the priorities of steps 0 to 3 are {priorities}, not 4")


def _flush(store: Store, said: Said) -> None:
    _rows(store, "flush", [(3, False, False)], 0)
    _same(said, durable_step=3)


def _blocked(store: Store, said: Said) -> None:
    _rows(store, "blocked", [(6, False, False)], 0)
    _same(said, blocked=True)


def _parameters(store: Store, said: Said) -> None:
    found = store.fetch_parameters("parameters")
    if found is None:
        raise Differs("nothing was published under 'parameters'")
    arrays, version = found
    wanted = {"bias": [0.5], "weight": [[1.0, 2.0], [3.0, 4.0]]}
    if {name: array.tolist() for name, array in arrays.items()} != wanted or {str(array.dtype) for array in arrays.values()} != {"float32"}:
        raise Differs(f"published was {arrays}, not {wanted} of float32")
    _same(said, version=version, weight=wanted["weight"], newer=None)


def _read(store: Store, said: Said) -> None:
    _same(said, step_id=[2, 3, 4], action=[2, 3, 4], episodes=[STEPS])


ROWS = "observation (t, 0), action t, reward t / 2 at step t"

EXERCISES = (
    Exercise("info", "GetServerInfo. Print protocol and path.", _nothing, _info),
    Exercise(
        "create",
        "CreateTable 'create': observation float32 (2,), action int64, one Prioritized selector with alpha 0.5 and epsilon 0.001. Create "
        "it once more with exist_ok, which is fine, and once without. Print again: the class of the last call's error.",
        _nothing,
        _create,
    ),
    Exercise(
        "append",
        f"Append one episode of {STEPS} steps as actor 7, {ROWS}, in blocks of 4 rows; the last one terminates it, so a closing row with "
        f"the final observation ({STEPS}, 0) follows in a block of its own. Print next_step of the last acknowledgement.",
        _empty("append"),
        _append,
    ),
    Exercise(
        "runs",
        f"Append one block of two runs: an episode of 3 steps that is truncated, with its closing row, and 2 steps of one that goes on; "
        f"{ROWS}. Print applied_rows of its acknowledgement.",
        _empty("runs"),
        _runs,
    ),
    Exercise(
        "retry",
        "As 'append', as actor 0, each block sent when the one before is acknowledged. The connection is lost once, after a block was "
        "applied and before its acknowledgement arrived: connect again and send the block again. Print duplicate_rows, the sum over all "
        "acknowledgements.",
        _empty("retry"),
        _retry,
        loses=True,
    ),
    Exercise(
        "gap",
        "Append a block whose run begins at step 5 of an episode that the table does not have: the stream ends with an error. Print its "
        "class as error and the name of the gRPC code as status.",
        _empty("gap"),
        _gap,
    ),
    Exercise(
        "sample",
        "Sample 8 transitions with seed 42 and beta 0.5. Print step_ids, reward, next_observation, terminated, discount, weights.",
        _filled("sample", selector=rs.Prioritized()),
        lambda store, said: _batch(store, "sample", said, rs.Transition()),
    ),
    Exercise(
        "n-step",
        'As \'sample\', of the view {"type": "Transition", "n_step": 3, "gamma": 0.9}.',
        _filled("n-step"),
        lambda store, said: _batch(store, "n-step", said, rs.Transition(n_step=3, gamma=0.9)),
    ),
    Exercise(
        "updates",
        "UpdatePriorities: steps 1, 2, 3, 1000 and 4 get 0.5, 1.5, 2.5, 1 and NaN. Print applied, gone, rejected.",
        _filled("updates", selector=rs.Prioritized()),
        _updates,
    ),
    Exercise(
        "riding",
        "On a Sample stream: a request whose payload sets the priorities of steps 0 to 3 to 4. Print applied, of updates in the reply.",
        _filled("riding", selector=rs.Prioritized()),
        _riding,
    ),
    Exercise(
        "stream-goes-on",
        "On one Sample stream: a request for 4 items of table 'there-is-none', then one for 4 items of table 'stream-goes-on'. Print "
        "error, the class in the first reply, and items, how many the second brought.",
        _filled("stream-goes-on"),
        lambda store, said: _same(said, error="NotFound", items=4),
    ),
    Exercise(
        "not-ready",
        "Sample 4 items with timeout_s 0.1 from a table whose limiter lets nobody through. Print error, the class in the reply.",
        _filled("not-ready", rate_limiter=rs.MinSize(1000)),
        lambda store, said: _same(said, error="NotReady"),
    ),
    Exercise(
        "blocked",
        f"Append 6 steps of one episode, {ROWS}, in blocks of 2 rows. The table is a queue of 2: the third block is held back, and the "
        "server says so (Blocked). Then sample 2 items, and wait for the acknowledgement. Print blocked: whether Blocked came before it.",
        _empty("blocked", selector=rs.Fifo(), rate_limiter=rs.Queue(2), retention=rs.Retention(max_times_sampled=1)),
        _blocked,
    ),
    Exercise(
        "flush",
        f"Append 3 steps of one episode, {ROWS}, then Flush. Print its durable_step.",
        _empty("flush"),
        _flush,
    ),
    Exercise(
        "parameters",
        "Publish weight = [[1, 2], [3, 4]] and bias = [0.5], float32, under 'parameters'. Fetch them. Print version, weight as fetched, "
        "and newer: null, when a fetch of what is newer than that brings no message.",
        _nothing,
        _parameters,
    ),
    Exercise(
        "read",
        "ReadSteps [2, 5). Print step_id and action. ReadEpisodes: print episodes, the lengths in steps.",
        _filled("read"),
        _read,
    ),
)


def by_name(name: str) -> Exercise:
    """InvalidArgument when there is none."""
    for exercise in EXERCISES:
        if exercise.name == name:
            return exercise
    raise rs.InvalidArgument(f"there is no exercise {name!r}; there are {', '.join(exercise.name for exercise in EXERCISES)}")
