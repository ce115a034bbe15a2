"""While a server is being written to, other processes read every published step right with ordinary Zarr tools."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import replaystore as rs
from replaystore_client import Client

READER = """
import json
import sys
import time
import numpy as np

tool, path = sys.argv[1], sys.argv[2]
opens, rows, longest = 0, 0, 0
deadline = time.monotonic() + 4


def published():
    # tools that open arrays one by one bound the rows by the table's attributes, which are published last
    with open(path + "/t/zarr.json") as file:
        attributes = json.load(file)["attributes"]
    return attributes["first_step"], attributes["next_step"]


def read():
    if tool == "zarr":
        import zarr

        table = zarr.open_group(path + "/t", mode="r", use_consolidated=True)
        first = table.attrs["first_step"]
        return first, [table[name][first:] for name in ("steps/observation", "steps/action", "meta/step_in_episode", "meta/kind")]
    if tool == "xarray":
        import xarray

        data = xarray.open_zarr(path, group="t/steps")
        part = data.isel(step=slice(data.attrs["first_step"], None))
        return data.attrs["first_step"], [part.observation.values, part.action.values, None, None]
    if tool == "dask":
        import dask
        import dask.array as da

        dask.config.set(scheduler="synchronous")
        first, stop = published()
        action = da.from_zarr(path + "/t/steps/action")[first:stop]
        observation = da.from_zarr(path + "/t/steps/observation")[first:stop]
        return first, [observation.compute(), action.compute(), None, None]
    import tensorstore as ts

    def column(name):
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/t/{name}"}}
        return ts.open(spec, open=True, recheck_cached_data="open").result()

    first, stop = published()
    names = ("steps/observation", "steps/action", "meta/step_in_episode", "meta/kind")
    return first, [column(name)[first:stop].read().result() for name in names]


while time.monotonic() < deadline or ((opens < 3 or rows < 1000) and time.monotonic() < deadline + 60):
    first, (observation, action, position, kind) = read()
    assert len(observation) == len(action), (len(observation), len(action))
    # rows that retention dropped while this reader was reading are past: what is published now says which
    past = max(0, published()[0] - first)
    observation, action = observation[past:], action[past:]
    position, kind = (None, None) if position is None else (position[past:], kind[past:])
    t = observation[:, 0]
    for axis in range(1, observation.shape[1]):
        np.testing.assert_array_equal(observation[:, axis], t)
    if position is None:
        steps = action != 0
        np.testing.assert_array_equal(action[steps], 10 * t[steps] + 1)
    else:
        assert len(position) == len(kind) == len(action)
        np.testing.assert_array_equal(position, t)
        np.testing.assert_array_equal(action, np.where(kind == 0, 10 * t + 1, 0))
    opens, rows, longest = opens + 1, rows + len(t), max(longest, len(t))
print(opens, rows, longest)
"""


@pytest.fixture
def served(tmp_path: Path):  # type: ignore[no-untyped-def]
    command = [
        sys.executable,
        "-m",
        "replaystore.cli.main",
        "serve",
        "--path",
        tmp_path / "data",
        "--listen",
        "127.0.0.1:0",
        "--json-ready",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["listen"], tmp_path / "data"
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def write(address: str, stop: threading.Event, failures: list[BaseException]) -> None:
    streams = 8
    try:
        with Client(address) as client, client.writer("t", streams=streams) as writer:
            clock, first, rng = np.zeros(streams, np.int64), np.ones(streams, bool), np.random.default_rng(0)
            while not stop.wait(0.0005):
                ends = (rng.random(streams) < 0.01) & ~first
                following = np.where(first, 0, clock + 1)
                observations = np.repeat(following[:, None], 5, 1).astype("float32")
                writer.append_batch(10 * clock + 1, np.ones(streams), ends, np.zeros(streams, bool), observations, reset_mask=first)
                clock, first = following, ends
    except BaseException as error:
        failures.append(error)


def test_ordinary_tools_read_a_live_store(served: tuple[str, Path]) -> None:
    address, path = served
    columns = {"observation": rs.Column((5,), "float32"), "action": rs.Column((), "int64")}
    with Client(address) as client:
        client.create_table("t", rs.TableConfig(columns, retention=rs.Retention(30_000)))
        stop, failures = threading.Event(), list[BaseException]()
        writer = threading.Thread(target=write, args=(address, stop, failures))
        writer.start()
        readers: dict[str, subprocess.Popen[str]] = {}
        try:
            tools = ["zarr", "xarray", "dask", "tensorstore"]
            readers |= {
                tool: subprocess.Popen([sys.executable, "-c", READER, tool, path], stdout=subprocess.PIPE, text=True) for tool in tools
            }
            for _ in range(200):  # sampling goes on meanwhile
                client.sample("t", 64, timeout_s=30)
            for tool, reader in readers.items():
                output, _ = reader.communicate(timeout=120)
                assert reader.returncode == 0, tool
                opens, rows, _ = map(int, output.split())
                assert opens >= 1, tool
                assert rows > 100, tool
        finally:
            stop.set()
            writer.join()
            for reader in readers.values():
                reader.kill()
                reader.communicate()
        assert not failures, failures
        assert client.stats("t").next_step > 10_000
