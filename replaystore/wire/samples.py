"""Sample requests and replies, and priority updates, to and from messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError, Message

from replaystore.errors import InvalidArgument
from replaystore.sampling import SampleRequest, check_as_of, priorities_of
from replaystore.schema.filters import FILTERS
from replaystore.schema.record import check_number, from_json, to_json
from replaystore.schema.selectors import FREE_SELECTORS, SELECTORS, FreeSelector
from replaystore.schema.views import VIEWS, Transition
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.errors import error_of
from replaystore.wire.framing import split
from replaystore.wire.layout import arrays_of, encode_arrays, take

Array = npt.NDArray[Any]

MAX_BATCHES = 1024
"""That one request may ask for."""

_MAX_CACHED_BYTES = 1 << 14  # what anybody may send must not fill the memory by way of a cache


@dataclass(frozen=True, slots=True)
class Updates:
    """Priority updates on their way."""

    step_ids: npt.NDArray[np.int64]
    """``(n,)``"""
    priorities: npt.NDArray[np.floating[Any]]
    """``(n,)`` float32 or float64, raw."""
    selector: str | None = None

    @classmethod
    def of(cls, step_ids: Any, priorities: Any, selector: str | None = None) -> Updates:
        """From anything array-like; InvalidArgument when it cannot be that."""
        if selector is not None and not isinstance(selector, str):
            raise InvalidArgument(f"selector={selector!r} must be the name of one of the table's selectors")
        return cls(*priorities_of(step_ids, priorities), selector)

    def arrays(self) -> dict[str, Array]:
        """By the names they have in a payload."""
        return {"update/step_ids": self.step_ids, "update/priorities": self.priorities}


@dataclass(frozen=True, slots=True)
class IncomingSample:
    """A SampleRequest message as the server understands it."""

    number: int
    table: str
    request: SampleRequest | None
    """None: only updates."""
    timeout_s: float
    notice_s: float
    updates: Updates | None
    step_ids: npt.NDArray[np.int64] | None = None
    """``(batch_size,)`` these anchors and no draw."""
    as_of: int | None = None
    """With `step_ids`: rows from this id on are not seen."""
    seeds: tuple[int | None, ...] = (None,)
    """Of each batch asked for; `request` has the first."""
    betas: tuple[float, ...] = (0.0,)
    query: bytes = b""
    """As it came: what is known of batches can be kept by it."""
    header: Any = None
    """The SampleHeader, for what it says of the local path."""

    @property
    def batches(self) -> int:
        """How many are asked for."""
        return len(self.seeds)


def parse_message(kind: Any, data: bytes, what: str) -> Any:
    """`data` as a message of the generated class `kind`, or InvalidArgument."""
    message: Message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise InvalidArgument(f"{what}: not a {kind.DESCRIPTOR.name} message ({error})") from None
    return message


def json_of(record: Any) -> str:
    """A schema record (view, selector, limiter …) as it travels."""
    return json.dumps(to_json(record), separators=(",", ":"), sort_keys=True)


def parse_json(text: str, what: str) -> Any:
    """The value of a JSON text, or InvalidArgument."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{what}: not JSON ({error})") from None


# -- requests


def encode_query(table: str, request: SampleRequest | None) -> bytes:
    """A SampleQuery; the same request gives the same bytes. None asks for no batch."""
    if request is None:
        return bytes(pb.SampleQuery(table=table).SerializeToString())
    query = pb.SampleQuery(table=table, batch_size=request.batch_size, view_json=json_of(request.view))
    if isinstance(request.selector, str):
        query.selector_name = request.selector
    elif request.selector is not None:
        query.selector_json = json_of(request.selector)
    if request.where is not None:
        query.filter_json = json_of(request.where)
    query.normalise_by_table = request.normalise == "table"
    if request.columns is not None:
        query.columns.SetInParent()
        query.columns.names.extend(request.columns)
    return bytes(query.SerializeToString())


def decode_query(encoded: bytes) -> tuple[str, SampleRequest | None]:
    """The table and what is asked of it; beta and seed come with each message's header."""
    return _decode_query_cached(encoded) if len(encoded) <= _MAX_CACHED_BYTES else _decode_query(encoded)


