"""The online loop, one for all algorithms: learns from a table that actors fill meanwhile, and publishes policies to them.

Knows algorithms and policies by their interfaces only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import replaystore as rs
from replaystore_agents.algorithms.base import Algorithm
from replaystore_agents.algorithms.policies import STOP, Policy, publishable
from replaystore_agents.trunk.evaluate import evaluate
from replaystore_agents.trunk.hyper import hyper
from replaystore_agents.trunk.mixing import MixedSampler, split
from replaystore_agents.trunk.runs import RunFolder

SAMPLE_TIMEOUT_S = 5.0
"""How long a sampler waits before the learner says why nothing comes."""

REPLAYS = ("none", "uniform", "per", "rank", "recency")
"""Kinds of replay; see `OnlineConfig.replay`."""


@dataclass(frozen=True, slots=True)
class OnlineConfig:
    """The loop, and the table that it makes."""

    replay: str = hyper(
        "auto",
        "How steps are drawn: uniform; per or rank (prioritized in proportion or by rank, Schaul et al. 2016); recency; none keeps only "
        "the newest batch and learns once from each step; auto: per, with alpha 0 uniform.",
    )
    alpha: float = hyper(0.6, "Prioritization exponent (Schaul et al. 2016: 0.6 for per, 0.7 for rank).")
    half_life_steps: float = hyper(10_000.0, "With recency: steps after which a step is drawn half as often.")
    beta_start: float = hyper(0.4, "Importance-sampling exponent at the first update (Schaul et al. 2016).")
    beta_end: float = hyper(1.0, "And at the last annealed update.")
    beta_updates: int = hyper(10_000, "Updates over which beta is annealed.")
    samples_per_insert: float = hyper(32.0, "How often each step is sampled on average (RL Zoo CartPole: 32).")
    min_size: int = hyper(1_000, "Steps in the table before the first update (RL Zoo CartPole: 1000).")
    error_batches: float = hyper(16.0, "How many batches learner and actors may run ahead of each other.")
    max_steps: int = hyper(100_000, "Rows that the table keeps.")
    max_updates: int = hyper(15_000, "The learner gives up after so many updates.")
    target_return: float = hyper(475.0, "Stops when two evaluations with different seeds reach this mean return; 0 never stops early.")
    stop_after_steps: int = hyper(0, "Goes on until the table has seen so many steps, even when the target is reached.")
    publish_every: int = hyper(50, "Updates between publications of the weights.")
    patience_s: float = hyper(120.0, "Gives up when no batch arrives for so long.")


def settled(config: OnlineConfig, batch_size: int) -> OnlineConfig:
    """The same with `replay` as one of `REPLAYS`, and with what that says of other fields.

    Raises:
        InvalidArgument: there is no such replay, or it prioritizes with alpha 0.
    """
    kind = config.replay if config.replay != "auto" else "per" if config.alpha else "uniform"
    if kind not in REPLAYS:
        raise rs.InvalidArgument(f"replay={kind!r} must be auto, {', '.join(REPLAYS[:-1])} or {REPLAYS[-1]}")
    if kind in ("per", "rank"):
        if not config.alpha:
            raise rs.InvalidArgument(f"replay={kind!r} with alpha=0 would be uniform: give alpha, 0.6 is usual, or replay='uniform'")
        return replace(config, replay=kind)
    if kind != "none":
        return replace(config, replay=kind, alpha=0.0)
    return replace(  # closing rows are rows, too: half of a batch of rows are steps at least
        config, replay=kind, alpha=0.0, max_steps=max(batch_size, 2), min_size=max(batch_size // 2, 1),
        samples_per_insert=1.0, error_batches=1.0,
    )  # fmt: skip


def table_config(env: Any, config: OnlineConfig, batch_size: int = 256) -> rs.TableConfig:
    """The table that the online loop makes for an environment."""
    config = settled(config, batch_size)
    selectors: dict[str, Callable[[], rs.Prioritized | rs.RankPrioritized | rs.Recency | rs.Uniform]] = {
        "per": lambda: rs.Prioritized(alpha=config.alpha),
        "rank": lambda: rs.RankPrioritized(alpha=config.alpha),
        "recency": lambda: rs.Recency(half_life_steps=config.half_life_steps),
    }
    return rs.TableConfig(
        columns=rs.columns_from_env(env),
        selector=selectors.get(config.replay, rs.Uniform)(),
        rate_limiter=rs.SampleToInsertRatio(
            samples_per_insert=config.samples_per_insert,
            min_size_to_sample=config.min_size,
            error_buffer=max(config.error_batches * batch_size, config.samples_per_insert),
        ),
        retention=rs.Retention(max_steps=config.max_steps),
    )


@dataclass(frozen=True, slots=True)
class Saved:
    """Saved steps that are mixed into every batch, drawn uniformly."""

    api: Any
    """A store opened with ``mode="r"``, or a client."""
    table: str
    share: float
    """Of every batch, rounded to whole items."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How an online training ended."""

    reached: bool
    """Two evaluations of the same weights, with different seeds, both had a mean return of at least the target."""
    best_return: float | None
    """Mean return of the checkpoint kept (best.pt), the lower of the two evaluations where there were two; None: never evaluated."""
    updates: int
    inserted_steps: int
    seconds: float


