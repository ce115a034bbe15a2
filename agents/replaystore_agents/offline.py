"""The offline loop, one for all algorithms: learns from a saved table, with no environment but for evaluation.

Batches are drawn uniformly, each with a seed made of the run's seed and the update's number: the table is not changed, the same store
trained twice with the same seed gives the same curve, and a resumed run continues it exactly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

import replaystore as rs
from replaystore_agents.algorithms.base import Algorithm
from replaystore_agents.online import returns_of
from replaystore_agents.trunk.feeding import ahead, batch_seed
from replaystore_agents.trunk.hyper import hyper
from replaystore_agents.trunk.preloaded import Preloaded
from replaystore_agents.trunk.runs import RunFolder

OFFLINE_PRESETS: dict[str, dict[str, Any]] = {"dqn": {"learning_rate": 2.3e-3, "tau": 0.02}}
"""By algorithm, what is slower and smoother offline than online, where nothing new comes in to correct it (RL Zoo's rate for CartPole)."""


@dataclass(frozen=True, slots=True)
class OfflineConfig:
    """The loop."""

    max_updates: int = hyper(8_000, "Updates; 8000 batches of 256 see each of 40 000 steps about 50 times.")
    target_return: float = hyper(0.0, "Stops when two evaluations with different seeds reach this mean return; 0 never stops early.")


@dataclass(frozen=True, slots=True)
class OfflineResult:
    """How an offline training ended."""

    best_return: float | None
    """Mean return of the checkpoint kept (best.pt), over episodes other than those that chose it; None without evaluation."""
    final_return: float | None
    """Mean return of the weights after the last update; None when they were not evaluated."""
    updates: int
    steps: int
    """Steps of the table that could be sampled."""
    seconds: float


def train_offline(
    api: Any,
    table: str,
    env: str | None,
    algorithm: Algorithm,
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
        algorithm: what learns.
        config: of the loop.
        run: receives metrics.jsonl and checkpoints.
        resume: a checkpoint's state to carry on from.
        preload: first reads the columns into the device's memory and draws there: other batches, but as good.
        report: called with each line of metrics.
        stopping: asked before each update; True ends the training.
    """
    settings = algorithm.config
    torch.set_num_threads(settings.threads)
    steps = api.stats(table).anchors
    if steps == 0:
        raise rs.InvalidArgument(f"table {table!r} holds no step to learn from; `replaystore ls` shows what the store holds")
    best = float("-inf")
    final: float | None = None
    if resume is not None:
        algorithm.restore(resume)
        best = float(resume.get("best", best))
    policy = algorithm.policy()
    started, reached = time.monotonic(), False
    with closing(_batches(api, table, config.max_updates, algorithm, preload, report)) as batches:
        while algorithm.updates < config.max_updates and not reached and not stopping():
            _, figures = algorithm.learn(next(batches), weighted=False)
            if algorithm.updates % settings.eval_every and algorithm.updates < config.max_updates:
                continue
            line: dict[str, Any] = {"update": algorithm.updates, "seconds": round(time.monotonic() - started, 2), **figures()}
            if env is not None:
                returns = returns_of(algorithm, policy, env)
                final = float(returns.mean())
                line |= {"return_mean": final, "return_std": float(returns.std()), "return_min": float(returns.min())}
                enough = config.target_return != 0 and final >= config.target_return
                if final > best or enough:
                    # The evaluation that chooses the weights flatters them: what counts is another one.
                    other = float(returns_of(algorithm, policy, env, salt=1).mean())
                    reached = enough and other >= config.target_return
                    if final > best or reached:
                        line["return_kept"] = other
                        run.save("best", {**algorithm.state(), "return_mean": other})
                    best = max(best, final)
            run.save("last", {**algorithm.state(), "best": best})
            run.log(**line)
            report(line)
    kept = [line["return_kept"] for line in run.metrics() if "return_kept" in line]
    result = OfflineResult(kept[-1] if kept else None, final, algorithm.updates, steps, time.monotonic() - started)
    run.finish(asdict(result))
    return result


def _batches(
    api: Any, table: str, stop: int, algorithm: Algorithm, preload: bool, report: Callable[[dict[str, Any]], None]
) -> Generator[Any, None, None]:
    """The batch of each update from the next one on, as tensors on the algorithm's device."""
    size, columns, device = algorithm.config.batch_size, algorithm.columns(), algorithm.device

    seed = partial(batch_seed, algorithm.config.seed)

    def sample(update: int) -> rs.Batch:
        batch: rs.Batch = api.sample(table, size, seed=seed(update), selector=rs.Uniform(), columns=columns, **algorithm.sampling())
        return batch

    if preload:
        if algorithm.sampling().keys() != {"view"}:
            raise rs.InvalidArgument("a preloaded table makes plain transitions, without hindsight: give --hindsight 0, or no --preload")
        there = Preloaded(api, table, algorithm.view(), device, columns, report)
        return (there.sample(size, seed(update)) for update in range(algorithm.updates, stop))
    return ahead(sample, algorithm.updates, stop, device)
