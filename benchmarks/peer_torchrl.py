"""TorchRL on W1, in process, memory-mapped storage."""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from tensordict import TensorDict
from torchrl.data import LazyMemmapStorage, TensorDictPrioritizedReplayBuffer, TensorDictReplayBuffer

from workload import BATCH, arguments, rate, report, rows


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    data = {name: torch.from_numpy(values) for name, values in rows(args.steps).items()}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        uniform = TensorDictReplayBuffer(storage=LazyMemmapStorage(args.steps, scratch_dir=f"{folder}/uniform"), batch_size=BATCH)
        prioritized = TensorDictPrioritizedReplayBuffer(
            alpha=0.6, beta=0.4, storage=LazyMemmapStorage(args.steps, scratch_dir=f"{folder}/prioritized"), batch_size=BATCH
        )
        for buffer in (uniform, prioritized):
            for start in range(0, args.steps, 1000):
                buffer.extend(TensorDict({name: values[start : start + 1000] for name, values in data.items()}, batch_size=[1000]))
        errors = torch.rand(BATCH) + 0.1

        def learner_step() -> None:
            batch = prioritized.sample()
            batch["td_error"] = errors
            prioritized.update_tensordict_priority(batch)

        figures = {
            "uniform": rate(uniform.sample, args.seconds),
            "prioritized": rate(prioritized.sample, args.seconds),
            "learner step": rate(learner_step, args.seconds),
        }
        report("torchrl", version("torchrl"), figures)


if __name__ == "__main__":
    main()
