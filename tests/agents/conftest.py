"""A small table of CartPole steps, played by a clumsy scripted policy: the same bytes on every machine of one NumPy."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import replaystore as rs
from replaystore_agents.online import OnlineConfig, table_config

TABLE = "clumsy"
STREAMS, VECTOR_STEPS = 8, 750


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small networks are fastest so, and the same bits come out everywhere."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def clumsy_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved store; its policy leans against the pole and does something random two times of three."""
    path = tmp_path_factory.mktemp("clumsy") / "data"
    envs = gymnasium.make_vec("CartPole-v1", num_envs=STREAMS)
    rng = np.random.default_rng(3)
    config = OnlineConfig()
    with rs.open(path) as store:
        store.create_table(TABLE, table_config(envs, config))
        store.alter_table(TABLE, rate_limiter=rs.MinSize(1))
        with store.writer(TABLE, streams=STREAMS) as writer:
            observations, _ = envs.reset(seed=3)
            for stream in range(STREAMS):
                writer.reset(observations[stream], stream=stream)
            over = np.zeros(STREAMS, bool)
            for _ in range(VECTOR_STEPS):
                lean = (observations[:, 2] + 0.5 * observations[:, 3] > 0).astype(np.int64)
                actions = np.where(rng.random(STREAMS) < 0.65, rng.integers(0, 2, STREAMS), lean)
                observations, rewards, terminated, truncated, _ = envs.step(actions)
                writer.append_batch(actions, rewards, terminated, truncated, observations, reset_mask=over)
                over = terminated | truncated
    envs.close()
    return path
