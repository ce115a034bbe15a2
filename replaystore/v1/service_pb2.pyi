from replaystore.v1 import data_pb2 as _data_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FlushRequest(_message.Message):
    __slots__ = ("table", "timeout_s")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    table: str
    timeout_s: float
    def __init__(self, table: _Optional[str] = ..., timeout_s: _Optional[float] = ...) -> None: ...

class FlushReply(_message.Message):
    __slots__ = ("durable_step",)
    DURABLE_STEP_FIELD_NUMBER: _ClassVar[int]
    durable_step: int
    def __init__(self, durable_step: _Optional[int] = ...) -> None: ...

class CreateTableRequest(_message.Message):
    __slots__ = ("table", "config_json", "exist_ok")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    EXIST_OK_FIELD_NUMBER: _ClassVar[int]
    table: str
    config_json: str
    exist_ok: bool
    def __init__(self, table: _Optional[str] = ..., config_json: _Optional[str] = ..., exist_ok: bool = ...) -> None: ...

class AlterTableRequest(_message.Message):
    __slots__ = ("table", "rate_limiter_json", "retention_json", "selectors_json")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    RATE_LIMITER_JSON_FIELD_NUMBER: _ClassVar[int]
    RETENTION_JSON_FIELD_NUMBER: _ClassVar[int]
    SELECTORS_JSON_FIELD_NUMBER: _ClassVar[int]
    table: str
    rate_limiter_json: str
    retention_json: str
    selectors_json: str
    def __init__(self, table: _Optional[str] = ..., rate_limiter_json: _Optional[str] = ..., retention_json: _Optional[str] = ..., selectors_json: _Optional[str] = ...) -> None: ...

class DropTableRequest(_message.Message):
    __slots__ = ("table",)
    TABLE_FIELD_NUMBER: _ClassVar[int]
    table: str
    def __init__(self, table: _Optional[str] = ...) -> None: ...

class DropTableReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SnapshotRequest(_message.Message):
    __slots__ = ("table", "name", "rebase", "episodes", "closing_rows", "timeout_s")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REBASE_FIELD_NUMBER: _ClassVar[int]
    EPISODES_FIELD_NUMBER: _ClassVar[int]
    CLOSING_ROWS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    table: str
    name: str
    rebase: bool
    episodes: bool
    closing_rows: bool
    timeout_s: float
    def __init__(self, table: _Optional[str] = ..., name: _Optional[str] = ..., rebase: bool = ..., episodes: bool = ..., closing_rows: bool = ..., timeout_s: _Optional[float] = ...) -> None: ...

class SnapshotReport(_message.Message):
    __slots__ = ("path", "table", "first_step", "next_step", "episodes", "linked_bytes", "copied_bytes", "left_out_rows", "seconds", "note")
    PATH_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEP_FIELD_NUMBER: _ClassVar[int]
    EPISODES_FIELD_NUMBER: _ClassVar[int]
    LINKED_BYTES_FIELD_NUMBER: _ClassVar[int]
    COPIED_BYTES_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_ROWS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    path: str
    table: str
    first_step: int
    next_step: int
    episodes: int
    linked_bytes: int
    copied_bytes: int
    left_out_rows: int
    seconds: float
    note: str
    def __init__(self, path: _Optional[str] = ..., table: _Optional[str] = ..., first_step: _Optional[int] = ..., next_step: _Optional[int] = ..., episodes: _Optional[int] = ..., linked_bytes: _Optional[int] = ..., copied_bytes: _Optional[int] = ..., left_out_rows: _Optional[int] = ..., seconds: _Optional[float] = ..., note: _Optional[str] = ...) -> None: ...

class ForkTableRequest(_message.Message):
    __slots__ = ("table", "new_table", "rate_limiter_json", "retention_json", "selectors_json", "timeout_s")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    NEW_TABLE_FIELD_NUMBER: _ClassVar[int]
    RATE_LIMITER_JSON_FIELD_NUMBER: _ClassVar[int]
    RETENTION_JSON_FIELD_NUMBER: _ClassVar[int]
    SELECTORS_JSON_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    table: str
    new_table: str
    rate_limiter_json: str
    retention_json: str
    selectors_json: str
    timeout_s: float
    def __init__(self, table: _Optional[str] = ..., new_table: _Optional[str] = ..., rate_limiter_json: _Optional[str] = ..., retention_json: _Optional[str] = ..., selectors_json: _Optional[str] = ..., timeout_s: _Optional[float] = ...) -> None: ...

class ListTablesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListTablesReply(_message.Message):
    __slots__ = ("tables",)
    TABLES_FIELD_NUMBER: _ClassVar[int]
    tables: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tables: _Optional[_Iterable[str]] = ...) -> None: ...

class DescribeTableRequest(_message.Message):
    __slots__ = ("table",)
    TABLE_FIELD_NUMBER: _ClassVar[int]
    table: str
    def __init__(self, table: _Optional[str] = ...) -> None: ...

class TableDescription(_message.Message):
    __slots__ = ("name", "config_json", "format_version", "created", "rows_per_chunk")
    class RowsPerChunkEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_CHUNK_FIELD_NUMBER: _ClassVar[int]
    name: str
    config_json: str
    format_version: int
    created: float
    rows_per_chunk: _containers.ScalarMap[str, int]
    def __init__(self, name: _Optional[str] = ..., config_json: _Optional[str] = ..., format_version: _Optional[int] = ..., created: _Optional[float] = ..., rows_per_chunk: _Optional[_Mapping[str, int]] = ...) -> None: ...

class GetStatsRequest(_message.Message):
    __slots__ = ("table",)
    TABLE_FIELD_NUMBER: _ClassVar[int]
    table: str
    def __init__(self, table: _Optional[str] = ...) -> None: ...

class TableStats(_message.Message):
    __slots__ = ("name", "first_step", "next_step", "durable_step", "anchors", "episodes", "open_episodes", "inserted_steps", "sampled_items", "bytes_on_disk", "index_bytes", "total_priority", "max_priority", "oldest_time", "newest_time", "waiting_inserts", "waiting_samples", "blocked_insert", "blocked_sample")
    class TotalPriorityEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class MaxPriorityEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEP_FIELD_NUMBER: _ClassVar[int]
    DURABLE_STEP_FIELD_NUMBER: _ClassVar[int]
    ANCHORS_FIELD_NUMBER: _ClassVar[int]
    EPISODES_FIELD_NUMBER: _ClassVar[int]
    OPEN_EPISODES_FIELD_NUMBER: _ClassVar[int]
    INSERTED_STEPS_FIELD_NUMBER: _ClassVar[int]
    SAMPLED_ITEMS_FIELD_NUMBER: _ClassVar[int]
    BYTES_ON_DISK_FIELD_NUMBER: _ClassVar[int]
    INDEX_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_PRIORITY_FIELD_NUMBER: _ClassVar[int]
    MAX_PRIORITY_FIELD_NUMBER: _ClassVar[int]
    OLDEST_TIME_FIELD_NUMBER: _ClassVar[int]
    NEWEST_TIME_FIELD_NUMBER: _ClassVar[int]
    WAITING_INSERTS_FIELD_NUMBER: _ClassVar[int]
    WAITING_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_INSERT_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    first_step: int
    next_step: int
    durable_step: int
    anchors: int
    episodes: int
    open_episodes: int
    inserted_steps: int
    sampled_items: int
    bytes_on_disk: int
    index_bytes: int
    total_priority: _containers.ScalarMap[str, float]
    max_priority: _containers.ScalarMap[str, float]
    oldest_time: float
    newest_time: float
    waiting_inserts: int
    waiting_samples: int
    blocked_insert: str
    blocked_sample: str
    def __init__(self, name: _Optional[str] = ..., first_step: _Optional[int] = ..., next_step: _Optional[int] = ..., durable_step: _Optional[int] = ..., anchors: _Optional[int] = ..., episodes: _Optional[int] = ..., open_episodes: _Optional[int] = ..., inserted_steps: _Optional[int] = ..., sampled_items: _Optional[int] = ..., bytes_on_disk: _Optional[int] = ..., index_bytes: _Optional[int] = ..., total_priority: _Optional[_Mapping[str, float]] = ..., max_priority: _Optional[_Mapping[str, float]] = ..., oldest_time: _Optional[float] = ..., newest_time: _Optional[float] = ..., waiting_inserts: _Optional[int] = ..., waiting_samples: _Optional[int] = ..., blocked_insert: _Optional[str] = ..., blocked_sample: _Optional[str] = ...) -> None: ...

