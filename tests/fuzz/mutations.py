"""Messages that are almost right: valid ones of every kind, and seeded ways to spoil them. Knows the contract and no server."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

import replaystore as rs
from replaystore.sampling import SampleRequest
from replaystore.schema.columns import DTYPES
from replaystore.schema.filters import FILTERS
from replaystore.schema.limiters import LIMITERS
from replaystore.schema.selectors import SELECTORS
from replaystore.schema.views import VIEWS
from replaystore.steps import OPEN, RUN_DTYPE, TERMINATED, StepBlock
from replaystore.v1 import data_pb2 as data
from replaystore.v1 import service_pb2 as service
from replaystore.wire.blocks import encode_block
from replaystore.wire.changes import encode_columns, encode_delete
from replaystore.wire.framing import split, varint
from replaystore.wire.parameters import encode_parts
from replaystore.wire.records import config_json, encode_changes, encode_fork
from replaystore.wire.samples import Updates, encode_query, encode_sample_request, encode_update

COLUMNS = {"observation/a": rs.Column((3,)), "observation/b": rs.Column((2,), "uint8"), "action": rs.Column((), "int64", writable=True)}
CONFIG = rs.TableConfig(COLUMNS, selector={"td": rs.Prioritized(), "flat": rs.Uniform()}, retention=rs.Retention(max_steps=5000))

SHAPES = {
    "Append": "stream_stream",
    "Sample": "stream_stream",
    "ReadSteps": "unary_stream",
    "ReadEpisodes": "unary_stream",
    "FetchParameters": "unary_stream",
    "PublishParameters": "stream_unary",
}
"""Methods that stream, and which way; all others are unary."""

NAMES = (
    "", ".", "..", "../x", "../../etc/passwd", "/etc/passwd", "a/../../b", "a/b", "t/", "__replaystore", "__replaystore/state", "zarr.json",
    "c.0", "t\0", "\0", "-", "~", "$(id)", "t\n", "CON", "ä", "😀" * 4000, "x" * 129, "y" * 10_000_000, "%s%n", "data/", "run/", "\u202et",
)  # fmt: skip
INTEGERS = (
    0,
    1,
    -1,
    2,
    7,
    255,
    1 << 20,
    (1 << 20) + 1,
    (1 << 31) - 1,
    -(1 << 31),
    1 << 32,
    (1 << 62),
    (1 << 63) - 1,
    -(1 << 63),
    (1 << 64) - 1,
)
FLOATS = (0.0, -0.0, -1.0, 1e-320, 1e-9, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 3.5)
JSONS: tuple[Any, ...] = (
    None,
    True,
    [],
    {},
    "",
    "x",
    -1,
    0,
    1e400,
    float("nan"),
    1 << 70,
    2.5,
    [1 << 40],
    [[1]],
    {"type": []},
    {"type": "Uniform"},
)
BOMBS = (
    "[" * 100_000,
    '{"a":' * 50_000,
    "9" * 100_000,
    "",
    "{",
    "nul",
    "[1e999999]",
    '"\\ud800"',
    '{"type": "Transition", "n_step": 1024}',
)


@dataclass
class Spoilable:
    """A message in the parts that its two levels have."""

    header: Message | None = None
    layout: Any = None
    payload: bytes = b""
    query: Message | None = None
    plain: Message | None = None
    """A message that is not built of parts."""

    def encode(self) -> bytes:
        if self.plain is not None:
            return bytes(self.plain.SerializeToString())
        pieces = ((1, self.header), (5, self.query), (2, self.layout))
        out = b"".join(_delimited(number, part.SerializeToString()) for number, part in pieces if part is not None)
        return out + _delimited(4, self.payload) if self.payload else out


def _delimited(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + varint(len(content)) + content


def parts_of(message: bytes, header: type[Message], query: type[Message] | None = None) -> Spoilable:
    parts = split(message)
    layout = data.Layout.FromString(parts.layout) if parts.layout else None
    payload = message[parts.payload_start : parts.payload_start + parts.payload_bytes]
    return Spoilable(header.FromString(parts.header), layout, payload, query.FromString(parts.query) if query else None)


def block(episode: int, first: int, rows: int, ending: int = OPEN) -> StepBlock:
    columns: dict[str, Any] = {name: np.zeros((rows, *column.shape), column.dtype) for name, column in CONFIG.columns.items()}
    columns["observation/a"][:] = np.arange(first, first + rows)[:, None]
    columns["terminated"][-1] = ending == TERMINATED
    return StepBlock(columns, np.array([(episode, first, rows, ending, 3, 5)], RUN_DTYPE), 1)


def valid_calls(rng: random.Random) -> dict[str, Callable[[], list[Spoilable]]]:
    """By method, a call's messages as they should be."""

    def append() -> list[Spoilable]:
        opening = Spoilable(data.AppendHeader(table="t", timeout_s=rng.choice((0.0, 0.05))))
        episode, length = rng.randrange(1, 1 << 60), rng.randrange(2, 20)
        blocks = [encode_block(block(episode, 0, length), 1), encode_block(block(episode, length, 3, TERMINATED), 2)]
        return [opening, *(parts_of(one, data.AppendHeader) for one in blocks)]

    def some_updates() -> Updates:
        n = rng.randrange(1, 20)
        return Updates.of(np.arange(n), np.full(n, rng.random()), "td")

    def sample() -> list[Spoilable]:
        out = []
        for number in range(1, rng.randrange(2, 4)):
            view = rs.Transition(n_step=rng.choice((1, 3)), frame_stack=rng.choice((1, 4)))
            selector = rng.choice((None, "td", rs.Uniform(), rs.Fifo(), rs.Recency(5.0, newest=1)))
            of_steps, of_episodes = rs.Filter(max_age_steps=9, max_age_s=1e9, actors=(1,)), rs.Filter(max_return=50.0, ended="terminated")
            where = rng.choice((None, of_steps, of_episodes))
            columns, normalise = rng.choice((None, ("observation",))), rng.choice(("batch", "table"))
            query = encode_query("t", SampleRequest(8, view, selector, columns=columns, where=where, normalise=normalise))
            at, as_of = rng.choice(((None, None), (np.arange(8), rng.choice((None, 30)))))
            message = encode_sample_request(number, query, 0.4, rng.choice((None, 7)), 0.05, 0.02, some_updates(), at, as_of)
            out.append(parts_of(message, data.SampleHeader, data.SampleQuery))
        return out

    def update_columns() -> list[Spoilable]:
        n = rng.randrange(1, 20)
        return [parts_of(encode_columns("t", np.arange(n), {"action": np.full(n, rng.randrange(100))}), data.UpdateColumnsHeader)]

    def delete() -> list[Spoilable]:
        numbers, where = rng.choice(((np.arange(rng.randrange(5)), None), (None, rs.Filter(max_age_steps=2, actors=(9,)))))
        message = encode_delete("t", episodes=rng.random() < 0.5, numbers=numbers, where=where)
        return [parts_of(message, data.DeleteHeader)]

    def publish() -> list[Spoilable]:
        arrays = {"w": np.zeros((3, 4), np.float32), "b": np.arange(5)}
        return [parts_of(part, data.ParametersHeader) for part in encode_parts(arrays, name="policy")]

    def plain(message: Callable[[], Message]) -> Callable[[], list[Spoilable]]:
        return lambda: [Spoilable(plain=message())]

    changes = (
        {"rate_limiter": rs.MinSize(1)},
        {"retention": rs.Retention(max_steps=5000)},
        {"selector": {"td": rs.Prioritized(0.5), "flat": rs.Uniform()}},
    )
    return {
        "Append": append,
        "Sample": sample,
        "UpdatePriorities": lambda: [parts_of(encode_update("t", some_updates()), data.UpdatePrioritiesHeader)],
        "UpdateColumns": update_columns,
        "Delete": delete,
        "Flush": plain(lambda: service.FlushRequest(table="t", timeout_s=0.05)),
        "CreateTable": plain(lambda: service.CreateTableRequest(table="made", config_json=config_json(CONFIG), exist_ok=True)),
        "AlterTable": plain(
            lambda: encode_changes("t", **{"rate_limiter": None, "retention": None, "selector": None, **rng.choice(changes)})
        ),  # type: ignore[arg-type]
        "ForkTable": plain(
            lambda: encode_fork("t", f"fork-{rng.randrange(9)}", rng.choice((None, rs.MinSize(1))), rs.Retention(max_steps=5000), None, 1.0)
        ),
        "Snapshot": plain(
            lambda: service.SnapshotRequest(
                table="t", name=f"s{rng.randrange(1 << 30)}", rebase=rng.random() < 0.3, episodes=rng.random() < 0.3, timeout_s=1.0
            )
        ),
        "DropTable": plain(lambda: service.DropTableRequest(table="made")),
        "ListTables": plain(service.ListTablesRequest),
        "DescribeTable": plain(lambda: service.DescribeTableRequest(table="t")),
        "GetStats": plain(lambda: service.GetStatsRequest(table="t")),
        "ReadSteps": plain(
            lambda: data.ReadStepsRequest(table="t", start=0, stop=100, columns=data.Columns(names=["reward", "meta/kind"]))
        ),
        "ReadEpisodes": plain(lambda: data.ReadEpisodesRequest(table="t", start=-3, stop=100)),
        "PublishParameters": publish,
        "FetchParameters": plain(lambda: service.FetchParametersRequest(name="policy", newer_than=0, timeout_s=0.02)),
        "GetServerInfo": plain(service.GetServerInfoRequest),
        "GetServerStatus": plain(service.GetServerStatusRequest),
    }


