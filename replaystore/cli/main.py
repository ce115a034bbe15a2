"""Entry point of ``replaystore``: errors become one clear line on stderr and an exit code.

0: fine; 1: something is wrong or failed; 2: usage. Kept apart from the commands so that a base install, which lacks what they need, gets a
sentence with the pip line instead of a traceback.
"""

from __future__ import annotations

import sys

from replaystore.errors import NO_ENGINE_HERE, InvalidArgument, ReplayStoreError

EXTRA_OF = {"torch": "agents", "gymnasium": "agents", "matplotlib": "agents"}
"""Which extra brings a module; all others come with ``server``."""


def run() -> int:
    """Runs the command line; returns the exit code, or leaves with it through SystemExit."""
    if sys.platform == "win32":
        return _fail(NO_ENGINE_HERE, 1)
    try:
        from replaystore.cli.app import app

        app(prog_name="replaystore")
    except InvalidArgument as error:
        return _fail(str(error), 2)
    except ReplayStoreError as error:
        return _fail(str(error), 1)
    except ImportError as error:
        if error.name is None:  # already said in full by whoever raised it
            return _fail(str(error), 1)
        module = error.name.partition(".")[0]
        if module.startswith("replaystore"):  # ours is never missing: this is a bug, and wants its traceback
            raise
        extra = EXTRA_OF.get(module, "server")
        return _fail(f"this command needs {error.name}: pip install 'replaystore[{extra}]'", 1)
    return 0


def _fail(text: str, code: int) -> int:
    sys.stderr.write(f"error: {text}\n")
    return code


if __name__ == "__main__":
    sys.exit(run())
