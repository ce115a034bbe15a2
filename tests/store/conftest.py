"""Stores to test with: steps whose content says which row they are."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.store import Store


def config(**changes: Any) -> rs.TableConfig:
    columns = {"observation": rs.Column((3,), "float32"), "action": rs.Column((), "int64")}
    return rs.TableConfig(columns, **{"seed": 7, **changes})


def observation(stream: int, episode: int, t: int) -> np.ndarray:
    return np.array([stream, episode, t], "float32")


def write_episodes(store: Store, table: str, lengths: list[int], *, stream: int = 0, first_episode: int = 0, **options: Any) -> None:
    """Finished episodes one after the other; reward t + 1, action 10 t; every second one is truncated."""
    with store.writer(table, **options) as writer:
        for episode, length in enumerate(lengths, first_episode):
            writer.reset(observation(stream, episode, 0), seed=episode)
            for t in range(length):
                last = t == length - 1
                writer.append(10 * t, t + 1, last and episode % 2 == 0, last and episode % 2 == 1, observation(stream, episode, t + 1))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with rs.open(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def crash_copy(tmp_path: Path) -> Callable[[Store], Path]:
    """A copy of a store's files as they are now: just what is found after the process was killed."""
    copies = iter(range(1000))

    def copy(opened: Store) -> Path:
        target = tmp_path / f"crashed-{next(copies)}"
        shutil.copytree(opened.path, target)
        return target

    return copy
