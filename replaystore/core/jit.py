"""The one way in which kernels are compiled. Knows nothing of replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compiles `function` on its first call, keeps the machine code on disk, and lets other threads run while it works.

    NumPy's error model spares a test for zero at every division. Fast-math stays off: sums must come out the same on every machine and
    after every restart, and so must the draws that follow from them. numba's cache looks at the kernel's own file only, so after
    editing a kernel that others call, touch the files of its callers too.
    """
    return cast(Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
