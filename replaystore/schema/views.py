"""Views: what an anchor expands to when it is read. Nothing of them is fixed when steps are written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from replaystore.errors import InvalidArgument
from replaystore.schema.record import check_number, from_json

MAX_N_STEP = 1024
MAX_FRAME_STACK = 256
MAX_SEQUENCE = 1 << 20
STRATEGIES = ("future", "final", "episode", "random")


@dataclass(frozen=True, slots=True)
class AnchorRule:
    """Which anchors a view can begin at; the others are not drawn, as if a filter had left them out."""

    period: int = 1
    """Only steps whose number in the episode is a multiple of this."""

    episode_start: bool = False
    """Only first steps of finished episodes of which every row is kept."""


_ANY = AnchorRule()


def covers(names: tuple[str, ...], column: str) -> bool:
    """Whether `column` is one of `names` or nested below one."""
    return any(column == name or column.startswith(f"{name}/") for name in names)


def _check_stack(view: Transition | Sequence | Episode) -> None:
    check_number("frame_stack", view.frame_stack, 1, MAX_FRAME_STACK, whole=True)
    if view.padding not in ("edge", "zero"):
        raise InvalidArgument(f"padding={view.padding!r} must be 'edge' or 'zero'")
    object.__setattr__(view, "stack_columns", _names("stack_columns", view.stack_columns))
    _check_agent(view.agent)


def _check_agent(agent: Any) -> None:
    if agent is not None and (not isinstance(agent, str) or not agent or "/" in agent):
        raise InvalidArgument(f"agent={agent!r} must be the name of an agent: the level below 'observation' in nested columns")


def _names(what: str, names: Any) -> tuple[str, ...]:
    chosen = (names,) if isinstance(names, str) else tuple(names) if isinstance(names, Iterable) else (None,)
    if not all(isinstance(name, str) for name in chosen):
        raise InvalidArgument(f"{what}={names!r} must be names of columns")
    return chosen


@dataclass(frozen=True, slots=True)
class Transition:
    """``(s_t, a_t, R, s_{t+k})`` with an n-step return and stacked frames.

    R = Σ_{i<k} gamma^i · r_{t+i}, k = the steps really taken: n_step, or fewer where the episode ends (terminated or truncated) or has
    not gone further yet. `discount` is gamma^k · (1 − terminated), so the target is always ``reward + discount · V(next_observation)``
    (multi-step: Sutton 1988; as in Hessel et al. 2018).
    """

    n_step: int | tuple[int, int] = 1
    """How many rewards are summed at most, 1 to 1024; ``(low, high)`` draws that number anew for every item, both included."""

    gamma: float = 0.99
    """Discount per step, 0 to 1."""

    frame_stack: int = 1
    """With more than 1, stacked columns get a new second axis of this length, oldest frame first."""

    stack_columns: tuple[str, ...] = ("observation",)
    """Columns that are stacked; a name stands for everything nested below it too."""

    padding: str = "edge"
    """Before an episode's first step (or the oldest step kept): ``"edge"`` repeats that frame, ``"zero"`` gives zeros."""

    agent: str | None = None
    """Of several agents in one table, the one whose ``observation/AGENT``, ``action/AGENT``, ``reward/AGENT`` … become ``observation``,
    ``action``, ``reward``; columns without that level stay, those of other agents are left out."""

    def __post_init__(self) -> None:
        if isinstance(self.n_step, list | tuple):
            if len(self.n_step) != 2:
                raise InvalidArgument(f"n_step={self.n_step!r} must be a number of steps, or (low, high)")
            low, high = self.n_step
            check_number("n_step[0]", low, 1, MAX_N_STEP, whole=True)
            check_number("n_step[1]", high, low, MAX_N_STEP, whole=True)
            object.__setattr__(self, "n_step", (low, high))
        else:
            check_number("n_step", self.n_step, 1, MAX_N_STEP, whole=True)
        check_number("gamma", self.gamma, 0.0, 1.0)
        _check_stack(self)

    @property
    def step_range(self) -> tuple[int, int]:
        """Fewest and most steps that an item takes unless its episode ends."""
        return self.n_step if isinstance(self.n_step, tuple) else (self.n_step, self.n_step)

    @property
    def anchors(self) -> AnchorRule:
        """Any."""
        return _ANY

    @property
    def rows(self) -> int:
        """Rows that an item is made of, at most."""
        return self.step_range[1] + self.frame_stack

    def stacks(self, column: str) -> bool:
        """Whether `column` is one of those stacked by this view."""
        return self.frame_stack > 1 and covers(self.stack_columns, column)


