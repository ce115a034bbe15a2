"""Views: what an anchor expands to when it is read. Nothing of them is fixed when steps are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from replaystore.errors import InvalidArgument
from replaystore.schema.record import check_number


@dataclass(frozen=True, slots=True)
class Transition:
    """``(s_t, a_t, R, s_{t+k})`` with an n-step return and stacked frames.

    R = Σ_{i<k} gamma^i · r_{t+i}, k = the steps really taken: n_step, or fewer where the episode ends (terminated or truncated) or has
    not gone further yet. `discount` is gamma^k · (1 − terminated), so the target is always ``reward + discount · V(next_observation)``
    (multi-step: Sutton 1988; as in Hessel et al. 2018).
    """

    n_step: int = 1
    """How many rewards are summed at most, 1 to 1024."""

    gamma: float = 0.99
    """Discount per step, 0 to 1."""

    frame_stack: int = 1
    """With more than 1, stacked columns get a new second axis of this length, oldest frame first."""

    stack_columns: tuple[str, ...] = ("observation",)
    """Columns that are stacked; a name stands for everything nested below it too."""

    padding: str = "edge"
    """Before an episode's first step (or the oldest step kept): ``"edge"`` repeats that frame, ``"zero"`` gives zeros."""

    def __post_init__(self) -> None:
        check_number("n_step", self.n_step, 1, 1024, whole=True)
        check_number("gamma", self.gamma, 0.0, 1.0)
        check_number("frame_stack", self.frame_stack, 1, 256, whole=True)
        if self.padding not in ("edge", "zero"):
            raise InvalidArgument(f"padding={self.padding!r} must be 'edge' or 'zero'")
        if isinstance(self.stack_columns, str):
            object.__setattr__(self, "stack_columns", (self.stack_columns,))
        object.__setattr__(self, "stack_columns", tuple(self.stack_columns))

    def stacks(self, column: str) -> bool:
        """Whether `column` is one of those stacked by this view."""
        return self.frame_stack > 1 and any(column == name or column.startswith(f"{name}/") for name in self.stack_columns)


View: TypeAlias = Transition
VIEWS: dict[str, type[View]] = {kind.__name__: kind for kind in (Transition,)}
