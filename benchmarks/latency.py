"""From an actor's `append` to the step in a waiting learner's hands; actor, server and learner are three processes of one machine.

Run as a program this is the actor: ``python latency.py ADDRESS COUNT``. Its clock is the one that all processes of a machine share.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import numpy as np

import replaystore as rs
from replaystore_client import Client
from workload import milliseconds

TABLE = "latency"
PAUSE_S = 0.003


def waiting_learner(client: Any, address: str, count: int) -> float:
    """Median milliseconds over `count` steps, each sent at once, into a table that a learner waits at."""
    columns = {"observation": rs.Column((17,), "float32"), "action": rs.Column((6,), "float32"), "sent": rs.Column((), "float64")}
    config = rs.TableConfig(columns, rate_limiter=rs.Queue(1000), selector=rs.Fifo(), retention=rs.Retention(max_times_sampled=1))
    client.create_table(TABLE, config)
    times = []
    actor = subprocess.Popen([sys.executable, __file__, address, str(count + 20)])
    try:
        with client.sampler(TABLE, 1, prefetch=1, timeout_s=60.0) as sampler:
            for number in range(count + 20):
                sent = float(next(sampler)["sent"][0])
                if number >= 20:
                    times.append(time.monotonic() - sent)
    finally:
        actor.terminate()
        actor.wait()
    client.drop_table(TABLE)
    return milliseconds(times)


def act(address: str, count: int) -> None:
    """Episodes of one step, so that each is sampled as soon as it is there."""
    observation, action = np.zeros(17, np.float32), np.zeros(6, np.float32)
    with Client(address) as client, client.writer(TABLE) as writer:
        for _ in range(count):
            time.sleep(PAUSE_S)
            writer.reset(observation)
            writer.append(action, 0.0, True, False, observation, sent=time.monotonic())
            writer.flush()


if __name__ == "__main__":
    act(sys.argv[1], int(sys.argv[2]))