@dataclass(frozen=True, slots=True)
class Sequence:
    """``burn_in + length`` steps in a row of one episode, for recurrent agents and models; T = burn_in + length.

    Columns are ``(batch, T, *shape)``. Where the episode ends first, or has not gone further yet, the rest is padding: zeros, and
    ``batch.mask`` False. ``batch.next_observation`` is ``(batch, T, *shape)`` too and shares memory with ``batch.observation``, so the
    first padded place of the latter holds the observation after the last step and not zeros. ``batch.steps_taken`` counts real steps,
    ``batch.row_ids`` ``(batch, T)`` names them, −1 where padded.

    The first `burn_in` places warm the network's state up and get no loss: stored state and burn-in of R2D2 (Kapturowski et al. 2019).
    """

    length: int
    """Steps to learn from."""

    burn_in: int = 0
    """Steps before them, within the same item: ``batch.observation[:, :burn_in]``."""

    period: int = 1
    """Items begin at every so many-th step of an episode: below T they overlap, R2D2 has a period of half the length."""

    frame_stack: int = 1
    """With more than 1, stacked columns are ``(batch, T, frame_stack, *shape)``, oldest frame first."""

    stack_columns: tuple[str, ...] = ("observation",)
    """Columns that are stacked; a name stands for everything nested below it too."""

    padding: str = "edge"
    """Frames before an episode's first step (or the oldest step kept): ``"edge"`` repeats that one, ``"zero"`` gives zeros."""

    state_columns: tuple[str, ...] = ()
    """Columns read at the first step only, ``(batch, *shape)``: the recurrent state that the actor had there."""

    agent: str | None = None
    """As for `Transition`."""

    def __post_init__(self) -> None:
        check_number("length", self.length, 1, MAX_SEQUENCE, whole=True)
        check_number("burn_in", self.burn_in, 0, MAX_SEQUENCE, whole=True)
        check_number("period", self.period, 1, 2**31 - 1, whole=True)
        _check_stack(self)
        object.__setattr__(self, "state_columns", _names("state_columns", self.state_columns))
        for name in self.state_columns:
            if covers(("observation", "reward", "terminated", "truncated"), name):
                raise InvalidArgument(f"state_columns: {name!r} belongs to every step and cannot be read at the first one only")

    @property
    def anchors(self) -> AnchorRule:
        """Every `period`-th step."""
        return AnchorRule(self.period)

    @property
    def rows(self) -> int:
        """Rows that an item is made of, at most."""
        return self.burn_in + self.length + self.frame_stack

    def stacks(self, column: str) -> bool:
        """Whether `column` is one of those stacked by this view."""
        return self.frame_stack > 1 and covers(self.stack_columns, column)


