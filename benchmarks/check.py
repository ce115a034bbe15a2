"""Did it get slower? Compares ratios, ours to memcpy and ours to cpprb, never seconds; by hand, since machines are noisy."""

from __future__ import annotations

import json
from pathlib import Path

BOUND = 0.5
"""A ratio may be as low as this part of the earlier one."""


def ratios_of(path: Path) -> dict[str, dict[str, float]]:
    """The ratios that an earlier run wrote with ``--json``.

    Raises:
        ValueError: the file holds none.
    """
    try:
        found = json.loads(path.read_text())["ratios"]
        return {str(reference): {str(name): float(ratio) for name, ratio in kinds.items()} for reference, kinds in found.items()}
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} holds no ratios of an earlier run (--json writes them): {error}") from None


def compare(earlier: dict[str, dict[str, float]], now: dict[str, dict[str, float]], bound: float = BOUND) -> tuple[list[str], int]:
    """Ratios that fell below `bound` times the earlier one, a line each, and how many were compared."""
    worse, compared = [], 0
    for reference, kinds in earlier.items():
        for name, before in kinds.items():
            after = now.get(reference, {}).get(name)
            if after is None:
                continue
            compared += 1
            if after < bound * before:
                worse.append(f"{name}, by {reference}: {after:.3g}, was {before:.3g}; at least {bound * before:.3g} is wanted")
    return worse, compared
