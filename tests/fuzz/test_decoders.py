"""Whatever bytes come, the decoders either understand them or raise an error that names the field; they allocate no more than came."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from replaystore.errors import InvalidArgument
from replaystore.schema.columns import check_name
from replaystore.v1 import data_pb2 as data
from replaystore.v1 import service_pb2 as service
from replaystore.wire.blocks import decode_block
from replaystore.wire.framing import split
from replaystore.wire.methods import MAX_PARAMETERS_BYTES
from replaystore.wire.parameters import Assembly
from replaystore.wire.records import decode_changes, parse_config
from replaystore.wire.samples import decode_sample_reply, decode_sample_request, decode_update, parse_message, request_number

from .conftest import count, seed
from .mutations import CONFIG, names_a_field, noise, rss_bytes, spoil, valid_calls

SLOWEST_S = 10.0
"""No message may keep a server's event loop busy for so long, on a busy machine with two cores at that."""


def append(message: bytes) -> None:
    parts = split(message)
    header = parse_message(data.AppendHeader, parts.header, "header")
    decode_block(parts, header.actor).check(CONFIG.columns)


def sample(message: bytes) -> None:
    try:
        decode_sample_request(message)
    finally:
        request_number(message)


def publish(message: bytes) -> None:
    assembly = Assembly(MAX_PARAMETERS_BYTES)
    assembly.add(message)
    check_name(assembly.header.name, "parameter set")
    assembly.arrays()


def create(message: bytes) -> None:
    request = parse_message(service.CreateTableRequest, message, "request")
    check_name(request.table, "table")
    config = parse_config(request.config_json)
    assert parse_config_again(config) == config


def parse_config_again(config: Any) -> Any:
    return type(config).from_json(config.to_json())


def alter(message: bytes) -> None:
    decode_changes(parse_message(service.AlterTableRequest, message, "request"))


def plain(kind: Any) -> Callable[[bytes], None]:
    return lambda message: parse_message(kind, message, "request") and None


DECODERS: dict[str, Callable[[bytes], object]] = {
    "Append": append,
    "Sample": sample,
    "UpdatePriorities": decode_update,
    "CreateTable": create,
    "AlterTable": alter,
    "PublishParameters": publish,
}


@pytest.mark.parametrize("method", DECODERS)
def test_decoders_understand_or_name_the_field(method: str) -> None:
    rng = random.Random(f"{seed()} {method}")
    decode = DECODERS[method]
    before, understood, refused, nameless = rss_bytes(), 0, 0, list[str]()
    for number in range(count(4000)):
        good = rng.choice(valid_calls(rng)[method]())
        message = noise(rng) if number % 10 == 0 else spoil(rng, good)
        started = time.monotonic()
        try:
            decode(message)
            understood += 1
        except InvalidArgument as error:
            nameless += [] if names_a_field(str(error)) else [str(error)]
            refused += 1
        assert time.monotonic() - started < SLOWEST_S, (number, len(message), message[:100])
    assert not nameless
    assert understood > 0
    assert refused > 0
    assert rss_bytes() - before < 200 << 20


def test_replies_cannot_hurt_a_client() -> None:
    rng = random.Random(seed())
    good = [one for _ in range(20) for one in valid_calls(rng)["Sample"]()]
    nameless = []
    for _ in range(count(2000)):
        message = spoil(rng, rng.choice(good))
        try:
            decode_sample_reply(message)
        except InvalidArgument as error:
            nameless += [] if names_a_field(str(error)) else [str(error)]
    assert not nameless
