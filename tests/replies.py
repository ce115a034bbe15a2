"""What a client's samplers receive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from replaystore_client.stream import SampleStream

T = TypeVar("T")


def note_replies(monkeypatch: pytest.MonkeyPatch, what: Callable[[Any], T]) -> list[T]:
    """What `what` says of the header of each reply with batches, from now on."""
    found: list[T] = []
    receive = SampleStream.receive

    def noted(stream: SampleStream, timeout_s: float) -> Any:
        header, fields = receive(stream, timeout_s)
        if not header.HasField("waiting"):
            found.append(what(header))
        return header, fields

    monkeypatch.setattr(SampleStream, "receive", noted)
    return found
