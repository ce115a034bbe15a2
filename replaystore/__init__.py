"""replaystore: a persistent, on-disk experience-replay store for reinforcement learning.

Importing this is light (NumPy only): the configuration classes and errors that actors, learners and servers share. `open` loads the
storage engine when it is called.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replaystore.batch import Batch
from replaystore.errors import (
    NO_ENGINE_HERE,
    AlreadyExists,
    Corruption,
    DeadlineExceeded,
    DiskFull,
    InvalidArgument,
    Locked,
    NotFound,
    NotReady,
    Overloaded,
    PermissionDenied,
    ReplayStoreError,
    SchemaMismatch,
    StorageError,
)
from replaystore.federated.federation import FederatedSampler
from replaystore.priorities import sequence_priorities
from replaystore.sample_log import SampleLog, replay_log
from replaystore.schedules import Constant, Exponential, Linear
from replaystore.schema.columns import Column
from replaystore.schema.filters import Filter
from replaystore.schema.limiters import MinSize, Queue, SampleToInsertRatio, Stack
from replaystore.schema.mixture import Mixture
from replaystore.schema.selectors import Fifo, Lifo, MaxHeap, MinHeap, Prioritized, RankPrioritized, Recency, Uniform, WithoutReplacement
from replaystore.schema.spaces import columns_from_agents, columns_from_env, columns_from_space
from replaystore.schema.table_config import Retention, TableConfig
from replaystore.schema.views import Episode, Hindsight, Sequence, Transition
from replaystore.status import ServerStatus, SnapshotReport, TableDescription, TableStats, TableStatus
from replaystore.steps import DeleteCounts, UpdateCounts
from replaystore.writer import Writer

if TYPE_CHECKING:
    from replaystore.store import Store

__version__ = "0.1.0"

__all__ = [
    "AlreadyExists",
    "Batch",
    "Column",
    "Constant",
    "Corruption",
    "DeadlineExceeded",
    "DeleteCounts",
    "DiskFull",
    "Episode",
    "Exponential",
    "FederatedSampler",
    "Fifo",
    "Filter",
    "Hindsight",
    "InvalidArgument",
    "Lifo",
    "Linear",
    "Locked",
    "MaxHeap",
    "MinHeap",
    "MinSize",
    "Mixture",
    "NotFound",
    "NotReady",
    "Overloaded",
    "PermissionDenied",
    "Prioritized",
    "Queue",
    "RankPrioritized",
    "Recency",
    "ReplayStoreError",
    "Retention",
    "SampleLog",
    "SampleToInsertRatio",
    "SchemaMismatch",
    "Sequence",
    "ServerStatus",
    "SnapshotReport",
    "Stack",
    "StorageError",
    "TableConfig",
    "TableDescription",
    "TableStats",
    "TableStatus",
    "Transition",
    "Uniform",
    "UpdateCounts",
    "WithoutReplacement",
    "Writer",
    "columns_from_agents",
    "columns_from_env",
    "columns_from_space",
    "open",
    "replay_log",
    "sequence_priorities",
]


def open(path: str | Path, mode: str = "rw", **options: Any) -> Store:
    """Opens a store in this process; the verbs are those of `replaystore_client.Client`.

    Args:
        path: a directory; an empty store is made when there is none.
        mode: ``"rw"``: one process at a time. ``"r"``: a fixed picture of what is published, also beside a live server; priorities and
            counters change in this process only.
        options: ``durability="interval"`` (default) or ``"fsync"``; ``commit_interval_s`` (0.2); ``progress``, called as
            ``progress(table, rows_checked, rows_to_check)`` while a crash is recovered from.

    Raises:
        Locked: another process has it open for writing.
        StorageError, Corruption: names the file and says what to do.
        ImportError: on Windows, or without the packages of ``replaystore[server]``.
    """
    if sys.platform == "win32":
        raise ImportError(NO_ENGINE_HERE)
    try:
        from replaystore.store import Store
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("replaystore"):
            raise
        raise ImportError(f"the storage engine needs more packages ({error.name}): pip install 'replaystore[server]'") from error
    return Store(path, mode, **options)
