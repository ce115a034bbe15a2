"""Which algorithms there are, by name, with their configurations and presets. Modules are imported when they are asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import replaystore as rs
from replaystore_agents.algorithms.base import Algorithm, Spaces, spaces_of
from replaystore_agents.trunk import environments

GOAL = "observation/desired_goal"
"""The column that tells goal tasks apart."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an algorithm lives: ``replaystore_agents.algorithms.MODULE`` with ``KIND``, ``KINDConfig`` and ``PRESETS``."""

    module: str
    kind: str
    online: bool
    """Whether actors may fill its table while it learns."""
    discrete: bool = True
    continuous: bool = False
    """Which actions it knows."""

    def _find(self, name: str) -> Any:
        return getattr(import_module(f"replaystore_agents.algorithms.{self.module}"), name)

    @property
    def config(self) -> type[Any]:
        """The dataclass of its hyper-parameters."""
        config: type[Any] = self._find(f"{self.kind}Config")
        return config

    @property
    def kind_class(self) -> Any:
        """The class: called with `Spaces` and a configuration, an `Algorithm`."""
        return self._find(self.kind)

    @property
    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        """Changes of defaults, by name."""
        presets: Mapping[str, Mapping[str, Any]] = self._find("PRESETS")
        return presets

    def make(self, table: rs.TableConfig, config: Any, env: str | None = None) -> Algorithm:
        """One that learns from such a table; goal tasks need their environment, which computes the rewards of other goals."""
        if GOAL in table.columns:
            goals = import_module("replaystore_agents.algorithms.goals")
            algorithm: Algorithm = goals.make(self.kind_class, table, config, env)
            return algorithm
        made: Algorithm = self.kind_class(spaces_of(table, config.frame_stack), config)
        return made


ALGORITHMS = {
    "dqn": Entry("dqn", "DQN", online=True),
    "ddpg": Entry("ddpg", "DDPG", online=True, discrete=False, continuous=True),
    "td3": Entry("td3", "TD3", online=True, discrete=False, continuous=True),
    "sac": Entry("sac", "SAC", online=True, discrete=False, continuous=True),
    "cql": Entry("cql", "CQL", online=False),
    "bc": Entry("bc", "BC", online=False, continuous=True),
    "iql": Entry("iql", "IQL", online=False, continuous=True),
}


def spaces_for(table: rs.TableConfig, frames: int = 1) -> tuple[Spaces, bool]:
    """What networks see of such a table, and whether it is one of goal dictionaries."""
    if GOAL in table.columns:
        spaces: Spaces = import_module("replaystore_agents.algorithms.goals").goal_spaces(table, frames)
        return spaces, True
    return spaces_of(table, frames), False


def check_played(what: str, spaces: Spaces, goals: bool, env: str) -> None:
    """Raises InvalidArgument where `what`, which has such spaces, cannot be of this environment."""
    sample = environments.make(env)
    try:
        theirs, goal_task = spaces_for(rs.TableConfig(columns=rs.columns_from_env(sample)), spaces.frames)
    finally:
        sample.close()
    if (goals, _seen(spaces)) != (goal_task, _seen(theirs)):
        raise rs.InvalidArgument(f"{what} is not of {env}: it has {_seen(spaces)}, the environment {_seen(theirs)}; name another --env")


def _seen(spaces: Spaces) -> str:
    observations = f"{spaces.observations} Discrete observations" if spaces.observations else f"observations {spaces.observation_shape}"
    actions = f"{spaces.actions} Discrete actions" if spaces.actions else f"continuous actions {spaces.action_shape}"
    return f"{observations} and {actions}"


def settings(
    entry: Entry, preset: str, given: Mapping[str, Any], *loops: type[Any], base: Mapping[str, Any] | None = None
) -> tuple[Any, ...]:
    """The algorithm's configuration and those of the loops: defaults, `base`, presets joined by commas, and what is given; later ones win.

    Raises:
        InvalidArgument: there is no such preset, or no configuration has a field that is given.
    """
    wanted: dict[str, Any] = dict(base or {})
    fields = {kind: {field.name for field in dataclasses.fields(kind)} for kind in (entry.config, *loops)}
    for name in filter(None, (part.strip() for part in preset.split(","))):
        if name not in entry.presets:
            raise rs.InvalidArgument(f"preset {name!r} is not known for {entry.module}; known: {', '.join(entry.presets) or 'none'}")
        wanted |= entry.presets[name]
    unknown = [name for name in given if not any(name in names for names in fields.values())]
    if unknown:
        raise rs.InvalidArgument(f"{entry.module} has no --{unknown[0].replace('_', '-')}; `--help` says what is for which algorithm")
    wanted |= given
    return tuple(kind(**{name: value for name, value in wanted.items() if name in names}) for kind, names in fields.items())
