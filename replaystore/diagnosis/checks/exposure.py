"""Who could come in: addresses without TLS, secrets that others can read, certificates that run out; whether both sides fit together."""

from __future__ import annotations

from collections.abc import Iterator

from replaystore.diagnosis.facts import ERROR, NOTE, WARNING, Facts, Finding
from replaystore.diagnosis.words import duration
from replaystore.server.address import is_loopback, parse_address
from replaystore.wire.methods import PROTOCOL

EXPIRES_S = 30 * 86_400.0


def network(facts: Facts) -> Iterator[Finding]:
    """Other machines can reach the server unprotected.

    It listens at an address that is not this machine's alone. Without tokens or client certificates everybody there may read, write and
    drop tables; without TLS everybody on the way may read tokens and data. Serve with `--token-file`, `--tls-cert` and `--tls-key`
    (docs/SECURITY.md), or listen on 127.0.0.1 and forward the port with `ssh -L`.
    """
    status = facts.status
    if status is None:
        return
    public = [address for address in status.addresses if not address.startswith("unix:") and not is_loopback(parse_address(address)[0])]
    if not public:
        return
    where = ", ".join(public)
    if not status.authenticated:
        found = f"everybody who reaches {where} may read, write and drop tables: callers are not asked who they are"
        yield Finding(ERROR, found, "serve with --token-file FILE --tls-cert FILE --tls-key FILE, or with --listen 127.0.0.1:PORT")
    if not status.encrypted:
        carried = "tokens and data" if status.authenticated else "data"
        yield Finding(WARNING, f"{carried} travel to {where} unencrypted", "serve with --tls-cert FILE --tls-key FILE")


def token_file(facts: Facts) -> Iterator[Finding]:
    """Others can read the tokens.

    The file given as `--token-file` cannot be read by this user, or can be by others than its owner: whoever reads it can do what its
    tokens may. Secrets that an orchestrator mounts are often readable by a group, which is a note.
    """
    file = facts.token_file
    if file is None:
        return
    if file.problem:
        yield Finding(ERROR, file.problem, "name a file that this user can read: --token-file FILE")
    elif file.mode & 0o007:
        yield Finding(
            ERROR, f"{file.path} may be read or changed by everybody (mode {file.mode:04o})", f"chmod 600 {file.path}; then new tokens"
        )
    elif file.mode & 0o070:
        yield Finding(NOTE, f"{file.path} may be read by its group (mode {file.mode:04o})", f"if that is not meant: chmod 600 {file.path}")


def certificates(facts: Facts) -> Iterator[Finding]:
    """A certificate has run out, or will soon.

    Of the files given as `--tls-cert`: a certificate is not valid any more, not yet, or only for 30 days more. Clients refuse it then.
    Have a new one made and put it in the same place: the server reads it again without a restart.
    """
    for one in facts.certificates:
        left_s = one.not_after - facts.time
        whose = f"the certificate of {one.subject or 'nobody'} in {one.path}"
        if one.problem:
            yield Finding(ERROR, f"{one.path}: {one.problem}", "name a PEM file with certificates: --tls-cert FILE")
        elif left_s <= 0:
            yield Finding(ERROR, f"{whose} ran out {duration(-left_s)} ago", "put a new one in its place")
        elif one.not_before > facts.time:
            yield Finding(
                ERROR,
                f"{whose} is valid only in {duration(one.not_before - facts.time)}",
                "see the clock (timedatectl), or put another in its place",
            )
        elif left_s < EXPIRES_S:
            yield Finding(WARNING, f"{whose} runs out in {duration(left_s)}", "put a new one in its place; no restart is needed")


def metrics(facts: Facts) -> Iterator[Finding]:
    """Metrics are off.

    Nobody will be told when the disk fills up or commits lag: `replaystore doctor` sees only the moment at which it runs. Serve with
    `--metrics 127.0.0.1:9464` and let Prometheus read it (docs/METRICS.md).
    """
    if facts.status is not None and not facts.status.metrics:
        yield Finding(NOTE, "the server serves no metrics", "serve with --metrics 127.0.0.1:9464")


def versions(facts: Facts) -> Iterator[Finding]:
    """Server and client are of different versions.

    Within a protocol version they work together; what the older one does not know yet is missing or slower. With another protocol
    version they do not. Upgrade the older one.
    """
    if facts.protocol and facts.protocol != PROTOCOL:
        found = f"the server speaks protocol {facts.protocol}, this client {PROTOCOL}"
        yield Finding(ERROR, found, "pip install --upgrade replaystore, where it is older")
    if facts.server_version and facts.server_version != facts.version:
        found = f"the server is replaystore {facts.server_version}, this client {facts.version}"
        yield Finding(NOTE, found, "pip install --upgrade replaystore, where it is older")
