"""Priorities from TD errors, where one item has many."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.errors import InvalidArgument
from replaystore.schema.record import check_number


def sequence_priorities(td_errors: Any, mask: Any = None, eta: float = 0.9) -> npt.NDArray[np.float32]:
    """Priorities of sequences: eta · max |δ| + (1 − eta) · mean |δ| over the true steps (R2D2, Kapturowski et al. 2019, section 2.3).

    Args:
        td_errors: ``(n, T)`` numbers, an array or a torch tensor of any device; their signs do not matter.
        mask: ``(n, T)`` bool, True where there is a true step, such as ``batch.mask``; None: everywhere. Burn-in steps are left out by
            cutting both: ``sequence_priorities(errors[:, burn_in:], batch.mask[:, burn_in:])``.
        eta: share of the maximum, 0 to 1.

    Returns:
        ``(n,)`` float32; 0 where no step is true. NaN and infinite errors of true steps stay, for `update_priorities` to reject and count.

    Raises:
        InvalidArgument: shapes that do not fit, or eta out of its range.
    """
    check_number("eta", eta, 0.0, 1.0)
    errors = np.abs(_array(td_errors).astype(np.float64))
    if errors.ndim != 2:
        raise InvalidArgument(f"td_errors must be (n, T), one row per sequence; got shape {errors.shape}")
    true = np.ones(errors.shape, bool) if mask is None else _array(mask).astype(bool)
    if true.shape != errors.shape:
        raise InvalidArgument(f"mask must have the shape of td_errors, {errors.shape}; got {true.shape}")
    kept = np.where(true, errors, 0.0)
    highest = kept.max(axis=1, initial=0.0)
    with np.errstate(invalid="ignore"):
        mixed = eta * highest + (1.0 - eta) * (kept.sum(axis=1) / np.maximum(true.sum(axis=1), 1))
    return np.asarray(mixed, np.float32)


def _array(values: Any) -> npt.NDArray[Any]:
    detach = getattr(values, "detach", None)
    return np.asarray(values if detach is None else detach().cpu().double().numpy())
