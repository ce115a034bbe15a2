"""Blocks, requests, replies, records and errors: what goes in comes out, and what cannot be is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import replaystore as rs
from replaystore.errors import InvalidArgument, ReplayStoreError, all_errors
from replaystore.sampling import SampleRequest
from replaystore.steps import RUN_DTYPE, StepBlock
from replaystore.v1 import data_pb2 as pb
from replaystore.v1 import service_pb2
from replaystore.wire import records, samples
from replaystore.wire.blocks import decode_block, encode_block
from replaystore.wire.errors import error_of, error_text
from replaystore.wire.framing import split
from replaystore.wire.layout import encode_arrays
from replaystore.wire.parameters import Assembly, check_parameters, encode_parts


def block(rows: int = 3) -> StepBlock:
    runs = np.array([(7, 0, rows - 1, 0, 4, 11), (2**62, 5, 1, 1, -1, -1)], RUN_DTYPE)
    columns = {
        "observation/goal": np.arange(rows * 2, dtype=np.float32).reshape(rows, 2),
        "terminated": np.arange(rows) % 2 == 1,
        "action": np.arange(rows),
    }
    return StepBlock(columns, runs, actor=-3)


def test_a_block_comes_back_as_it_went() -> None:
    sent = block()
    parts = split(encode_block(sent, 9))
    header = pb.AppendHeader.FromString(parts.header)
    received = decode_block(parts, header.actor)
    assert (header.sequence, received.actor) == (9, -3)
    assert (received.runs == sent.runs).all()
    assert received.runs.dtype == RUN_DTYPE
    assert received.columns.keys() == sent.columns.keys()
    for name, array in sent.columns.items():
        assert received.columns[name].dtype == array.dtype
        assert (received.columns[name] == array).all()


def test_a_block_is_encoded_at_once() -> None:
    sent = block()
    message = encode_block(sent, 1)
    sent.columns["action"][:] = -1
    assert (decode_block(split(message), 0).columns["action"] == [0, 1, 2]).all()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"run/episode": None}, "'run/episode' is missing"),
        ({"run/ending": np.zeros(2, np.int64)}, "'run/ending' must be uint8"),
        ({"run/first": np.zeros(3, np.int64)}, "'run/first' has 3 runs, 'run/episode' has 2"),
        ({"run/rows": np.zeros((1, 2), np.int64)}, "'run/rows' must be int64 with one axis"),
        ({"other/x": np.zeros(2)}, "'other/x' must begin with"),
        ({"data/terminated": np.array([0, 2, 1], np.uint8).view(bool)}, "'data/terminated' is bool and holds bytes other than 0 and 1"),
    ],
)
def test_a_block_that_contradicts_itself_is_refused(changes: dict[str, Any], what: str) -> None:
    sent = block()
    arrays: dict[str, Any] = {f"data/{name}": array for name, array in sent.columns.items()}
    arrays |= {f"run/{name}": np.ascontiguousarray(sent.runs[name]) for name in RUN_DTYPE.names or ()}
    arrays = {name: array for name, array in {**arrays, **changes}.items() if array is not None}
    with pytest.raises(InvalidArgument, match=what):
        decode_block(split(encode_arrays(b"", arrays)), 0)


requests = st.builds(
    SampleRequest,
    batch_size=st.integers(1, 1 << 19),
    view=st.builds(
        rs.Transition,
        n_step=st.integers(1, 20),
        gamma=st.floats(0, 1),
        frame_stack=st.integers(1, 8),
        stack_columns=st.lists(st.sampled_from(["observation", "observation/goal"]), max_size=2).map(tuple),
        padding=st.sampled_from(["edge", "zero"]),
    ),
    selector=st.one_of(st.none(), st.sampled_from([rs.Uniform(), rs.Lifo(), rs.Recency(2.5, 3)]), st.text(min_size=1, max_size=10)),
    beta=st.floats(0, 1),
    seed=st.one_of(st.none(), st.integers(0, 2**63 - 1)),
    columns=st.one_of(st.none(), st.lists(st.text(max_size=10), max_size=3).map(tuple)),
    where=st.one_of(
        st.none(),
        st.builds(
            rs.Filter,
            min_age_steps=st.integers(0, 9),
            max_age_s=st.one_of(st.none(), st.floats(0, 1e9)),
            actors=st.one_of(st.none(), st.lists(st.integers(-5, 5), min_size=1)),
            ended=st.sampled_from([None, "terminated", "truncated"]),
        ),
    ),
    normalise=st.sampled_from(["batch", "table"]),
)


@given(requests, st.lists(st.floats(0, 1), min_size=1, max_size=5), st.booleans())
def test_a_request_for_several_batches_comes_back_as_it_went(request: SampleRequest, betas: list[float], seeded: bool) -> None:
    seeds = [2**63 - 1 - index for index in range(len(betas))] if seeded else []
    seed = seeds[0] if seeded and len(betas) == 1 else None
    message = samples.encode_sample_request(1, samples.encode_query("pong", request), betas[0], seed, 2.5, betas=betas, seeds=seeds)
    received = samples.decode_sample_request(message)
    assert received.batches == len(betas)
    assert received.betas == tuple(betas)
    assert received.seeds == (tuple(seeds) or (None,) * len(betas))
    assert received.request == dataclasses.replace(request, beta=betas[0], seed=received.seeds[0])


@pytest.mark.parametrize("batches", [1, 2, 3, 6])
def test_batches_of_a_reply_are_parts_of_its_arrays(batches: int) -> None:
    fields = {"data/x": np.arange(24).reshape(6, 2, 2), "info/step_ids": np.arange(6)}
    parts = samples.split_batches(fields, batches)
    assert len(parts) == batches
    for name, array in fields.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), array)
        assert all(np.shares_memory(part[name], array) for part in parts)


def test_a_reply_that_cannot_be_split() -> None:
    with pytest.raises(InvalidArgument, match=r"'data/x' \(5,\) does not hold 2 batches"):
        samples.split_batches({"data/x": np.arange(5)}, 2)
    with pytest.raises(InvalidArgument, match="does not hold 2 batches"):
        samples.split_batches({"data/x": np.array(5)}, 2)


@given(requests, st.integers(1, 2**63), st.booleans())
def test_a_sample_request_comes_back_as_it_went(request: SampleRequest, number: int, carry: bool) -> None:
    updates = samples.Updates.of([3, 4], np.array([0.5, 1.5], np.float32), "td") if carry else None
    query = samples.encode_query("pong", request)
    message = samples.encode_sample_request(number, query, request.beta, request.seed, 2.5, 0.5, updates)
    received = samples.decode_sample_request(message)
    assert (received.number, received.table, received.timeout_s, received.notice_s) == (number, "pong", 2.5, 0.5)
    assert received.request == request
    assert (received.updates is None) == (updates is None)
    if received.updates is not None:
        assert received.updates.step_ids.tolist() == [3, 4]
        assert received.updates.priorities.tolist() == [0.5, 1.5]
        assert received.updates.selector == "td"
    # and the generated class understands the very same bytes
    generated = pb.SampleRequest.FromString(message)
    assert generated.header.request == number
    assert generated.query.batch_size == request.batch_size


def test_given_anchors_travel_in_the_payload() -> None:
    query = samples.encode_query("t", SampleRequest(3))
    updates = samples.Updates.of([1], [2.0])
    for carried in (None, updates):
        message = samples.encode_sample_request(1, query, 0, 5, 0, 0, carried, np.array([4, 4, 9]), 77)
        received = samples.decode_sample_request(message)
        assert received.step_ids is not None
        assert (received.step_ids.tolist(), received.as_of, received.updates is None) == ([4, 4, 9], 77, carried is None)
    received = samples.decode_sample_request(samples.encode_sample_request(1, query, 0, 5, 0))
    assert (received.step_ids, received.as_of) == (None, None)
    with pytest.raises(InvalidArgument, match="2 at/step_ids, but batch_size is 3"):
        samples.decode_sample_request(samples.encode_sample_request(1, query, 0, None, 0, step_ids=np.array([1, 2])))
    with pytest.raises(InvalidArgument, match="as_of=-1"):
        samples.decode_sample_request(encode_arrays(pb.SampleHeader(request=1, as_of=-1).SerializeToString(), {}, query))


def test_a_request_without_a_batch_only_brings_updates() -> None:
    message = samples.encode_sample_request(1, samples.encode_query("t", None), 0, None, 0, 0, samples.Updates.of([1], [2.0]))
    received = samples.decode_sample_request(message)
    assert received.request is None
    assert received.updates is not None


@pytest.mark.parametrize(
    ("query", "what"),
    [
        (pb.SampleQuery(table="t", batch_size=5, view_json="{"), "view_json: not JSON"),
        (pb.SampleQuery(table="t", batch_size=5, view_json='{"type": "Nothing"}'), "view 'Nothing' is not known"),
        (pb.SampleQuery(table="t", batch_size=5, view_json='{"type": "Transition", "n_step": NaN}'), "n_step=nan"),
        (pb.SampleQuery(table="t", batch_size=5, selector_json='{"type": "Prioritized"}'), "needs an array"),
        (pb.SampleQuery(table="t", batch_size=2**31), "batch_size"),
    ],
)
def test_a_query_that_cannot_be_is_refused(query: pb.SampleQuery, what: str) -> None:
    with pytest.raises(InvalidArgument, match=what):
        samples.decode_query(query.SerializeToString())


@pytest.mark.parametrize(
    ("ids", "values"),
    [([1, 2], [1.0]), ([[1]], [[1.0]]), ([1.5], [1.0]), ([1], ["a"]), ([1], [None])],
)
def test_updates_that_cannot_be_are_refused_before_they_travel(ids: Any, values: Any) -> None:
    with pytest.raises(InvalidArgument, match="step_ids and priorities"):
        samples.Updates.of(ids, values)


def test_statistics_have_the_same_fields_here_and_there() -> None:
    names = [field.name for field in dataclasses.fields(rs.TableStats)]
    assert names == [field.name for field in service_pb2.TableStats.DESCRIPTOR.fields]
    values: dict[str, Any] = {name: index for index, name in enumerate(names)}
    values |= {"name": "t", "total_priority": {"td": 1.5}, "max_priority": {}, "oldest_time": None, "newest_time": 0.0}
    values |= {"blocked_insert": None, "blocked_sample": "because"}
    stats = rs.TableStats(**values)
    message = service_pb2.TableStats.FromString(records.encode_stats(stats).SerializeToString())
    assert records.decode_stats(message) == stats


def test_the_status_of_a_server_has_the_same_fields_here_and_there() -> None:
    of_table = [field.name for field in dataclasses.fields(rs.TableStatus)]
    of_server = [field.name for field in dataclasses.fields(rs.ServerStatus)]
    assert of_table == [field.name for field in service_pb2.TableStatus.DESCRIPTOR.fields]
    assert of_server == [field.name for field in service_pb2.ServerStatus.DESCRIPTOR.fields]
    numbers: dict[str, Any] = {field.name: index for index, field in enumerate(dataclasses.fields(rs.TableStats))}
    numbers |= {"name": "t", "total_priority": {"td": 1.5}, "max_priority": {}, "oldest_time": None, "newest_time": 0.0}
    stats = rs.TableStats(**{**numbers, "blocked_insert": None, "blocked_sample": "because"})
    tables = [rs.TableStatus(stats, 1, 2, 0.5, 1.5, 2.5, *rest) for rest in ((None, 3.0), ("the disk", None))]
    texts = dict.fromkeys(("version", "instance", "path", "filesystem", "durability", "metrics"), "x")
    values: dict[str, Any] = {name: index for index, name in enumerate(of_server)}
    values |= {**texts, "encrypted": True, "authenticated": False, "strict_overcommit": True}
    status = rs.ServerStatus(**{**values, "addresses": ("h:1", "unix:/s"), "tables": tuple(tables)})
    message = service_pb2.ServerStatus.FromString(records.encode_status(status).SerializeToString())
    assert records.decode_status(message) == status
    assert status.to_json()["tables"][0]["stats"]["name"] == "t"


def test_configurations_and_changes_travel_as_json() -> None:
    config = rs.TableConfig(
        {"observation": rs.Column((4,), space={"kind": "Box", "low": None, "high": 2.5})},
        selector={"td": rs.Prioritized(0.5), "all": rs.Uniform()},
        rate_limiter=rs.SampleToInsertRatio(8.0, 10, 100.0),
        retention=rs.Retention(max_steps=1000),
    )
    assert records.parse_config(records.config_json(config)) == config
    description = rs.TableDescription("t", config, 1, 12.5, {"steps/observation": 4096})
    assert records.decode_description(records.encode_description(description)) == description
    with pytest.raises(InvalidArgument, match="config_json: not JSON"):
        records.parse_config("{")
    request = records.encode_changes("t", rs.MinSize(3), None, rs.Prioritized(0.7))
    assert records.decode_changes(request) == {"rate_limiter": rs.MinSize(3), "selector": rs.Prioritized(0.7)}
    assert json.loads(request.selectors_json)["default"]["alpha"] == 0.7


@pytest.mark.parametrize("kind", all_errors().values(), ids=lambda kind: kind.__name__)
def test_every_error_comes_back_as_what_it_was(kind: type[ReplayStoreError]) -> None:
    assert type(error_of(kind.__name__, kind.grpc_code, "text")) is kind
    # from a server that says no class: at least the right branch of the tree
    fallback = error_of(None, kind.grpc_code, "text")
    assert issubclass(kind, type(fallback)) or type(fallback) is ReplayStoreError
    assert str(fallback).startswith("text")


def test_long_texts_fit_a_status() -> None:
    assert len(error_text(InvalidArgument("x" * 10_000))) <= 3000


def test_parameters_travel_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replaystore.wire.parameters.PART_BYTES", 64)
    arrays = {"w": np.arange(100, dtype=">f4"), "b": np.array(2.5), "none": np.zeros((0, 3), np.int8), "t": np.arange(6).reshape(2, 3).T}
    assembly = Assembly(1 << 20)
    parts = list(encode_parts(check_parameters(arrays), name="policy", version=3))
    assert len(parts) > 5
    for part in parts:
        pb.ParametersPart.FromString(part)
        assembly.add(part)
    received = assembly.arrays()
    assert (assembly.header.name, assembly.header.version) == ("policy", 3)
    for name, array in arrays.items():
        np.testing.assert_array_equal(received[name], array)
        assert received[name].flags.writeable


def test_parameters_that_contradict_themselves_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replaystore.wire.parameters.PART_BYTES", 64)
    parts = list(encode_parts({"w": np.arange(100.0)}))
    with pytest.raises(InvalidArgument, match=r"has 800 bytes \(header.payload_bytes\), and at most 100 are taken"):
        Assembly(100).add(parts[0])
    short = Assembly(1 << 20)
    short.add(parts[0])
    with pytest.raises(InvalidArgument, match="ended before all of it"):
        short.arrays()
    for part in [*parts[1:], parts[1]][:-1]:
        short.add(part)
    with pytest.raises(InvalidArgument, match=r"header\.payload_bytes said 800"):
        short.add(parts[1])
    with pytest.raises(InvalidArgument, match="at least one array"):
        check_parameters({})
    with pytest.raises(InvalidArgument, match="'s' has dtype"):
        check_parameters({"s": np.array(["pickle me"])})