def _decode_query(encoded: bytes) -> tuple[str, SampleRequest | None]:
    query = parse_message(pb.SampleQuery, encoded, "query")
    if not query.batch_size:
        return query.table, None
    view = from_json(parse_json(query.view_json, "view_json"), VIEWS, "view") if query.view_json else Transition()
    selector: str | FreeSelector | None = None
    which = query.WhichOneof("selector")
    if which == "selector_name":
        selector = query.selector_name
    elif which == "selector_json":
        parsed = from_json(parse_json(query.selector_json, "selector_json"), SELECTORS, "selector")
        if not isinstance(parsed, FREE_SELECTORS):
            raise InvalidArgument(
                f"selector_json: a {type(parsed).__name__} selector needs an array in the table; name one of the table's selectors"
            )
        selector = parsed
    columns = tuple(query.columns.names) if query.HasField("columns") else None
    where = from_json(parse_json(query.filter_json, "filter_json"), FILTERS, "filter") if query.filter_json else None
    normalise = "table" if query.normalise_by_table else "batch"
    return query.table, SampleRequest(query.batch_size, view, selector, columns=columns, where=where, normalise=normalise)


_decode_query_cached = lru_cache(maxsize=512)(_decode_query)


def _decode_request(encoded: bytes, beta: float) -> tuple[str, SampleRequest | None]:
    table, request = decode_query(encoded)
    return table, None if request is None else replace(request, beta=beta)


_decode_request_cached = lru_cache(maxsize=512)(_decode_request)


def encode_sample_request(
    number: int,
    query: bytes,
    beta: float,
    seed: int | None,
    timeout_s: float,
    notice_s: float = 0.0,
    updates: Updates | None = None,
    step_ids: npt.NDArray[np.int64] | None = None,
    as_of: int | None = None,
    betas: Sequence[float] = (),
    seeds: Sequence[int] = (),
    local: bytes = b"",
) -> bytes:
    """A SampleRequest message; with several `betas` it asks for so many batches, each with its own of `seeds`, or none with one.

    `local` is the part of the header that is about the local path, encoded.
    """
    header = pb.SampleHeader(request=number, beta=beta, timeout_s=timeout_s, notice_s=notice_s, seed=seed, as_of=check_as_of(as_of) or 0)
    if len(betas) > 1:
        header.batches = len(betas)
        header.betas.extend(betas)
        header.seeds.extend(seeds)
    arrays = {} if updates is None else updates.arrays()
    if updates is not None and updates.selector is not None:
        header.update_selector = updates.selector
    if step_ids is not None:
        arrays["at/step_ids"] = step_ids
    return encode_arrays(header.SerializeToString() + local, arrays, query)


def decode_sample_request(message: bytes) -> IncomingSample:
    """Checks and takes apart what a client sent."""
    parts = split(message)
    header = parse_message(pb.SampleHeader, parts.header, "header")
    small = len(parts.query) <= _MAX_CACHED_BYTES
    table, request = (_decode_request_cached if small else _decode_request)(parts.query, header.beta)
    seeds: tuple[int | None, ...] = (header.seed if header.HasField("seed") else None,)
    betas: tuple[float, ...] = (header.beta,)
    if header.batches > 1 or header.betas or header.seeds:
        seeds, betas = _each(header)
    if request is not None and (seeds[0] is not None or betas[0] != request.beta):
        request = replace(request, beta=betas[0], seed=seeds[0])
    arrays = arrays_of(parts) if parts.layout else {}
    step_ids = take(arrays, "at/step_ids", "int64") if "at/step_ids" in arrays else None
    if step_ids is not None and len(step_ids) != (0 if request is None else request.batch_size):
        raise InvalidArgument(f"payload: {len(step_ids)} at/step_ids, but batch_size is {0 if request is None else request.batch_size}")
    if len(seeds) > 1 and (request is None or step_ids is not None):
        raise InvalidArgument(f"header.batches={len(seeds)} goes with draws, not with {'updates alone' if request is None else 'step ids'}")
    updates = None
    if arrays.keys() - {"at/step_ids"} or (parts.layout and step_ids is None):
        updates = _updates(arrays, header.update_selector if header.HasField("update_selector") else None)
    as_of = check_as_of(header.as_of or None)
    return IncomingSample(
        header.request,
        table,
        request,
        header.timeout_s,
        header.notice_s,
        updates,
        step_ids,
        as_of,
        seeds,
        betas,
        parts.query,
        header,
    )


