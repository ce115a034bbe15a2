from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

import replaystore as rs
from replaystore.server.options import ServerOptions
from replaystore.server.thread import ServerThread, start_in_thread
from replaystore.store import Store
from replaystore.wire.errors import ERROR_KEY
from replaystore.wire.methods import path_of
from replaystore.wire.samples import decode_sample_reply
from tests.fuzz.mutations import CONFIG, SHAPES, Spoilable, valid_calls

PATIENCE_S = 60.0


def secret(name: str) -> str:
    return f"secret-of-{name}-0123456789"


def write_private(path: Path, text: str) -> Path:
    """A file that only its owner can read, complete from its first moment, as it is replaced by careful tools."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text)
    fresh.chmod(0o600)
    os.replace(fresh, path)
    return path


def tokens_text(**roles: dict[str, str]) -> str:
    """A token file: by name of a token, patterns and roles."""
    lines = []
    for name, given in roles.items():
        pairs = ", ".join(f'"{pattern}" = "{role}"' for pattern, role in given.items())
        lines += [f"[token.{name}]", f'secret = "{secret(name)}"', f"roles = {{ {pairs} }}"]
    return "\n".join(lines)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def messages(method: str, number: int = 1) -> list[Spoilable]:
    """A valid call's messages: table "t", parameter set "policy", new tables "made" and "fork-…"."""
    return valid_calls(random.Random(number))[method]()


class Caller:
    """Raw calls with one token."""

    def __init__(self, address: str, token: str | None) -> None:
        self.channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def refusal(self, method: str, sent: list[bytes]) -> tuple[str, str]:
        """Kind and text of the error that answers a call, or of the first one in its replies; two empty strings without."""
        shape = SHAPES.get(method, "unary_unary")
        call = getattr(self.channel, shape)(path_of(method))
        request: Any = iter(sent) if shape.startswith("stream") else sent[0]
        try:
            reply = call(request, timeout=PATIENCE_S, metadata=self.metadata)
            replies = list(reply) if shape.endswith("stream") else [reply]
        except grpc.RpcError as error:
            kind = next((value for key, value in error.trailing_metadata() or () if key == ERROR_KEY), error.code().name)
            return kind, error.details() or ""
        if method == "Sample":
            for message in replies:
                header, _ = decode_sample_reply(message)
                if header.HasField("error"):
                    return header.error.kind, header.error.message
        return "", ""


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with rs.open(tmp_path / "data") as opened:
        opened.create_table("t", CONFIG)
        yield opened


@pytest.fixture
def serve(store: Store) -> Iterator[Callable[..., ServerThread]]:
    """Serves `store` with options; all servers end with the test."""
    running = []

    def start(listen: str | None = "127.0.0.1:0", unix: str | None = None, **options: Any) -> ServerThread:
        running.append(start_in_thread(store, listen, unix, ServerOptions(**options)))
        return running[-1]

    yield start
    for server in running:
        server.stop()
