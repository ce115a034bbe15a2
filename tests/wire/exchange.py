"""The messages of docs/PROTOCOL.md, made and sent to a server.

``python -m tests.wire.exchange docs/PROTOCOL.md`` writes them into the page.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc
import numpy as np

import replaystore as rs
from replaystore.server.thread import start_in_thread
from replaystore.v1 import data_pb2 as data
from replaystore.v1 import service_pb2 as pb
from replaystore.wire.methods import path_of

INSTANCE = "6f2d91c04be7a853"
"""What the page has in the place of a random name."""
CONFIG = {
    "columns": {"observation": {"shape": [2], "dtype": "float32"}, "action": {"shape": [], "dtype": "int64"}},
    "selectors": {"default": {"type": "Prioritized", "alpha": 1.0, "epsilon": 0.0}},
    "rate_limiter": {"type": "MinSize", "min_size_to_sample": 1},
    "retention": {"type": "Retention", "max_steps": 1000},
    "seed": None,
}
WIDTH = 16
BLOCK = re.compile(r"(<!-- bytes: (\w+) -->\n```text\n).*?```\n", re.DOTALL)


def packed(kind: Any, header: Any, arrays: dict[str, Any], **rest: Any) -> Any:
    """A message with its arrays, and as many zeros before them as put them at a multiple of 16 bytes."""
    layout, payload = data.Layout(), b""
    for name, array in arrays.items():
        payload += bytes(-len(payload) % WIDTH)
        layout.fields.add(name=name, dtype=array.dtype.name, shape=array.shape, offset_bytes=len(payload))
        payload += array.tobytes()
    for zeros in range(WIDTH):
        message = kind(header=header, layout=layout, padding=bytes(zeros), payload=payload, **rest)
        if message.SerializeToString().index(payload) % WIDTH == 0:
            break
    return message


def requests() -> dict[str, Any]:
    """What the client sends, by the name that it has in the page, in the order in which it is sent."""
    rows = {
        "data/observation": np.array([[0, 0.5], [1, 0.5], [2, 0.5]], np.float32),
        "data/action": np.array([1, 0, 0]),
        "data/reward": np.array([1, 2, 0], np.float32),
        "data/terminated": np.array([False, True, True]),
        "data/truncated": np.zeros(3, bool),
        "run/episode": np.array([77]),
        "run/first": np.array([0]),
        "run/rows": np.array([3]),
        "run/ending": np.array([1], np.uint8),
        "run/policy_version": np.array([-1]),
        "run/seed": np.array([-1]),
    }
    updates = {"update/step_ids": np.array([0, 1]), "update/priorities": np.array([3, 1], np.float32)}
    query = data.SampleQuery(table="t", batch_size=2)
    return {
        "create": pb.CreateTableRequest(table="t", config_json=json.dumps(CONFIG)),
        "open": data.AppendRequest(header=data.AppendHeader(table="t")),
        "block": packed(data.AppendRequest, data.AppendHeader(sequence=1, actor=5), rows),
        "sample": data.SampleRequest(header=data.SampleHeader(request=1, seed=7, beta=0.5, timeout_s=10), query=query),
        "update": packed(data.UpdatePrioritiesRequest, data.UpdatePrioritiesHeader(table="t"), updates),
        "riding": packed(data.SampleRequest, data.SampleHeader(request=2, seed=7, beta=0.5, timeout_s=10), updates, query=query),
        "wrong": data.SampleRequest(header=data.SampleHeader(request=3), query=data.SampleQuery(table="u", batch_size=2)),
    }


def exchange(address: str) -> dict[str, Any]:
    """All messages by name: a request's reply has its name and ``_reply``."""
    sent = requests()
    found: dict[str, Any] = dict(sent)
    with grpc.insecure_channel(address) as channel:

        def call(method: str, request: Any, reply: Any) -> Any:
            return channel.unary_unary(path_of(method), type(request).SerializeToString, reply.FromString)(request, timeout=60)

        def stream(method: str, names: list[str], reply: Any) -> None:
            serializer = type(sent[names[0]]).SerializeToString
            replies = channel.stream_stream(path_of(method), serializer, reply.FromString)(iter([sent[name] for name in names]), timeout=60)
            found.update({f"{name}_reply": answer for name, answer in zip(names, replies, strict=False)})

        call("CreateTable", sent["create"], pb.TableDescription)
        stream("Append", ["open", "block"], data.AppendReply)
        stream("Sample", ["sample"], data.SampleReply)
        found["update_reply"] = call("UpdatePriorities", sent["update"], data.UpdateCounts)
        stream("Sample", ["riding", "wrong"], data.SampleReply)
    found["open_reply"].opened.instance = INSTANCE
    found["block_reply"].ack.durable_step = 0  # or 3, when a group commit was quick
    return found


