"""What fuzzing and reading found: messages of a few bytes that cost gigabytes or minutes, and numbers that no clock reaches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

import replaystore as rs
from replaystore.errors import InvalidArgument, NotFound
from replaystore.sampling import SampleRequest
from replaystore.server.thread import start_in_thread
from replaystore.store import Store
from replaystore.v1 import data_pb2 as data
from replaystore.v1 import service_pb2 as service
from replaystore.wire.errors import MAX_TEXT_BYTES, error_text
from replaystore.wire.framing import join, prefix, split, varint
from replaystore.wire.methods import MAX_PARAMETERS_BYTES, path_of
from replaystore.wire.parameters import Assembly
from replaystore_client import Client

from .mutations import CONFIG, rss_bytes

NAN = float("nan")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with rs.open(tmp_path / "data") as opened:
        opened.create_table("t", CONFIG)
        yield opened


def test_a_timeout_that_is_no_number_is_refused_by_name(store: Store) -> None:
    opening = prefix(data.AppendHeader(table="t", timeout_s=NAN).SerializeToString(), b"", 0)
    unary = {
        "Flush": ("unary_unary", service.FlushRequest(table="t", timeout_s=NAN).SerializeToString()),
        "FetchParameters": ("unary_stream", service.FetchParametersRequest(name="policy", timeout_s=NAN).SerializeToString()),
        "Append": ("stream_stream", opening),
    }
    with start_in_thread(store) as server, grpc.insecure_channel(server.address) as channel:
        for method, (shape, message) in unary.items():
            call = getattr(channel, shape)(path_of(method))
            with pytest.raises(grpc.RpcError) as refused:
                list(call(iter([message]) if shape == "stream_stream" else message, timeout=60))
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, method
            assert "timeout_s=nan must be a number of seconds" in refused.value.details()


def test_millions_of_tiny_fields_are_refused_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(InvalidArgument, match="more than 64 fields"):
        split(b"\x0a\x01x" * 3_000_000)
    with pytest.raises(InvalidArgument, match="query has 2000000 bytes"):
        split(b"\x2a" + varint(2_000_000) + bytes(2_000_000))
    assert time.monotonic() - started < 10


def test_a_batch_that_would_need_gigabytes_of_indices_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"batch_size=1048576 .* ask for at most 16368 items"):
        SampleRequest(1 << 20, rs.Transition(n_step=1024))
    SampleRequest(16368, rs.Transition(n_step=1024))


def test_padding_of_parameter_messages_is_not_kept() -> None:
    layout = data.Layout(fields=[data.Field(name="w", dtype="uint8", shape=[100])])
    header = data.ParametersHeader(name="policy", payload_bytes=100)
    assembly = Assembly(MAX_PARAMETERS_BYTES)
    assembly.add(join(header.SerializeToString(), layout.SerializeToString(), [b"x"], 1))
    before = rss_bytes()
    for _ in range(99):
        padding = bytes(4 << 20)
        assembly.add(b"\x1a" + varint(len(padding)) + padding + join(b"", b"", [b"y"], 1))
    assert rss_bytes() - before < 100 << 20  # of 400 MB that came
    assert assembly.arrays()["w"].tobytes() == b"x" + b"y" * 99


def test_a_long_name_in_another_script_comes_back_as_an_error_and_not_as_a_lost_connection(store: Store) -> None:
    text = error_text(NotFound("there is no table " + "😀" * 5000))
    assert sum(1 if character.isascii() else 12 for character in text) <= MAX_TEXT_BYTES
    with (
        start_in_thread(store) as server,
        Client(server.address, timeout_s=5) as client,
        pytest.raises(NotFound, match="there is no table"),
    ):
        client.describe("😀" * 5000)


@pytest.mark.parametrize("kind", [[], {}, None, 3, ["Uniform"]])
def test_a_type_that_is_no_name_is_refused(kind: object) -> None:
    with pytest.raises(InvalidArgument, match="is not known here"):
        rs.TableConfig.from_json({**CONFIG.to_json(), "rate_limiter": {"type": kind}})


@pytest.mark.parametrize(
    "column", [{"shape": [1e400], "dtype": "int8"}, {"shape": [1], "dtype": {"names": 3}}, {"shape": [], "dtype": "int8", "space": [1]}]
)
def test_a_column_that_makes_no_sense_is_refused(column: object) -> None:
    with pytest.raises(InvalidArgument, match="column"):
        rs.Column.from_json(column)


def test_another_exponent_keeps_every_mass_finite_and_every_anchor(store: Store) -> None:
    store.create_table("p", rs.TableConfig({"observation": rs.Column((1,)), "action": rs.Column((), "int64")}, rs.Prioritized(0.1, 0.0)))
    with store.writer("p") as writer:
        writer.reset(np.zeros(1))
        for step in range(20):
            writer.append(step, 0.0, False, False, np.zeros(1))
    assert store.update_priorities("p", np.arange(20), [1e-30] * 10 + [1e30] * 9 + [0.0]).applied == 20
    store.alter_table("p", selector=rs.Prioritized(10.0, 0.0))
    masses = store.read_steps("p", 0, 20, ["replay/priority"])["replay/priority"]
    assert np.isfinite(masses).all()
    assert (masses[:19] > 0).all()
    assert masses[19] == 0  # priority 0 and no epsilon: never drawn
    store.alter_table("p", selector=rs.Prioritized(10.0, 0.5))
    assert store.read_steps("p", 19, 20, ["replay/priority"])["replay/priority"][0] > 0
