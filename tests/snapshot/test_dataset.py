"""The plain dataset: what an imitation learner reads with Zarr, of either version, and nothing of ours."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import replaystore as rs
from replaystore.engine.checking.repair import repair
from replaystore.engine.checking.verify import verify
from replaystore.engine.copies import dataset
from replaystore.store import Store
from tests.snapshot.conftest import Actor, config, filled


def read(path: Path, version: int) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr's, about the other version's metadata that lies there too
        group = zarr.open_group(path, mode="r", zarr_format=version)  # type: ignore[arg-type]
        return {f"{part}/{name}": array[:] for part in ("data", "meta") for name, array in group[part].arrays()}


@pytest.mark.parametrize("version", [2, 3])
def test_episodes_lie_in_one_piece(store: Store, tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "MAX_CHUNK_ROWS", 1000)
    filled(store, retention=rs.Retention(6_000))
    first, episodes = store.stats("t").first_step, store.episodes("t")
    whole = episodes["first_step"] >= first
    report = store.snapshot("t", tmp_path / "out", episodes=True)
    found = read(tmp_path / "out", version)
    ends = found["meta/episode_ends"]
    np.testing.assert_array_equal(ends, np.cumsum(episodes["length"][whole]))
    assert (report.next_step, report.episodes) == (ends[-1], whole.sum())
    assert 0 < report.left_out_rows == store.stats("t").steps - ends[-1] - whole.sum()
    assert {name for name in found if name.startswith("data/")} == {
        "data/observation", "data/action", "data/reward", "data/terminated", "data/truncated",
    }  # fmt: skip
    for name, values in found.items():
        assert len(values) == (ends[-1] if name.startswith("data/") else len(ends)), name
    lengths = np.diff(ends, prepend=0)
    position = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    np.testing.assert_array_equal(found["data/observation"], np.repeat(position[:, None], 5, 1))
    np.testing.assert_array_equal(found["data/action"], 10 * position)
    np.testing.assert_array_equal(found["data/reward"], position.astype("float32"))
    np.testing.assert_array_equal(np.flatnonzero(found["data/terminated"]) + 1, ends)
    np.testing.assert_array_equal(found["meta/final_observation"], np.repeat(lengths[:, None], 5, 1))
    for name in dataset.EPISODE_FIELDS:
        np.testing.assert_array_equal(found[f"meta/episode_{name}"], episodes[name][whole], err_msg=name)


def test_with_closing_rows(store: Store, tmp_path: Path) -> None:
    filled(store, 500)
    store.snapshot("t", tmp_path / "out", episodes=True, closing_rows=True)
    found = read(tmp_path / "out", 3)
    lengths = store.episodes("t")["length"] + 1
    np.testing.assert_array_equal(found["meta/episode_ends"], np.cumsum(lengths))
    last = found["meta/episode_ends"] - 1
    np.testing.assert_array_equal(found["data/observation"][last], found["meta/final_observation"])
    np.testing.assert_array_equal(found["data/reward"][last], 0)


def test_of_every_dtype_and_shape(store: Store, tmp_path: Path) -> None:
    dtypes = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
    columns = {f"x_{name}": rs.Column((2, 3), name) for name in dtypes}
    store.create_table("t", rs.TableConfig({"observation": rs.Column(), "action": rs.Column(), **columns}))
    values = {name: np.arange(6).reshape(2, 3).astype(column.dtype) for name, column in columns.items()}
    with store.writer("t") as writer:
        writer.reset(0.0)
        for t in range(3):
            writer.append(0.0, 0.0, t == 2, False, 1.0, **{name: value + (value.dtype.kind != "b") * t for name, value in values.items()})
    store.snapshot("t", tmp_path / "out", episodes=True)
    two, three = read(tmp_path / "out", 2), read(tmp_path / "out", 3)
    assert two.keys() == three.keys()
    for name, value in values.items():
        for found in (two, three):
            array = found[f"data/{name}"]
            assert (array.shape, array.dtype) == ((3, 2, 3), value.dtype)
            np.testing.assert_array_equal(array[2], value + (value.dtype.kind != "b") * 2)


def test_nested_columns_and_names_that_meet(store: Store, tmp_path: Path) -> None:
    columns = {"observation/where": rs.Column((2,)), "observation/goal": rs.Column((2,)), "action": rs.Column()}
    store.create_table("t", rs.TableConfig(columns))
    with store.writer("t") as writer:
        writer.reset({"where": [0, 0], "goal": [9, 9]})
        writer.append(0.0, 1.0, True, False, {"where": [1, 1], "goal": [9, 9]})
    store.snapshot("t", tmp_path / "out", episodes=True)
    found = read(tmp_path / "out", 2)
    assert found["data/observation_where"].tolist() == [[0, 0]]
    assert found["meta/final_observation_where"].tolist() == [[1, 1]]
    store.create_table("u", rs.TableConfig({"a/b": rs.Column(), "a_b": rs.Column(), "action": rs.Column()}))
    with pytest.raises(rs.InvalidArgument, match="would both be data/a_b"):
        store.snapshot("u", tmp_path / "other", episodes=True)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()].count("other") == 0


def test_without_a_finished_episode(store: Store, tmp_path: Path) -> None:
    store.create_table("t", config())
    Actor(store, "t").play(5, ends=0.0)
    report = store.snapshot("t", tmp_path / "out", episodes=True)
    assert (report.next_step, report.episodes, report.left_out_rows) == (0, 0, 16)  # the newest observation of a stream is no row yet
    for version in (2, 3):
        found = read(tmp_path / "out", version)
        assert found["data/observation"].shape == (0, 5)
        assert found["meta/episode_ends"].tolist() == []


def test_a_dataset_is_not_taken_for_a_store(store: Store, tmp_path: Path) -> None:
    """Opening or repairing it would write over its metadata."""
    filled(store, retention=rs.Retention(6_000))
    out = tmp_path / "out"
    store.snapshot("t", out, episodes=True)
    before = (out / "zarr.json").read_bytes()
    for mode in ("r", "rw"):
        with pytest.raises(rs.NotFound, match="another Zarr group, such as a dataset"):
            rs.open(out, mode)
    for act in (verify, repair):
        with pytest.raises(rs.NotFound, match="another Zarr group"):
            act(out)
    assert (out / "zarr.json").read_bytes() == before
    assert not (out / "__replaystore").exists()