def exchanged() -> dict[str, str]:
    """Every message as the page shows it, by name."""
    with (
        tempfile.TemporaryDirectory() as folder,
        rs.open(Path(folder) / "store") as store,
        start_in_thread(store, listen="127.0.0.1:0") as server,
    ):
        return {name: shown(message) for name, message in exchange(server.address).items()}


def shown(message: Any) -> str:
    """A message as lines of bytes, and what they say."""
    lines: list[str] = []
    _show(message, lines, "", None)
    return "\n".join(lines) + "\n"


def _show(message: Any, lines: list[str], indent: str, layout: Any) -> None:
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        if field.is_repeated and field.type != field.TYPE_MESSAGE and field.type != field.TYPE_STRING:
            alone = type(message)()
            getattr(alone, field.name).extend(value)
            _line(lines, indent, alone.SerializeToString(), f"{field.name} = {list(value)}")
            continue
        for one in values:
            alone = type(message)()
            if field.is_repeated:
                getattr(alone, field.name).add().CopyFrom(one) if field.type == field.TYPE_MESSAGE else getattr(alone, field.name).append(
                    one
                )
            elif field.type == field.TYPE_MESSAGE:
                getattr(alone, field.name).CopyFrom(one)
            else:
                setattr(alone, field.name, one)
            encoded = alone.SerializeToString()
            if field.type == field.TYPE_MESSAGE:
                inside = one.SerializeToString()
                _line(lines, indent, encoded[: len(encoded) - len(inside)], f"{field.name}: {len(inside)} bytes")
                _show(one, lines, indent + "  ", None)
            elif field.name == "payload":
                _line(
                    lines,
                    indent,
                    encoded[: len(encoded) - len(one)],
                    f"payload: {len(one)} bytes, from byte {_place(message, one)} of the message",
                )
                _arrays(lines, indent + "  ", message.layout, one)
            else:
                text = f"{len(one)} zeros" if field.name == "padding" else json.dumps(one) if isinstance(one, str) else str(one)
                _line(lines, indent, encoded, f"{field.name} = {text}" if field.name != "padding" else f"padding: {text}")


def _place(message: Any, payload: bytes) -> int:
    return bytes(message.SerializeToString()).rindex(payload)


def _arrays(lines: list[str], indent: str, layout: Any, payload: bytes) -> None:
    end = 0
    for field in layout.fields:
        if field.offset_bytes > end:
            _line(lines, indent, payload[end : field.offset_bytes], "zeros")
        array = np.frombuffer(payload, field.dtype, int(np.prod(field.shape)), field.offset_bytes).reshape(tuple(field.shape))
        end = field.offset_bytes + array.nbytes
        _line(lines, indent, payload[field.offset_bytes : end], f"{field.name} = {array.tolist()}")


def _line(lines: list[str], indent: str, encoded: bytes, text: str) -> None:
    for start in range(0, len(encoded), WIDTH):
        piece = indent + encoded[start : start + WIDTH].hex(" ")
        lines.append(f"{piece:<52}  {text}" if not start else piece)


def with_bytes(page: str) -> str:
    """The page with every message that it names."""
    messages = exchanged()
    return BLOCK.sub(lambda match: f"{match[1]}{messages[match[2]]}```\n", page)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_bytes(path.read_text()))
