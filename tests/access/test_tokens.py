"""Token files: what they mean, what is wrong with them, who may read them, and that they are read again."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import replaystore as rs
from replaystore.server.access.callers import Caller, Quotas
from replaystore.server.access.files import read_file
from replaystore.server.access.roles import Role
from replaystore.server.access.tokens import Tokens, parse_tokens
from tests.access.conftest import secret, tokens_text, write_private

TABLE = f"""
# who may do what
[token.learner-1]
secret = "{secret("learner-1")}"
roles = {{ "pong*" = "write", "*" = "read" }}
steps_per_s = 2.5e4
bytes_per_s = 1000000
max_bytes = 5_000_000_000
max_tables = 3

[token."actor 7"]
sha256 = "{hashlib.sha256(secret("actor-7").encode()).hexdigest().upper()}"
roles = {{ pong = "write" }}

[token.watcher]
certificate = "watcher.example"
roles = {{ "*" = "read" }}
"""


def test_a_table_of_tokens() -> None:
    learner, actor, watcher = parse_tokens(TABLE, "here")
    assert (learner.name, actor.name, watcher.name) == ("learner-1", "actor 7", "watcher")
    assert learner.quotas == Quotas(2.5e4, 1000000, 5_000_000_000, 3)
    assert actor.quotas == Quotas()
    assert [learner.role_for(name) for name in ("pong-1", "other")] == [Role.write, Role.read]
    assert [actor.role_for(name) for name in ("pong", "pong-1")] == [Role.write, Role.none]
    assert "secret-of" not in repr((learner, actor, watcher))


def test_plain_tokens_may_do_everything() -> None:
    text = f"# comment\n\n  {secret('a')}\n{secret('b')}  \n"
    first, second = parse_tokens(text, "here")
    assert (first.name, second.name) == ("line-3", "line-4")
    assert first.everything
    assert second.everything


def entry(**lines: str) -> str:
    given = {"secret": f'"{secret("x")}"', "roles": '{ "*" = "read" }', **lines}
    return "[token.x]\n" + "\n".join(f"{key} = {value}" for key, value in given.items() if value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "here has no tokens, so nobody could connect: write one, 16 to 512 letters"),
        ("# nothing\n", "here has no tokens"),
        ("short", "here, line 1: a token must be 16 to 512 letters, digits or -._~+/= (openssl rand -hex 32 makes one)"),
        (f"{secret('a')}\ntwo words are no token", "here, line 2: a token must be"),
        (f"{secret('a')}\n{secret('a')}", "here: 'line-1' and 'line-2' have the same token or certificate: give each its own"),
        ("[token.x\n", "here is not valid TOML: "),
        ("[tokens.x]\n", "here: 'tokens' means nothing here; there is token (did you mean token?)"),
        ("[[token]]\n", "here: each token needs a table of its own, for example [token.learner-1]"),
        (entry(secret=""), "here, [token.x] must have one of secret, sha256, certificate, and has none"),
        (entry(certificate='"cn"'), "must have one of secret, sha256, certificate, and has secret and certificate"),
        (entry(secret='"short"'), "here, [token.x]: secret must be 16 to 512 letters"),
        (entry(secret="7"), "here, [token.x]: secret must be a string"),
        (entry(secret="", sha256='"abc"'), "here, [token.x]: sha256 must be 64 hexadecimal digits: printf %s TOKEN | sha256sum"),
        (entry(secret="", certificate='""'), "certificate='' must be the common name of a client's certificate"),
        (entry(roles=""), "here, [token.x]: roles must say what it may do with which tables"),
        (entry(roles='"admin"'), 'roles must say what it may do with which tables, for example roles = { "pong*" = "write" }'),
        (entry(roles='{ "*" = "writer" }'), "roles: '*' = 'writer' must be one of none, read, write, admin (did you mean write?)"),
        (entry(roles='{ "*" = 3 }'), "roles: '*' = 3 must be one of none, read, write, admin"),
        (entry(roles='{ "a*b" = "read" }'), "roles: 'a*b' must be a table's name, the beginning of names and *, or * alone"),
        (entry(roles='{ "../x" = "read" }'), "roles: '../x' must be a table's name"),
        (entry(role='"admin"'), "here, [token.x]: 'role' means nothing here; there is secret, sha256, certificate, roles"),
        (entry(step_per_s="5"), "(did you mean steps_per_s?)"),
        (entry(steps_per_s="0"), "here, [token.x]: steps_per_s=0 must be a number above 0"),
        (entry(steps_per_s="inf"), "steps_per_s=inf must be a number above 0"),
        (entry(steps_per_s="nan"), "steps_per_s=nan must be a number above 0"),
        (entry(steps_per_s="true"), "steps_per_s=True must be a number above 0"),
        (entry(max_tables="2.5"), "max_tables=2.5 must be a whole number above 0"),
        (entry(max_bytes='"1 GB"'), "max_bytes='1 GB' must be a whole number above 0"),
        ('[token."a\\u0007"]\nsecret = "x"', "a token's name must be 1 to 128 printable characters"),
    ],
)
def test_what_is_wrong_with_a_file(text: str, message: str) -> None:
    with pytest.raises(rs.InvalidArgument) as wrong:
        parse_tokens(text, "here")
    assert message in str(wrong.value)
    assert "secret-of" not in str(wrong.value)


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.text(max_size=60), st.text("[token.x]\nsecret=\"roles{}*#' 0123456789abcdef", max_size=80)))
def test_any_text_is_tokens_or_refused(text: str) -> None:
    try:
        callers = parse_tokens(text, "here")
    except rs.InvalidArgument:
        return
    assert callers


def test_too_many_tokens() -> None:
    with pytest.raises(rs.InvalidArgument, match="4097 tokens, at most 4096"):
        parse_tokens("\n".join(f"{number:020}" for number in range(4097)), "here")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o660, 0o601])
def test_a_file_that_others_can_read(tmp_path: Path, mode: int) -> None:
    path = write_private(tmp_path / "tokens", secret("a"))
    path.chmod(mode)
    with pytest.raises(rs.PermissionDenied) as refused:
        Tokens(path)
    assert str(refused.value) == (
        f"token file {path} has the mode {mode:03o}, so others than its owner can read or change it: chmod 600 {path}"
    )


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_of_its_owner_alone(tmp_path: Path, mode: int) -> None:
    path = write_private(tmp_path / "tokens", secret("a"))
    path.chmod(mode)
    assert Tokens(path).of_token(secret("a"))


@pytest.mark.parametrize(("mode", "fine"), [(0o440, True), (0o640, True), (0o444, False), (0o460, False)])
def test_a_secret_that_is_mounted_belongs_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, fine: bool) -> None:
    path = write_private(tmp_path / "tokens", secret("a"))
    path.chmod(mode)
    monkeypatch.setattr("replaystore.server.access.files.os.geteuid", lambda: os.getuid() + 1)
    if fine:
        assert read_file(path, "token file", secret=True)
    else:
        with pytest.raises(rs.PermissionDenied, match=r"in Kubernetes defaultMode: 0440"):
            read_file(path, "token file", secret=True)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(rs.InvalidArgument, match="cannot be read: No such file or directory"):
        Tokens(tmp_path / "nowhere")
    with pytest.raises(rs.InvalidArgument, match="is no file"):
        Tokens(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(rs.InvalidArgument, match="is no file"):  # and it is not waited for
        Tokens(tmp_path / "pipe")
    large = write_private(tmp_path / "large", "#" * ((1 << 20) + 1))
    with pytest.raises(rs.InvalidArgument, match="1048576 are the most"):
        Tokens(large)
    (tmp_path / "binary").write_bytes(b"\xff\xfe" * 20)
    (tmp_path / "binary").chmod(0o600)
    with pytest.raises(rs.InvalidArgument, match="is not text in UTF-8"):
        Tokens(tmp_path / "binary")
    with pytest.raises(rs.InvalidArgument, match="tokens are given twice"):
        Tokens(tmp_path / "large", secret("a"))


def test_whose_token_it_is(tmp_path: Path) -> None:
    tokens = Tokens(None, TABLE)
    for _ in range(2):  # the second time it is known
        assert name_of(tokens.of_token(secret("learner-1"))) == "learner-1"
        assert name_of(tokens.of_token(secret("actor-7"))) == "actor 7"
        for wrong in ("", "x", secret("learner-2"), secret("learner-1") + "0", secret("learner-1")[:-1], "\udcff", "watcher.example"):
            assert tokens.of_token(wrong) is None
    assert tokens.of_token(hashlib.sha256(secret("actor-7").encode()).hexdigest()) is None  # a digest is no token
    assert name_of(tokens.of_certificate("watcher.example")) == "watcher"
    assert tokens.of_certificate("learner-1") is None
    assert tokens.of_certificate("") is None
    assert not tokens.refresh()


def test_all_tokens_are_compared_with_an_unknown_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """No early end: how long it takes tells nothing about where it stands."""
    tokens, compared = Tokens(None, TABLE), []
    from replaystore.server.access import tokens as module

    real = module.hmac.compare_digest
    monkeypatch.setattr(module.hmac, "compare_digest", lambda a, b: compared.append(1) or real(a, b))
    tokens.of_token(secret("learner-1"))
    assert len(compared) == 3
    tokens.of_token("nobody")
    assert len(compared) == 6
    tokens.of_token(secret("learner-1"))  # found by a keyed digest
    assert len(compared) == 6


def test_a_file_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_private(tmp_path / "tokens.toml", tokens_text(a={"*": "read"}, b={"*": "read"}))
    tokens = Tokens(path)
    before = tokens.of_token(secret("a"))
    assert before is not None
    assert not tokens.refresh()
    write_private(path, tokens_text(a={"*": "write"}, c={"*": "read"}))
    assert tokens.refresh()
    after = tokens.again(before)
    assert after is not None
    assert after.role_for("t") is Role.write
    assert tokens.of_token(secret("b")) is None
    assert tokens.of_token(secret("c")) is not None
    write_private(path, "# the same\n" + tokens_text(a={"*": "write"}, c={"*": "read"}))
    assert not tokens.refresh()
    assert "read" in caplog.text


@pytest.mark.parametrize("how", ["broken", "empty", "gone", "open to all"])
def test_a_file_that_cannot_be_used_any_more_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str) -> None:
    path = write_private(tmp_path / "tokens.toml", tokens_text(a={"*": "read"}))
    tokens = Tokens(path)
    if how == "gone":
        path.unlink()
    elif how == "open to all":
        path.chmod(0o644)
    else:
        write_private(path, {"broken": "[token.a\n", "empty": ""}[how])
    with caplog.at_level(logging.ERROR):
        assert not tokens.refresh()
        assert not tokens.refresh()
    assert [record.message.startswith("the tokens known before stay in force: token file") for record in caplog.records] == [True]
    assert tokens.of_token(secret("a"))
    write_private(path, tokens_text(b={"*": "read"}))
    assert tokens.refresh()
    assert tokens.of_token(secret("a")) is None


def test_a_link_that_comes_to_lead_elsewhere(tmp_path: Path) -> None:
    """As Kubernetes replaces mounted secrets."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_private(tmp_path / name / "tokens", secret(name))
    (tmp_path / "now").symlink_to("a")
    (tmp_path / "tokens").symlink_to("now/tokens")
    tokens = Tokens(tmp_path / "tokens")
    (tmp_path / "next").symlink_to("b")
    os.replace(tmp_path / "next", tmp_path / "now")
    assert tokens.refresh()
    assert tokens.of_token(secret("b"))
    assert tokens.of_token(secret("a")) is None


def name_of(caller: Caller | None) -> str | None:
    return None if caller is None else caller.name


def test_the_example_of_the_page_is_a_token_file() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/SECURITY.md").read_text()
    learner, actors, dashboard = parse_tokens(page.partition("```toml\n")[2].partition("```")[0], "the page")
    assert (learner.name, actors.name, dashboard.name) == ("learner-1", "actors", "dashboard")
    assert actors.quotas == Quotas(50_000, 100_000_000, 500_000_000_000, 4)
