"""Several batches drawn at once are those that single calls give, bit for bit, and leave the table as those would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import replaystore as rs
from replaystore.engine.drawing import DrawnSample
from replaystore.engine.recovery import new_table
from replaystore.engine.table import Table
from replaystore.sampling import SampleRequest
from replaystore.steps import RUN_DTYPE, StepBlock

SELECTORS: dict[str, Any] = {
    "uniform": rs.Uniform(),
    "stratified": rs.Prioritized(0.6, 0.1),
    "independent": rs.Prioritized(0.6, 0.1, stratified=False),
    "rank": rs.RankPrioritized(0.7),
    "recency": rs.Recency(40.0, newest=2),
    "pass": rs.WithoutReplacement(),
    "lowest": rs.MinHeap(),
    "fifo": rs.Fifo(),
}
VIEWS: tuple[Any, ...] = (
    rs.Transition(),
    rs.Transition(n_step=3, frame_stack=2),
    rs.Transition(frame_stack=3, padding="zero"),
    rs.Transition(n_step=2, stack_columns=("action",), frame_stack=2),
    rs.Sequence(4, burn_in=1, period=2),
    rs.Sequence(3, frame_stack=2, padding="zero"),
)
FILTERS = (None, rs.Filter(actors=(1,)), rs.Filter(max_age_steps=90))


def filled(folder: Path, **options: Any) -> Table:
    """Episodes of 3 to 15 rows of two actors in turn, some of them open, some steps deleted."""
    columns = {"observation": rs.Column((2,), "float32"), "action": rs.Column((), "int64")}
    config = rs.TableConfig(columns, SELECTORS, seed=7, **options)
    new_table(folder, config)
    table = Table("t", folder, "rw")
    rng = np.random.default_rng(5)
    for episode in range(1, 21):
        rows = 3 + 5 * episode % 13
        runs = np.zeros(1, RUN_DTYPE)
        runs["episode"], runs["rows"], runs["seed"], runs["policy_version"] = episode, rows, -1, episode // 4
        runs["ending"] = (0, 1, 2)[episode % 3]
        arrays = {name: np.zeros((rows, *column.shape), column.dtype) for name, column in config.columns.items()}
        arrays["observation"][:] = rng.standard_normal((rows, 2))
        arrays["action"][:] = 100 * episode + np.arange(rows)
        arrays["reward"][:] = rng.standard_normal(rows)
        arrays["terminated"][-1], arrays["truncated"][-1] = episode % 3 == 1, episode % 3 == 2
        table.append(StepBlock(arrays, runs, episode % 2), 1.0)
    table.changing.delete_steps([40, 41])
    for name in ("stratified", "independent", "rank", "lowest"):
        table.update_priorities(np.arange(table.next_step), rng.random(table.next_step), name)
    return table


def taken(prepared: DrawnSample) -> dict[str, Any]:
    out = {field.name: np.full(field.shape, 77).astype(field.dtype) for field in prepared.fields}
    prepared.fill(out)
    prepared.close()
    return out


def parts(prepared: DrawnSample) -> list[dict[str, Any]]:
    """The batches of a group, each as the fields of a single call."""
    out = taken(prepared)
    n = len(out["info/step_ids"]) // prepared.batches
    return [{name: array[i * n : (i + 1) * n] for name, array in out.items()} for i in range(prepared.batches)]


def state_of(table: Table) -> list[Any]:
    rows = table._population.rows()
    live = [rows.live(path).tobytes() for path in ("replay/times_sampled", "replay/successor", "replay/priority.pass")]
    return [table._files.state.fields.tobytes(), *live]


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("groups")
    tables = filled(folder / "a"), filled(folder / "b")
    for table in tables:
        table._drawing.now = lambda: 1e9  # type: ignore[method-assign]
    yield tables
    for table in tables:
        table.close()


@given(
    st.sampled_from([*SELECTORS]),
    st.sampled_from(VIEWS),
    st.sampled_from(FILTERS),
    st.lists(st.tuples(st.none() | st.integers(0, 2**63 - 1), st.sampled_from((0.0, 0.4, 1.0))), min_size=1, max_size=5),
    st.integers(1, 9),
    st.sampled_from(("batch", "table")),
    st.sampled_from((None, ("action",), ("observation", "reward"))),
)
@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_group_is_single_calls(
    twins: tuple[Table, Table], name: str, view: Any, where: Any, draws: Any, n: int, normalise: str, columns: Any
) -> None:
    one, other = twins
    request = SampleRequest(n, view, name, where=where, normalise=normalise, columns=columns)
    seeds, betas = [seed for seed, _ in draws], [beta for _, beta in draws]
    assert one.can_group(request)
    group = one.try_prepare_group(request, seeds, betas)
    assert group is not None
    assert group.batches == len(draws)
    assert all(len(array) == n * len(draws) for array in taken_shapes(group))
    singles = []
    for seed, beta in draws:
        single = other.try_prepare(SampleRequest(n, view, name, beta, seed, columns, where, normalise))
        assert single is not None
        assert (single.candidates, single.mass, single.next_step) == (group.candidates, group.mass, group.next_step)
        singles.append(taken(single))
    for found, expected in zip(parts(group), singles, strict=True):
        assert [*found] == [*expected]
        for field, array in expected.items():
            assert (array.dtype, array.shape) == (found[field].dtype, found[field].shape)
            assert array.tobytes() == found[field].tobytes(), field
    assert state_of(one) == state_of(other)


def taken_shapes(prepared: DrawnSample) -> list[range]:
    return [range(field.shape[0]) for field in prepared.fields]


@pytest.fixture
def made(tmp_path: Path) -> Any:
    tables: list[Table] = []

    def make(**options: Any) -> Table:
        tables.append(filled(tmp_path / str(len(tables)), **options))
        return tables[-1]

    yield make
    for table in tables:
        table.close()


def test_the_limiter_lets_through_what_it_would_one_by_one(made: Callable[..., Table]) -> None:
    def limited() -> Table:
        table = made(rate_limiter=rs.MinSize(1))
        steps = table.stats().inserted_steps
        table.alter(rate_limiter=rs.SampleToInsertRatio(1.0, steps - 10, 30.0))
        return table

    one, other = limited(), limited()
    request = SampleRequest(8)
    group = one.try_prepare_group(request, [None] * 9, [0.0] * 9)
    assert group is not None
    singles = []
    while (single := other.try_prepare(request)) is not None:
        singles.append(taken(single))
    assert group.batches == len(singles) == 3
    assert [part["info/step_ids"].tolist() for part in parts(group)] == [part["info/step_ids"].tolist() for part in singles]
    assert one.stats().sampled_items == other.stats().sampled_items == 24
    assert one.try_prepare_group(request, [None] * 2, [0.0] * 2) is None


@pytest.mark.parametrize(
    "view", [rs.Transition(n_step=(1, 3)), rs.Episode(max_length=3), rs.Hindsight(achieved="action", desired="action")]
)
def test_views_that_choose_or_have_no_fixed_shape_go_one_by_one(made: Callable[..., Table], view: Any) -> None:
    one, other = made(), made()
    request = SampleRequest(4, view, seed=3)
    assert not one.can_group(request)
    group, single = one.try_prepare_group(request, [3, 4], [0.0, 0.0]), other.try_prepare(request)
    assert group is not None
    assert single is not None
    assert group.batches == 1
    assert {name: array.tobytes() for name, array in taken(group).items()} == {name: a.tobytes() for name, a in taken(single).items()}


def test_what_was_drawn_before_all_steps_grew_too_old_is_handed_out(made: Callable[..., Table]) -> None:
    table = made()
    inserted = table.stats().newest_time
    assert inserted is not None
    times = iter([inserted] * 2)
    table._drawing.now = lambda: next(times, inserted + 1e9)  # type: ignore[method-assign]
    request = SampleRequest(4, selector="pass", where=rs.Filter(max_age_s=1e6))
    group = table.try_prepare_group(request, [None] * 5, [0.0] * 5)
    assert group is not None
    assert group.batches == 2
    assert len(np.unique(taken(group)["info/step_ids"])) == 8
    assert table.stats().sampled_items == 8
    assert table.try_prepare_group(request, [None] * 5, [0.0] * 5) is None


def test_where_steps_are_used_up_batches_go_one_by_one(made: Callable[..., Table]) -> None:
    table = made(retention=rs.Retention(max_times_sampled=1))
    request = SampleRequest(4)
    assert not table.can_group(request)
    group = table.try_prepare_group(request, [None] * 3, [0.0] * 3)
    assert group is not None
    assert group.batches == 1
    group.close()


def test_nobody_who_waits_in_line_is_overtaken(made: Callable[..., Table]) -> None:
    table = made()
    request, wake = SampleRequest(4), lambda: None
    first = table.sampling.join(wake)
    table.sampling.join(wake)
    assert table.try_prepare_group(request, [None] * 3, [0.0] * 3) is None
    group = table.try_prepare_group(request, [None] * 3, [0.0] * 3, first)
    assert group is not None
    assert group.batches == 1
    group.close()


def test_a_group_walks_over_no_more_rows_than_a_batch_may(made: Callable[..., Table], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replaystore.engine.sampling.MAX_ROWS_WALKED", 64)
    group = made().try_prepare_group(SampleRequest(4, rs.Sequence(4)), [None] * 9, [0.0] * 9)
    assert group is not None
    assert group.batches == 64 // (4 * 5)
    group.close()


def test_fields_of_one_kind_are_one_object(made: Callable[..., Table]) -> None:
    table = made()

    def fields(view: Any, batches: int) -> Any:
        drawn = table.try_prepare_group(SampleRequest(5, view), [None] * batches, [0.0] * batches)
        assert drawn is not None
        shapes = {name: (array.dtype, array.shape) for name, array in taken(drawn).items()}
        assert shapes == {field.name: (field.dtype, field.shape) for field in drawn.fields}
        return drawn.fields

    for view in VIEWS:
        assert fields(view, 1) is fields(view, 1)
        assert fields(view, 2) is fields(view, 2)
        assert fields(view, 1) is not fields(view, 2)


def test_what_a_learner_does_to_its_batch_is_its_own_affair(made: Callable[..., Table]) -> None:
    one, other = made(), made()
    some = SampleRequest(8, selector="pass", where=rs.Filter(actors=(1,)))
    every = SampleRequest(8, selector="pass")
    for _ in range(6):
        for request in (some, every):
            mine, plain = one.sample(request, 1.0), other.sample(request, 1.0)
            for name, array in mine.fields.items():
                assert array.tobytes() == plain.fields[name].tobytes(), name
                array[...] = 0
