"""Killed before any of its system calls, or in the middle of a write: what is found is opened, and every acknowledged row is there.

The files as they are at that moment are exactly what `kill -9` leaves behind: written and mapped pages belong to the kernel.
``REPLAYSTORE_CRASH_EVERY=1`` dies at all calls and in all writes; else only at some of those for the forty documents of a publication.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import replaystore as rs
from replaystore.storage import calls
from tests.crash.disk import Disk
from tests.crash.script import Script, finish

EVERY = int(os.environ.get("REPLAYSTORE_CRASH_EVERY", "10"))
"""Of the calls that write documents of arrays, every so many are tried; of all others, each."""

MAPPED = ("__replaystore/state", "/replay/", "/steps/note/")
UNCHANGING = ("mmap", "flock")


def is_of_a_document(name: str, details: tuple[Any, ...]) -> bool:
    """Whether a call belongs to the publication of one array or group, which all look alike."""
    place = os.readlink(f"/proc/self/fd/{details[0]}") if isinstance(details[0], int) else str(details[0])
    return "zarr.json" in place and any(part in place for part in ("/steps", "/meta", "/replay", "/episodes"))


@pytest.mark.timeout(1800)
def test_killed_at_every_call(fast_folder: Path, tell: Callable[[str], None]) -> None:
    disk, script = Disk(fast_folder / "data", MAPPED), Script(fast_folder / "data")
    seen = tried = 0

    def die_here(torn: bool) -> None:
        nonlocal tried
        tried += 1
        image = fast_folder / "image"
        disk.build(image)
        if torn:
            _tear(image)
        store = rs.open(image, commit_interval_s=3600)
        script.oracle.check(store)
        finish(store, thoroughly=tried % 15 == 0)
        shutil.rmtree(image)

    def _tear(image: Path) -> None:
        fd, data, offset = torn_call
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        with (image / path.relative_to(script.path)).open("r+b") as file:
            file.seek(offset)
            file.write(data[: len(data) // 2])

    torn_call: tuple[Any, ...] = ()

    def hook(name: str, *details: Any) -> None:
        nonlocal seen, torn_call
        calls.hook = None
        disk.look_at_mapped()
        seen += 1
        if name not in UNCHANGING and (seen % EVERY == 0 or not is_of_a_document(name, details)):
            die_here(torn=False)
            if name == "pwrite" and (EVERY == 1 or tried % 3 == 0):
                torn_call = details
                die_here(torn=True)
        disk.see(name, *details)
        calls.hook = hook

    calls.hook = hook
    script.run()
    calls.hook = None
    disk.look_at_mapped()
    disk.build(fast_folder / "again")
    for path in sorted(script.path.rglob("*")):
        if path.is_file():
            other = fast_folder / "again" / path.relative_to(script.path)
            assert other.read_bytes() == path.read_bytes(), "the model of the disk is wrong"
    tell(f"{tried} kill points")
    assert tried > 900
