"""Whatever is given to the writer, its short ways record byte for byte what `fit` makes of it, or raise the very same error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replaystore import writer as writers
from replaystore.errors import ReplayStoreError, SchemaMismatch
from replaystore.schema.columns import DTYPES, STANDARD_COLUMNS, Column, fit
from replaystore.steps import RUN_DTYPE, StepBlock
from replaystore.writer import Writer
from tests.light.test_writer import Sink

SHAPES: list[tuple[int, ...]] = [(), (1,), (3,), (2, 3)]
COLUMN = st.builds(Column, st.sampled_from(SHAPES), st.sampled_from(DTYPES))


class Blocks(Sink):
    """Keeps copies of blocks of any columns."""

    def send(self, block: StepBlock, timeout_s: float) -> None:
        self.blocks.append(StepBlock({n: a.copy() for n, a in block.columns.items()}, block.runs.copy(), block.actor))


@st.composite
def values(draw: st.DrawFn, column: Column, rows: int | None) -> Any:
    """Mostly what fits a column, in all the forms that there are; sometimes what does not."""
    shape = draw(st.sampled_from([column.shape] * 9 + SHAPES))
    if rows is not None:
        shape = (draw(st.sampled_from([rows] * 9 + [rows + 1])), *shape)
    dtype = draw(st.sampled_from([column.dtype] * 5 + ["float64", "float32", "int64", "bool", "uint8", "object"]))
    n = int(np.prod(shape))
    numbers = draw(st.lists(st.sampled_from([0, 1, 1, 2, 7, 100, 255, -1, 0.5, 2**31, 2**53 + 1, 2**64]), min_size=n, max_size=n))
    with np.errstate(all="ignore"):
        array = np.empty(shape, object)
        array.reshape(-1)[:] = numbers
        try:
            array = array.astype(dtype)
        except OverflowError:
            array = np.ones(shape, dtype)
    form = draw(st.sampled_from(["array", "array", "array", "list", "strided", "swapped", "Fortran", "read-only"]))
    if form == "list" or (not array.shape and form == "array"):
        return array.tolist() if draw(st.booleans()) else array[()]
    if form == "strided":
        return np.repeat(array, 2, axis=-1)[..., ::2] if array.shape else array
    if form == "swapped":
        return array.astype(array.dtype.newbyteorder(">"))
    if form == "Fortran":
        return np.asfortranarray(array)
    if form == "read-only":
        array.flags.writeable = False
    return array


def outcome(call: Any) -> tuple[Any, str | None]:
    """What a call gives, or the error that it raises."""
    with np.errstate(all="ignore"):
        try:
            return call(), None
        except (ReplayStoreError, OverflowError, TypeError, ValueError) as error:
            return None, f"{type(error).__name__}: {error}"


def expected(
    columns: dict[str, Column], order: tuple[str, ...], given: dict[str, Any], rows: int | None
) -> tuple[dict[str, Any], str | None]:
    fitted = {}
    for name in order:
        fitted[name], error = outcome(lambda name=name: fit(name, columns[name], given[name], rows))
        if error is not None:
            return {}, error
    return fitted, None


def begun(columns: dict[str, Column], streams: int) -> tuple[Writer, Blocks, np.ndarray[Any, Any]]:
    """A writer whose streams all begin with the same observation, which is the last of the three."""
    sink = Blocks()
    writer = Writer(columns, sink, streams=streams, interval_s=1e9)
    first = np.zeros(columns["observation"].shape, columns["observation"].dtype)
    for stream in range(streams):
        writer.reset(first, stream=stream)
    return writer, sink, first


ORDER = ("action", "reward", "terminated", "truncated", "extra", "observation")


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_step_is_what_fit_makes_of_it(data: st.DataObject) -> None:
    columns = {**STANDARD_COLUMNS, "observation": data.draw(COLUMN), "action": data.draw(COLUMN), "extra": data.draw(COLUMN)}
    columns["reward"] = Column(data.draw(st.sampled_from([(), (2,)])), data.draw(st.sampled_from(["float32", "float64"])))
    streams = data.draw(st.sampled_from([1, 2]))
    writer, sink, first = begun(columns, streams)
    wanted: dict[str, list[Any]] = {name: [] for name in columns}
    wanted["observation"].append(first)
    for _ in range(data.draw(st.integers(1, 4))):
        given = {name: data.draw(values(column, None)) for name, column in columns.items() if name not in ("terminated", "truncated")}
        given |= {name: data.draw(st.sampled_from([False, np.False_, 0, np.zeros((), bool), 0.0])) for name in ("terminated", "truncated")}
        fitted, error = expected(columns, ORDER, given, None)
        named = {**given, "next_observation": given.pop("observation")}
        del named["observation"]
        assert outcome(lambda named=named: writer.append(**named))[1] == error
        for name, value in fitted.items():
            wanted[name].append(value)
    writer.flush()
    steps = len(wanted["action"])
    assert sum(block.rows for block in sink.blocks) == steps
    for block in sink.blocks:
        for name, column in columns.items():
            assert block.columns[name].tobytes() == np.array(wanted[name][:steps], column.dtype).tobytes(), name


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_step_of_all_streams_is_what_fit_makes_of_it(data: st.DataObject) -> None:
    columns = {**STANDARD_COLUMNS, "observation": data.draw(COLUMN), "action": data.draw(COLUMN), "extra": data.draw(COLUMN)}
    streams = data.draw(st.sampled_from([1, 3]))
    writer, sink, first = begun(columns, streams)
    wanted: dict[str, list[Any]] = {name: [] for name in columns}
    wanted["observation"].append(np.stack([first] * streams))
    for _ in range(data.draw(st.integers(1, 5))):
        given = {name: data.draw(values(column, streams)) for name, column in columns.items() if name not in ("terminated", "truncated")}
        given |= {
            name: data.draw(st.sampled_from([np.zeros(streams, bool), [False] * streams, [0] * streams]))
            for name in STANDARD_COLUMNS
            if name != "reward"
        }
        fitted, error = expected(columns, ORDER, given, streams)
        arguments = (given[name] for name in ("action", "reward", "terminated", "truncated", "observation"))
        assert outcome(lambda arguments=arguments, given=given: writer.append_batch(*arguments, extra=given["extra"]))[1] == error
        for name, value in fitted.items():
            wanted[name].append(value)
    writer.flush()
    steps = len(wanted["action"])
    assert sum(block.rows for block in sink.blocks) == steps * streams
    for block in sink.blocks:
        for name, column in columns.items():
            by_stream = np.array(wanted[name][:steps], column.dtype).reshape(steps, streams, *column.shape).swapaxes(0, 1)
            assert block.columns[name].tobytes() == by_stream.tobytes(), name


@pytest.mark.parametrize("name", ["observation", "observation/x", "action", "reward", "terminated", "reward/x"])
@pytest.mark.parametrize("together", [False, True])
def test_what_has_an_argument_of_its_own_is_no_further_column(name: str, together: bool) -> None:
    """In the place of a column that is missing it would pass for it, and an observation overwrite the one that is there."""
    columns = {**STANDARD_COLUMNS, "observation": Column((2,)), "action": Column((), "int64"), "extra": Column(writable=False)}
    if "/" in name:
        del columns[name.split("/")[0]]
        columns[name] = Column((2,)) if name == "observation/x" else Column()
    sink = Blocks()
    writer = Writer(columns, sink, streams=2, interval_s=1e9)
    nest = lambda kind, value: {"x": value} if name == f"{kind}/x" else value  # noqa: E731
    for s in range(2):
        writer.reset(nest("observation", np.ones(2, np.float32)), stream=s)
    no, two, four = np.zeros(2, bool), np.full(2, 2, np.float32), np.full((2, 2), 4, np.float32)
    step = (np.arange(2), nest("reward", two), no, no, nest("observation", four))
    if together:
        writer.append_batch(*step, extra=two)
    wrong = {"observation": four, "terminated": no}.get(name.split("/")[0], two)
    with pytest.raises(SchemaMismatch, match=f"'{name}' cannot be given by keyword"):
        writer.append_batch(*step, **{name: wrong})
    if name not in ("action", "reward", "terminated"):
        with pytest.raises(SchemaMismatch, match=f"'{name}' cannot be given by keyword"):
            writer.append(1, nest("reward", 2.0), False, False, nest("observation", two), **{name: wrong[0]})
    writer.append_batch(*step, extra=two)
    writer.flush()
    observations = next(sink.blocks[0].columns[part] for part in columns if part.startswith("observation"))
    assert observations.tolist() == ([[1.0] * 2, [4.0] * 2] * 2 if together else [[1.0] * 2] * 2)


BATCHES = st.lists(
    st.tuples(st.sampled_from(["", "", "", "", "ends", "is cut", "is masked", "one by one", "flush", "version"]), st.integers(0, 2)),
    max_size=40,
)


@pytest.fixture(scope="module")
def no_clock() -> Iterator[None]:
    """Blocks are sent when they are full, and not because an episode has ended some time after the last."""
    before, writers.EPISODE_END_GAP_S = writers.EPISODE_END_GAP_S, 1e9
    yield
    writers.EPISODE_END_GAP_S = before


@pytest.mark.usefixtures("no_clock")
@pytest.mark.parametrize("block_rows", [7, 1000])
@settings(max_examples=40, deadline=None)
@given(operations=BATCHES)
def test_streams_that_go_together_are_stored_like_streams_by_themselves(block_rows: int, operations: list[tuple[str, int]]) -> None:
    """The same steps through `append_batch` and, by a writer that never finds its streams together, one by one: the very same blocks."""
    columns = {**STANDARD_COLUMNS, "observation": Column((2,)), "action": Column((), "int32")}
    quick, plain = Blocks(), Blocks()
    one, other = (Writer(columns, sink, streams=3, block_rows=block_rows, interval_s=1e9) for sink in (quick, plain))
    other._step_together = lambda *_: False  # type: ignore[method-assign]
    for writer in (one, other):
        for s in range(3):
            writer.reset([0.0, s], stream=s)
    over = np.zeros(3, bool)
    for t, (what, s) in enumerate(operations):
        ends, cut, mask = np.zeros(3, bool), np.zeros(3, bool), over.copy()
        if what == "is masked":
            mask[s] = True
        elif what in ("ends", "is cut") and not mask[s]:
            (ends if what == "ends" else cut)[s] = True
        following = np.array([[t + 1, i] for i in range(3)], np.float32)
        for writer in (one, other):
            if what == "flush":
                writer.flush()
            elif what == "version":
                writer.policy_version = t
            elif what == "one by one" and not over[s]:
                writer.append(t, 0.5, False, False, following[s], stream=s)
            else:
                rewards = np.full(3, t, np.float32)
                writer.append_batch(np.full(3, t, np.int32), rewards, ends, cut, following, reset_mask=mask if mask.any() else None)
        if what not in ("flush", "version") and not (what == "one by one" and not over[s]):
            over = ends | cut
    for writer in (one, other):
        writer.close()
    assert len(quick.blocks) == len(plain.blocks)
    names = [name for name in RUN_DTYPE.names or () if name != "episode"]  # episodes are named at random
    for mine, theirs in zip(quick.blocks, plain.blocks, strict=True):
        assert mine.runs[names].tolist() == theirs.runs[names].tolist()
        assert {n: a.tobytes() for n, a in mine.columns.items()} == {n: a.tobytes() for n, a in theirs.columns.items()}
