"""replaystore_client: what actors and learners use to reach a replaystore server.

``Client("localhost:7777")`` has the same verbs as a store opened with `replaystore.open`. Importing this needs NumPy, grpcio and protobuf
only; `RecordExperience` needs gymnasium, which is imported when that name is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replaystore_client.client import Client
from replaystore_client.identity import TLS
from replaystore_client.sampler import Sampler

if TYPE_CHECKING:
    from replaystore_client.record import RecordExperience

__all__ = ["TLS", "Client", "RecordExperience", "Sampler"]


def __getattr__(name: str) -> Any:
    if name == "RecordExperience":
        from replaystore_client.record import RecordExperience

        return RecordExperience
    raise AttributeError(f"module 'replaystore_client' has no attribute {name!r}")
