"""A store with several streams, evicted rows, open episodes and priorities; and ways to damage it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.store import Store

STREAMS = 3


def fill(store: Store, table: str, rounds: int, seed: int = 0) -> None:
    """Interleaved streams of episodes of some 30 steps; the last ones stay open."""
    rng = np.random.default_rng(seed)
    writer = store.writer(table, streams=STREAMS, block_rows=16)
    first = np.ones(STREAMS, bool)
    for _ in range(rounds):
        ends = (rng.random(STREAMS) < 0.03) & ~first
        rewards, following = rng.random(STREAMS).astype("float32"), rng.random((STREAMS, 3)).astype("float32")
        writer.append_batch(np.arange(STREAMS), rewards, ends, np.zeros(STREAMS, bool), following, reset_mask=first)
        first = ends
    writer.flush(durable=True)
    batch = store.sample(table, 64, seed=1)
    store.update_priorities(table, batch.step_ids, np.arange(64) / 9)


def config(**changes: Any) -> rs.TableConfig:
    columns = {"observation": rs.Column((3,), "float32"), "action": rs.Column((), "int64")}
    return rs.TableConfig(columns, **{"selector": rs.Prioritized(), "retention": rs.Retention(9000), "seed": 5, **changes})


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same store closed in order, and as a killed process leaves it; and a killed one with every batch still in its journal."""
    root = tmp_path_factory.mktemp("verify")
    store = rs.open(root / "closed")
    store.create_table("t", config())
    store.create_table("other", config(retention=rs.Retention(500)))
    fill(store, "t", 4000)
    fill(store, "other", 50)
    shutil.copytree(root / "closed", root / "killed")
    store.close()
    with rs.open(root / "open") as store:
        store.create_table("t", config(retention=rs.Retention()))
        fill(store, "t", 300)
        store.table("t").publish()
        shutil.copytree(root / "open", root / "journaled")
    return {"closed": root / "closed", "killed": root / "killed", "journaled": root / "journaled"}


@pytest.fixture
def closed(original: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(original["closed"], tmp_path / "data"))


@pytest.fixture
def killed(original: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(original["killed"], tmp_path / "data"))


@pytest.fixture
def journaled(original: dict[str, Path], tmp_path: Path) -> Path:
    """Killed, with every batch still in its journal."""
    return Path(shutil.copytree(original["journaled"], tmp_path / "data"))


def flip(path: Path, offset_bytes: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset_bytes] ^= 0x40
    path.write_bytes(data)


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def set_value(path: Path, dtype: str, index: int, value: Any) -> None:
    mapped = np.memmap(path, dtype, "r+")
    mapped[index] = value
    mapped.flush()


def swap(a: Path, b: Path) -> None:
    temporary = a.with_name("swapping")
    os.rename(a, temporary)
    os.rename(b, a)
    os.rename(temporary, b)


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