class PublishParametersReply(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class FetchParametersRequest(_message.Message):
    __slots__ = ("name", "newer_than", "timeout_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NEWER_THAN_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    newer_than: int
    timeout_s: float
    def __init__(self, name: _Optional[str] = ..., newer_than: _Optional[int] = ..., timeout_s: _Optional[float] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerInfo(_message.Message):
    __slots__ = ("version", "protocol", "instance", "started", "path", "max_message_bytes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    version: str
    protocol: int
    instance: str
    started: float
    path: str
    max_message_bytes: int
    def __init__(self, version: _Optional[str] = ..., protocol: _Optional[int] = ..., instance: _Optional[str] = ..., started: _Optional[float] = ..., path: _Optional[str] = ..., max_message_bytes: _Optional[int] = ...) -> None: ...

class GetServerStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TableStatus(_message.Message):
    __slots__ = ("stats", "received_bytes", "sent_bytes", "commit_lag_s", "blocked_insert_s", "blocked_sample_s", "failure", "idle_s")
    STATS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    SENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMMIT_LAG_S_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_INSERT_S_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_SAMPLE_S_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    IDLE_S_FIELD_NUMBER: _ClassVar[int]
    stats: TableStats
    received_bytes: int
    sent_bytes: int
    commit_lag_s: float
    blocked_insert_s: float
    blocked_sample_s: float
    failure: str
    idle_s: float
    def __init__(self, stats: _Optional[_Union[TableStats, _Mapping]] = ..., received_bytes: _Optional[int] = ..., sent_bytes: _Optional[int] = ..., commit_lag_s: _Optional[float] = ..., blocked_insert_s: _Optional[float] = ..., blocked_sample_s: _Optional[float] = ..., failure: _Optional[str] = ..., idle_s: _Optional[float] = ...) -> None: ...

class ServerStatus(_message.Message):
    __slots__ = ("version", "protocol", "instance", "path", "time", "uptime_s", "addresses", "pid", "rss_bytes", "memory_limit_bytes", "open_files", "max_open_files", "threads", "append_streams", "sample_streams", "max_streams", "in_flight_bytes", "max_in_flight_bytes", "disk_free_bytes", "disk_total_bytes", "filesystem", "durability", "commit_interval_s", "encrypted", "authenticated", "metrics", "strict_overcommit", "tables")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    OPEN_FILES_FIELD_NUMBER: _ClassVar[int]
    MAX_OPEN_FILES_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    APPEND_STREAMS_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_STREAMS_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAMS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    FILESYSTEM_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    COMMIT_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTED_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATED_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    STRICT_OVERCOMMIT_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    version: str
    protocol: int
    instance: str
    path: str
    time: float
    uptime_s: float
    addresses: _containers.RepeatedScalarFieldContainer[str]
    pid: int
    rss_bytes: int
    memory_limit_bytes: int
    open_files: int
    max_open_files: int
    threads: int
    append_streams: int
    sample_streams: int
    max_streams: int
    in_flight_bytes: int
    max_in_flight_bytes: int
    disk_free_bytes: int
    disk_total_bytes: int
    filesystem: str
    durability: str
    commit_interval_s: float
    encrypted: bool
    authenticated: bool
    metrics: str
    strict_overcommit: bool
    tables: _containers.RepeatedCompositeFieldContainer[TableStatus]
    def __init__(self, version: _Optional[str] = ..., protocol: _Optional[int] = ..., instance: _Optional[str] = ..., path: _Optional[str] = ..., time: _Optional[float] = ..., uptime_s: _Optional[float] = ..., addresses: _Optional[_Iterable[str]] = ..., pid: _Optional[int] = ..., rss_bytes: _Optional[int] = ..., memory_limit_bytes: _Optional[int] = ..., open_files: _Optional[int] = ..., max_open_files: _Optional[int] = ..., threads: _Optional[int] = ..., append_streams: _Optional[int] = ..., sample_streams: _Optional[int] = ..., max_streams: _Optional[int] = ..., in_flight_bytes: _Optional[int] = ..., max_in_flight_bytes: _Optional[int] = ..., disk_free_bytes: _Optional[int] = ..., disk_total_bytes: _Optional[int] = ..., filesystem: _Optional[str] = ..., durability: _Optional[str] = ..., commit_interval_s: _Optional[float] = ..., encrypted: bool = ..., authenticated: bool = ..., metrics: _Optional[str] = ..., strict_overcommit: bool = ..., tables: _Optional[_Iterable[_Union[TableStatus, _Mapping]]] = ...) -> None: ...
