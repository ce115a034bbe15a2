"""The store's files: can they be read and written, by whom, on what kind of file system, in which format."""

from __future__ import annotations

from collections.abc import Iterator

from replaystore.diagnosis.facts import ERROR, NOTE, WARNING, Facts, Finding
from replaystore.diagnosis.words import size
from replaystore.storage.layout import FORMAT_VERSION

VOLATILE = ("tmpfs", "ramfs")
REMOTE = (
    "nfs",
    "nfs3",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "ceph",
    "glusterfs",
    "lustre",
    "afs",
    "fuse.sshfs",
    "fuse.s3fs",
    "fuse.gcsfuse",
    "virtiofs",
)
LAYERED = ("overlay", "aufs")


def tables_readable(facts: Facts) -> Iterator[Finding]:
    """A table cannot be read.

    Its files are damaged, missing, of a newer format or not this user's to read, or the server does not let this caller see it.
    `replaystore verify DIR` says what is wrong with the files, `replaystore repair DIR --dry-run` what could be mended while no server
    runs.
    """
    for table in facts.tables:
        if table.problem:
            yield Finding(ERROR, table.problem, f"replaystore verify {_folder(facts)} --table {table.name}", table.name)


def inserts_refused(facts: Facts) -> Iterator[Finding]:
    """A table refuses inserts.

    A commit failed or a file was changed from outside; what was acknowledged before is safe as far as the disk is. Mend the disk, then
    restart the server; sampling goes on until then.
    """
    for table in facts.tables:
        if table.failure:
            yield Finding(ERROR, table.failure, f"mend the disk, restart the server, then replaystore verify {_folder(facts)}", table.name)


def format_version(facts: Facts) -> Iterator[Finding]:
    """A table's format is newer or older than this program's.

    A newer one is not read: use the replaystore that wrote it, or a later one. An older one is read and written as it is.
    """
    for table in facts.tables:
        version = table.format_version
        if version is not None and version > FORMAT_VERSION:
            found = f"format version {version}; this replaystore ({facts.version}) reads up to {FORMAT_VERSION}"
            yield Finding(ERROR, found, "pip install --upgrade replaystore", table.name)
        elif version is not None and version < FORMAT_VERSION:
            yield Finding(
                NOTE, f"format version {version}, older than {FORMAT_VERSION}", "nothing: it is read and written as it is", table.name
            )


def recovery_pending(facts: Facts) -> Iterator[Finding]:
    """A crash is still to be recovered from.

    No process has the store open, and the last one that had did not close it: it was killed, or the machine went down. The next start
    checks the newest rows and goes on where it was. Nothing acknowledged is lost by a killed process. Start the server and see its log,
    or run `replaystore verify DIR` first.
    """
    if facts.folder is None or facts.folder.live:
        return
    names = [table.name for table in facts.tables if table.clean is False]
    if names:
        found = f"nobody has the store open, and the last one who had did not close {', '.join(names)}"
        yield Finding(
            WARNING, found, f"replaystore serve --path {facts.folder.path} recovers it; replaystore verify {facts.folder.path} looks first"
        )


def filesystem(facts: Facts) -> Iterator[Finding]:
    """The file system does not keep what a store needs.

    `tmpfs` forgets everything with the machine. On network file systems locks may not be kept, pages mapped by two machines differ, and
    a lost server kills the process that touches a page of it. A container's own layer goes with the container. Use a local disk: ext4,
    xfs or btrfs, in containers as a volume.
    """
    kind = facts.disk.filesystem if facts.disk is not None else ""
    path = _folder(facts)
    if kind in VOLATILE:
        yield Finding(WARNING, f"{path} is on {kind}: it is gone when the machine goes down", "move the store to a disk")
    elif kind in REMOTE:
        found = f"{path} is on {kind}, a network file system: locks and mapped files are not safe there"
        yield Finding(WARNING, found, "move the store to a local disk and let others connect: replaystore serve")
    elif kind in LAYERED:
        yield Finding(
            WARNING, f"{path} is on {kind}, the container's own layer: it goes with the container", "mount a volume at the store's folder"
        )


def permissions(facts: Facts) -> Iterator[Finding]:
    """Others can change the store, or its owner cannot.

    The folder may be written by everybody (or by a group), so anybody on the machine can change rows behind the server's back; or
    whoever runs `doctor` may not write it and could not serve it; or the server's socket takes callers other than its owner.
    """
    folder, socket = facts.folder, facts.socket
    if folder is not None:
        if folder.mode & 0o002:
            found = f"{folder.path} may be written by everybody (mode {folder.mode:04o})"
            yield Finding(WARNING, found, f"chmod o-w {folder.path}")
        elif folder.mode & 0o020:
            found = f"{folder.path} may be written by its group (mode {folder.mode:04o})"
            yield Finding(NOTE, found, f"if that is not meant: chmod g-w {folder.path}")
        if not folder.writable and not folder.live:
            owner = "its owner" if folder.owned else "you"
            yield Finding(
                NOTE,
                f"{folder.path} may not be written by {owner} (mode {folder.mode:04o})",
                f"to serve it: chmod u+rwx {folder.path}, as its owner",
            )
    if socket is not None and socket.mode & 0o077:
        found = f"the socket {socket.path} takes other users' connections (mode {socket.mode:04o})"
        yield Finding(WARNING, found, f"chmod 600 {socket.path}")


def chunk_fit(facts: Facts) -> Iterator[Finding]:
    """Chunk files are large beside the table.

    Rows leave the disk a whole file at a time. Where one file of a column holds more than a quarter of what retention keeps (rows whose
    size has no large factor in common with a page of 4096 bytes, in a small table), the disk holds up to so much more than the bounds
    say. Pad frames to a round size (84x84 to 96x96), or keep more rows.
    """
    for table in facts.tables:
        if table.description is None:
            continue
        config, most = table.description.config, table.description.config.retention.max_steps
        for name, column in config.columns.items():
            rows = table.description.rows_per_chunk.get(f"steps/{name}", 0)
            if most is not None and 4 * rows > most and rows * column.row_bytes > 64 << 20:
                found = f"one chunk file of {name} has {rows:,} rows ({size(rows * column.row_bytes)}), max_steps is {most:,}"
                yield Finding(
                    NOTE,
                    found,
                    f"rows of {column.row_bytes:,} bytes fit pages badly: pad them to a multiple of 512, or keep more rows",
                    table.name,
                )


def _folder(facts: Facts) -> str:
    if facts.folder is not None:
        return facts.folder.path
    return facts.where if facts.status is None else facts.status.path
