"""How many tables and sets of parameters a server keeps, and how many threads it has."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import replaystore as rs
from replaystore.store import Store
from tests.server.conftest import config

from .conftest import Serving


def test_tables(serving: Serving, store: Store) -> None:
    bounds = serving(max_tables=2)
    client = serving.client()
    client.create_table("a", config())
    client.create_table("b", config())
    client.create_table("b", config(), exist_ok=True)
    with pytest.raises(rs.AlreadyExists):
        client.create_table("b", config())
    for call in (lambda: client.create_table("c", config()), lambda: client.fork("a", "c")):
        with pytest.raises(rs.Overloaded) as caught:
            call()
        assert str(caught.value) == (
            "table 'c' cannot be made: there are 2 tables, and max_tables=2 allows no more: drop one, or start the server with a larger "
            "--max-tables"
        )
        assert caught.value.retry_after_s == 60.0
    assert bounds.refused_tables == 2
    client.drop_table("a")
    client.create_table("c", config())
    assert store.tables() == ["b", "c"]
    with bounds.making_table("d", ["b"]), bounds.making_table("d", ["b"]), pytest.raises(rs.Overloaded, match="there are 2 tables"):
        bounds.making_table("e", ["b"]).__enter__()  # also while they are only being made


def test_parameter_sets(serving: Serving) -> None:
    bounds = serving(max_parameter_sets=2, max_parameters_total_bytes=1000)
    client = serving.client()
    client.publish_parameters("a", {"w": np.zeros(300, np.uint8)})
    client.publish_parameters("b", {"w": np.zeros(300, np.uint8)})
    with pytest.raises(rs.Overloaded) as caught:
        client.publish_parameters("c", {"w": np.zeros(1, np.uint8)})
    assert str(caught.value) == (
        "parameter set 'c' cannot be kept: there are 2 sets, and max_parameter_sets=2 allows no more: publish under a name that is there, "
        "or start the server with a larger --max-parameter-sets"
    )
    assert caught.value.retry_after_s == 60.0
    with pytest.raises(rs.Overloaded) as caught:
        client.publish_parameters("b", {"w": np.zeros(701, np.uint8)})
    assert str(caught.value) == (
        "parameter set 'b' of 701 bytes cannot be kept: the other sets have 300 bytes, and max_parameters_total_bytes=1000 allows no more "
        "for all together: publish fewer or smaller sets, or start the server with a larger --max-parameters-total-bytes"
    )
    assert client.publish_parameters("b", {"w": np.zeros(700, np.uint8)}) == 2
    assert client.publish_parameters("b", {"w": np.zeros(10, np.uint8)}) == 3
    assert bounds.refused_parameters == 2
    with bounds.publishing("x", 600, {"a": 300}), pytest.raises(rs.Overloaded, match="the other sets have 600 bytes"):
        bounds.publishing("a", 500, {"a": 300, "x": 100}).__enter__()  # also while they are only coming


def test_a_parameter_set_that_is_too_large(serving: Serving) -> None:
    serving(max_parameters_bytes=1000)
    client = serving.client()
    with pytest.raises(rs.InvalidArgument) as caught:
        client.publish_parameters("policy", {"w": np.zeros(1001, np.uint8)})
    assert str(caught.value) == (
        "parameter set 'policy' has 1001 bytes (header.payload_bytes), and at most 1000 are taken: publish fewer or smaller arrays, or "
        "start the server with a larger --max-parameters-bytes"
    )
    assert client.publish_parameters("policy", {"w": np.zeros(1000, np.uint8)}) == 1


def test_threads_are_as_many_as_were_asked_for(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, int] = {}

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers: int, name: str) -> None:
            made[name] = workers
            super().__init__(workers, name)

    monkeypatch.setattr("replaystore.server.service.ThreadPoolExecutor", Pool)
    serving(threads=2, waiting_threads=3)
    assert serving.client().tables() == []
    assert made == {"replaystore-copy": 2, "replaystore-disk": 3}
