"""Amounts as text."""

from __future__ import annotations


def size(number: float) -> str:
    """Bytes for people, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def duration(seconds: float) -> str:
    """0.42 s, 12 s, 3 min 20 s, 5 h 10 min, 3 d 4 h."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min {int(seconds) % 60} s"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 24 else f"{hours // 24:,} d {hours % 24} h"


def share(part: float) -> str:
    """12 %, 0.3 %."""
    return f"{100 * part:.0f} %" if part >= 0.1 else f"{100 * part:.2g} %"
