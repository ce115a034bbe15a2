"""Batches one ahead: in order, bounded, with errors where they belong, and no thread left."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from replaystore_agents.trunk.feeding import ahead

CPU = torch.device("cpu")


class Made:
    def __init__(self, index: int) -> None:
        self.index = index

    def to_torch(self, device: Any) -> Made:
        assert device == CPU
        return self


def alive() -> int:
    return sum(thread.name == "replaystore-feeding" for thread in threading.enumerate())


def test_in_order_and_not_too_far_ahead() -> None:
    made: list[int] = []

    def make(index: int) -> Made:
        made.append(index)
        return Made(index)

    for count, batch in enumerate(ahead(make, 3, 20, CPU, depth=2)):
        assert batch.index == 3 + count
        assert len(made) <= count + 1 + 2 + 1  # the one in hand, two waiting, one being put
    assert made == list(range(3, 20))
    assert alive() == 0


def test_an_error_comes_where_its_batch_would() -> None:
    def make(index: int) -> Made:
        if index == 4:
            raise ValueError("no batch 4")
        return Made(index)

    batches = ahead(make, 0, 10, CPU)
    assert [next(batches).index for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="no batch 4"):
        next(batches)
    assert alive() == 0


def test_closing_ends_the_thread() -> None:
    batches = ahead(Made, 0, 1_000_000, CPU)
    assert next(batches).index == 0
    batches.close()
    assert alive() == 0


def test_nothing_to_make() -> None:
    assert list(ahead(Made, 5, 5, CPU)) == []
