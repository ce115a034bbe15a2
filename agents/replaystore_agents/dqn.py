"""Double DQN with n-step returns and prioritized replay (van Hasselt et al. 2016, Schaul et al. 2016, Hessel et al. 2018).

The learner only: actors are processes of their own (actor.py), the replay memory is a replaystore table, reached through the public verbs
that `replaystore_client.Client` and `replaystore.open` share. Vector observations and Discrete actions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import replaystore as rs
from replaystore_agents.trunk.devices import pick_device
from replaystore_agents.trunk.evaluate import evaluate, greedy
from replaystore_agents.trunk.heads import q_network
from replaystore_agents.trunk.hyper import hyper
from replaystore_agents.trunk.networks import to_arrays
from replaystore_agents.trunk.runs import RunFolder

STOP = "control.stop"
"""A parameter array of this name tells the actors to end."""

SAMPLE_TIMEOUT_S = 5.0
"""How long a sampler waits before the learner says why nothing comes."""


@dataclass(frozen=True, slots=True)
class DQNConfig:
    """What the online and the offline learner have in common. The defaults are tuned on CartPole-v1 (8 of 8 seeds)."""

    gamma: float = hyper(0.99, "Discount per step (Mnih et al. 2015).")
    n_step: int = hyper(3, "Rewards summed before bootstrapping (Rainbow, Hessel et al. 2018: 3).")
    batch_size: int = hyper(256, "Items per update; larger than the usual 32 to 128 because one call costs the same.")
    learning_rate: float = hyper(4e-3, "Adam's step size (RL Zoo uses 2.3e-3 for CartPole with batches of 64).")
    adam_epsilon: float = hyper(1e-5, "Adam's epsilon (Rainbow: 1.5e-4; smaller for small networks).")
    tau: float = hyper(0.04, "Soft target update after each update (Lillicrap et al. 2016); used when target_every is 0.")
    target_every: int = hyper(0, "Hard target copy every so many updates (Mnih et al. 2015); 0 uses tau instead.")
    huber_delta: float = hyper(1.0, "Where the loss turns from square to straight (Mnih et al. 2015: errors clipped at 1).")
    max_grad_norm: float = hyper(10.0, "Gradients are scaled down to this norm (Wang et al. 2016).")
    hidden: tuple[int, ...] = hyper((128, 128), "Widths of the hidden layers.")
    eval_every: int = hyper(500, "Updates between evaluations.")
    eval_episodes: int = hyper(100, "Greedy episodes per evaluation (CartPole-v1 counts as solved at 475 over 100).")
    seed: int = hyper(0, "Of the network, the evaluation environments and offline sampling.")
    device: str = hyper("auto", "auto, cuda, mps or cpu.")
    threads: int = hyper(1, "CPU threads of torch; small networks are fastest with one.")


@dataclass(frozen=True, slots=True)
class OnlineConfig(DQNConfig):
    """The online learner and the table it makes."""

    alpha: float = hyper(0.6, "Prioritization exponent (Schaul et al. 2016, proportional variant).")
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


@dataclass(frozen=True, slots=True)
class Spaces:
    """What DQN needs to know of an environment."""

    observation_shape: tuple[int, ...]
    """As the network sees it: with more than one frame, they come first."""
    actions: int
    first_action: int = 0
    frames: int = 1
    """How many are stacked."""

    def to_json(self) -> list[Any]:
        """As kept in checkpoints."""
        return [list(self.observation_shape), self.actions, self.first_action, *([self.frames] if self.frames > 1 else [])]


def spaces_of(table: rs.TableConfig, frames: int = 1) -> Spaces:
    """The spaces of a table, from those that its columns were made of; with more than one frame, of stacks of so many."""
    observation, action = table.columns.get("observation"), table.columns.get("action")
    space = dict(action.space or {}) if action is not None else {}
    if observation is None or space.get("kind") != "Discrete":
        raise rs.InvalidArgument(
            "DQN needs one 'observation' column and an 'action' column made of a Discrete space (replaystore.columns_from_env keeps it); "
            f"this table has {', '.join(table.columns)}"
        )
    shape = (frames, *observation.shape) if frames > 1 else observation.shape
    return Spaces(shape, int(space["n"]), int(space.get("start", 0)), frames)


class DoubleDQN:
    """Networks, optimiser and the update. `state` and `restore` carry on bit by bit."""

    def __init__(self, spaces: Spaces, config: DQNConfig) -> None:
        self.spaces, self.config, self.device = spaces, config, pick_device(config.device)
        torch.manual_seed(config.seed)
        self.online = q_network(spaces.observation_shape, spaces.actions, config.hidden).to(self.device)
        self.target = q_network(spaces.observation_shape, spaces.actions, config.hidden).to(self.device)
        self.target.load_state_dict(self.online.state_dict())
        self._parameters = list(self.online.parameters())
        self._target_parameters = list(self.target.parameters())
        fused = self.device.type in ("cuda", "cpu")  # one call for all tensors; not everywhere on MPS
        self.optimizer = torch.optim.Adam(self._parameters, lr=config.learning_rate, eps=config.adam_epsilon, fused=fused)
        self.updates = 0

    def update(self, batch: rs.Batch, weighted: bool = True) -> tuple[npt.NDArray[np.float32], Callable[[], dict[str, float]]]:
        """One gradient step; returns the absolute TD errors ``(batch,)``, which are the new priorities, and a call for figures to log."""
        errors, figures = self.learn(batch.to_torch(self.device), weighted)
        return errors.cpu().numpy(), figures

    def learn(self, data: Any, weighted: bool) -> tuple[torch.Tensor, Callable[[], dict[str, float]]]:
        """The same from tensors by name, errors left on the device: nothing here waits for it."""
        action = (data["action"].long() - self.spaces.first_action).unsqueeze(1)
        with torch.no_grad():
            target = double_dqn_target(
                data["reward"], data["discount"], self.online(data["next_observation"]), self.target(data["next_observation"])
            )
        values = self.online(data["observation"]).gather(1, action).squeeze(1)
        losses = nn.functional.huber_loss(values, target, reduction="none", delta=self.config.huber_delta)
        loss = (losses * data["weights"]).mean() if weighted else losses.mean()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, self.config.max_grad_norm)
        self.optimizer.step()
        self.updates += 1
        self._update_target()
        errors = (target - values.detach()).abs()
        # Figures are made on demand: most updates are not logged, and every one is a wait for the device.
        return errors, lambda: {"loss": loss.item(), "value": values.mean().item(), "td_error": errors.mean().item()}

    @torch.no_grad()
    def _update_target(self) -> None:
        if self.config.target_every == 0:
            for old, new in zip(self._target_parameters, self._parameters, strict=True):
                old.lerp_(new, self.config.tau)
        elif self.updates % self.config.target_every == 0:
            self.target.load_state_dict(self.online.state_dict())

    def evaluate(self, env: str, salt: int = 0) -> npt.NDArray[np.float64]:
        """Returns of greedy episodes ``(eval_episodes,)``; the seed depends on the update and `salt`."""
        seed = int(np.random.SeedSequence([self.config.seed, self.updates, salt]).generate_state(1)[0])
        return evaluate(
            greedy(self.online, self.device, self.spaces.first_action), env, self.config.eval_episodes, seed, self.spaces.frames
        )

    def state(self) -> dict[str, Any]:
        """Everything that an exact continuation needs, and what `evaluate` needs to rebuild the network."""
        return {
            "algorithm": "double-dqn",
            "spaces": self.spaces.to_json(),
            "hidden": list(self.config.hidden),
            "online": self.online.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Carries on where `state` was taken. The network must have the same shape."""
        mine = [*self.spaces.to_json(), list(self.config.hidden)]
        theirs = [*state["spaces"], state["hidden"]]
        if mine != theirs:
            raise rs.InvalidArgument(f"the checkpoint is of another network: (shape, actions, first, hidden) = {theirs}, wanted {mine}")
        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates = state["updates"]
        torch.set_rng_state(state["torch_rng"])
        if self.device.type == "cuda" and state["cuda_rng"]:
            torch.cuda.set_rng_state_all(state["cuda_rng"])


