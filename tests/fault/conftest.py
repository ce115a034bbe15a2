"""The folder and the limits of the crash tests."""

from __future__ import annotations

from tests.crash.conftest import fast_folder, small_limits, tell

__all__ = ["fast_folder", "small_limits", "tell"]
