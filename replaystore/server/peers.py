"""Peers that are gone without a word: pings find out, and what they held is given back. And peers that ping too much."""

from __future__ import annotations

PING_EVERY_S = 30.0
"""Without a sign of life for so long, a client is asked for one, also between calls."""

PING_TIMEOUT_S = 20.0
"""Without an answer for so long, its machine is taken for gone: its calls end, its place in the line, its pins and its loans go."""

LEAST_PING_S = 0.5
"""Clients may ping so often; ours do every 20 s. Pings beside data are not counted."""

MAX_PING_STRIKES = 20
"""So many pings that come faster end a connection (``too_many_pings``); a ping costs little, but there is no end to them."""


def keepalive_options() -> list[tuple[str, int]]:
    """For a gRPC server.

    Connections have no greatest age: there is one server to a store, so nothing is to be spread anew; a certificate that was renewed
    counts for those that connect from then on, and a token that was revoked ends its calls by itself.
    """
    return [
        ("grpc.keepalive_time_ms", round(1000 * PING_EVERY_S)),
        ("grpc.keepalive_timeout_ms", round(1000 * PING_TIMEOUT_S)),
        ("grpc.http2.ping_timeout_ms", round(1000 * PING_TIMEOUT_S)),  # of other pings, one of which may be on its way instead
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", round(1000 * LEAST_PING_S)),
        ("grpc.http2.max_ping_strikes", MAX_PING_STRIKES),
    ]
