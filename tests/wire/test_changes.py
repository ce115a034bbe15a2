"""Deletions and write-back as messages: what goes in comes out, and what cannot be is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.changes import decode_columns, decode_delete, encode_columns, encode_delete
from replaystore.wire.layout import encode_arrays

WHERE = rs.Filter(max_return=0.5, actors=(3, 1))


@pytest.mark.parametrize("episodes", [False, True])
@pytest.mark.parametrize(("numbers", "where"), [([5, 2**40], None), ([], None), (None, WHERE), (None, rs.Filter())])
def test_a_deletion_comes_back_as_it_went(episodes: bool, numbers: Any, where: Any) -> None:
    found = decode_delete(encode_delete("t", episodes=episodes, numbers=numbers, where=where))
    assert (found.table, found.episodes, found.where) == ("t", episodes, where)
    assert (None if found.numbers is None else found.numbers.tolist()) == numbers


def test_a_client_of_another_kind_may_send_only_the_header() -> None:
    message = pb.DeleteRequest(
        header=pb.DeleteHeader(table="t", filter_json='{"type": "Filter", "ended": "truncated"}')
    ).SerializeToString()
    found = decode_delete(message)
    assert (found.episodes, found.numbers, found.where) == (False, None, rs.Filter(ended="truncated"))


def header(**fields: Any) -> bytes:
    return bytes(pb.DeleteHeader(table="t", **fields).SerializeToString())


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (encode_arrays(header(), {"delete/step_ids": np.arange(2), "delete/episodes": np.arange(2)}), "must be one of delete/step_ids and"),
        (encode_arrays(header(), {"delete/rows": np.arange(2)}), "delete/rows must be one of"),
        (encode_arrays(header(), {"delete/step_ids": np.zeros(2)}), "'delete/step_ids' must be int64"),
        (encode_arrays(header(filter_json='{"type": "Filter"}'), {"delete/step_ids": np.arange(2)}), "must be empty where filter_json"),
        (encode_arrays(header(filter_json="{"), {}), "filter_json: not JSON"),
        (encode_arrays(header(filter_json='{"type": "Filter", "min_length": -1}'), {}), "min_length=-1"),
    ],
)
def test_a_malformed_deletion_is_refused(message: bytes, text: str) -> None:
    with pytest.raises(rs.InvalidArgument, match=text):
        decode_delete(message)


def test_columns_come_back_as_they_went() -> None:
    values = {"advantage": np.array([0.5, 2.0]), "features/a": np.ones((2, 3), "u1")}
    table, ids, found = decode_columns(encode_columns("t", [7, 2**40], values))
    assert (table, ids.tolist()) == ("t", [7, 2**40])
    assert found.keys() == values.keys()
    for name, array in values.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"values/a": np.arange(2)}, "'update/step_ids' is missing"),
        ({"update/step_ids": np.zeros(2)}, "'update/step_ids' must be int64"),
        ({"update/step_ids": np.arange(2), "value/a": np.arange(2)}, "'value/a' is not known here"),
    ],
)
def test_malformed_columns_are_refused(arrays: dict[str, Any], text: str) -> None:
    with pytest.raises(rs.InvalidArgument, match=text):
        decode_columns(encode_arrays(bytes(pb.UpdateColumnsHeader(table="t").SerializeToString()), arrays))


def test_values_that_no_message_carries_are_refused_by_the_sender() -> None:
    with pytest.raises(rs.InvalidArgument, match="column 'note' holds <U1"):
        encode_columns("t", [1], {"note": ["x"]})


def test_columns_in_another_byte_order_arrive_as_their_values() -> None:
    values = {"advantage": np.array([0.5, 2.0], ">f4"), "features/a": np.array([[1, 2**40], [3, 4]], ">i8").T}
    _, _, found = decode_columns(encode_columns("t", np.array([7, 2**40], ">i8"), values))
    for name, array in values.items():
        assert found[name].dtype == array.dtype.newbyteorder("<")
        assert found[name].tolist() == array.tolist()
