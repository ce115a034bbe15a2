"""One reserved range of addresses over many chunk files, so that a column of any size is one NumPy array.

The range is reserved without memory behind it; each chunk file is then mapped into its place (MAP_FIXED). Reading a place that has no
file is a segmentation fault, so only ids whose files are mapped may be touched: the callers see to that.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.errors import StorageError

_libc: Any = None
_PROT_NONE = 0
_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x40 if sys.platform == "darwin" else 0x4000
_RESERVE = 0
if sys.platform != "win32":  # a client imports this everywhere
    _libc = ctypes.CDLL(None, use_errno=True)
    _libc.mmap.restype = ctypes.c_void_p
    _libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_longlong)
    _libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    _libc.msync.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    _libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    _RESERVE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
_MS_SYNC = 0x10 if sys.platform == "darwin" else 4
_FAILED = ctypes.c_void_p(-1).value


class AddressRange:
    """A reserved range of addresses into which files are mapped. `close` must come after the last use of any array over it."""

    __slots__ = ("_address", "_size_bytes")

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._address = self._map(None, size_bytes, _PROT_NONE, _RESERVE, -1)

    @classmethod
    def _map(cls, address: int | None, size_bytes: int, protection: int, flags: int, fd: int) -> int:
        result = _libc.mmap(address, size_bytes, protection, flags, fd, 0)
        if result is None or result == _FAILED:
            code = ctypes.get_errno()
            raise StorageError(
                f"mapping {size_bytes} bytes failed ({os.strerror(code)}): check 'ulimit -v' and vm.max_map_count (one map per chunk file)"
            )
        return int(result)

    def attach(self, offset_bytes: int, size_bytes: int, fd: int, *, writable: bool, private: bool = False) -> None:
        """Maps a file's first `size_bytes` at `offset_bytes` (both multiples of the page size). `private`: writes stay in this process."""
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        sharing = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED
        self._map(self._address + offset_bytes, size_bytes, protection, sharing | _MAP_FIXED, fd)

    def detach(self, offset_bytes: int, size_bytes: int) -> None:
        """Takes a file out again; the addresses stay reserved."""
        self._map(self._address + offset_bytes, size_bytes, _PROT_NONE, _RESERVE | _MAP_FIXED, -1)

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """An array over the whole range. Does not keep the range alive."""
        buffer = (ctypes.c_ubyte * self._size_bytes).from_address(self._address)
        return np.ndarray(shape, dtype, buffer=buffer)  # type: ignore[arg-type]

    def sync(self, offset_bytes: int, size_bytes: int) -> None:
        """Waits until what was written through the mapping is on stable storage."""
        if _libc.msync(self._address + offset_bytes, size_bytes, _MS_SYNC):
            raise StorageError(f"msync failed: {os.strerror(ctypes.get_errno())}")

    def advise(self, offset_bytes: int, size_bytes: int, advice: int) -> None:
        """madvise(2); advice that the system does not take is no error."""
        _libc.madvise(self._address + offset_bytes, size_bytes, advice)

    def close(self) -> None:
        """Gives the addresses back."""
        if self._address:
            _libc.munmap(self._address, self._size_bytes)
            self._address = 0
