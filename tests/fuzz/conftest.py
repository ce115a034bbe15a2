from __future__ import annotations

import os


def count(default: int) -> int:
    """How many messages to try: as given, times REPLAYSTORE_FUZZ (1 unless set; 100 makes an evening of it)."""
    return int(default * float(os.environ.get("REPLAYSTORE_FUZZ", "1")))


def seed() -> int:
    """Where the random numbers begin; REPLAYSTORE_FUZZ_SEED tries others."""
    return int(os.environ.get("REPLAYSTORE_FUZZ_SEED", "1"))
