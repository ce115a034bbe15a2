"""Rows as runs are the rows again, and recipes that cannot be are refused before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import replaystore as rs
from replaystore.core.runs import find_runs
from replaystore.mapping.buffers import BufferPool
from replaystore.mapping.columns import ColumnFiles, MappedTable, open_folder
from replaystore.wire.local import RecipeField, decode_recipe, encode_recipe
from replaystore.wire.samples import split_batches
from replaystore_client.local import gathering as made
from replaystore_client.local.gathering import Gathering, _Rows

PIECES = st.lists(st.tuples(st.integers(-1, 40), st.integers(1, 12), st.booleans()), min_size=1, max_size=12)


def naive_runs(rows: list[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    while rows:
        step = 0 if rows[1:2] == rows[:1] else 1
        count = 1
        while count < len(rows) and rows[count] == rows[0] + step * count:
            count += 1
        runs.append((rows[0], count if step else -count))
        rows = rows[count:]
    return runs


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(PIECES, st.integers(0, 100), st.integers(0, 5))
def test_rows_as_runs_are_the_rows_again(pieces: list[tuple[int, int, bool]], origin: int, padding: int) -> None:
    rows = [first + (place if follows else 0) for first, count, follows in pieces for place in range(count)]
    found = np.empty((len(rows) + padding, 2), np.int64)
    count = find_runs(np.array(rows), origin, found[: len(rows)])
    assert [tuple(run) for run in found[:count].tolist()] == [(first + origin, many) for first, many in naive_runs(rows)]
    found[count:] = found[0, 0], 0  # fills up, as the server does
    named = _Rows(found[: count + padding], (len(rows),), BufferPool())
    assert named.ids().tolist() == [row + origin for row in rows]
    assert named.ids(origin).tolist() == rows
    if min(rows) >= 0:
        named.check(min(rows) + origin, max(rows) + origin + 1)
        assert named.stop == max(rows) + origin + 1
        with pytest.raises(rs.InvalidArgument, match="but the table has those from"):
            named.check(min(rows) + origin, max(rows) + origin)
        with pytest.raises(rs.InvalidArgument, match="but the table has those from"):
            named.check(min(rows) + origin + 1, max(rows) + origin + 1)


def test_too_many_runs_are_none() -> None:
    assert find_runs(np.arange(10) * 2, 0, np.empty((9, 2), np.int64)) == -1
    assert find_runs(np.arange(10) * 2, 0, np.empty((10, 2), np.int64)) == 10


@pytest.fixture
def gathering(tmp_path: Path) -> Gathering:
    (tmp_path / "steps/x").mkdir(parents=True)
    (tmp_path / "steps/x/c.0.0").write_bytes(np.arange(1024, dtype=np.float32).tobytes())
    return Gathering(MappedTable(open_folder(str(tmp_path)), [ColumnFiles("steps/x", np.dtype("float32"), (2,), 512)]))


def recipe(*fields: Any) -> bytes:
    return encode_recipe(tuple(RecipeField(*field) for field in fields))


def test_a_recipe(gathering: Gathering) -> None:
    arrays = {
        "rows/0": np.array([[3, 4], [9, 9]]),
        "blank/0": np.array([[False, True], [False, False]]),
        "places/0": np.array([3, 0]),
        "values/0": np.array([[-1, -2], [-3, -4]], np.float32),
        "info/steps": np.arange(2),
    }
    fields = gathering.fields(recipe(("window/x", "steps/x", "rows/0", None, "blank/0", "0")), arrays, 0, 512)
    assert list(fields) == ["window/x", "info/steps"]
    assert fields["window/x"].tolist() == [[[-3, -4], [0, 0]], [[18, 19], [-1, -2]]]
    both = recipe(("info/row_ids", "", "rows/0", (2, 2)), ("data/x", "steps/x", "rows/1", (3,)))
    assert decode_recipe(both)[1] == RecipeField("data/x", "steps/x", "rows/1", (3,))
    fields = gathering.fields(both, {"rows/0": np.array([[5, 2], [-1, -2]]), "rows/1": np.array([[510, 2], [7, -1]])}, 0, 512)
    assert fields["info/row_ids"].tolist() == [[5, 6], [-1, -1]]
    assert fields["data/x"].tolist() == [[1020, 1021], [1022, 1023], [14, 15]]


@pytest.mark.parametrize(
    ("field", "rows", "said"),
    [
        (("data/x", "steps/x", "rows/0"), np.array([512]), "step ids from 512 to 512, but the table has those from 0 to 511"),
        (("data/x", "steps/x", "rows/0"), np.array([-1, 4]), "step ids from -1 to 4"),
        (("data/x", "steps/x", "rows/0", (600,)), np.array([[0, 600]]), "step ids from 0 to 599"),
        (("data/x", "steps/x", "rows/0", (4,)), np.array([[0, 3]]), "1 runs of 3 step ids do not make"),
        (("data/x", "steps/x", "rows/0", (4,)), np.array([[0, 1 << 62], [0, 1 << 62]]), "do not make"),
        (("data/x", "steps/x", "rows/0", (4,)), np.array([0, 1, 2, 3]), "cannot be int64"),
        (("data/x", "steps/x", "rows/0", (2,)), np.array([[(1 << 63) - 1, 2]]), "but the table has those from 0 to 511"),
        (("data/x", "steps/x", "rows/0"), np.array([0.0]), "cannot be float64"),
        (("data/x", "steps/x", "rows/1"), np.array([0]), "field 'rows/1' is missing"),
        (("data/x", "steps/x", "rows/0", None, "blank/0"), np.array([0]), "field 'blank/0' is missing"),
        (("data/x", "steps/x", "rows/0", None, "", "0"), np.array([0]), "field 'values/0' is missing"),
        (("data/x", "steps/x", "rows/0", (5,)), np.array([[0, -(1 << 63)], [0, -(1 << 63)], [0, 5]]), "do not make"),
        (
            ("data/x", "steps/x", "rows/0", (1 << 26,)),
            np.array([[0, -(1 << 26)]]),
            "rows of 536870912 bytes; a message could not bring more",
        ),
        (("info/row_ids", "", "rows/0", (1 << 26,)), np.array([[0, -(1 << 26)]]), "step ids of 536870912 bytes"),
    ],
    ids=str,
)
def test_recipes_that_cannot_be(gathering: Gathering, field: Any, rows: Any, said: str) -> None:
    with pytest.raises(rs.InvalidArgument, match=said):
        gathering.fields(recipe(field), {"rows/0": rows}, 0, 512)


def test_rows_that_are_a_field_and_also_name_rows_are_checked(gathering: Gathering) -> None:
    both = recipe(("info/row_ids", "", "rows/0", (4,)), ("data/x", "steps/x", "rows/0", (4,)))
    assert gathering.fields(both, {"rows/0": np.array([[0, 4]])}, 0, 512)["data/x"].shape == (4, 2)
    with pytest.raises(rs.InvalidArgument, match="step ids from 600 to 603"):
        gathering.fields(both, {"rows/0": np.array([[600, 4]])}, 0, 512)


def test_a_column_that_is_not_there(gathering: Gathering) -> None:
    with pytest.raises(rs.NotFound, match="no column 'steps/y'"):
        gathering.fields(recipe(("data/y", "steps/y", "rows/0")), {"rows/0": np.array([0])}, 0, 512)


def test_too_many_rows_for_any_address(tmp_path: Path, gathering: Gathering) -> None:
    with pytest.raises(rs.StorageError, match="more than can be mapped at once"):
        gathering.fields(recipe(("data/x", "steps/x", "rows/0")), {"rows/0": np.array([1, (1 << 62) - 1])}, 0, 1 << 62)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"blank/0": np.zeros((2, 2), np.int64)}, "blank/0 cannot be int64"),
        ({"blank/0": np.zeros(4, bool)}, "blank/0 cannot be bool"),
        ({"places/0": np.array([0, 4])}, "places among 4 rows"),
        ({"places/0": np.array([-1, 0])}, "places among 4 rows"),
        ({"places/0": np.array([0.0, 1.0])}, "float64"),
        ({"values/0": np.zeros((3, 2), np.float32)}, "values of 2 rows float32"),
        ({"values/0": np.zeros((2, 2), np.float64)}, "values of 2 rows float32"),
    ],
    ids=str,
)
def test_patches_and_blanks_that_cannot_be(gathering: Gathering, changed: dict[str, Any], said: str) -> None:
    arrays = {
        "rows/0": np.array([[3, 4], [9, 9]]),
        "blank/0": np.zeros((2, 2), bool),
        "places/0": np.array([3, 0]),
        "values/0": np.zeros((2, 2), np.float32),
    }
    asked = recipe(("window/x", "steps/x", "rows/0", None, "blank/0", "0"))
    gathering.fields(asked, arrays, 0, 512)
    with pytest.raises(rs.InvalidArgument, match=said):
        gathering.fields(asked, arrays | changed, 0, 512)


def gathered(parts: list[Any]) -> list[dict[str, Any]]:
    return [part if isinstance(part, dict) else part() for part in parts]


@settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_each_by_itself_is_what_all_together_are(gathering: Gathering, data: Any, batches: int, items: int, width: int, runs: bool) -> None:
    n = batches * items
    firsts = data.draw(st.lists(st.integers(0, 512 - width), min_size=n, max_size=n))
    rows = np.array(firsts)[:, None] + np.arange(width)
    named = np.stack([np.array(firsts), np.full(n, width)], 1) if runs else rows
    shape = (n, width) if runs else None
    places = np.array(data.draw(st.lists(st.integers(0, rows.size - 1), max_size=6)), np.int64)
    blank = np.array(data.draw(st.lists(st.booleans(), min_size=rows.size, max_size=rows.size))).reshape(rows.shape)
    blanks, patches = data.draw(st.booleans()), data.draw(st.booleans())
    arrays = {"rows/0": named, "rows/1": named, "info/steps": np.arange(n)}
    if blanks:
        arrays["blank/0"] = blank
    if patches:
        arrays |= {"places/0": places, "values/0": -np.arange(2 * len(places), dtype=np.float32).reshape(-1, 2)}
    asked = recipe(
        ("window/x", "steps/x", "rows/0", shape, "blank/0" if blanks else "", "0" if patches else ""),
        ("info/row_ids", "", "rows/1", shape),
    )
    together = split_batches(gathering.fields(asked, arrays, 0, 512), batches)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(made, "_TOGETHER_BYTES", -1)
        alone = gathering.batches(asked, arrays, 0, 512, batches)
    assert all(callable(part) for part in alone) == (batches > 1)
    for one, other in zip(gathered(alone), together, strict=True):
        assert list(one) == list(other)
        for name, array in one.items():
            assert (array.dtype, array.shape, array.tobytes()) == (other[name].dtype, other[name].shape, other[name].tobytes())


NUMBERS = st.one_of(st.integers(-3, 520), st.sampled_from([1 << 20, 1 << 40, (1 << 62) - 1, (1 << 63) - 1, -(1 << 63), -(1 << 40)]))
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
ARRAYS = st.one_of(
    st.lists(NUMBERS, max_size=8).map(lambda found: np.array(found, np.int64)),
    st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5).map(lambda found: np.array(found, np.int64)),
    st.builds(np.ones, SHAPES, st.sampled_from(["bool", "int8", "int64", "float32", "float64"])),
)
KEYS = st.sampled_from(["rows/0", "rows/1", "blank/0", "places/0", "values/0", "info/steps"])
SPOILED = st.one_of(
    st.tuples(st.just("array"), KEYS, st.one_of(st.none(), ARRAYS)),
    st.tuples(
        st.sampled_from([0, 1]),
        st.sampled_from(["name", "column", "rows", "shape", "blank", "patch"]),
        st.one_of(
            KEYS, st.sampled_from(["", "0", "1", "steps/x", "steps/y"]), st.lists(NUMBERS.filter(lambda n: n >= 0), max_size=3).map(tuple)
        ),
    ),
)


@settings(max_examples=400, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SPOILED, min_size=1, max_size=3), st.integers(1, 4), NUMBERS, st.booleans())
def test_spoiled_recipes_are_refused_or_gathered(gathering: Gathering, spoiled: Any, batches: int, stop: int, honest: bool) -> None:
    """Nothing but our own errors, and no more memory than a message could bring."""
    arrays: dict[str, Any] = {
        "rows/0": np.array([[3, 6], [9, 6]]),
        "rows/1": np.array([4, 9, 3, 2]),
        "blank/0": np.zeros((4, 3), bool),
        "places/0": np.array([3, 0]),
        "values/0": np.zeros((2, 2), np.float32),
        "info/steps": np.arange(4),
    }
    fields = [
        {"name": "window/x", "column": "steps/x", "rows": "rows/0", "shape": (4, 3), "blank": "blank/0", "patch": "0"},
        {"name": "data/x", "column": "steps/x", "rows": "rows/1", "shape": None, "blank": "", "patch": ""},
    ]
    for which, key, value in spoiled:
        if which == "array":
            arrays.pop(key, None) if value is None else arrays.update({key: value})
        elif isinstance(value, tuple) == (key == "shape"):
            fields[which][key] = value
    limit = 4096
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(made, "MAX_MESSAGE_BYTES", limit)
        patched.setattr(made, "_TOGETHER_BYTES", -1)
        try:
            asked = encode_recipe(tuple(RecipeField(**field) for field in fields))
            found = gathered(gathering.batches(asked, arrays, 0, 512 if honest else stop, batches))
        except rs.ReplayStoreError:
            return
    assert len(found) == batches
    for part in found:
        assert sum(array.nbytes for name, array in part.items() if name not in arrays) <= 2 * limit