# -- spoiling


def spoil(rng: random.Random, good: Spoilable) -> bytes:
    """`good` with one to three things wrong, at the level of fields, of JSON, of the payload or of bytes."""
    bad = copy.deepcopy(good)
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice((_spoil_field, _spoil_field, _spoil_field, _spoil_layout, _spoil_payload, _spoil_json))(rng, bad)
    message = bad.encode()
    if rng.random() < 0.3:
        message = _spoil_bytes(rng, message)
    return message


def noise(rng: random.Random) -> bytes:
    """Bytes that mean nothing, or begin as if they did."""
    kind = rng.randrange(5)
    if kind == 0:
        return rng.randbytes(rng.choice((0, 1, 2, 10, 100, 1000)))
    if kind == 1:  # a length that is a lie
        return (
            bytes((rng.choice((10, 18, 26, 34, 42)),)) + varint(rng.choice((1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1))) + rng.randbytes(20)
        )
    if kind == 2:  # groups in groups, which protobuf has to skip
        return b"\x0a" + varint(4000) + b"\x0b" * 4000
    if kind == 3:  # a great many tiny fields
        return rng.choice((b"\x0a\x01x", b"\x0a\x00", b"\x12\x00", b"\x1a\x00", b"\x08\x01", b"\x2a\x01\x0a")) * rng.choice((10, 20_000))
    return b"\xff" * rng.randrange(1, 30)


