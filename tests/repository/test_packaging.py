"""What is installed is what is needed, and importing it is light."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

import replaystore

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("zarr", "numba", "torch", "gymnasium", "typer", "rich", "xarray", "pandas", "matplotlib", "crc32c", "pydantic")


@pytest.mark.parametrize("package", ["replaystore", "replaystore_client"])
def test_importing_is_light(package: str) -> None:
    code = f"import {package}, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "[]"


def test_the_public_names_are_these() -> None:
    expected = """
        AlreadyExists Batch Column Constant Corruption DeadlineExceeded DeleteCounts DiskFull Episode Exponential FederatedSampler
        Fifo Filter Hindsight InvalidArgument Lifo Linear Locked MaxHeap MinHeap MinSize Mixture NotFound NotReady Overloaded
        PermissionDenied Prioritized Queue RankPrioritized Recency ReplayStoreError Retention SampleLog SampleToInsertRatio
        SchemaMismatch Sequence ServerStatus SnapshotReport Stack StorageError TableConfig TableDescription TableStats TableStatus
        Transition Uniform UpdateCounts WithoutReplacement Writer columns_from_agents columns_from_env columns_from_space open replay_log
        sequence_priorities
    """
    assert sorted(replaystore.__all__) == expected.split()
    for name in replaystore.__all__:
        assert getattr(replaystore, name).__doc__, name
    import replaystore_client

    assert {"Client", "RecordExperience"} <= set(replaystore_client.__all__)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def environment(folder: Path, *requirements: str) -> Path:
    """A fresh virtual environment with the requirements; its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements], check=True, capture_output=True
    )
    return python


@pytest.mark.slow
@pytest.mark.xdist_group("wheel")  # which is built once
def test_a_base_install_is_enough_for_an_actor(tmp_path: Path, wheel: Path) -> None:
    python = environment(tmp_path / "venv", str(wheel))
    code = f"""
import sys
import replaystore as rs
import replaystore_client
print(sorted(name for name in {HEAVY!r} if name in sys.modules))
client = replaystore_client.Client("127.0.0.1:1", timeout_s=0.5)
try:
    client.tables()
except rs.ReplayStoreError as error:
    print(isinstance(error, rs.DeadlineExceeded), error)
try:
    rs.open("data")
except ImportError as error:
    print(error)
"""
    output = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path).stdout.splitlines()
    assert output[0] == "[]"
    assert output[1].startswith("True")
    assert "127.0.0.1:1" in output[1]
    assert "pip install 'replaystore[server]'" in output[2]
    missing = subprocess.run([tmp_path / "venv/bin/replaystore", "ls", "data"], capture_output=True, text=True, cwd=tmp_path)
    assert missing.returncode != 0
    assert "pip install 'replaystore[server]'" in missing.stderr
    assert "Traceback" not in missing.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("wheel")  # which is built once
def test_the_wheel_serves_from_another_folder(tmp_path: Path, wheel: Path) -> None:
    python = environment(tmp_path / "venv", f"{wheel}[server]")
    code = """
import replaystore as rs
with rs.open("data") as store:
    store.create_table("t", rs.TableConfig({"observation": rs.Column((2,)), "action": rs.Column((), "int64")}))
    with store.writer("t") as writer:
        writer.reset([0, 0])
        for t in range(10):
            writer.append(t, 1.0, t == 9, False, [t, t])
    print(len(store.sample("t", 32)), rs.__file__)
"""
    count, where = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path).stdout.split()
    assert count == "32"
    assert str(tmp_path) in where
    listing = subprocess.run(
        [tmp_path / "venv/bin/replaystore", "ls", "data", "--json"], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert '"t"' in listing.stdout