def double_dqn_target(reward: torch.Tensor, discount: torch.Tensor, next_online: torch.Tensor, next_target: torch.Tensor) -> torch.Tensor:
    """``reward + discount · Q_target(s', argmax_a Q_online(s', a))`` (van Hasselt et al. 2016, equation 4).

    `reward` is the n-step sum ``(batch,)`` and `discount` is gamma^k · (1 − terminated) ``(batch,)``, both as replaystore delivers them: a
    truncated episode still bootstraps. The values are ``(batch, actions)``.
    """
    best = next_online.argmax(1, keepdim=True)
    return reward + discount * next_target.gather(1, best).squeeze(1)


def table_config(env: Any, config: OnlineConfig) -> rs.TableConfig:
    """The table that the online learner makes for an environment."""
    return rs.TableConfig(
        columns=rs.columns_from_env(env),
        selector=rs.Prioritized(alpha=config.alpha),
        rate_limiter=rs.SampleToInsertRatio(
            samples_per_insert=config.samples_per_insert,
            min_size_to_sample=config.min_size,
            error_buffer=max(config.error_batches * config.batch_size, config.samples_per_insert),
        ),
        retention=rs.Retention(max_steps=config.max_steps),
    )


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
    config: OnlineConfig,
    run: RunFolder,
    *,
    policy: str = "policy",
    resume: dict[str, Any] | None = None,
    report: Callable[[dict[str, Any]], None] = lambda figures: None,
    stopping: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Learns from a table that actors fill meanwhile, and publishes weights to them, until the target return or the last update.

    Args:
        api: a `replaystore_client.Client`, or an open store.
        table: its name; it must exist (see `table_config`).
        env: Gymnasium id of the evaluation environment.
        config: hyper-parameters.
        run: receives metrics.jsonl, replayed.npz (ages, priorities and policy lag of sampled batches) and checkpoints.
        policy: name of the parameter set. In the end it tells the actors to stop, unless `stopping` ended the training.
        resume: a checkpoint's state to carry on from.
        report: called with each line of metrics, and with ``{"waiting": why}`` while there is nothing to sample.
        stopping: asked before each update; True ends the training.
    """
    torch.set_num_threads(config.threads)
    agent = DoubleDQN(spaces_of(api.describe(table).config), config)
    if resume is not None:
        agent.restore(resume)
    version = api.publish_parameters(policy, to_arrays(agent.online))
    replayed = Replayed()
    best, reached, first_update, steps = -np.inf, False, agent.updates, 0
    started = time.monotonic()
    view = rs.Transition(n_step=config.n_step, gamma=config.gamma)
    beta = rs.Linear(config.beta_start, config.beta_end, max(config.beta_updates, 0))
    with api.sampler(table, config.batch_size, view=view, beta=config.beta_start, timeout_s=SAMPLE_TIMEOUT_S) as sampler:
        while agent.updates < config.max_updates and not stopping():
            sampler.beta = beta(agent.updates)  # of the network's updates: a resumed training goes on where it was
            batch = next_batch(sampler, config.patience_s, report, stopping)
            if batch is None:
                break
            errors, figures = agent.update(batch)
            sampler.update_priorities(batch.step_ids, errors)
            if agent.updates % config.publish_every == 0:
                version = api.publish_parameters(policy, to_arrays(agent.online))
            if agent.updates % config.eval_every and agent.updates < config.max_updates:
                continue
            returns = agent.evaluate(env)
            mean = score = float(returns.mean())
            if mean > best and mean >= config.target_return:
                score = min(mean, float(agent.evaluate(env, salt=1).mean()))  # the evaluation that chooses weights flatters them
                reached = reached or 0 < config.target_return <= score
            if score > best:
                best = score
                run.save("best", {**agent.state(), "return_mean": score})
            run.save("last", agent.state())
            steps, seconds = api.stats(table).inserted_steps, time.monotonic() - started
            replayed.note(agent.updates, batch, version)
            line = {
                "update": agent.updates, "inserted_steps": steps, "seconds": round(seconds, 2), "return_mean": mean, "return_kept": best,
                "return_std": float(returns.std()), "return_min": float(returns.min()), "beta": sampler.beta, "policy_version": version,
                "updates_per_s": round((agent.updates - first_update) / seconds, 1), **figures(),
            }  # fmt: skip
            run.log(**line)
            report(line)
            if reached and steps >= config.stop_after_steps:
                break
    replayed.save(run)
    run.save("last", agent.state())
    if not stopping():
        api.publish_parameters(policy, {**to_arrays(agent.online), STOP: np.ones(1, np.uint8)})
    result = TrainResult(reached, None if best == -np.inf else best, agent.updates, steps, time.monotonic() - started)
    run.finish(asdict(result))
    return result


def next_batch(
    sampler: Any, patience_s: float, report: Callable[[dict[str, Any]], None], stopping: Callable[[], bool] = lambda: False
) -> rs.Batch | None:
    """The sampler's next batch; says why it waits, and after `patience_s` gives up with the store's error. None when stopping."""
    deadline = time.monotonic() + patience_s
    while not stopping():
        try:
            batch: rs.Batch = next(sampler)
            return batch
        except (rs.NotReady, rs.DeadlineExceeded) as blocked:  # the limiter waits for actors, or the server is being restarted
            report({"waiting": str(blocked)})
            if time.monotonic() > deadline:
                raise
    return None


class Replayed:
    """What was replayed: ages, priorities, times sampled and policy lag of one batch per evaluation, for the report."""

    def __init__(self) -> None:
        self._rows: list[dict[str, npt.NDArray[Any]]] = []

    def note(self, update: int, batch: rs.Batch, version: int) -> None:
        """Keeps a batch's figures; the lag is in published versions, −1 where the actor had none."""
        lag = np.where(batch.policy_version >= 0, version - batch.policy_version, -1)
        row = {"ages": batch.ages, "priorities": batch.priorities, "times_sampled": batch.times_sampled, "policy_lag": lag}
        self._rows.append({"update": np.array(update), **{name: np.array(values) for name, values in row.items()}})

    def save(self, run: RunFolder) -> None:
        """Writes replayed.npz: ``update (evaluations,)``, the others ``(evaluations, batch)``."""
        if self._rows:
            stacked = {name: np.stack([row[name] for row in self._rows]) for name in self._rows[0]}
            np.savez(run.path / "replayed.npz", **stacked)  # type: ignore[arg-type]
