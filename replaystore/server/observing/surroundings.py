"""What a process and its machine have and what is left of it: memory, descriptors, the disk under a folder. Only reads; 0 or "" where
the system does not say."""

from __future__ import annotations

import contextlib
import os
import resource
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60
"""Control groups of version 1 say a number of this size where there is no limit."""


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system that a path is on."""

    free_bytes: int
    """What this user may still take."""
    total_bytes: int
    filesystem: str
    """ext4, xfs, tmpfs, nfs4, ..."""


def disk_of(path: str | Path) -> Disk:
    """The disk under `path`, which must exist."""
    with contextlib.suppress(OSError):
        found = os.statvfs(path)
        return Disk(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, filesystem_of(path))
    return Disk(0, 0, "")


def filesystem_of(path: str | Path) -> str:
    """Kind of the file system at `path`."""
    try:
        device = os.stat(path).st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        lines = [line.split() for line in (_PROC / "self/mountinfo").read_text().splitlines()]
    except OSError:
        return ""
    mounts = [(words[2], words[4], words[words.index("-") + 1]) for words in lines if "-" in words[6:]]
    # btrfs and overlays give their files device numbers of their own: then it is the innermost mount point that the path is below
    real = os.path.realpath(path)
    exact = [kind for device_number, _, kind in mounts if device_number == number]
    below = [(len(point), kind) for _, point, kind in mounts if _is_below(real, point)]
    return exact[0] if exact else max(below)[1] if below else ""


def _is_below(path: str, folder: str) -> bool:
    return folder == "/" or path == folder or path.startswith(f"{folder}/")


def rss_bytes() -> int:
    """Main memory that this process occupies, mapped files included."""
    try:
        return int((_PROC / "self/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0


def memory_limit_bytes() -> int:
    """The least of what the machine has and what the control group of this process may take."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in _limit_files():
        with contextlib.suppress(OSError, ValueError):  # "max": none
            limits.append(int(file.read_text()))
    known = [limit for limit in limits if 0 < limit < _UNLIMITED]
    return min(known, default=0)


def _limit_files() -> list[Path]:
    files = [_CGROUP / "memory.max", _CGROUP / "memory/memory.limit_in_bytes"]
    try:
        groups = (_PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return files
    for line in groups:
        number, kinds, group = line.split(":", 2)
        if number == "0":
            folders = [_CGROUP / group.lstrip("/"), *(_CGROUP / group.lstrip("/")).parents]
            files += [folder / "memory.max" for folder in folders if folder.is_relative_to(_CGROUP)]
        elif "memory" in kinds.split(","):
            files.append(_CGROUP / "memory" / group.lstrip("/") / "memory.limit_in_bytes")
    return files


def open_files() -> int:
    """Descriptors that this process has open."""
    try:
        return len(os.listdir(_PROC / "self/fd")) - 1  # one is that of the listing
    except OSError:
        return 0


def max_open_files() -> int:
    """How many it may have."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 0 if soft == resource.RLIM_INFINITY else soft


def thread_count() -> int:
    """Threads of this process, those of libraries counted in."""
    try:
        return len(os.listdir(_PROC / "self/task"))
    except OSError:
        return 0


def strict_overcommit() -> bool:
    """Whether the kernel refuses to promise more memory than there is (vm.overcommit_memory=2)."""
    try:
        return (_PROC / "sys/vm/overcommit_memory").read_text().strip() == "2"
    except OSError:
        return False
