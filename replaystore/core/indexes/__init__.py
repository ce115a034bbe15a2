"""Which anchors are drawn: an index per way to choose, one file each. `protocol.py` says what they have in common.

An anchor is a row whose ``successor`` is above 0.
"""

from replaystore.core.indexes.heap import HeapIndex
from replaystore.core.indexes.order import FifoIndex, LifoIndex, NewestAnchors, OldestAnchors
from replaystore.core.indexes.passes import PassIndex
from replaystore.core.indexes.prioritized import LEAST_MASS, MOST_MASS, PrioritizedIndex, sanitise
from replaystore.core.indexes.proportional import ProportionalIndex
from replaystore.core.indexes.protocol import Index
from replaystore.core.indexes.rank import RankIndex
from replaystore.core.indexes.recency import RecencyIndex
from replaystore.core.indexes.uniform import UniformIndex

__all__ = [
    "LEAST_MASS",
    "MOST_MASS",
    "FifoIndex",
    "HeapIndex",
    "Index",
    "LifoIndex",
    "NewestAnchors",
    "OldestAnchors",
    "PassIndex",
    "PrioritizedIndex",
    "ProportionalIndex",
    "RankIndex",
    "RecencyIndex",
    "UniformIndex",
    "sanitise",
]
