"""Runs that differ only in their seeds as one curve: mean, confidence band and interquartile mean on a common grid.

Bands are 95 % percentile bootstrap intervals of the mean over seeds; a panel has one environment, so there is one stratum (Agarwal et
al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice"). The same runs give the same band.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore_agents.reports.runs import AXIS_NAMES, Array, Run

NOT_COMPARED = frozenset({"seed", "server", "path", "table", "policy", "out", "command", "log", "device", "threads"})
"""What of a configuration does not make another experiment of it: seeds, places, and what a run is computed on."""

NAMING = ("algorithm", "preset", "replay")
"""What names an experiment; hyper-parameters that follow from these are left out of legends."""

RESAMPLES = 2000
CONFIDENCE = 0.95
GRID = 200
"""Points of the common grid."""

IQM_SEEDS = 4
"""Fewer seeds have no interquartile mean that is another than the mean."""


def interquartile_mean(values: Array, axis: int = 0) -> Array:
    """Mean of the middle half, ``floor(n / 4)`` values cut off at either end, as in Agarwal et al. (2021)."""
    ordered = np.sort(values, axis)
    count, cut = values.shape[axis], values.shape[axis] // 4
    middle: Array = np.take(ordered, np.arange(cut, count - cut), axis).mean(axis)
    return middle


def bootstrap(values: Array, robust: bool = False) -> tuple[Array, Array]:
    """The band of the mean (`robust`: the interquartile mean) over seeds; ``(seeds, points)`` to low and high, each ``(points,)``.

    Seeds are drawn with replacement 2000 times, the same draws for every point. One seed has no band: both are NaN.
    """
    seeds, points = values.shape
    if seeds < 2:
        return np.full(points, np.nan), np.full(points, np.nan)
    drawn = np.random.default_rng(0).integers(0, seeds, (RESAMPLES, seeds))
    means = np.empty((RESAMPLES, points))
    for begin in range(0, RESAMPLES, 100):  # a bounded part at a time
        part = values[drawn[begin : begin + 100]]
        means[begin : begin + 100] = interquartile_mean(part, 1) if robust else part.mean(1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return low, high


@dataclass(frozen=True, slots=True)
class Curve:
    """A group's returns on the grid, NaN where no run has been."""

    x: Array
    """``(points,)``, as everything here."""
    runs: npt.NDArray[np.int64]
    """How many runs have got there: the mean is theirs alone."""
    mean: Array
    low: Array
    """The band; NaN where there are fewer than two runs."""
    high: Array
    iqm: Array
    """NaN where there are fewer than four."""


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seeds."""

    runs: list[Run]
    label: str = ""
    """What makes it another than the others of its panel."""

    @property
    def config(self) -> dict[str, Any]:
        """What its runs have in common."""
        return {name: value for name, value in self.runs[0].config.items() if name not in NOT_COMPARED}

    @cached_property
    def counted(self) -> list[Run]:
        """Those that figures of whole runs are about: the finished ones, or all where none is finished."""
        return [run for run in self.runs if run.finished] or self.runs

    @property
    def end(self) -> float:
        """How far the longest of those has got."""
        return max(float(run.x[-1]) for run in self.counted)

    def curve(self, grid: Array) -> Curve:
        """On a grid ``(points,)``; between evaluations a run goes straight, before its first one and after its last it is not there."""
        each = np.stack([np.interp(grid, run.x, run.returns, left=np.nan, right=np.nan) for run in self.runs])
        there = ~np.isnan(each)
        count = there.sum(0)
        mean, low, high, iqm = (np.full(len(grid), np.nan) for _ in range(4))
        for who in np.unique(there, axis=1).T:  # points that the same runs have got to
            points = (there == who[:, None]).all(0)
            values = each[who][:, points]
            if len(values):
                mean[points] = values.mean(0)
                low[points], high[points] = bootstrap(values)
            if len(values) >= IQM_SEEDS:
                iqm[points] = interquartile_mean(values)
        return Curve(grid, count, mean, low, high, iqm)


@dataclass(frozen=True)
class Panel:
    """Groups whose returns can be compared: one environment, one axis."""

    env: str
    axis: str
    groups: list[Group]
    differing: list[str]
    """Names of all hyper-parameters in which the groups differ."""

    @property
    def title(self) -> str:
        """For headings."""
        return f"{self.env}, over {AXIS_NAMES[self.axis]}"

    @cached_property
    def grid(self) -> Array:
        """From the first evaluation of any run to the last, ``(200,)``; one point where there was only one."""
        runs = [run for group in self.groups for run in group.runs]
        first, last = min(run.x[0] for run in runs), max(run.x[-1] for run in runs)
        return np.linspace(first, last, GRID) if last > first else np.array([first])

    @property
    def horizon(self) -> float:
        """Up to where areas under curves are taken: as far as every group has got."""
        return min(group.end for group in self.groups)


def group_runs(runs: Sequence[Run]) -> list[Panel]:
    """Panels in order of environment and axis, groups in the order of their first runs, runs in that of their seeds."""
    panels: dict[tuple[str, str], dict[str, list[Run]]] = {}
    for run in runs:
        compared = {name: value for name, value in run.config.items() if name not in NOT_COMPARED}
        panels.setdefault((run.env, run.axis), {}).setdefault(json.dumps(compared, sort_keys=True), []).append(run)
    made = []
    for (env, axis), found in sorted(panels.items()):
        groups = [Group(sorted(members, key=_by_seed)) for members in found.values()]
        differing = _differing([group.config for group in groups])
        labels = _labels([group.config for group in groups], differing)
        made.append(Panel(env, axis, [Group(group.runs, label) for group, label in zip(groups, labels, strict=True)], differing))
    return made


def shown(value: Any) -> str:
    """A value of a configuration, short."""
    if isinstance(value, list):
        return ",".join(map(shown, value)) or "default"
    if isinstance(value, float):
        return f"{value:g}"
    return "—" if value is None or value == "" else str(value)


def _by_seed(run: Run) -> tuple[bool, Any, str]:
    number = isinstance(run.seed, int | float)
    return not number, run.seed if number else 0, str(run.path)


def _differing(configs: list[dict[str, Any]]) -> list[str]:
    """Names with more than one value among those that have them, in the order of the configurations; what names an experiment first."""
    names = dict.fromkeys([*NAMING, *(name for config in configs for name in config)])
    return [name for name in names if len({shown(config[name]) for config in configs if name in config}) > 1]


def _labels(configs: list[dict[str, Any]], differing: list[str]) -> list[str]:
    """For each configuration what makes it another than the others."""
    if len(configs) == 1:
        named = [shown(configs[0][name]) for name in ("algorithm", "preset") if configs[0].get(name)]
        return [" ".join(named) or "all runs"]
    naming = [name for name in NAMING if name in differing]
    kinds = [tuple(shown(config.get(name)) for name in naming) for config in configs]

    def follows(name: str) -> bool:
        """Whether what names an experiment says this one, too."""
        return len(set(kinds)) == len({(kind, shown(config.get(name))) for kind, config in zip(kinds, configs, strict=True)})

    told = naming + [name for name in differing if name not in naming and not (naming and follows(name))]
    labels = [", ".join(f"{name}={shown(config[name])}" for name in told if name in config) for config in configs]
    # configurations of which one has more names than the other, and nothing else: numbers tell them apart
    return [f"{label} ({labels[: at + 1].count(label)})".strip() if labels.count(label) > 1 else label for at, label in enumerate(labels)]