@dataclass(frozen=True, slots=True)
class Episode:
    """Whole finished episodes. Anchors are their first steps, so one draw is one episode, and priorities those of first steps.

    Padded to the longest episode of the batch (fields as for `Sequence`), or packed: columns ``(total, *shape)``, item i being
    ``[batch.offsets[i] : batch.offsets[i + 1]]`` of each; nothing is padded, so very different lengths cost nothing.
    """

    max_length: int | None = None
    """Only so many first steps of each; None takes all."""

    packed: bool = False
    """Packed instead of padded."""

    frame_stack: int = 1
    """With more than 1, stacked columns get a new axis of this length after the step's, oldest frame first."""

    stack_columns: tuple[str, ...] = ("observation",)
    """Columns that are stacked; a name stands for everything nested below it too."""

    padding: str = "edge"
    """Frames before the first step: ``"edge"`` repeats that one, ``"zero"`` gives zeros."""

    agent: str | None = None
    """As for `Transition`."""

    def __post_init__(self) -> None:
        if self.max_length is not None:
            check_number("max_length", self.max_length, 1, 2**31 - 1, whole=True)
        if not isinstance(self.packed, bool):
            raise InvalidArgument(f"packed={self.packed!r} must be True or False")
        _check_stack(self)

    @property
    def anchors(self) -> AnchorRule:
        """First steps of finished episodes that are all there."""
        return AnchorRule(episode_start=True)

    @property
    def rows(self) -> int:
        """Rows that every item is made of, at least: how many more there are shows when episodes are drawn."""
        return 1 + self.frame_stack

    def stacks(self, column: str) -> bool:
        """Whether `column` is one of those stacked by this view."""
        return self.frame_stack > 1 and covers(self.stack_columns, column)


@dataclass(frozen=True, slots=True)
class Hindsight:
    """Transitions of which some pretend that what was reached later had been the goal (Andrychowicz et al. 2017).

    An item is relabelled with probability `ratio`: its desired goal, in observation and next observation, becomes the achieved goal of
    another row. ``batch.relabelled`` says which, ``batch.goal_ids`` whose; ``batch.relabel(compute_reward)`` gives the batch with the
    rewards that go with the new goals, and ``reward_fn=`` of a sampler does that by itself. Until then rewards are the stored ones.
    """

    transition: Transition = field(default_factory=Transition)
    """n-step, discount and frame stack."""

    strategy: str = "future"
    """Where goals come from: ``"future"``, any row after the step up to the last known of its episode; ``"final"``, that last row;
    ``"episode"``, any row of the episode; ``"random"``, any anchor of the table. Uniform among those."""

    ratio: float = 0.8
    """Probability that an item is relabelled; k goals for one original, as in the paper, are k / (k + 1)."""

    achieved: str = "observation/achieved_goal"
    """Column of goals reached."""

    desired: str = "observation/desired_goal"
    """Column of goals asked for, of the same shape and dtype."""

    def __post_init__(self) -> None:
        if isinstance(self.transition, dict):  # out of JSON
            object.__setattr__(self, "transition", from_json(self.transition, {"Transition": Transition}, "transition"))
        if not isinstance(self.transition, Transition):
            raise InvalidArgument(f"transition={self.transition!r} must be a replaystore.Transition")
        if self.strategy not in STRATEGIES:
            raise InvalidArgument(f"strategy={self.strategy!r} must be one of {', '.join(STRATEGIES)}")
        check_number("ratio", self.ratio, 0.0, 1.0)
        for name in ("achieved", "desired"):
            if not isinstance(getattr(self, name), str):
                raise InvalidArgument(f"{name}={getattr(self, name)!r} must be the name of a column")

    @property
    def agent(self) -> str | None:
        """Of the transition."""
        return self.transition.agent

    @property
    def anchors(self) -> AnchorRule:
        """Any."""
        return _ANY

    @property
    def rows(self) -> int:
        """Rows that an item is made of, at most; looking for the end of its episode is not counted in."""
        return self.transition.rows + 1

    def stacks(self, column: str) -> bool:
        """Whether `column` is one of those stacked by this view."""
        return self.transition.stacks(column)


View: TypeAlias = Transition | Sequence | Episode | Hindsight
VIEWS: dict[str, type[View]] = {kind.__name__: kind for kind in (Transition, Sequence, Episode, Hindsight)}
