"""What goes to a CUDA device, with ordinary memory in the place of page-locked memory and of the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import replaystore as rs
from replaystore import transfer
from replaystore.store import Store

DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
ELSEWHERE = torch.device("cpu")


class Room:
    """Gives memory, and knows how much."""

    def __init__(self) -> None:
        self.given: list[torch.Tensor] = []

    def __call__(self, size: int) -> torch.Tensor:
        self.given.append(torch.full((size,), 0xAB, dtype=torch.uint8))
        return self.given[-1]


@st.composite
def layouts(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Arrays of any dtype, also turned around, transposed, broadcast, or not to be written into."""
    array = draw(hnp.arrays(draw(st.sampled_from(DTYPES)), hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)))
    turn: Callable[[Any], Any] = draw(
        st.sampled_from([lambda a: a, lambda a: a[::-1], lambda a: a.T, lambda a: np.broadcast_to(a, (2, *a.shape))])
    )
    return turn(array)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.lists(layouts(), max_size=6), st.sampled_from([0, 16, 1 << 16]))
def test_every_array_arrives_as_it_is(arrays: list[Any], small: int) -> None:
    named = {str(number): array for number, array in enumerate(arrays)}
    room = Room()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "SMALL_BYTES", small)
        moved = transfer.to_device(named, ELSEWHERE, room)
    assert moved.keys() == named.keys()
    for name, array in named.items():
        assert moved[name].dtype == torch.from_numpy(np.empty(0, array.dtype)).dtype
        np.testing.assert_array_equal(moved[name].numpy(), array)
    assert len(room.given) == 1 + sum(array.nbytes > small for array in arrays)


def test_what_is_done_in_place_to_one_array_leaves_the_gradients_of_another_alone() -> None:
    batch = {"weights": np.ones(4, np.float32), "reward": np.full(4, 5.0, np.float32)}
    moved = transfer.to_device(batch, ELSEWHERE, Room())
    scores = torch.ones(4, requires_grad=True)
    loss = (scores * moved["weights"]).sum()
    moved["reward"].clamp_(-1.0, 1.0)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [1.0] * 4
    assert moved["reward"].tolist() == [1.0] * 4


@pytest.mark.parametrize("side", [3, 84])
def test_a_batch_takes_a_copy_for_the_small_arrays_and_one_for_each_large_one(
    store: Store, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    store.create_table("t", rs.TableConfig({"observation": rs.Column((side, side), "uint8"), "action": rs.Column((), "uint16")}))
    rng = np.random.default_rng(0)
    with store.writer("t") as writer:
        writer.reset(rng.integers(0, 256, (side, side), np.uint8))
        for step in range(40):
            writer.append(step, 1.0, step == 39, False, rng.integers(0, 256, (side, side), np.uint8))
    batch = store.sample("t", 32, view=rs.Transition(frame_stack=3), seed=1)
    room, moves = Room(), []

    def move(arrays: Any, target: torch.device) -> dict[str, torch.Tensor]:
        moves.append(sorted(arrays))
        return transfer.to_device(arrays, ELSEWHERE, room)

    monkeypatch.setattr("replaystore.batch._moved", move)
    there = batch.to_torch("meta")
    monkeypatch.undo()
    assert len(moves) == 1
    assert "window/observation" in moves[0], "the frames that an observation and the next one share"
    assert "observation" not in moves[0]
    assert len(room.given) == (1 if side == 3 else 2)
    here = batch.to_torch()
    assert there.keys() == here.keys()
    for name in here.keys():  # noqa: SIM118 - no mapping
        assert torch.equal(there[name], here[name]), name
        assert there[name].dtype == here[name].dtype
    window, small = (room.given[at].untyped_storage().data_ptr() for at in (0, -1))
    for name in here.keys():  # noqa: SIM118
        assert there[name].untyped_storage().data_ptr() == (window if name in ("observation", "next_observation") else small), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_device_memory_is_locked_once_and_no_batch_is_written_over(store: Store) -> None:
    rng = np.random.default_rng(0)
    batches = [{"large": rng.normal(size=(256, 4096)), "small": rng.normal(size=16)} for _ in range(50)]
    moved, places = [], set()

    def room(size: int) -> torch.Tensor:
        memory = transfer.locked(size)
        places.add((size, memory.data_ptr()))
        return memory

    for batch in batches:
        moved.append(transfer.to_device(batch, torch.device("cuda"), room))
        torch.cuda.synchronize()
    assert len(places) == 2
    moved += [transfer.to_device(batch, torch.device("cuda"), room) for batch in batches]
    for there, batch in zip(moved, [*batches, *batches], strict=True):
        for name, array in batch.items():
            np.testing.assert_array_equal(there[name].cpu().numpy(), array)