def _parts(bad: Spoilable) -> list[Message]:
    return [part for part in (bad.header, bad.query, bad.plain) if part is not None]


def _spoil_field(rng: random.Random, bad: Spoilable) -> None:
    message = rng.choice(_parts(bad))
    fields = message.DESCRIPTOR.fields
    if not fields:
        return
    chosen = rng.choice(fields)
    if rng.random() < 0.1:
        message.ClearField(chosen.name)
    elif chosen.message_type is not None and chosen.message_type.full_name.endswith("Columns"):
        names = getattr(message, chosen.name)
        names.SetInParent()
        names.names.extend(rng.choice((*NAMES[:-6], "reward", "observation", "meta/kind")) for _ in range(rng.choice((1, 3, 2000))))
    elif chosen.message_type is None and not _repeated(chosen):
        _set(rng, message, chosen)


def _repeated(chosen: FieldDescriptor) -> bool:
    return isinstance(getattr(chosen, "is_repeated", None), bool) and bool(chosen.is_repeated)


def _set(rng: random.Random, message: Message, chosen: FieldDescriptor) -> None:
    if chosen.type == FieldDescriptor.TYPE_BOOL:
        setattr(message, chosen.name, rng.random() < 0.5)
        return
    if chosen.type == FieldDescriptor.TYPE_STRING:
        value: Any = rng.choice(BOMBS) if chosen.name.endswith("_json") else rng.choice(NAMES if rng.random() < 0.05 else NAMES[:23])
    elif chosen.type == FieldDescriptor.TYPE_BYTES:
        value = rng.randbytes(rng.choice((0, 1, 16, 64, 65, 5000)))
    else:
        value = rng.choice(FLOATS) if chosen.type == FieldDescriptor.TYPE_DOUBLE else rng.choice(INTEGERS)
    try:
        setattr(message, chosen.name, value)
    except ValueError:
        pass  # does not fit the field's type, so it cannot be sent either


def _spoil_layout(rng: random.Random, bad: Spoilable) -> None:
    if bad.layout is None or not bad.layout.fields:
        _spoil_field(rng, bad)
        return
    one = rng.choice(bad.layout.fields)
    kind = rng.randrange(9)
    if kind == 0:
        one.dtype = rng.choice((*DTYPES, "", "object", "O", "<f4", "float128", "int64,int64", "datetime64[s]", "\0"))
    elif kind == 1:
        one.shape.append(rng.choice([n for n in INTEGERS if -(1 << 63) <= n < 1 << 63]))
    elif kind == 2 and one.shape:
        one.shape[rng.randrange(len(one.shape))] = rng.choice([n for n in INTEGERS if -(1 << 63) <= n < 1 << 63])
    elif kind == 3:
        one.offset_bytes = rng.choice([n for n in INTEGERS if -(1 << 63) <= n < 1 << 63])
    elif kind == 4:
        one.name = rng.choice(NAMES[:23])
    elif kind == 5:
        del one.shape[:]
    elif kind == 6:
        bad.layout.fields.remove(one)
    elif kind == 7:
        bad.layout.fields.add().CopyFrom(one)
    else:
        for number in range(rng.choice((3, 1100))):
            bad.layout.fields.add(name=f"data/{number}", dtype="uint8", shape=[rng.choice((0, 1, 1 << 40))] * rng.choice((1, 33)))


