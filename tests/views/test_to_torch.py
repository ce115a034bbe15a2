"""Tensors of a batch: what observations share is moved to a device once, and seen as the same arrays there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import replaystore as rs
from replaystore.batch import _offset
from replaystore.schema.views import View
from replaystore.store import Store

VIEWS = [
    rs.Transition(frame_stack=3),
    rs.Transition(n_step=2, frame_stack=2),
    rs.Sequence(length=4, burn_in=1),
    rs.Sequence(length=4, frame_stack=3),
    rs.Episode(frame_stack=2),
    rs.Episode(packed=True, frame_stack=2),
]


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_views_of_one_window_are_views_of_one_tensor(store: Store, view: View) -> None:
    store.create_table("t", rs.TableConfig({"observation": rs.Column((2, 3), "uint8"), "action": rs.Column((), "int64")}))
    rng = np.random.default_rng(0)
    with store.writer("t") as writer:
        for length in (5, 3, 7):
            writer.reset(rng.integers(0, 256, (2, 3), np.uint8))
            for t in range(length):
                writer.append(t, 1.0, t == length - 1, False, rng.integers(0, 256, (2, 3), np.uint8))
    batch = store.sample("t", 16, view=view, seed=1)
    elsewhere = batch.to_torch("meta")
    shared = 0
    for name in ("observation", "next_observation"):
        array = batch[name]
        assert elsewhere[name].shape == array.shape
        window = batch.fields.get("window/observation")
        offset = None if window is None else _offset(window, array)
        if window is not None and offset is not None:
            strides = [stride // array.itemsize for stride in array.strides]
            seen = torch.from_numpy(window.copy()).as_strided(array.shape, strides, offset)
            np.testing.assert_array_equal(seen.numpy(), array)
            assert elsewhere[name].stride() == tuple(strides)
            shared += 1
        np.testing.assert_array_equal(batch.to_torch()[name].numpy(), array)
    packed = isinstance(view, rs.Episode) and view.packed
    apart = isinstance(view, rs.Transition) and view.n_step != 1
    assert shared == (0 if packed or apart else 2)
