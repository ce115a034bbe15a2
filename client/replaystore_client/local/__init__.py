"""The local path: on the server's machine, a batch's rows are gathered from the table's files, which are mapped into this process."""

from __future__ import annotations

from replaystore_client.local.path import LocalPath

__all__ = ["LocalPath"]
