from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Field(_message.Message):
    __slots__ = ("name", "dtype", "shape", "offset_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    offset_bytes: int
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., offset_bytes: _Optional[int] = ...) -> None: ...

class Layout(_message.Message):
    __slots__ = ("fields",)
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    fields: _containers.RepeatedCompositeFieldContainer[Field]
    def __init__(self, fields: _Optional[_Iterable[_Union[Field, _Mapping]]] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("kind", "message")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    message: str
    def __init__(self, kind: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class UpdateCounts(_message.Message):
    __slots__ = ("applied", "gone", "rejected")
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    applied: int
    gone: int
    rejected: int
    def __init__(self, applied: _Optional[int] = ..., gone: _Optional[int] = ..., rejected: _Optional[int] = ...) -> None: ...

class Columns(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class AppendHeader(_message.Message):
    __slots__ = ("table", "sequence", "actor", "commit", "timeout_s")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    table: str
    sequence: int
    actor: int
    commit: bool
    timeout_s: float
    def __init__(self, table: _Optional[str] = ..., sequence: _Optional[int] = ..., actor: _Optional[int] = ..., commit: bool = ..., timeout_s: _Optional[float] = ...) -> None: ...

class AppendRequest(_message.Message):
    __slots__ = ("header", "layout", "padding", "payload")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    header: AppendHeader
    layout: Layout
    padding: bytes
    payload: bytes
    def __init__(self, header: _Optional[_Union[AppendHeader, _Mapping]] = ..., layout: _Optional[_Union[Layout, _Mapping]] = ..., padding: _Optional[bytes] = ..., payload: _Optional[bytes] = ...) -> None: ...

class AppendReply(_message.Message):
    __slots__ = ("opened", "ack", "blocked", "durable")
    class Opened(_message.Message):
        __slots__ = ("next_step", "durable_step", "instance")
        NEXT_STEP_FIELD_NUMBER: _ClassVar[int]
        DURABLE_STEP_FIELD_NUMBER: _ClassVar[int]
        INSTANCE_FIELD_NUMBER: _ClassVar[int]
        next_step: int
        durable_step: int
        instance: str
        def __init__(self, next_step: _Optional[int] = ..., durable_step: _Optional[int] = ..., instance: _Optional[str] = ...) -> None: ...
    class Ack(_message.Message):
        __slots__ = ("sequence", "applied_rows", "duplicate_rows", "next_step", "durable_step")
        SEQUENCE_FIELD_NUMBER: _ClassVar[int]
        APPLIED_ROWS_FIELD_NUMBER: _ClassVar[int]
        DUPLICATE_ROWS_FIELD_NUMBER: _ClassVar[int]
        NEXT_STEP_FIELD_NUMBER: _ClassVar[int]
        DURABLE_STEP_FIELD_NUMBER: _ClassVar[int]
        sequence: int
        applied_rows: int
        duplicate_rows: int
        next_step: int
        durable_step: int
        def __init__(self, sequence: _Optional[int] = ..., applied_rows: _Optional[int] = ..., duplicate_rows: _Optional[int] = ..., next_step: _Optional[int] = ..., durable_step: _Optional[int] = ...) -> None: ...
    class Blocked(_message.Message):
        __slots__ = ("sequence", "why", "waited_s")
        SEQUENCE_FIELD_NUMBER: _ClassVar[int]
        WHY_FIELD_NUMBER: _ClassVar[int]
        WAITED_S_FIELD_NUMBER: _ClassVar[int]
        sequence: int
        why: str
        waited_s: float
        def __init__(self, sequence: _Optional[int] = ..., why: _Optional[str] = ..., waited_s: _Optional[float] = ...) -> None: ...
    class Durable(_message.Message):
        __slots__ = ("durable_step",)
        DURABLE_STEP_FIELD_NUMBER: _ClassVar[int]
        durable_step: int
        def __init__(self, durable_step: _Optional[int] = ...) -> None: ...
    OPENED_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    opened: AppendReply.Opened
    ack: AppendReply.Ack
    blocked: AppendReply.Blocked
    durable: AppendReply.Durable
    def __init__(self, opened: _Optional[_Union[AppendReply.Opened, _Mapping]] = ..., ack: _Optional[_Union[AppendReply.Ack, _Mapping]] = ..., blocked: _Optional[_Union[AppendReply.Blocked, _Mapping]] = ..., durable: _Optional[_Union[AppendReply.Durable, _Mapping]] = ...) -> None: ...

class SampleHeader(_message.Message):
    __slots__ = ("request", "seed", "beta", "timeout_s", "update_selector", "notice_s", "as_of", "batches", "betas", "seeds", "local", "gathered", "local_nonce", "keep_s")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    BETA_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    UPDATE_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    NOTICE_S_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    BETAS_FIELD_NUMBER: _ClassVar[int]
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    GATHERED_FIELD_NUMBER: _ClassVar[int]
    LOCAL_NONCE_FIELD_NUMBER: _ClassVar[int]
    KEEP_S_FIELD_NUMBER: _ClassVar[int]
    request: int
    seed: int
    beta: float
    timeout_s: float
    update_selector: str
    notice_s: float
    as_of: int
    batches: int
    betas: _containers.RepeatedScalarFieldContainer[float]
    seeds: _containers.RepeatedScalarFieldContainer[int]
    local: int
    gathered: int
    local_nonce: bytes
    keep_s: float
    def __init__(self, request: _Optional[int] = ..., seed: _Optional[int] = ..., beta: _Optional[float] = ..., timeout_s: _Optional[float] = ..., update_selector: _Optional[str] = ..., notice_s: _Optional[float] = ..., as_of: _Optional[int] = ..., batches: _Optional[int] = ..., betas: _Optional[_Iterable[float]] = ..., seeds: _Optional[_Iterable[int]] = ..., local: _Optional[int] = ..., gathered: _Optional[int] = ..., local_nonce: _Optional[bytes] = ..., keep_s: _Optional[float] = ...) -> None: ...

class SampleQuery(_message.Message):
    __slots__ = ("table", "batch_size", "view_json", "selector_name", "selector_json", "columns", "filter_json", "normalise_by_table")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    VIEW_JSON_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_NAME_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_JSON_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    FILTER_JSON_FIELD_NUMBER: _ClassVar[int]
    NORMALISE_BY_TABLE_FIELD_NUMBER: _ClassVar[int]
    table: str
    batch_size: int
    view_json: str
    selector_name: str
    selector_json: str
    columns: Columns
    filter_json: str
    normalise_by_table: bool
    def __init__(self, table: _Optional[str] = ..., batch_size: _Optional[int] = ..., view_json: _Optional[str] = ..., selector_name: _Optional[str] = ..., selector_json: _Optional[str] = ..., columns: _Optional[_Union[Columns, _Mapping]] = ..., filter_json: _Optional[str] = ..., normalise_by_table: bool = ...) -> None: ...

class SampleRequest(_message.Message):
    __slots__ = ("header", "layout", "padding", "payload", "query")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    header: SampleHeader
    layout: Layout
    padding: bytes
    payload: bytes
    query: SampleQuery
    def __init__(self, header: _Optional[_Union[SampleHeader, _Mapping]] = ..., layout: _Optional[_Union[Layout, _Mapping]] = ..., padding: _Optional[bytes] = ..., payload: _Optional[bytes] = ..., query: _Optional[_Union[SampleQuery, _Mapping]] = ...) -> None: ...

class SampleReplyHeader(_message.Message):
    __slots__ = ("request", "updates", "error", "waiting", "candidates", "mass", "next_step", "batches", "recipe", "first_step", "local_gone", "local_offer")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    MASS_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEP_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    LOCAL_GONE_FIELD_NUMBER: _ClassVar[int]
    LOCAL_OFFER_FIELD_NUMBER: _ClassVar[int]
    request: int
    updates: UpdateCounts
    error: Error
    waiting: str
    candidates: int
    mass: float
    next_step: int
    batches: int
    recipe: bytes
    first_step: int
    local_gone: bool
    local_offer: LocalOffer
    def __init__(self, request: _Optional[int] = ..., updates: _Optional[_Union[UpdateCounts, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., waiting: _Optional[str] = ..., candidates: _Optional[int] = ..., mass: _Optional[float] = ..., next_step: _Optional[int] = ..., batches: _Optional[int] = ..., recipe: _Optional[bytes] = ..., first_step: _Optional[int] = ..., local_gone: bool = ..., local_offer: _Optional[_Union[LocalOffer, _Mapping]] = ...) -> None: ...

class LocalOffer(_message.Message):
    __slots__ = ("refused", "key", "boot_id", "store", "token", "token_device", "token_inode", "proof", "table_device", "table_inode", "columns")
    class Column(_message.Message):
        __slots__ = ("path", "dtype", "shape", "rows_per_chunk")
        PATH_FIELD_NUMBER: _ClassVar[int]
        DTYPE_FIELD_NUMBER: _ClassVar[int]
        SHAPE_FIELD_NUMBER: _ClassVar[int]
        ROWS_PER_CHUNK_FIELD_NUMBER: _ClassVar[int]
        path: str
        dtype: str
        shape: _containers.RepeatedScalarFieldContainer[int]
        rows_per_chunk: int
        def __init__(self, path: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., rows_per_chunk: _Optional[int] = ...) -> None: ...
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_DEVICE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_INODE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    TABLE_DEVICE_FIELD_NUMBER: _ClassVar[int]
    TABLE_INODE_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    refused: str
    key: int
    boot_id: str
    store: str
    token: str
    token_device: int
    token_inode: int
    proof: bytes
    table_device: int
    table_inode: int
    columns: _containers.RepeatedCompositeFieldContainer[LocalOffer.Column]
    def __init__(self, refused: _Optional[str] = ..., key: _Optional[int] = ..., boot_id: _Optional[str] = ..., store: _Optional[str] = ..., token: _Optional[str] = ..., token_device: _Optional[int] = ..., token_inode: _Optional[int] = ..., proof: _Optional[bytes] = ..., table_device: _Optional[int] = ..., table_inode: _Optional[int] = ..., columns: _Optional[_Iterable[_Union[LocalOffer.Column, _Mapping]]] = ...) -> None: ...

class LocalRecipe(_message.Message):
    __slots__ = ("fields",)
    class Field(_message.Message):
        __slots__ = ("name", "column", "rows", "shape", "blank", "patch")
        NAME_FIELD_NUMBER: _ClassVar[int]
        COLUMN_FIELD_NUMBER: _ClassVar[int]
        ROWS_FIELD_NUMBER: _ClassVar[int]
        SHAPE_FIELD_NUMBER: _ClassVar[int]
        BLANK_FIELD_NUMBER: _ClassVar[int]
        PATCH_FIELD_NUMBER: _ClassVar[int]
        name: str
        column: str
        rows: str
        shape: _containers.RepeatedScalarFieldContainer[int]
        blank: str
        patch: str
        def __init__(self, name: _Optional[str] = ..., column: _Optional[str] = ..., rows: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., blank: _Optional[str] = ..., patch: _Optional[str] = ...) -> None: ...
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    fields: _containers.RepeatedCompositeFieldContainer[LocalRecipe.Field]
    def __init__(self, fields: _Optional[_Iterable[_Union[LocalRecipe.Field, _Mapping]]] = ...) -> None: ...

class SampleReply(_message.Message):
    __slots__ = ("header", "layout", "padding", "payload")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    header: SampleReplyHeader
    layout: Layout
    padding: bytes
    payload: bytes
    def __init__(self, header: _Optional[_Union[SampleReplyHeader, _Mapping]] = ..., layout: _Optional[_Union[Layout, _Mapping]] = ..., padding: _Optional[bytes] = ..., payload: _Optional[bytes] = ...) -> None: ...

class UpdatePrioritiesHeader(_message.Message):
    __slots__ = ("table", "selector")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    table: str
    selector: str
    def __init__(self, table: _Optional[str] = ..., selector: _Optional[str] = ...) -> None: ...

class UpdatePrioritiesRequest(_message.Message):
    __slots__ = ("header", "layout", "padding", "payload")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    header: UpdatePrioritiesHeader
    layout: Layout
    padding: bytes
    payload: bytes
    def __init__(self, header: _Optional[_Union[UpdatePrioritiesHeader, _Mapping]] = ..., layout: _Optional[_Union[Layout, _Mapping]] = ..., padding: _Optional[bytes] = ..., payload: _Optional[bytes] = ...) -> None: ...

class UpdateColumnsHeader(_message.Message):
    __slots__ = ("table",)
    TABLE_FIELD_NUMBER: _ClassVar[int]
    table: str
    def __init__(self, table: _Optional[str] = ...) -> None: ...

class UpdateColumnsRequest(_message.Message):
    __slots__ = ("header", "layout", "padding", "payload")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    header: UpdateColumnsHeader
    layout: Layout
    padding: bytes
    payload: bytes
    def __init__(self, header: _Optional[_Union[UpdateColumnsHeader, _Mapping]] = ..., layout: _Optional[_Union[Layout, _Mapping]] = ..., padding: _Optional[bytes] = ..., payload: _Optional[bytes] = ...) -> None: ...

class DeleteHeader(_message.Message):
    __slots__ = ("table", "filter_json")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    FILTER_JSON_FIELD_NUMBER: _ClassVar[int]
    table: str
    filter_json: str
    def __init__(self, table: _Optional[str] = ..., filter_json: _Optional[str] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("header", "layout", "padding", "payload")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    header: DeleteHeader
    layout: Layout
    padding: bytes
    payload: bytes
    def __init__(self, header: _Optional[_Union[DeleteHeader, _Mapping]] = ..., layout: _Optional[_Union[Layout, _Mapping]] = ..., padding: _Optional[bytes] = ..., payload: _Optional[bytes] = ...) -> None: ...

class DeleteReply(_message.Message):
    __slots__ = ("deleted", "gone")
    DELETED_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    deleted: int
    gone: int
    def __init__(self, deleted: _Optional[int] = ..., gone: _Optional[int] = ...) -> None: ...

class ReadStepsRequest(_message.Message):
    __slots__ = ("table", "start", "stop", "columns")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    table: str
    start: int
    stop: int
    columns: Columns
    def __init__(self, table: _Optional[str] = ..., start: _Optional[int] = ..., stop: _Optional[int] = ..., columns: _Optional[_Union[Columns, _Mapping]] = ...) -> None: ...

class ReadEpisodesRequest(_message.Message):
    __slots__ = ("table", "start", "stop")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    table: str
    start: int
    stop: int
    def __init__(self, table: _Optional[str] = ..., start: _Optional[int] = ..., stop: _Optional[int] = ...) -> None: ...

class RowsHeader(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    def __init__(self, rows: _Optional[int] = ...) -> None: ...

class Rows(_message.Message):
    __slots__ = ("header", "layout", "padding", "payload")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    header: RowsHeader
    layout: Layout
    padding: bytes
    payload: bytes
    def __init__(self, header: _Optional[_Union[RowsHeader, _Mapping]] = ..., layout: _Optional[_Union[Layout, _Mapping]] = ..., padding: _Optional[bytes] = ..., payload: _Optional[bytes] = ...) -> None: ...

class ParametersHeader(_message.Message):
    __slots__ = ("name", "version", "payload_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    payload_bytes: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., payload_bytes: _Optional[int] = ...) -> None: ...

class ParametersPart(_message.Message):
    __slots__ = ("header", "layout", "padding", "payload")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    header: ParametersHeader
    layout: Layout
    padding: bytes
    payload: bytes
    def __init__(self, header: _Optional[_Union[ParametersHeader, _Mapping]] = ..., layout: _Optional[_Union[Layout, _Mapping]] = ..., padding: _Optional[bytes] = ..., payload: _Optional[bytes] = ...) -> None: ...