def _spoil_payload(rng: random.Random, bad: Spoilable) -> None:
    if not bad.payload:
        _spoil_field(rng, bad)
        return
    kind = rng.randrange(4)
    if kind == 0:
        bad.payload = bad.payload[: rng.randrange(len(bad.payload))]
    elif kind == 1:
        bad.payload += rng.randbytes(rng.choice((1, 7, 4096)))
    else:
        changed = bytearray(bad.payload)
        for _ in range(rng.choice((1, 8, 64))):
            at = rng.randrange(0, max(1, len(changed) - 8), 8)  # where whole numbers begin: episodes, rows, ids
            values = (*(np.int64(n).tobytes() for n in INTEGERS[:-1]), *(np.float64(x).tobytes() for x in FLOATS), rng.randbytes(8))
            changed[at : at + 8] = rng.choice(values)
        bad.payload = bytes(changed[: len(bad.payload)])


def _spoil_json(rng: random.Random, bad: Spoilable) -> None:
    texts = [(part, f.name) for part in _parts(bad) for f in part.DESCRIPTOR.fields if f.name.endswith("_json") and getattr(part, f.name)]
    if not texts:
        _spoil_field(rng, bad)
        return
    part, name = rng.choice(texts)
    try:
        tree = json.loads(getattr(part, name))
    except (ValueError, RecursionError):
        return  # spoiled before
    setattr(part, name, json.dumps(_spoil_tree(rng, tree)))


def _spoil_tree(rng: random.Random, tree: Any) -> Any:
    """The tree with one node replaced, added or taken away."""
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.15:
        return rng.choice((*JSONS, *NAMES[:23]))
    changed: Any = copy.copy(tree)
    keys = list(changed) if isinstance(changed, dict) else list(range(len(changed)))
    key = rng.choice(keys)
    kind = rng.random()
    if kind < 0.1:
        del changed[key]
    elif kind < 0.2 and isinstance(changed, dict):
        changed[rng.choice((*NAMES[:23], "space", "seed", "reward"))] = copy.deepcopy(changed[key])
    else:
        changed[key] = _spoil_tree(rng, changed[key])
    return changed


def _spoil_bytes(rng: random.Random, message: bytes) -> bytes:
    kind = rng.randrange(5)
    changed = bytearray(message)
    if kind == 0:
        return message[: rng.randrange(len(message) + 1)]
    if kind == 1:
        at = rng.randrange(len(message) + 1)
        changed[at:at] = rng.randbytes(rng.choice((1, 2, 16)))
    elif kind == 2 and message:
        begin = rng.randrange(len(message))
        changed += message[begin : begin + rng.choice((3, 30, 3000))]
    elif message:
        for _ in range(rng.choice((1, 4))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


# -- what an answer must be like

_MORE = (  # what fields are called that are no protobuf fields
    "rate limiter", "filter", "message", "run", "runs", "column", "columns", "selector", "selectors", "retention", "view",
    "config", "configuration", "parameter", "space", "alpha", "epsilon", "n_step", "gamma", "frame_stack",
    "padding", "stack_columns", "min_size_to_sample", "max_steps", "samples_per_insert", "error_buffer", "batch_size",
)  # fmt: skip
_RECORDS = (rs.Retention, *FILTERS.values(), *LIMITERS.values(), *SELECTORS.values(), *VIEWS.values())
FIELD_NAMES = frozenset(
    (
        *_MORE,
        *(f.name for kind in _RECORDS for f in dataclasses.fields(kind)),
        *(f.name for file in (data, service) for kind in file.DESCRIPTOR.message_types_by_name.values() for f in kind.fields),
    )
)


def names_a_field(text: str) -> bool:
    """Whether an error's text says which field is wrong."""
    return any(name in text for name in FIELD_NAMES)


def rss_bytes(pid: int | str = "self", key: str = "VmRSS") -> int:
    """Memory of a process, now or (``VmHWM``) at most."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(key))
