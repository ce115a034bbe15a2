"""Where there is no Linux: the client works as far as it does not touch a table's files, and the engine says in a sentence what it lacks.

The other system is imitated: what Python does not have there is taken away before anything is imported.
"""

from __future__ import annotations

import subprocess
import sys

WITHOUT = """
import ctypes, importlib.abc, mmap, os, socket, sys

import grpc, numpy  # as they are built for that system

sys.platform = {platform!r}
loaded = ctypes.CDLL

def load(name, *arguments, **more):
    if name is None and sys.platform == "win32":
        raise TypeError("bad argument type for built-in operation")
    return loaded(name, *arguments, **more)

ctypes.CDLL = load
gone = {{os: ["O_DIRECT", "confstr", "memfd_create", "posix_fadvise", "posix_fallocate"], mmap: ["MADV_POPULATE_READ"]}}
if sys.platform == "win32":
    gone[os] += ["O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "O_SYNC", "register_at_fork", "fork", "pread", "pwrite", "preadv",
                 "sysconf", "statvfs", "fdatasync", "getuid", "uname"]
    gone[mmap] += [name for name in dir(mmap) if name.startswith(("MAP_", "PROT_", "MADV_"))]
    gone[socket] = ["AF_UNIX"]
for module, names in gone.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if sys.platform == "win32" and name in ("fcntl", "resource", "pwd", "grp", "termios"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

for name in ("fcntl", "resource"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Missing())
"""
USE = """
import numpy as np
import replaystore as rs
from replaystore.federated.federation import FederatedSampler
from replaystore.sampling import SampleRequest
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.memory import expect_large
from replaystore.wire.samples import encode_query, encode_sample_request
from replaystore_client import Client
from replaystore_client.local.path import LocalPath
from replaystore_client.local.proof import NotShared, open_table

expect_large(1 << 24)
config = rs.TableConfig({"observation": rs.Column((2,)), "action": rs.Column((), "int64")}, selector=rs.Prioritized())
request = SampleRequest(4, rs.Transition(n_step=2), rs.Uniform(), seed=1)
encode_query("t", request)
blocks = []

class Sink:
    def __getattr__(self, name):
        return lambda *arguments, **more: blocks.append(name)

with rs.Writer(config.columns, Sink()) as writer:
    writer.reset([0, 0])
    writer.append(1, 1.0, True, False, [1, 1])
print("wrote", bool(blocks))
try:
    open_table(pb.LocalOffer(boot_id="b", store="/", key=1), b"n", "t")
except NotShared as why:
    print(why)
print(LocalPath("t", None, 1.0).path)
with Client("127.0.0.1:1", timeout_s=0.05) as client:
    try:
        client.tables()
    except rs.ReplayStoreError as error:
        print(isinstance(error, rs.DeadlineExceeded))
try:
    rs.open("nothing")
except ImportError as error:
    print(error)
from replaystore.cli.main import run
print(run())
"""


def outcome(platform: str, code: str) -> tuple[list[str], str]:
    done = subprocess.run([sys.executable, "-W", "error", "-c", WITHOUT.format(platform=platform) + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_on_windows_the_client_works_and_the_engine_says_what_it_lacks() -> None:
    said, errors = outcome("win32", USE)
    lacks = "the storage engine needs mmap and flock, which Windows lacks: run it on Linux, or in WSL; replaystore_client works here"
    assert said == ["wrote True", "files are shared on Linux only, and this is win32", "wire", "True", lacks, "1"]
    assert errors == f"error: {lacks}\n"


def test_on_another_unix_the_client_works() -> None:
    said, _ = outcome("darwin", USE[: USE.index("try:\n    rs.open")])
    assert said == ["wrote True", "files are shared on Linux only, and this is darwin", "wire", "True"]
