"""Pins: what is being read must stay mapped. Whoever takes something away waits here until the readers of before are gone."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Pins:
    """Counts readers by age; runs a removal once every reader that began before it has finished."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clock = 0
        self._readers: dict[int, int] = {}  # age → readers of that age still at work
        self._waiting: list[tuple[int, Callable[[], None]]] = []

    def acquire(self) -> int:
        """Begins reading; returns the token for `release`."""
        with self._lock:
            self._readers[self._clock] = self._readers.get(self._clock, 0) + 1
            return self._clock

    def release(self, token: int) -> None:
        """Ends reading; runs removals that nobody stands in the way of any more."""
        with self._lock:
            left = self._readers[token] - 1
            if left:
                self._readers[token] = left
                return
            del self._readers[token]
            due = self._due()
        for removal in due:
            removal()

    def retire(self, removal: Callable[[], None]) -> None:
        """Runs `removal` now, or when the last reader of now has finished."""
        with self._lock:
            self._waiting.append((self._clock, removal))
            self._clock += 1
            due = self._due()
        for call in due:
            call()

    def _due(self) -> list[Callable[[], None]]:
        if not self._waiting:
            return []
        oldest = min(self._readers, default=self._clock)
        due = [removal for age, removal in self._waiting if age < oldest]
        self._waiting = [(age, removal) for age, removal in self._waiting if age >= oldest]
        return due
