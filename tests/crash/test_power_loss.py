"""The power goes: pages, lengths and names that no sync covers are old or new, in any mixture. What was durable is there, and no lie.

``REPLAYSTORE_POWER_IMAGES=50000`` tries more images than the 2,100 of every run.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import replaystore as rs
from replaystore.storage import calls
from tests.crash.disk import Disk
from tests.crash.script import Script, finish
from tests.crash.test_every_call import MAPPED, UNCHANGING, is_of_a_document

IMAGES = int(os.environ.get("REPLAYSTORE_POWER_IMAGES", "2100"))


@pytest.mark.timeout(1800)
def test_any_mixture_of_old_and_new_is_opened(fast_folder: Path, tell: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0
    life = 0
    while tried < IMAGES:
        monkeypatch.setattr("replaystore.storage.journal.ROTATE_BYTES", 1 << 20 if life % 2 else 700)
        tried += one_life(fast_folder / f"{life}", random.Random(1000 + life), IMAGES - tried)
        life += 1
    tell(f"{tried} power-loss images")


def one_life(folder: Path, chance: random.Random, most: int) -> int:
    """Lives the script once, and dies at calls along the way; returns at how many."""
    folder.mkdir()
    disk, script = Disk(folder / "data", MAPPED), Script(folder / "data")
    tried = 0

    def hook(name: str, *details: Any) -> None:
        nonlocal tried
        calls.hook = None
        disk.look_at_mapped()
        if script.store is not None and script.oracle.created:
            script.told()
        likely = 0.0 if name in UNCHANGING else 0.03 if is_of_a_document(name, details) else 0.3
        while tried < most and chance.random() < likely:
            tried += 1
            image, seed = folder / "image", chance.getrandbits(32)
            disk.build_after_power_loss(image, random.Random(seed))
            try:
                store = rs.open(image, commit_interval_s=3600)
                script.oracle.check(store, power=True)
            except Exception as error:
                error.add_note(f"image {tried} (seed {seed}) before {name} {details[:1]}")
                raise
            finish(store, thoroughly=tried % 15 == 0)
            shutil.rmtree(image)
        disk.see(name, *details)
        calls.hook = hook

    calls.hook = hook
    try:
        script.run()
    finally:
        calls.hook = None
    shutil.rmtree(folder)
    return tried
