"""The bytes in docs/PROTOCOL.md are those that go to and fro."""

from __future__ import annotations

import re
from pathlib import Path

from replaystore import errors
from replaystore.wire.framing import ALIGNMENT_BYTES, MAX_OUTER_FIELDS, MAX_SMALL_BYTES, split
from replaystore.wire.layout import MAX_AXES, MAX_FIELDS, MAX_NAME_BYTES
from replaystore.wire.methods import MAX_MESSAGE_BYTES, MAX_PARAMETERS_BYTES, PROTOCOL
from replaystore.wire.samples import MAX_BATCHES
from tests.wire.exchange import BLOCK, requests, with_bytes

PAGE = Path(__file__).parents[2] / "docs" / "PROTOCOL.md"


def test_the_bytes_are_those_of_a_real_exchange() -> None:
    assert PAGE.read_text() == with_bytes(PAGE.read_text()), "python -m tests.wire.exchange docs/PROTOCOL.md"


def test_an_insert_a_sample_an_update_and_an_error_are_shown() -> None:
    names = {match[2] for match in BLOCK.finditer(PAGE.read_text())}
    assert names == {f"{name}{end}" for name in ("open", "block", "sample", "update", "wrong") for end in ("", "_reply")} | {"riding"}


def test_the_bytes_of_the_page_are_the_message() -> None:
    sent = requests()
    for match in BLOCK.finditer(PAGE.read_text()):
        if match[2] in sent:
            shown = re.findall(r"^ *((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:  |$)", match[0], re.MULTILINE)
            assert bytes.fromhex(" ".join(shown)) == sent[match[2]].SerializeToString(), match[2]


def test_payloads_of_the_page_begin_aligned() -> None:
    for name in ("block", "update", "riding"):
        assert split(requests()[name].SerializeToString()).payload_start % ALIGNMENT_BYTES == 0


def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    page = PAGE.read_text()
    assert (MAX_MESSAGE_BYTES, MAX_PARAMETERS_BYTES, MAX_SMALL_BYTES) == (256 << 20, 1 << 30, 1 << 20)
    assert f"| {MAX_FIELDS}, {MAX_AXES}, {MAX_NAME_BYTES} |" in page
    assert f"| batches of a request | {MAX_BATCHES} |" in page
    assert f"{MAX_OUTER_FIELDS} times" in page
    assert f"`GetServerInfo.protocol` is {PROTOCOL}." in page


def test_every_error_of_a_server_is_in_the_table() -> None:
    rows = [line.split("|")[1:3] for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    for name, kind in errors.all_errors().items():
        if kind.__module__ == errors.__name__ and kind is not errors.DeadlineExceeded:  # which is the client's
            assert any(kind.grpc_code in codes and f"`{name}`" in kinds for codes, kinds in rows), name
    assert any("UNAUTHENTICATED" in codes and "`PermissionDenied`" in kinds for codes, kinds in rows)
