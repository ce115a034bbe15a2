"""A client made of grpcio and the messages of the .proto files alone, by docs/PROTOCOL.md, for ``replaystore conformance``."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np

from replaystore.v1 import data_pb2 as data
from replaystore.v1 import service_pb2 as pb

SERVICE = "/replaystore.v1.ReplayStore/"
TIMEOUT_S = 30.0


def pack(arrays: dict[str, Any]) -> dict[str, Any]:
    """Layout and payload of a message: one array after the other, each at a multiple of 16 bytes."""
    layout, payload = data.Layout(), b""
    for name, array in arrays.items():
        payload += bytes(-len(payload) % 16)
        layout.fields.add(name=name, dtype=array.dtype.name, shape=array.shape, offset_bytes=len(payload))
        payload += array.tobytes()
    return {"layout": layout, "payload": payload}


def unpack(message: Any) -> dict[str, Any]:
    found = {}
    for field in message.layout.fields:
        dtype, shape = np.dtype(field.dtype), tuple(field.shape)
        found[field.name] = np.frombuffer(message.payload, dtype, int(np.prod(shape)), field.offset_bytes).reshape(shape)
    return found


class Stream:
    """A bidirectional stream."""

    def __init__(self, channel: Any, method: str, request: Any, reply: Any) -> None:
        self._requests: SimpleQueue[Any] = SimpleQueue()
        call = channel.stream_stream(SERVICE + method, request.SerializeToString, reply.FromString)
        self.replies = call(self._outgoing(), timeout=TIMEOUT_S)

    def _outgoing(self) -> Iterator[Any]:
        while (message := self._requests.get()) is not None:
            yield message

    def send(self, message: Any) -> None:
        self._requests.put(message)

    def receive(self) -> Any:
        return next(self.replies)

    def end(self) -> None:
        self._requests.put(None)


class Plain:
    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.insecure_channel(address)

    def call(self, method: str, request: Any, reply: Any) -> Any:
        return self.channel.unary_unary(SERVICE + method, type(request).SerializeToString, reply.FromString)(request, timeout=TIMEOUT_S)

    def many(self, method: str, request: Any, reply: Any) -> list[Any]:
        return list(
            self.channel.unary_stream(SERVICE + method, type(request).SerializeToString, reply.FromString)(request, timeout=TIMEOUT_S)
        )

    def append(self, table: str) -> Stream:
        stream = Stream(self.channel, "Append", data.AppendRequest, data.AppendReply)
        stream.send(data.AppendRequest(header=data.AppendHeader(table=table)))
        stream.receive()
        return stream

    def sample(self, query: Any, **header: Any) -> Any:
        stream = Stream(self.channel, "Sample", data.SampleRequest, data.SampleReply)
        stream.send(data.SampleRequest(header=data.SampleHeader(request=1, **header), query=query))
        reply = stream.receive()
        stream.end()
        return reply


def kind_of(error: Any) -> str:
    return dict(error.trailing_metadata())["replaystore-error"]


def block(sequence: int, runs: list[tuple[int, int, int, int]], actor: int = 0) -> Any:
    """Runs of (episode, first step, rows, ending); the values are those of the exercises."""
    steps = np.concatenate([np.arange(first, first + rows) for _, first, rows, _ in runs])
    closing = np.concatenate([[False] * (rows - bool(ending)) + [True] * bool(ending) for _, _, rows, ending in runs])
    last = (steps == 11) if len(runs) == 1 else np.r_[closing[1:], False]  # the last step of an episode that ends has the flag, too
    endings = np.repeat([ending or int(len(runs) == 1) for *_, ending in runs], [rows for _, _, rows, _ in runs])
    episode, first, rows, ending = (np.array(part, np.int64) for part in zip(*runs, strict=True))
    arrays = {
        "data/observation": np.stack([steps, np.zeros(len(steps))], 1).astype(np.float32),
        "data/action": np.where(closing, 0, steps).astype(np.int64),
        "data/reward": np.where(closing, 0, steps / 2).astype(np.float32),
        "data/terminated": (closing | last) & (endings == 1),
        "data/truncated": (closing | last) & (endings == 2),
        "run/episode": episode,
        "run/first": first,
        "run/rows": rows,
        "run/ending": ending.astype(np.uint8),
        "run/policy_version": np.full(len(runs), -1, np.int64),
        "run/seed": np.full(len(runs), -1, np.int64),
    }
    return data.AppendRequest(header=data.AppendHeader(sequence=sequence, actor=actor), **pack(arrays))


def new_episode() -> int:
    return random.SystemRandom().randrange(1, 2**63)


def acknowledged(stream: Stream) -> Any:
    while (reply := stream.receive()).WhichOneof("reply") != "ack":
        pass
    return reply.ack


CREATE = {
    "columns": {"observation": {"shape": [2], "dtype": "float32"}, "action": {"shape": [], "dtype": "int64"}},
    "selectors": {"default": {"type": "Prioritized", "alpha": 0.5, "epsilon": 0.001}},
    "rate_limiter": {"type": "MinSize"},
    "retention": {"type": "Retention"},
}


def info(plain: Plain) -> dict[str, Any]:
    reply = plain.call("GetServerInfo", pb.GetServerInfoRequest(), pb.ServerInfo)
    return {"protocol": reply.protocol, "path": reply.path}


def create(plain: Plain) -> dict[str, Any]:
    for exist_ok in (False, True):
        plain.call(
            "CreateTable", pb.CreateTableRequest(table="create", config_json=json.dumps(CREATE), exist_ok=exist_ok), pb.TableDescription
        )
    try:
        plain.call("CreateTable", pb.CreateTableRequest(table="create", config_json=json.dumps(CREATE)), pb.TableDescription)
    except grpc.RpcError as error:
        return {"again": kind_of(error)}
    return {}


def blocks_of_one_episode(actor: int) -> list[Any]:
    episode = new_episode()
    return [block(first // 4 + 1, [(episode, first, 4 if first < 12 else 1, int(first == 12))], actor) for first in (0, 4, 8, 12)]


def append(plain: Plain) -> dict[str, Any]:
    stream = plain.append("append")
    blocks = blocks_of_one_episode(7)
    for message in blocks:  # ahead of their acknowledgements
        stream.send(message)
    acks = [acknowledged(stream) for _ in blocks]
    stream.end()
    assert [ack.sequence for ack in acks] == [1, 2, 3, 4]
    return {"next_step": acks[-1].next_step}


def runs(plain: Plain) -> dict[str, Any]:
    stream = plain.append("runs")
    stream.send(block(1, [(new_episode(), 0, 4, 2), (new_episode(), 0, 2, 0)]))
    return {"applied_rows": acknowledged(stream).applied_rows}


def retry(plain: Plain) -> dict[str, Any]:
    pending, duplicates, stream = blocks_of_one_episode(0), 0, None
    while pending:
        try:
            stream = stream or plain.append("retry")
            stream.send(pending[0])
            duplicates += acknowledged(stream).duplicate_rows
            pending.pop(0)
        except grpc.RpcError as error:
            if error.trailing_metadata() and "replaystore-error" in dict(error.trailing_metadata()):
                raise
            stream = None  # the same block again, over a new stream
    return {"duplicate_rows": duplicates}


def gap(plain: Plain) -> dict[str, Any]:
    stream = plain.append("gap")
    stream.send(block(1, [(new_episode(), 5, 2, 0)]))
    try:
        acknowledged(stream)
    except grpc.RpcError as error:
        return {"error": kind_of(error), "status": error.code().name}
    return {}


def batch(reply: Any) -> dict[str, Any]:
    arrays = unpack(reply)
    names = {
        "step_ids": "info/step_ids", "reward": "data/reward", "next_observation": "next/observation", "terminated": "data/terminated",
        "discount": "info/discount", "weights": "info/weights",
    }  # fmt: skip
    return {name: arrays[field].tolist() for name, field in names.items()}


def sample(plain: Plain) -> dict[str, Any]:
    return batch(plain.sample(data.SampleQuery(table="sample", batch_size=8), seed=42, beta=0.5))


def n_step(plain: Plain) -> dict[str, Any]:
    view = json.dumps({"type": "Transition", "n_step": 3, "gamma": 0.9})
    return batch(plain.sample(data.SampleQuery(table="n-step", batch_size=8, view_json=view), seed=42, beta=0.5))


def updates(plain: Plain) -> dict[str, Any]:
    arrays = {"update/step_ids": np.array([1, 2, 3, 1000, 4]), "update/priorities": np.array([0.5, 1.5, 2.5, 1.0, np.nan])}
    request = data.UpdatePrioritiesRequest(header=data.UpdatePrioritiesHeader(table="updates"), **pack(arrays))
    counts = plain.call("UpdatePriorities", request, data.UpdateCounts)
    return {"applied": counts.applied, "gone": counts.gone, "rejected": counts.rejected}


def riding(plain: Plain) -> dict[str, Any]:
    stream = Stream(plain.channel, "Sample", data.SampleRequest, data.SampleReply)
    arrays = {"update/step_ids": np.arange(4), "update/priorities": np.full(4, 4.0, np.float32)}
    query = data.SampleQuery(table="riding", batch_size=2)
    stream.send(data.SampleRequest(header=data.SampleHeader(request=1), query=query, **pack(arrays)))
    return {"applied": stream.receive().header.updates.applied}


def stream_goes_on(plain: Plain) -> dict[str, Any]:
    stream = Stream(plain.channel, "Sample", data.SampleRequest, data.SampleReply)
    for number, table in ((1, "there-is-none"), (2, "stream-goes-on")):
        stream.send(data.SampleRequest(header=data.SampleHeader(request=number), query=data.SampleQuery(table=table, batch_size=4)))
    failed, good = stream.receive(), stream.receive()
    assert (failed.header.request, good.header.request) == (1, 2)
    return {"error": failed.header.error.kind, "items": len(unpack(good)["info/step_ids"])}


def not_ready(plain: Plain) -> dict[str, Any]:
    return {"error": plain.sample(data.SampleQuery(table="not-ready", batch_size=4), timeout_s=0.1).header.error.kind}


def blocked(plain: Plain) -> dict[str, Any]:
    stream, episode = plain.append("blocked"), new_episode()
    for number in range(3):
        stream.send(block(number + 1, [(episode, 2 * number, 2, 0)]))
    replies = []
    while not replies or replies[-1].WhichOneof("reply") != "blocked":
        replies.append(stream.receive())
    assert replies[-1].blocked.sequence == 3
    plain.sample(data.SampleQuery(table="blocked", batch_size=2), timeout_s=10.0)
    return {"blocked": acknowledged(stream).sequence == 3}


def flush(plain: Plain) -> dict[str, Any]:
    stream = plain.append("flush")
    stream.send(block(1, [(new_episode(), 0, 3, 0)]))
    acknowledged(stream)
    return {"durable_step": plain.call("Flush", pb.FlushRequest(table="flush", timeout_s=20.0), pb.FlushReply).durable_step}


def parameters(plain: Plain) -> dict[str, Any]:
    packed = pack({"weight": np.array([[1, 2], [3, 4]], np.float32), "bias": np.array([0.5], np.float32)})
    header = data.ParametersHeader(name="parameters", payload_bytes=len(packed["payload"]))
    parts = iter([data.ParametersPart(header=header, **packed)])
    publish = plain.channel.stream_unary(
        SERVICE + "PublishParameters", data.ParametersPart.SerializeToString, pb.PublishParametersReply.FromString
    )
    version = publish(parts, timeout=TIMEOUT_S).version
    pieces = plain.many("FetchParameters", pb.FetchParametersRequest(name="parameters"), data.ParametersPart)
    whole = data.ParametersPart(layout=pieces[0].layout, payload=b"".join(piece.payload for piece in pieces))
    newer = plain.many("FetchParameters", pb.FetchParametersRequest(name="parameters", newer_than=version), data.ParametersPart)
    return {"version": pieces[0].header.version, "weight": unpack(whole)["weight"].tolist(), "newer": None if not newer else len(newer)}


def read(plain: Plain) -> dict[str, Any]:
    def joined(messages: list[Any], name: str) -> Any:
        return np.concatenate([unpack(message)[name] for message in messages]).tolist()

    steps = plain.many("ReadSteps", data.ReadStepsRequest(table="read", start=2, stop=5), data.Rows)
    episodes = plain.many("ReadEpisodes", data.ReadEpisodesRequest(table="read"), data.Rows)
    return {"step_id": joined(steps, "step_id"), "action": joined(steps, "action"), "episodes": joined(episodes, "length")}


if __name__ == "__main__":
    for line in sys.stdin:
        exercise, address = line.split()
        try:
            answer = globals()[exercise.replace("-", "_")](Plain(address))
        except Exception as error:
            answer = {"failed": repr(error)}
        print(json.dumps(answer), flush=True)  # noqa: T201
