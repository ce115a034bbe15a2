"""What a fork needs of gRPC: that nobody is in it. Before one, connections are closed; parent and child connect anew, each for itself.

A thread of gRPC that waits inside it while its process forks leaves the child with a copy of gRPC that ends the process sooner or later
("Check failed: g_active_poller"). Writers and samplers of the parent take the break for a lost connection: they carry on, nothing is lost.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Protocol

QUIET_WITHIN_S = 2.0
"""Longer no fork is held up."""

_LOOK_EVERY_S = 0.005
_SETTLE_S = 0.03
"""For what gRPC does about closed connections by itself."""


class Held(Protocol):
    """Something with a connection of gRPC's."""

    def suspend(self) -> bool:
        """Closes what is open; whether there was something."""

    def is_quiet(self) -> bool:
        """Whether no thread is at work for what was closed."""


_held: weakref.WeakSet[Held] = weakref.WeakSet()
_turn = threading.Lock()
_free = threading.Event()
_free.set()


def hold(one: Held) -> None:
    """Has `one` closed before every fork, for as long as it lives."""
    _held.add(one)


def is_free() -> bool:
    """Whether no fork is under way."""
    return _free.is_set()


def wait_free() -> None:
    """Returns when none is."""
    _free.wait(2 * QUIET_WITHIN_S)


def _before() -> None:
    _turn.acquire()
    _free.clear()
    busy = [one for one in list(_held) if one.suspend()]
    deadline = time.monotonic() + QUIET_WITHIN_S
    while busy and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)
        if all(one.is_quiet() for one in busy):
            time.sleep(_SETTLE_S)
            return


def _after_in_parent() -> None:
    _free.set()
    _turn.release()


def _after_in_child() -> None:
    global _turn, _free
    _turn, _free = threading.Lock(), threading.Event()
    _free.set()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
