"""The peers: what each needs, in a virtual environment of its own, made when it is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

INSTALL_S = 1800

PACKAGES = {
    "cpprb": ("cpprb",),
    "torchrl": ("torchrl", "tensordict"),  # with the torch that pip chooses: its C++ part fits one version only
    "sb3": (os.environ.get("TORCH", "torch"), "stable-baselines3"),
    "reverb": ("dm-reverb[tensorflow]",),
}
MODULES = {"cpprb": "cpprb", "torchrl": "torchrl.data", "sb3": "stable_baselines3", "reverb": "reverb"}


class NotInstallable(Exception):
    """Says why."""


def interpreter(name: str, folder: Path) -> str:
    """The Python of `folder`/`name`, with the peer in it; made unless it is there and can import the peer.

    Raises:
        NotInstallable: with the last thing that pip, or the import, said.
    """
    python = folder / name / "bin" / "python"
    if not (python.exists() and not _failure([str(python), "-c", f"import {MODULES[name]}"])):
        venv.create(folder / name, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES[name]]
        failure = _failure(install) or _failure([str(python), "-c", f"import {MODULES[name]}"])
        if failure:
            raise NotInstallable(f"not installable here: {failure}")
    return str(python)


def _failure(command: list[str]) -> str:
    """What went wrong, in one line; empty when nothing did."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else last_line(done.stderr, done.returncode)


def last_line(text: str, code: int) -> str:
    """The line of an error output that says most."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else f"ended with {code}")


def names() -> list[str]:
    return [*PACKAGES]


if __name__ == "__main__":
    for peer in names():
        sys.stdout.write(f"{peer}: {interpreter(peer, Path(sys.argv[1]))}\n")
