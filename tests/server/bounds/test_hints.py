"""When to come again: the hint that travels with a refusal."""

from __future__ import annotations

import pickle

import replaystore as rs
from replaystore.wire.errors import error_of, retry_hint
from replaystore_client.connection import Backoff, ConnectionLost


def test_hints_travel_and_others_are_no_hints() -> None:
    assert retry_hint(rs.Overloaded("full", 0.2501)) == "251"
    assert retry_hint(rs.Overloaded("full")) is None
    assert pickle.loads(pickle.dumps(rs.Overloaded("full", 0.25))).retry_after_s == 0.25
    assert retry_hint(rs.NotReady("wait")) is None
    for text, seconds in (
        ("251", 0.251),
        ("0", 0.0),
        (None, None),
        ("", None),
        ("-5", None),
        ("1e3", None),
        ("9" * 500, None),
        ("٣", None),
    ):
        error = error_of("Overloaded", "RESOURCE_EXHAUSTED", "full", text)
        assert isinstance(error, rs.Overloaded)
        assert error.retry_after_s == seconds, text
    assert not hasattr(error_of("NotReady", "FAILED_PRECONDITION", "wait", "100"), "retry_after_s")


def test_who_is_told_when_to_come_again_does_not_come_sooner() -> None:
    pauses = [Backoff().after(rs.Overloaded("full", 2.0)) for _ in range(200)]
    assert all(pause is not None and 2.0 <= pause <= 3.0 for pause in pauses)
    assert len(set(pauses)) > 100
    assert Backoff().after(rs.Overloaded("full")) is None
    assert Backoff().after(rs.InvalidArgument("wrong")) is None
    backoff = Backoff()
    grown = [backoff.after(rs.Overloaded("full", 0.01)) or 0.0 for _ in range(12)]
    assert grown[-1] >= 1.0  # whoever is refused again and again comes less often
    assert 0 < (Backoff().after(ConnectionLost("gone")) or 0) <= 0.05
