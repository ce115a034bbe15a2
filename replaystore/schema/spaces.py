"""Gymnasium spaces to columns, and nested values to column values.

Spaces are recognised by the names of their classes, so gymnasium itself is never imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from replaystore.errors import InvalidArgument, SchemaMismatch
from replaystore.schema.columns import STANDARD_COLUMNS, Column, check_name


def columns_from_env(env: Any, **extras: Column) -> dict[str, Column]:
    """Columns for the steps of a Gymnasium environment: observation, action, reward, terminated, truncated, and `extras`.

    Args:
        env: an environment or a vector environment (then its ``single_*_space`` count).
        extras: further columns that the writer will be given, e.g. ``log_prob=Column((), "float32")``.

    Raises:
        InvalidArgument: a space without a fixed-size numeric layout (Text, Graph, Sequence).
    """
    observation = getattr(env, "single_observation_space", None) or env.observation_space
    action = getattr(env, "single_action_space", None) or env.action_space
    return {
        **columns_from_space("observation", observation),
        **columns_from_space("action", action),
        **STANDARD_COLUMNS,
        **extras,
    }


def columns_from_agents(agents: Mapping[str, tuple[Any, Any]], **extras: Column) -> dict[str, Column]:
    """Columns for the steps of several agents that act at once: ``observation/NAME``, ``action/NAME`` and ``reward/NAME`` for each.

    The writer takes actions, rewards and observations as dicts by agent; `terminated` and `truncated` are those of all. Views read one
    of the agents with ``agent="alice"``.

    Args:
        agents: observation and action space by agent, for example ``{a: (env.observation_space(a), env.action_space(a)) for a in
            env.possible_agents}``.
        extras: further columns; ``log_prob/alice`` is one of alice's.

    Raises:
        InvalidArgument: no agents, a name that cannot be one, or a space without a fixed-size numeric layout.
    """
    if not isinstance(agents, Mapping) or not agents:
        raise InvalidArgument("columns_from_agents needs at least one agent: {name: (observation_space, action_space)}")
    columns: dict[str, Column] = {}
    for agent, spaces in agents.items():
        check_name(agent, "agent")
        if not isinstance(spaces, tuple | list) or len(spaces) != 2:
            raise InvalidArgument(f"agent {agent!r} needs (observation_space, action_space), got {spaces!r}")
        observation, action = spaces
        columns |= columns_from_space(f"observation/{agent}", observation)
        columns |= columns_from_space(f"action/{agent}", action)
        columns[f"reward/{agent}"] = STANDARD_COLUMNS["reward"]
    return {**columns, "terminated": STANDARD_COLUMNS["terminated"], "truncated": STANDARD_COLUMNS["truncated"], **extras}


def columns_from_space(name: str, space: Any) -> dict[str, Column]:
    """The columns of one space; Dict and Tuple spaces give ``name/key`` and ``name/0``, ``name/1``, …"""
    kinds = {kind.__name__ for kind in type(space).__mro__}
    if "Dict" in kinds:
        parts = {f"{name}/{key}": part for key, part in space.spaces.items()}
    elif "Tuple" in kinds:
        parts = {f"{name}/{index}": part for index, part in enumerate(space.spaces)}
    else:
        return {name: _leaf(name, space, kinds)}
    return {path: column for key, part in parts.items() for path, column in columns_from_space(key, part).items()}


def _leaf(name: str, space: Any, kinds: set[str]) -> Column:
    if "Box" in kinds:
        low, high = np.min(space.low), np.max(space.high)
        bounds = {"low": _finite(low), "high": _finite(high)}
        return Column(space.shape, space.dtype.name, {"kind": "Box", **bounds})
    if "Discrete" in kinds:
        return Column((), "int64", {"kind": "Discrete", "n": int(space.n), "start": int(space.start)})
    if "MultiDiscrete" in kinds:
        return Column(space.nvec.shape, "int64", {"kind": "MultiDiscrete", "nvec": space.nvec.tolist()})
    if "MultiBinary" in kinds:
        return Column(space.shape, "int8", {"kind": "MultiBinary"})
    raise InvalidArgument(
        f"{name}: a {type(space).__name__} space has no fixed-size numeric layout; wrap the environment so that it is a Box, "
        "Discrete, MultiDiscrete, MultiBinary, Dict or Tuple"
    )


def _finite(bound: Any) -> float | None:
    return float(bound) if np.isfinite(bound) else None


def flatten(name: str, value: Any, columns: Mapping[str, Column]) -> dict[str, Any]:
    """A nested value as column values: ``{"observation/goal": …}``; a plain one as ``{name: value}``.

    Raises:
        SchemaMismatch: the value is nested where the table has one column, or lacks a part.
    """
    if name in columns:
        if isinstance(value, Mapping):
            raise SchemaMismatch(f"column {name!r} is not nested, got a mapping with keys {sorted(map(str, value))}")
        return {name: value}
    if isinstance(value, Mapping):
        parts = {f"{name}/{key}": part for key, part in value.items()}
    elif isinstance(value, tuple | list):
        parts = {f"{name}/{index}": part for index, part in enumerate(value)}
    else:
        nested = sorted(path for path in columns if path.startswith(f"{name}/"))
        if nested:
            raise SchemaMismatch(f"{name!r} is nested here ({', '.join(nested)}); got a plain {type(value).__name__}")
        raise SchemaMismatch(f"there is no column {name!r}; the table has {', '.join(sorted(columns))}")
    flat: dict[str, Any] = {}
    for path, part in parts.items():
        flat.update(flatten(path, part, columns))
    return flat


def nest(name: str, flat: Mapping[str, Any]) -> Any:
    """The inverse of `flatten` for reading: the value under `name`, or a dict tree of the columns below it."""
    if name in flat:
        return flat[name]
    prefix = f"{name}/"
    keys = dict.fromkeys(path[len(prefix) :].split("/", 1)[0] for path in flat if path.startswith(prefix))
    if not keys:
        raise KeyError(name)
    return {key: nest(prefix + key, flat) for key in keys}
