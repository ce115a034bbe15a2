"""The solo loop: actor and learner in turn, in one process, on a store opened in it. The same seeds give the same run, bit by bit.

Knows the actor's `Player` and the online loop's `Judge`; a step of all environments, then the updates that are due by then.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

import replaystore as rs
from replaystore_agents.actor import Mind, PlayConfig, Player, action_space
from replaystore_agents.algorithms.base import Algorithm, Figures
from replaystore_agents.online import Judge, OnlineConfig, TrainResult, annealing, is_prioritized, settled
from replaystore_agents.trunk.environments import make_vec
from replaystore_agents.trunk.feeding import batch_seed
from replaystore_agents.trunk.runs import RunFolder

MOST_BLOCK_ROWS = 4096
"""Rows that the writer holds back at most, where updates are rarer than that."""


def solo_table(table: rs.TableConfig) -> rs.TableConfig:
    """The same without a rate limiter: the loop itself keeps to the samples per insert, from step `min_size` on."""
    return replace(table, rate_limiter=rs.MinSize(1))


def solo(
    store: Any,
    table: str,
    env: str,
    algorithm: Algorithm,
    config: OnlineConfig,
    acting: PlayConfig,
    run: RunFolder,
    steps: int = 50_000,
    *,
    report: Callable[[dict[str, Any]], None] = lambda figures: None,
    stopping: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Plays and learns until `steps` were played, or until the target return is reached and `config.stop_after_steps` were.

    Args:
        store: opened for writing in this process.
        table: an empty table of it, made of `solo_table`.
        env: Gymnasium id, played and evaluated in.
        algorithm: what learns.
        config: of learning; `max_updates`, `publish_every`, `error_batches` and `patience_s` mean nothing here.
        acting: of playing.
        run: receives metrics.jsonl, replayed.npz and checkpoints.
        steps: environment steps of all environments together.
        report: called with each line of metrics.
        stopping: asked after each step of the environments; True ends the training.
    """
    torch.set_num_threads(algorithm.config.threads)
    config = settled(config, algorithm.config.batch_size)
    prioritized = is_prioritized(store.describe(table).config)
    size, judge, beta = algorithm.config.batch_size, Judge(algorithm, env, config, run, report), annealing(config)
    block = 2 * acting.num_envs * max(1, int(np.ceil(size / max(config.samples_per_insert, 1e-9) / acting.num_envs)))
    block = min(block, MOST_BLOCK_ROWS)
    options = {"life_loss": True} if acting.life_loss else {}
    with (
        closing(make_vec(env, acting.num_envs, **options)) as envs,
        store.writer(table, streams=acting.num_envs, block_rows=block, interval_s=math.inf) as writer,
    ):
        mind = Mind(action_space(envs, env), acting.num_envs, np.random.default_rng([acting.seed, 0]))
        mind.take(algorithm.policy())
        player = Player(envs, mind, writer, 0, acting)
        look: Callable[[], None] | None = None
        while player.steps < steps and not stopping():
            player.step(_at_once)
            due = int((player.steps - config.min_size) * config.samples_per_insert / size)
            if algorithm.updates >= due:
                continue
            writer.flush()
            while algorithm.updates < due:
                seed = batch_seed(algorithm.config.seed, algorithm.updates)
                exponent = beta(algorithm.updates) if prioritized else 0.0
                batch = store.sample(table, size, beta=exponent, seed=seed, **algorithm.sampling())
                errors, figures = algorithm.learn(batch.to_torch(algorithm.device), weighted=prioritized)
                if prioritized:
                    store.update_priorities(table, batch.step_ids, errors.cpu().numpy())
                look = partial(_look, judge, player, batch, algorithm.updates, exponent, figures)
                if judge.due(last=False):
                    look()
            writer.policy_version = algorithm.updates
            if judge.reached and player.steps >= config.stop_after_steps:
                break
        if look is not None and not judge.up_to_date and not stopping():
            look()  # the weights that it ends with
    return judge.finish(player.steps)


def _look(judge: Judge, player: Player, batch: Any, version: int, beta: float, figures: Figures) -> None:
    judge.look(player.steps, batch, version, {"beta": beta, "episodes": player.episodes, **figures()})


def _at_once(append: Callable[[], Any]) -> None:
    append()
