"""Parts that call their owner without keeping it alive: an owner that is let go is freed at once, and its files and memory with it, not
whenever the garbage collector next looks for cycles."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar
from weakref import WeakMethod

Given = ParamSpec("Given")
Result = TypeVar("Result")


def weakly(method: Callable[Given, Result]) -> Callable[Given, Result]:
    """A bound method that holds its object weakly. ReferenceError when it is called after that has gone."""
    held, name = WeakMethod(method), method.__qualname__

    def call(*given: Given.args, **named: Given.kwargs) -> Result:
        there = held()
        if there is None:
            raise ReferenceError(f"{name} was called after its owner had gone")
        return there(*given, **named)

    return call