def train(
    api: Any,
    table: str,
    env: str,
    algorithm: Algorithm,
    config: OnlineConfig,
    run: RunFolder,
    *,
    policy: str = "policy",
    saved: Saved | None = None,
    resume: dict[str, Any] | None = None,
    report: Callable[[dict[str, Any]], None] = lambda figures: None,
    stopping: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Learns from a table that actors fill meanwhile, and publishes weights to them, until the target return or the last update.

    Args:
        api: a `replaystore_client.Client`, or an open store.
        table: its name; it must exist (see `table_config`).
        env: Gymnasium id of the evaluation environment.
        algorithm: what learns.
        config: of the loop.
        run: receives metrics.jsonl, replayed.npz (ages, priorities and policy lag of sampled batches) and checkpoints.
        policy: name of the parameter set. In the end it tells the actors to stop, unless `stopping` ended the training.
        saved: steps of another table, mixed into every batch.
        resume: a checkpoint's state to carry on from.
        report: called with each line of metrics, and with ``{"waiting": why}`` while there is nothing to sample.
        stopping: asked before each update; True ends the training.
    """
    torch.set_num_threads(algorithm.config.threads)
    if resume is not None:
        algorithm.restore(resume)
    player = algorithm.policy()
    version = api.publish_parameters(policy, publishable(player))
    prioritized = is_prioritized(api.describe(table).config)
    judge = Judge(algorithm, env, config, run, report, float((resume or {}).get("score", -np.inf)))
    steps = api.stats(table).inserted_steps
    beta = annealing(config)
    with _sampler(api, table, algorithm, config.beta_start if prioritized else 0.0, saved) as sampler:
        while algorithm.updates < config.max_updates and not stopping():
            if prioritized:
                sampler.beta = beta(algorithm.updates)  # of the network's updates: a resumed training goes on where it was
            batch = next_batch(sampler, config.patience_s, report, stopping)
            if batch is None:
                break
            errors, figures = algorithm.learn(batch.to_torch(algorithm.device), weighted=prioritized)
            if prioritized:
                sampler.update_priorities(batch.step_ids, errors.cpu().numpy())
            if algorithm.updates % config.publish_every == 0:
                version = api.publish_parameters(policy, publishable(player))
            if judge.due(algorithm.updates >= config.max_updates):
                steps = api.stats(table).inserted_steps
                judge.look(steps, batch, version, {"beta": sampler.beta, "policy_version": version, **figures()})
                if judge.reached and steps >= config.stop_after_steps:
                    break
    if not stopping():
        api.publish_parameters(policy, {**publishable(player), STOP: np.ones(1, np.uint8)})
    return judge.finish(steps)


def is_prioritized(table: rs.TableConfig) -> bool:
    """Whether its selector wants priorities."""
    return isinstance(table.selector, rs.Prioritized | rs.RankPrioritized)


def annealing(config: OnlineConfig) -> rs.Linear:
    """The importance-sampling exponent by update."""
    return rs.Linear(config.beta_start, config.beta_end, max(config.beta_updates, 0))


class Judge:
    """Evaluates while an algorithm learns, keeps the best weights and the last, and notes how it went in the run's folder."""

    def __init__(
        self, algorithm: Algorithm, env: str, config: OnlineConfig, run: RunFolder, report: Callable[[dict[str, Any]], None],
        best: float = -np.inf,
    ) -> None:  # fmt: skip
        self._algorithm, self._env, self._config, self._run, self._report = algorithm, env, config, run, report
        self._policy, self._best = algorithm.policy(), best
        self._replayed = Replayed()
        self._first_update, self._started, self._looked_at = algorithm.updates, time.monotonic(), -1
        self.reached = config.target_return != 0 and best >= config.target_return
        """Two evaluations of the same weights had at least the target return."""

    def due(self, last: bool) -> bool:
        """Whether it is time to evaluate; after the last update it is."""
        return last or self._algorithm.updates % self._algorithm.config.eval_every == 0

    @property
    def up_to_date(self) -> bool:
        """Whether the weights as they are have been evaluated."""
        return self._looked_at == self._algorithm.updates

    def look(self, steps: int, batch: Any, version: int, more: dict[str, Any]) -> None:
        """Evaluates, keeps weights, logs a line with `more` in it."""
        algorithm, target = self._algorithm, self._config.target_return
        self._looked_at = algorithm.updates
        returns = returns_of(algorithm, self._policy, self._env)
        mean = score = float(returns.mean())
        if mean > self._best and mean >= target:
            other = float(returns_of(algorithm, self._policy, self._env, salt=1).mean())
            score = min(mean, other)  # the evaluation that chooses weights flatters them
            self.reached = self.reached or (target != 0 and score >= target)
        if score > self._best:
            self._best = score
            self._run.save("best", {**algorithm.state(), "return_mean": score})
        self._run.save("last", {**algorithm.state(), "score": self._best})
        seconds = time.monotonic() - self._started
        self._replayed.note(algorithm.updates, batch, version)
        line = {
            "update": algorithm.updates, "inserted_steps": steps, "seconds": round(seconds, 2), "return_mean": mean,
            "return_kept": self._best, "return_std": float(returns.std()), "return_min": float(returns.min()),
            "updates_per_s": round((algorithm.updates - self._first_update) / seconds, 1), **more,
        }  # fmt: skip
        self._run.log(**line)
        self._report(line)

    def finish(self, steps: int) -> TrainResult:
        """Writes what was replayed, the last weights and the result."""
        self._replayed.save(self._run)
        self._run.save("last", {**self._algorithm.state(), "score": self._best})
        best, seconds = None if self._best == -np.inf else self._best, time.monotonic() - self._started
        result = TrainResult(self.reached, best, self._algorithm.updates, steps, seconds)
        self._run.finish(asdict(result))
        return result


def _sampler(api: Any, table: str, algorithm: Algorithm, beta: float, saved: Saved | None) -> Any:
    options = {**algorithm.sampling(), "timeout_s": SAMPLE_TIMEOUT_S}
    size = algorithm.config.batch_size
    if saved is None:
        return api.sampler(table, size, beta=beta, **options)
    fresh_items, saved_items = shares(api.describe(table).config, algorithm, saved)
    seed = int(np.random.SeedSequence([algorithm.config.seed, algorithm.updates]).generate_state(1)[0])
    return MixedSampler(
        api.sampler(table, fresh_items, beta=beta, **options),
        saved.api.sampler(saved.table, saved_items, selector=rs.Uniform(), seed=seed, **options),
    )


def shares(table: rs.TableConfig, algorithm: Algorithm, saved: Saved) -> tuple[int, int]:
    """How many items of a batch are fresh ones of such a table, and how many saved ones.

    Raises:
        NotFound: there is no saved table of that name.
        InvalidArgument: the columns that the algorithm reads are not alike; or see `split`.
    """
    old = saved.api.describe(saved.table).config.columns
    for name in algorithm.columns():
        one, other = table.columns.get(name), old.get(name)
        if one is None or other is None or (one.shape, one.dtype) != (other.shape, other.dtype):
            raise rs.InvalidArgument(f"the saved table {saved.table!r} cannot be mixed in: its column {name!r} is another")
    return split(algorithm.config.batch_size, saved.share)


def returns_of(algorithm: Algorithm, policy: Policy, env: str, salt: int = 0) -> npt.NDArray[np.float64]:
    """Returns of greedy episodes ``(eval_episodes,)``; the seed depends on the update and `salt`."""
    config = algorithm.config
    seed = int(np.random.SeedSequence([config.seed, algorithm.updates, salt]).generate_state(1)[0])
    rng = np.random.default_rng(seed)
    return evaluate(lambda seen: policy.act(seen, rng), env, config.eval_episodes, seed, policy.frames)


def next_batch(
    sampler: Any, patience_s: float, report: Callable[[dict[str, Any]], None], stopping: Callable[[], bool] = lambda: False
) -> Any:
    """The sampler's next batch; says why it waits, and after `patience_s` gives up with the store's error. None when stopping."""
    deadline = time.monotonic() + patience_s
    while not stopping():
        try:
            return next(sampler)
        except (rs.NotReady, rs.DeadlineExceeded, rs.Overloaded) as blocked:  # it waits for actors, is restarted, is full
            report({"waiting": str(blocked)})
            if time.monotonic() > deadline:
                raise
    return None


class Replayed:
    """What was replayed: ages, priorities, times sampled and policy lag of one batch per evaluation, for the report."""

    def __init__(self) -> None:
        self._rows: list[dict[str, npt.NDArray[Any]]] = []

    def note(self, update: int, batch: Any, version: int) -> None:
        """Keeps a batch's figures; the lag is in published versions, −1 where the actor had none."""
        lag = np.where(batch.policy_version >= 0, version - batch.policy_version, -1)
        row = {"ages": batch.ages, "priorities": batch.priorities, "times_sampled": batch.times_sampled, "policy_lag": lag}
        self._rows.append({"update": np.array(update), **{name: np.array(values) for name, values in row.items()}})

    def save(self, run: RunFolder) -> None:
        """Writes replayed.npz: ``update (evaluations,)``, the others ``(evaluations, batch)``."""
        if self._rows:
            stacked = {name: np.stack([row[name] for row in self._rows]) for name in self._rows[0]}
            np.savez(run.path / "replayed.npz", **stacked)  # type: ignore[arg-type]