def _each(header: Any) -> tuple[tuple[int | None, ...], tuple[float, ...]]:
    """Seed and beta of each batch of a request for several."""
    batches = max(1, header.batches)
    check_number("header.batches", batches, 1, MAX_BATCHES, whole=True)
    for name in ("betas", "seeds"):
        if len(getattr(header, name)) not in (0, batches):
            raise InvalidArgument(f"header.{name}: {len(getattr(header, name))} numbers for batches={batches}; give one for each, or none")
    if header.HasField("seed"):
        raise InvalidArgument(f"header.seed={header.seed} with batches={batches}: give each batch its own in header.seeds")
    for beta in header.betas:
        check_number("beta", beta, 0.0, 100.0)
    for seed in header.seeds:
        check_number("seed", seed, 0, 2**63 - 1, whole=True)
    return tuple(header.seeds) or (None,) * batches, tuple(header.betas) or (header.beta,) * batches


def request_number(message: bytes) -> int:
    """Only the number of a request, for an error about the rest of it."""
    return int(parse_message(pb.SampleHeader, split(message).header, "header").request)


def _updates(arrays: Mapping[str, Array], selector: str | None) -> Updates:
    ids = take(arrays, "update/step_ids", "int64")
    values = take(arrays, "update/priorities", ("float32", "float64"))
    if len(ids) != len(values):
        raise InvalidArgument(f"payload: {len(ids)} update/step_ids but {len(values)} update/priorities")
    return Updates(ids, values, selector)


def encode_update(table: str, updates: Updates) -> bytes:
    """An UpdatePrioritiesRequest message."""
    header = pb.UpdatePrioritiesHeader(table=table, selector=updates.selector)
    return encode_arrays(header.SerializeToString(), updates.arrays())


def decode_update(message: bytes) -> tuple[str, Updates]:
    """Table and updates of an UpdatePrioritiesRequest."""
    parts = split(message)
    header = parse_message(pb.UpdatePrioritiesHeader, parts.header, "header")
    return header.table, _updates(arrays_of(parts), header.selector if header.HasField("selector") else None)


# -- replies


def check_reply_size(size: int, limit_bytes: int, batch_size: int) -> None:
    """InvalidArgument when a batch of `size` bytes would not fit a message."""
    if size > limit_bytes:
        raise InvalidArgument(
            f"batch_size={batch_size}: the batch would have {size} bytes, a message takes at most {limit_bytes}: "
            f"ask for at most {max(1, batch_size * limit_bytes // size)} at once, or for fewer columns"
        )


def decode_sample_reply(message: bytes) -> tuple[Any, dict[str, Array]]:
    """The SampleReplyHeader and the batch's fields (none with an error or without a batch)."""
    parts = split(message)
    header = parse_message(pb.SampleReplyHeader, parts.header, "header")
    return header, arrays_of(parts, writable=True) if parts.layout else {}


def split_batches(fields: Mapping[str, Array], batches: int) -> list[dict[str, Array]]:
    """The fields of each of the batches that follow each other in a reply: views.

    Raises:
        InvalidArgument: an array cannot be split into so many equal parts.
    """
    if batches <= 1:
        return [dict(fields)]
    found: list[dict[str, Array]] = [{} for _ in range(batches)]
    for name, array in fields.items():
        items = len(array) // batches if array.ndim else 0
        if not array.ndim or items * batches != len(array):
            raise InvalidArgument(f"payload: field {name!r} {array.shape} does not hold {batches} batches one after the other")
        for index, part in enumerate(found):
            part[name] = array[index * items : (index + 1) * items]
    return found


def raise_reply_error(header: Any) -> None:
    """Raises what a SampleReplyHeader reports."""
    if header.HasField("error"):
        raise error_of(header.error.kind, "INTERNAL", header.error.message)
