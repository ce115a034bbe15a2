"""TorchRL on W1, W2 and W3, in process, memory-mapped storage. W2's items are stored as whole stacks, W3's as rows of 80 steps."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torchrl.data import LazyMemmapStorage, TensorDictPrioritizedReplayBuffer, TensorDictReplayBuffer

from workload import (
    BATCH,
    BULK,
    EPISODE,
    LEARNER,
    ONE,
    PRIORITIZED,
    UNIFORM,
    Figures,
    arguments,
    errors,
    frames,
    insert_rate,
    rate,
    report,
    rows,
    sequences,
    stacks,
    vectors,
)

WAY = "in process, memory-mapped"


def blocks_of(values: dict[str, Any], block: int) -> Iterator[TensorDict]:
    tensors = {name: torch.from_numpy(value.copy()) for name, value in values.items()}
    n = len(tensors["reward"])
    for start in range(0, n, block):
        count = min(block, n - start)
        yield TensorDict({name: tensor[start : start + count] for name, tensor in tensors.items()}, batch_size=[count])


def frames_in_blocks(data: dict[str, Any]) -> Iterator[TensorDict]:
    for start in range(0, len(data["reward"]), EPISODE // 4):
        stop = min(start + EPISODE // 4, len(data["reward"]))
        now, following = stacks(data, start, stop)
        block = {name: data[name][start:stop] for name in ("action", "reward", "done")} | {
            "observation": now,
            "next_observation": following,
        }
        yield from blocks_of(block, stop - start)


def measured(workload: str, size: int, blocks: Any, seconds: float, missing: dict[str, str]) -> Figures:
    """Figures of one workload; `blocks()` are TensorDicts of its steps. What cannot be had goes into `missing`."""
    made = torch.from_numpy(errors()).float()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        found: Figures = []
        if workload != "W3":
            single = TensorDictReplayBuffer(storage=LazyMemmapStorage(size, scratch_dir=f"{folder}/single"), batch_size=BATCH)
            steps = (single.add(step) for block in blocks() for step in block.unbind(0))
            found.append((WAY, workload, ONE, insert_rate(steps, seconds)))
            del single
        uniform = TensorDictReplayBuffer(storage=LazyMemmapStorage(size, scratch_dir=f"{folder}/uniform"), batch_size=BATCH)
        for block in blocks():
            uniform.extend(block)
        if workload == "W1":
            block = next(blocks())
            many = (uniform.extend(block) for _ in range(1 << 40))
            found.append((WAY, workload, BULK, insert_rate(many, seconds) * len(block)))

        found.append((WAY, workload, UNIFORM, rate(uniform.sample, seconds)))
        del uniform
        storage = LazyMemmapStorage(size, scratch_dir=f"{folder}/prioritized")
        try:
            prioritized = TensorDictPrioritizedReplayBuffer(alpha=0.6, beta=0.4, storage=storage, batch_size=BATCH)
        except RuntimeError as error:  # its C++ part was built for another torch
            missing[f"{workload} {PRIORITIZED}"] = missing[f"{workload} {LEARNER}"] = f"with torch {torch.__version__}: {error}"
            return found
        for block in blocks():
            prioritized.extend(block)

        def learner_step() -> None:
            batch = prioritized.sample()
            batch["td_error"] = made
            prioritized.update_tensordict_priority(batch)

        found.append((WAY, workload, PRIORITIZED, rate(prioritized.sample, seconds)))
        found.append((WAY, workload, LEARNER, rate(learner_step, seconds)))
        return found


def main() -> None:
    args = arguments()
    missing: dict[str, str] = {}
    torch.set_num_threads(1)
    data = rows(args.steps)
    found = measured("W1", args.steps, lambda: blocks_of(data, 1000), args.seconds, missing)
    pictures = frames(args.frames)
    found += measured("W2", args.frames, lambda: frames_in_blocks(pictures), args.seconds, missing)
    observation, reward = sequences(vectors(args.sequence_steps))
    found += measured("W3", len(reward), lambda: blocks_of({"observation": observation, "reward": reward}, 100), args.seconds, missing)
    report("torchrl", version("torchrl"), found, missing)


if __name__ == "__main__":
    main()
