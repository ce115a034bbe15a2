"""cpprb on W1, in process, in RAM."""

from __future__ import annotations

import cpprb
import numpy as np

from workload import BATCH, arguments, rate, report, rows


def main() -> None:
    args = arguments()
    data = rows(args.steps)
    columns = {
        "obs": {"shape": 17, "dtype": np.float32},
        "act": {"shape": 6, "dtype": np.float32},
        "rew": {"dtype": np.float32},
        "next_obs": {"shape": 17, "dtype": np.float32},
        "done": {"dtype": np.bool_},
    }
    given = {
        "obs": data["observation"],
        "act": data["action"],
        "rew": data["reward"],
        "next_obs": data["next_observation"],
        "done": data["done"],
    }
    uniform = cpprb.ReplayBuffer(args.steps, columns)
    prioritized = cpprb.PrioritizedReplayBuffer(args.steps, columns, alpha=0.6)
    for buffer in (uniform, prioritized):
        for start in range(0, args.steps, 1000):
            buffer.add(**{name: values[start : start + 1000] for name, values in given.items()})
    errors = np.abs(np.random.default_rng(1).standard_normal(BATCH))

    def learner_step() -> None:
        batch = prioritized.sample(BATCH, beta=0.4)
        prioritized.update_priorities(batch["indexes"], errors)

    figures = {
        "uniform": rate(lambda: uniform.sample(BATCH), args.seconds),
        "prioritized": rate(lambda: prioritized.sample(BATCH, beta=0.4), args.seconds),
        "learner step": rate(learner_step, args.seconds),
    }
    from importlib.metadata import version

    report("cpprb", version("cpprb"), figures)


if __name__ == "__main__":
    main()
