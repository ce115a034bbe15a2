"""Which boot of which machine this is: processes that see the same id share one page cache."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def boot_id() -> str | None:
    """The kernel's random id of this boot, the same in every container on it; None where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() or None
    except OSError:
        return None
