"""``python -m replaystore_agents`` is ``replaystore-agents``."""

from replaystore_agents.cli import run

run()
