"""Memory of large messages, used again instead of being asked from the system for each of them."""

from __future__ import annotations

import ctypes
import os

_LARGE_BYTES = 1 << 20

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
_MMAP_BYTES, _TRIM_BYTES = 32 << 20, 64 << 20
"""As high as glibc itself goes, step by step, in a process that frees blocks of 32 MiB (mallopt(3), M_MMAP_THRESHOLD)."""

_asked = False


def expect_large(size_bytes: int) -> None:
    """Says that messages of this size come and go. After the first of a megabyte, freed memory up to 64 MiB stays with the process.

    By default glibc hands it back to the kernel and gets zeroed pages for the next message: 2000 page faults per 9 MB, which took as long
    as everything else that a client does for such a message. Does nothing where another C library allocates, or the user has set a
    threshold himself.
    """
    global _asked
    if size_bytes >= _LARGE_BYTES and not _asked:
        _asked = True
        if _may_tune(os.environ):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_MMAP_THRESHOLD, _MMAP_BYTES)
            mallopt(_TRIM_THRESHOLD, _TRIM_BYTES)


def _may_tune(environment: os._Environ[str] | dict[str, str]) -> bool:
    if any(name.startswith("MALLOC_") for name in environment) or "glibc.malloc" in environment.get("GLIBC_TUNABLES", ""):
        return False
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc") and hasattr(ctypes.CDLL(None), "mallopt")
    except (AttributeError, OSError, ValueError):
        return False
