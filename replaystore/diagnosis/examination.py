"""All checks in their order, and what they find in given facts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from replaystore.diagnosis.checks import exposure, files, flow, room
from replaystore.diagnosis.facts import SEVERITIES, Facts, Finding

Check = Callable[[Facts], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    flow.answers,
    files.tables_readable,
    files.inserts_refused,
    files.format_version,
    files.recovery_pending,
    files.filesystem,
    files.permissions,
    files.chunk_fit,
    room.disk_space,
    room.bounds_fit,
    room.retention,
    room.memory,
    room.descriptors,
    room.streams,
    flow.limiter,
    flow.absent,
    flow.commit_lag,
    flow.priorities,
    flow.columns,
    flow.clock,
    exposure.network,
    exposure.token_file,
    exposure.certificates,
    exposure.metrics,
    exposure.versions,
)


def examine(facts: Facts) -> list[Finding]:
    """What all checks find, the worst first."""
    found = [dataclasses.replace(finding, check=check.__name__) for check in CHECKS for finding in check(facts)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
