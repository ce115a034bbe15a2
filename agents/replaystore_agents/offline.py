"""Offline: a fresh Double DQN learns from a saved table, with no environment but for evaluation.

Batches are drawn uniformly, each with a seed made of the run's seed and the update's number: the table is not changed, the same store
trained twice with the same seed gives the same curve, and a resumed run continues it exactly.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

import replaystore as rs
from replaystore_agents.dqn import DoubleDQN, DQNConfig, spaces_of
from replaystore_agents.hyper import hyper
from replaystore_agents.runs import RunFolder


@dataclass(frozen=True, slots=True)
class OfflineConfig(DQNConfig):
    """The offline learner. Slower and smoother than the online one: nothing new comes in to correct it."""

    learning_rate: float = hyper(2.3e-3, "Adam's step size (RL Zoo's for CartPole).")
    tau: float = hyper(0.02, "Soft target update after each update (Lillicrap et al. 2016); used when target_every is 0.")
    max_updates: int = hyper(8_000, "Updates; 8000 batches of 256 see each of 40 000 steps about 50 times.")
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
        report: called with each line of metrics.
        stopping: asked before each update; True ends the training.
    """
    torch.set_num_threads(config.threads)
    steps = api.stats(table).anchors
    if steps == 0:
        raise rs.InvalidArgument(f"table {table!r} holds no step to learn from; `replaystore ls` shows what the store holds")
    agent = DoubleDQN(spaces_of(api.describe(table).config), config)
    best = final = float("-inf")
    if resume is not None:
        agent.restore(resume)
        best = float(resume.get("best", best))
    view = rs.Transition(n_step=config.n_step, gamma=config.gamma)
    needed = ["observation", "action", "reward", "terminated"]
    started, reached = time.monotonic(), False
    while agent.updates < config.max_updates and not reached and not stopping():
        seed = int(np.random.SeedSequence([config.seed, agent.updates]).generate_state(1, np.uint64)[0] >> 1)
        batch = api.sample(table, config.batch_size, view=view, seed=seed, selector=rs.Uniform(), columns=needed)
        _, figures = agent.update(batch, weighted=False)
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


def _finish(agent: DoubleDQN, env: str | None, run: RunFolder, final: float, steps: int, seconds: float) -> OfflineResult:
    kept = [line["return_kept"] for line in run.metrics() if "return_kept" in line]
    result = OfflineResult(kept[-1] if kept else None, final if kept else None, agent.updates, steps, seconds)
    run.finish(asdict(result))
    return result
