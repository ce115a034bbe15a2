"""Descriptions and figures of tables to and from messages."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from replaystore.schema.limiters import LIMITERS, RateLimiter
from replaystore.schema.record import from_json, to_json
from replaystore.schema.selectors import SELECTORS, Selector
from replaystore.schema.table_config import DEFAULT_SELECTOR, Retention, TableConfig
from replaystore.status import ServerStatus, SnapshotReport, TableDescription, TableStats, TableStatus
from replaystore.v1 import service_pb2 as pb
from replaystore.wire.samples import json_of, parse_json

_STATS_FIELDS = tuple(field.name for field in dataclasses.fields(TableStats))
_STATS_OPTIONAL = tuple(name for name in _STATS_FIELDS if pb.TableStats.DESCRIPTOR.fields_by_name[name].has_presence)
_STATS_MAPS = ("total_priority", "max_priority")
_OF_TABLE = tuple(field.name for field in dataclasses.fields(TableStatus) if field.name != "stats")
_TABLE_OPTIONAL = ("failure", "idle_s")
_OF_SERVER = tuple(field.name for field in dataclasses.fields(ServerStatus) if field.name not in ("addresses", "tables"))


def config_json(config: TableConfig) -> str:
    """A table's configuration as it travels."""
    return json.dumps(config.to_json(), separators=(",", ":"))


def parse_config(text: str) -> TableConfig:
    """The configuration of a message, or InvalidArgument."""
    return TableConfig.from_json(parse_json(text, "config_json"))


def encode_description(description: TableDescription) -> Any:
    """As a TableDescription message."""
    return pb.TableDescription(
        name=description.name,
        config_json=config_json(description.config),
        format_version=description.format_version,
        created=description.created,
        rows_per_chunk=description.rows_per_chunk,
    )


def decode_description(message: Any) -> TableDescription:
    """The inverse of `encode_description`."""
    return TableDescription(
        message.name, parse_config(message.config_json), message.format_version, message.created, dict(message.rows_per_chunk)
    )


def encode_stats(stats: TableStats) -> Any:
    """As a TableStats message; what is None is absent."""
    return pb.TableStats(**{name: getattr(stats, name) for name in _STATS_FIELDS})


def decode_stats(message: Any) -> TableStats:
    """The inverse of `encode_stats`."""
    values = {name: getattr(message, name) for name in _STATS_FIELDS}
    values |= {name: None for name in _STATS_OPTIONAL if not message.HasField(name)}
    return TableStats(**{**values, **{name: dict(values[name]) for name in _STATS_MAPS}})


def encode_status(status: ServerStatus) -> Any:
    """As a ServerStatus message; what is None is absent."""
    message = pb.ServerStatus(**{name: getattr(status, name) for name in _OF_SERVER}, addresses=status.addresses)
    for table in status.tables:
        values = {name: getattr(table, name) for name in _OF_TABLE}
        message.tables.add(stats=encode_stats(table.stats), **values)
    return message


def decode_status(message: Any) -> ServerStatus:
    """The inverse of `encode_status`."""
    values = {name: getattr(message, name) for name in _OF_SERVER}
    return ServerStatus(**values, addresses=tuple(message.addresses), tables=tuple(map(_decode_table_status, message.tables)))


def _decode_table_status(message: Any) -> TableStatus:
    values = {name: getattr(message, name) for name in _OF_TABLE}
    values |= {name: None for name in _TABLE_OPTIONAL if not message.HasField(name)}
    return TableStatus(stats=decode_stats(message.stats), **values)


def encode_report(report: SnapshotReport) -> Any:
    """As a SnapshotReport message."""
    return pb.SnapshotReport(**report.to_json())


def decode_report(message: Any) -> SnapshotReport:
    """The inverse of `encode_report`."""
    return SnapshotReport(**{field.name: getattr(message, field.name) for field in dataclasses.fields(SnapshotReport)})


def encode_changes(
    table: str,
    rate_limiter: RateLimiter | None,
    retention: Retention | None,
    selector: Selector | Mapping[str, Selector] | None,
) -> Any:
    """An AlterTableRequest."""
    return _with_changes(pb.AlterTableRequest(table=table), rate_limiter, retention, selector)


def encode_fork(
    table: str,
    new_table: str,
    rate_limiter: RateLimiter | None,
    retention: Retention | None,
    selector: Selector | Mapping[str, Selector] | None,
    timeout_s: float,
) -> Any:
    """A ForkTableRequest."""
    request = pb.ForkTableRequest(table=table, new_table=new_table, timeout_s=timeout_s)
    return _with_changes(request, rate_limiter, retention, selector)


def _with_changes(
    request: Any, rate_limiter: RateLimiter | None, retention: Retention | None, selector: Selector | Mapping[str, Selector] | None
) -> Any:
    if rate_limiter is not None:
        request.rate_limiter_json = json_of(rate_limiter)
    if retention is not None:
        request.retention_json = json_of(retention)
    if selector is not None:
        named = selector if isinstance(selector, Mapping) else {DEFAULT_SELECTOR: selector}
        request.selectors_json = json.dumps({name: to_json(one) for name, one in named.items()})
    return request


def decode_changes(request: Any) -> dict[str, Any]:
    """The keyword arguments of ``alter_table`` that an AlterTableRequest or a ForkTableRequest stands for."""
    changes: dict[str, Any] = {}
    if request.HasField("rate_limiter_json"):
        changes["rate_limiter"] = from_json(parse_json(request.rate_limiter_json, "rate_limiter_json"), LIMITERS, "rate limiter")
    if request.HasField("retention_json"):
        changes["retention"] = from_json(parse_json(request.retention_json, "retention_json"), {"Retention": Retention}, "retention")
    if request.HasField("selectors_json"):
        data = parse_json(request.selectors_json, "selectors_json")
        named = {name: from_json(value, SELECTORS, "selector") for name, value in (data if isinstance(data, dict) else {}).items()}
        changes["selector"] = named[DEFAULT_SELECTOR] if named.keys() == {DEFAULT_SELECTOR} else named
    return changes
