"""Facts that are made up: a server and a table with nothing wrong, and changes of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import replaystore as rs
from replaystore.diagnosis.examination import examine
from replaystore.diagnosis.facts import Facts, Finding, FolderFacts, TableFacts
from replaystore.server.observing.surroundings import Disk
from replaystore.wire.methods import PROTOCOL

NOW = 1_700_000_000.0
GIB = 1 << 30
CONFIG = rs.TableConfig(
    {"observation": rs.Column((64,), "float32"), "action": rs.Column()},
    selector=rs.Prioritized(alpha=0.5, epsilon=0.0),
    retention=rs.Retention(max_steps=100_000),
)


def stats(**changes: Any) -> rs.TableStats:
    values: dict[str, Any] = {
        "name": "t", "first_step": 0, "next_step": 10_000, "durable_step": 10_000, "anchors": 9_000, "episodes": 10, "open_episodes": 1,
        "inserted_steps": 9_990, "sampled_items": 80_000, "bytes_on_disk": 4 << 20, "index_bytes": 1000,
        "total_priority": {"default": 9_000.0}, "max_priority": {"default": 4.0},
        "oldest_time": NOW - 900, "newest_time": NOW - 1, "waiting_inserts": 0, "waiting_samples": 0,
        "blocked_insert": None, "blocked_sample": None,
    }  # fmt: skip
    return rs.TableStats(**{**values, **changes})


def table(config: rs.TableConfig = CONFIG, of: dict[str, Any] | None = None, **changes: Any) -> TableFacts:
    """`of`: changes of its figures at the second look."""
    figures = stats(**(of or {}))
    values: dict[str, Any] = {
        "description": rs.TableDescription("t", config, 1, NOW - 1000, {f"steps/{name}": 4096 for name in config.columns}),
        "before": dataclasses.replace(figures, inserted_steps=9_980, sampled_items=79_000),
        "stats": figures,
        "insert_times": NOW - 50 + np.arange(100) / 2,
        "masses": {"default": np.linspace(0.5, 1.5, 9_000, dtype=np.float32)},
        "looked_rows": 250,
        "clean": True,
        "format_version": 1,
    }
    return TableFacts("t", **{**values, **changes})


def status(**changes: Any) -> rs.ServerStatus:
    values: dict[str, Any] = {
        "version": rs.__version__, "protocol": PROTOCOL, "instance": "a", "path": "/srv/replay", "time": NOW, "uptime_s": 60.0,
        "addresses": ("127.0.0.1:7777", "unix:/run/replay.sock"), "pid": 1, "rss_bytes": GIB, "memory_limit_bytes": 16 * GIB,
        "open_files": 100, "max_open_files": 65_536, "threads": 20, "append_streams": 3, "sample_streams": 1, "max_streams": 4096,
        "in_flight_bytes": 1000, "max_in_flight_bytes": 4 * GIB, "disk_free_bytes": 500 * GIB, "disk_total_bytes": 1000 * GIB,
        "filesystem": "ext4", "durability": "interval", "commit_interval_s": 0.2, "encrypted": False, "authenticated": False,
        "metrics": "127.0.0.1:9464", "strict_overcommit": False, "tables": (),
    }  # fmt: skip
    return rs.ServerStatus(**{**values, **changes})


def served(*tables: TableFacts, of: dict[str, Any] | None = None, **changes: Any) -> Facts:
    """`of`: changes of the server's status."""
    values: dict[str, Any] = {
        "where": "127.0.0.1:7777", "time": NOW, "version": rs.__version__, "seconds": 1.0, "served": True, "status": status(**(of or {})),
        "server_version": rs.__version__, "protocol": PROTOCOL, "tables": tables or (table(),), "disk": Disk(500 * GIB, 1000 * GIB, "ext4"),
        "memory_limit_bytes": 16 * GIB,
    }  # fmt: skip
    return Facts(**{**values, **changes})


def folder(*tables: TableFacts, of: dict[str, Any] | None = None, **changes: Any) -> Facts:
    """`of`: changes of what is known of the folder itself."""
    values: dict[str, Any] = {"path": "/srv/replay", "mode": 0o755, "owned": True, "writable": True, "live": False}
    known = {"where": "/srv/replay", "served": False, "status": None, "server_version": "", "protocol": 0}
    return served(*tables, **{**known, "folder": FolderFacts(**{**values, **(of or {})}), **changes})


def found(facts: Facts, check: str) -> list[Finding]:
    return [finding for finding in examine(facts) if finding.check == check]


def one(facts: Facts, check: str) -> tuple[str, str, str]:
    """Severity, what was found and the advice of the only finding of a check."""
    (finding,) = found(facts, check)
    return finding.severity, finding.found, finding.advice
