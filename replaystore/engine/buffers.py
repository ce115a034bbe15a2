"""The buffers of batches; see `replaystore.mapping.buffers`."""

from __future__ import annotations

from replaystore.mapping.buffers import BufferPool

__all__ = ["BufferPool"]
