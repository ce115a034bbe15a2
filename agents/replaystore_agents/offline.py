"""Offline: a fresh Double DQN learns from a saved table, with no environment but for evaluation.

Batches are drawn uniformly, each with a seed made of the run's seed and the update's number: the table is not changed, the same store
trained twice with the same seed gives the same curve, and a resumed run continues it exactly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

import replaystore as rs
from replaystore_agents.dqn import DoubleDQN, DQNConfig, spaces_of
from replaystore_agents.trunk.feeding import ahead
from replaystore_agents.trunk.hyper import hyper
from replaystore_agents.trunk.preloaded import Preloaded
from replaystore_agents.trunk.runs import RunFolder

NEEDED = ("observation", "action", "reward", "terminated")


@dataclass(frozen=True, slots=True)
class OfflineConfig(DQNConfig):
    """The offline learner. Slower and smoother than the online one: nothing new comes in to correct it."""

    learning_rate: float = hyper(2.3e-3, "Adam's step size (RL Zoo's for CartPole).")
    tau: float = hyper(0.02, "Soft target update after each update (Lillicrap et al. 2016); used when target_every is 0.")
    max_updates: int = hyper(8_000, "Updates; 8000 batches of 256 see each of 40 000 steps about 50 times.")
    frame_stack: int = hyper(1, "Frames that the network sees at once (Mnih et al. 2015: 4); kept once, stacked when sampled.")
    target_return: float = hyper(0.0, "Stops when two evaluations with different seeds reach this mean return; 0 never stops early.")


@dataclass(frozen=True, slots=True)
class OfflineResult:
    """How an offline training ended."""

    best_return: float | None
    """Mean return of the checkpoint kept (best.pt), over episodes other than those that chose it; None without evaluation."""
    final_return: float | None
    """Mean return of the weights after the last update."""
    updates: int
    steps: int
    """Steps of the table that could be sampled."""
    seconds: float


def train_offline(
    api: Any,
    table: str,
    env: str | None,
    config: OfflineConfig,
    run: RunFolder,
    *,
    resume: dict[str, Any] | None = None,
    preload: bool = False,
    report: Callable[[dict[str, Any]], None] = lambda figures: None,
    stopping: Callable[[], bool] = lambda: False,
) -> OfflineResult:
    """Trains on a table as it stands.

    Args:
        api: a store opened with ``replaystore.open(path, mode="r")``, or a `replaystore_client.Client`.
        table: its name.
        env: Gymnasium id for evaluation; None trains blindly and keeps the last weights.
        config: hyper-parameters.
        run: receives metrics.jsonl and checkpoints.
        resume: a checkpoint's state to carry on from.
        preload: first reads the columns into the device's memory and draws there: other batches, but as good.
        report: called with each line of metrics.
        stopping: asked before each update; True ends the training.
    """
    torch.set_num_threads(config.threads)
    steps = api.stats(table).anchors
    if steps == 0:
        raise rs.InvalidArgument(f"table {table!r} holds no step to learn from; `replaystore ls` shows what the store holds")
    agent = DoubleDQN(spaces_of(api.describe(table).config, config.frame_stack), config)
    best = final = float("-inf")
    if resume is not None:
        agent.restore(resume)
        best = float(resume.get("best", best))
    started, reached = time.monotonic(), False
    with closing(_batches(api, table, config, agent, preload, report)) as batches:
        while agent.updates < config.max_updates and not reached and not stopping():
            _, figures = agent.learn(next(batches), weighted=False)
            if agent.updates % config.eval_every and agent.updates < config.max_updates:
                continue
            line: dict[str, Any] = {"update": agent.updates, "seconds": round(time.monotonic() - started, 2), **figures()}
            if env is not None:
                returns = agent.evaluate(env)
                final = float(returns.mean())
                line |= {"return_mean": final, "return_std": float(returns.std()), "return_min": float(returns.min())}
                if final > best:
                    # The evaluation that chooses the weights flatters them: what counts is another one.
                    other = float(agent.evaluate(env, salt=1).mean())
                    best = final
                    line["return_kept"] = other
                    reached = 0 < config.target_return <= min(final, other)
                    run.save("best", {**agent.state(), "return_mean": other})
            run.save("last", {**agent.state(), "best": best})
            run.log(**line)
            report(line)
    return _finish(agent, env, run, final, steps, time.monotonic() - started)


def _batches(
    api: Any, table: str, config: OfflineConfig, agent: DoubleDQN, preload: bool, report: Callable[[dict[str, Any]], None]
) -> Generator[Any, None, None]:
    """The batch of each update from the next one on, as tensors on the agent's device."""
    view = rs.Transition(n_step=config.n_step, gamma=config.gamma, frame_stack=config.frame_stack)

    def seed(update: int) -> int:
        return int(np.random.SeedSequence([config.seed, update]).generate_state(1, np.uint64)[0] >> 1)

    def sample(update: int) -> rs.Batch:
        batch: rs.Batch = api.sample(table, config.batch_size, view=view, seed=seed(update), selector=rs.Uniform(), columns=NEEDED)
        return batch

    if preload:
        there = Preloaded(api, table, view, agent.device, NEEDED, report)
        return (there.sample(config.batch_size, seed(update)) for update in range(agent.updates, config.max_updates))
    return ahead(sample, agent.updates, config.max_updates, agent.device)


def _finish(agent: DoubleDQN, env: str | None, run: RunFolder, final: float, steps: int, seconds: float) -> OfflineResult:
    kept = [line["return_kept"] for line in run.metrics() if "return_kept" in line]
    result = OfflineResult(kept[-1] if kept else None, final if kept else None, agent.updates, steps, seconds)
    run.finish(asdict(result))
    return result
