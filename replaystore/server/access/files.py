"""Files with secrets: read only when nobody else can read them, and read again when they change."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from replaystore.errors import InvalidArgument, PermissionDenied

Signature = tuple[int, ...]
"""Changes when a file does."""

MAX_BYTES = 1 << 20


def signature_of(path: Path) -> Signature:
    """Of the file that `path` leads to; OSError when there is none. A Kubernetes secret is a link that comes to lead elsewhere."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_file(path: Path, what: str, *, secret: bool) -> bytes:
    """The content of a small file.

    A secret one must not be readable by others than its owner. Where it belongs to another user than this process's, as secrets do that
    Kubernetes mounts, its group may read it: that is how it reaches us.

    Raises:
        InvalidArgument: it cannot be read, or is larger than 1 MiB; the text names it as `what`.
        PermissionDenied: others can read it; the text has the command that changes that.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise InvalidArgument(f"{what} {path} is no file")
            if secret:
                _check_private(path, what, found)
            if found.st_size > MAX_BYTES:
                raise InvalidArgument(f"{what} {path} has {found.st_size} bytes, and {MAX_BYTES} are the most: is it another file?")
            with os.fdopen(os.dup(fd), "rb") as file:
                return file.read(MAX_BYTES)
        finally:
            os.close(fd)
    except OSError as error:
        raise InvalidArgument(f"{what} {path} cannot be read: {error.strerror}") from error


def _check_private(path: Path, what: str, found: os.stat_result) -> None:
    mode = stat.S_IMODE(found.st_mode)
    ours = found.st_uid == os.geteuid()
    if mode & (0o077 if ours else 0o027):
        wanted = "600" if ours else "440 (in Kubernetes defaultMode: 0440 of the volume, and fsGroup)"
        raise PermissionDenied(
            f"{what} {path} has the mode {mode:03o}, so others than its owner can read or change it: chmod {wanted} {path}"
        )
