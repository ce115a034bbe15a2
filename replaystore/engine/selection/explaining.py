"""Why a request that the limiter would let through draws nothing, in words."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.engine.conditions import Facts, passes
from replaystore.engine.rows import Rows
from replaystore.engine.selection.filtered import whole_episodes
from replaystore.engine.selection.masses import DISTINCT
from replaystore.sampling import SampleRequest
from replaystore.schema.filters import Filter
from replaystore.schema.views import AnchorRule

MOST_ROWS = 1 << 20
"""Conditions are counted one by one only where that takes no longer than some milliseconds."""


def why_nothing(request: SampleRequest, choice: Any, chooser: Any, rows: Rows, anchors: int, facts: Facts) -> str:
    """One sentence or two: what is asked for, how many there are, which condition leaves none, who has to act."""
    n = request.batch_size
    candidates = anchors if choice.everything else chooser.candidates
    selector = getattr(chooser, "selector", request.selector)
    kind = type(selector).__name__ if selector is not None and not isinstance(selector, str) else "the selector"
    if choice.everything or candidates:
        what = f"{anchors} steps can be sampled" if choice.everything else f"{candidates} of {anchors} steps that can be sampled pass"
        what += "" if choice.everything else f" {_conditions(request.where, choice.rule)}"
        if isinstance(selector, DISTINCT) or n > candidates:
            missing = f"{n - candidates} more {'is' if n - candidates == 1 else 'are'} missing"
            return f"{kind} draws {n} different steps, {what}: {missing}; writers must go on, or ask for fewer"
        return f"{what}, but every priority among them is zero: update_priorities must act"
    conditions, culprits = _conditions(request.where, choice.rule), _culprits(request.where, choice.rule, rows, facts)
    return f"none of {anchors} steps that can be sampled passes {conditions}{culprits}"


def _given(where: Filter | None) -> dict[str, Any]:
    return {} if where is None else {f.name: getattr(where, f.name) for f in fields(where) if getattr(where, f.name) is not None}


def _conditions(where: Filter | None, rule: AnchorRule) -> str:
    parts = [f"Filter({', '.join(f'{name}={value!r}' for name, value in _given(where).items())})"] if where is not None else []
    if rule.period > 1:
        parts.append(f"the view's period={rule.period}")
    if rule.episode_start:
        parts.append("the view, which begins at first steps of finished episodes")
    return " and ".join(parts)


def _culprits(where: Filter | None, rule: AnchorRule, rows: Rows, facts: Facts) -> str:
    if rows.stop - rows.first > MOST_ROWS:
        return ""
    is_anchor = rows.live("replay/successor") > 0
    left = {
        f"{name}={value!r}": int(np.count_nonzero(is_anchor & passes(rows, replace(Filter(), **{name: value}), facts)))
        for name, value in _given(where).items()
    }
    if rule.period > 1:
        left[f"period={rule.period}"] = int(np.count_nonzero(is_anchor & (rows.live("meta/step_in_episode") % rule.period == 0)))
    if rule.episode_start:
        starts: npt.NDArray[np.int64] = whole_episodes(rows, facts)
        left["first steps of finished episodes"] = int(np.count_nonzero(is_anchor[starts - rows.first]))
    none = [name for name, count in left.items() if not count]
    if none:
        return f": {' and '.join(none)} alone leave{'s' if len(none) == 1 else ''} none"
    if len(left) > 1:
        return ": one by one they leave " + ", ".join(f"{count} ({name})" for name, count in left.items()) + ", together none"
    return ""
