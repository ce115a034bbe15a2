"""RecordExperience: a Gymnasium wrapper that writes every step to a replaystore writer, for plain and vector environments.

It knows when an episode really begins and ends in each of Gymnasium's autoreset modes and which observation was the last of an episode.
It knows nothing of tables or servers: it calls a `replaystore.Writer` and nothing else. This module needs gymnasium.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, overload

import numpy as np

from replaystore.errors import InvalidArgument
from replaystore.writer import Writer

try:
    import gymnasium
    from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
except ImportError as missing:
    raise ImportError(f"RecordExperience needs {missing.name}: pip install gymnasium") from missing

Extras: TypeAlias = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Gets a step's info, returns further columns of that step."""


@overload
def RecordExperience(
    env: VectorEnv[Any, Any, Any], writer: Writer, extras: Extras | None = None, *, stream: int = 0
) -> RecordedVectorEnv: ...
@overload
def RecordExperience(env: gymnasium.Env[Any, Any], writer: Writer, extras: Extras | None = None, *, stream: int = 0) -> RecordedEnv: ...
def RecordExperience(  # noqa: N802 - a wrapper to those who use it, whichever of the two classes it makes
    env: Any, writer: Writer, extras: Extras | None = None, *, stream: int = 0
) -> RecordedEnv | RecordedVectorEnv:
    """Wraps an environment so that what happens in it is written: ``env = RecordExperience(env, writer)``.

    Args:
        env: a `gymnasium.Env`, or a `gymnasium.vector.VectorEnv` in any autoreset mode.
        writer: from ``client.writer(table, streams=env.num_envs)``; stream i is sub-environment i. Closing it stays the caller's business.
        extras: gets each step's info, returns further columns (of all sub-environments in a vector environment). Columns that are known
            before the step, such as the log-probability of the action, are given with ``env.note(log_prob=...)``.
        stream: which of the writer's streams a plain environment is.

    A call of `step` or `reset` that raises because the step could not be written (NotReady, Overloaded, DeadlineExceeded, StorageError) may
    simply be made again: the environment is not stepped a second time.
    """
    if isinstance(env, VectorEnv):
        if stream:
            raise InvalidArgument(f"stream={stream}: a vector environment writes all streams of its writer, sub-environment i to stream i")
        return RecordedVectorEnv(env, writer, extras)
    if isinstance(env, gymnasium.Env):
        return RecordedEnv(env, writer, extras, stream)
    raise InvalidArgument(f"env must be a gymnasium.Env or a gymnasium.vector.VectorEnv, got {type(env).__name__}")


class _Journal:
    """What is still to be written, call by call, and what the environment returned meanwhile.

    A writer that raises NotReady has recorded nothing, but the environment has moved already. So the calls to the writer wait here, and a
    repeated call of the environment first ends what the earlier one began.
    """

    def __init__(self) -> None:
        self._calls: deque[Callable[[], None]] = deque()
        self._result: Any = None
        self._kind = ""

    def begin(self, kind: str, result: Any, calls: list[Callable[[], None]]) -> Any:
        """Writes; returns `result` when all `calls` went through."""
        self._kind, self._result = kind, result
        self._calls.extend(calls)
        return self._drain()

    def hold(self, kind: str, result: Any, call: Callable[[], None]) -> None:
        """Notes a call that has just failed, for the next try."""
        self._kind, self._result = kind, result
        self._calls.append(call)

    def resume(self, kind: str) -> tuple[bool, Any]:
        """Ends what is left; (True, its result) when it was a call of the same `kind`, which the caller now repeats."""
        if not self._calls:
            return False, None
        result = self._drain()
        return self._kind == kind, result

    def _drain(self) -> Any:
        while self._calls:
            try:
                self._calls[0]()
            except InvalidArgument:  # trying again cannot help
                self._calls.clear()
                raise
            self._calls.popleft()
        result, self._result = self._result, None
        return result


class RecordedEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A plain environment whose steps are written. Made by `RecordExperience`."""

    def __init__(self, env: gymnasium.Env[Any, Any], writer: Writer, extras: Extras | None = None, stream: int = 0) -> None:
        super().__init__(env)
        self._writer, self._extras, self._stream = writer, extras, stream
        self._journal = _Journal()
        self._open = False
        self._noted: dict[str, Any] = {}

    def note(self, **columns: Any) -> None:
        """Further columns of the next step."""
        self._noted.update(columns)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode. One that is still going is closed as truncated."""
        repeated, result = self._journal.resume("reset")
        if repeated:
            return result  # type: ignore[no-any-return]
        observation, info = self.env.reset(seed=seed, options=options)
        self._noted.clear()
        self._open = True
        write = lambda: self._writer.reset(observation, stream=self._stream, seed=seed)  # noqa: E731
        return self._write("reset", (observation, info), write)  # type: ignore[no-any-return]

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Takes and writes a step.

        Raises:
            InvalidArgument: the episode is over, or never began. The environment was not touched.
        """
        repeated, result = self._journal.resume("step")
        if repeated:
            return result  # type: ignore[no-any-return]
        if not self._open:
            raise InvalidArgument(
                "there is no open episode: call reset() before step(). An Autoreset wrapper belongs around RecordExperience, not inside it"
            )
        observation, reward, terminated, truncated, info = self.env.step(action)
        columns = self._noted
        if self._extras is not None:
            columns = {**columns, **self._extras(info)}
        if columns:
            self._noted = {}
        self._open = not (terminated or truncated)
        write, ended, cut, stream = self._writer.append, bool(terminated), bool(truncated), self._stream
        try:
            write(action, reward, ended, cut, observation, stream, **columns)
        except InvalidArgument:
            self._open = False  # a step is missing: nothing may follow it in this episode
            raise
        except BaseException:
            result = observation, reward, terminated, truncated, info
            columns = {**columns}  # what is noted from now on is the next step's
            self._journal.hold("step", result, lambda: write(action, reward, ended, cut, observation, stream, **columns))
            raise
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """Writes what a failed call left behind, then closes the environment; the writer stays open."""
        try:
            self._journal.resume("close")
        finally:
            super().close()

    def _write(self, kind: str, result: Any, call: Callable[[], None]) -> Any:
        try:
            return self._journal.begin(kind, result, [call])
        except InvalidArgument:
            self._open = False  # a step is missing: nothing may follow it in this episode
            raise


class RecordedVectorEnv(VectorWrapper[Any, Any, Any, Any, Any]):
    """A vector environment whose steps are written. Made by `RecordExperience`."""

    def __init__(self, env: VectorEnv[Any, Any, Any], writer: Writer, extras: Extras | None = None) -> None:
        super().__init__(env)
        self._writer, self._extras = writer, extras
        self._mode = _autoreset_mode(env)
        self._journal = _Journal()
        self._begun = np.zeros(env.num_envs, np.bool_)
        self._over = np.zeros(env.num_envs, np.bool_)
        self._noted: dict[str, Any] = {}

    def note(self, **columns: Any) -> None:
        """Further columns of the next step, each with the sub-environments as first axis."""
        self._noted.update(columns)

    def reset(  # the base class forgot the list of seeds that Gymnasium's vector environments take
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins an episode everywhere, or where ``options["reset_mask"]`` says. Those that are still going are closed as truncated.

        The seeds recorded are Gymnasium's: ``seed + i`` for sub-environment i, or one each from a list.
        """
        repeated, result = self._journal.resume("reset")
        if repeated:
            return result  # type: ignore[no-any-return]
        mask = np.ones(self.num_envs, np.bool_)
        if options is not None and options.get("reset_mask") is not None:
            mask = np.array(options["reset_mask"], np.bool_)  # a copy: environments take it out of the options
        observations, infos = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        self._noted.clear()
        calls = [self._beginning(observations, i, _seed_of(seed, i)) for i in np.flatnonzero(mask).tolist()]
        self._begun |= mask
        self._over &= ~mask
        return self._write("reset", (observations, infos), calls)  # type: ignore[no-any-return]

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Takes and writes a step of every sub-environment.

        Raises:
            InvalidArgument: a sub-environment was never reset, or (autoreset DISABLED) its episode is over. Nothing was touched.
        """
        repeated, result = self._journal.resume("step")
        if repeated:
            return result  # type: ignore[no-any-return]
        self._check_open()
        observations, rewards, terminateds, truncateds, infos = self.env.step(actions)
        ended = np.asarray(terminateds, np.bool_) | np.asarray(truncateds, np.bool_)
        columns = {**self._noted, **(self._extras(infos) if self._extras is not None else {})}
        self._noted.clear()
        following, reset_mask = observations, None
        beginnings: list[Callable[[], None]] = []
        if self._mode is AutoresetMode.SAME_STEP:
            which = np.flatnonzero(ended).tolist()
            if which:
                following = _with_rows(observations, which, infos)
                beginnings = [self._beginning(observations, i, None) for i in which]
        else:
            if self._mode is AutoresetMode.NEXT_STEP and self._over.any():
                reset_mask = self._over.copy()  # these were reset: neither their action nor their reward was real
                ended &= ~reset_mask
            self._over = ended

        def write() -> None:
            self._writer.append_batch(actions, rewards, terminateds, truncateds, following, reset_mask=reset_mask, **columns)

        return self._write("step", (observations, rewards, terminateds, truncateds, infos), [write, *beginnings])  # type: ignore[no-any-return]

    def close(self, **kwargs: Any) -> None:
        """Writes what a failed call left behind, then closes the environment; the writer stays open."""
        try:
            self._journal.resume("close")
        finally:
            super().close(**kwargs)

    def _check_open(self) -> None:
        closed = ~self._begun if self._mode is not AutoresetMode.DISABLED else ~self._begun | self._over
        if closed.any():
            which = np.flatnonzero(closed).tolist()
            raise InvalidArgument(
                f"sub-environments {which} have no open episode: call reset(), or reset(options={{'reset_mask': mask}}) with True there"
            )

    def _beginning(self, observations: Any, index: int, seed: int | None) -> Callable[[], None]:
        first = _row(observations, index)
        return lambda: self._writer.reset(first, stream=index, seed=seed)

    def _write(self, kind: str, result: Any, calls: list[Callable[[], None]]) -> Any:
        try:
            return self._journal.begin(kind, result, calls)
        except InvalidArgument:
            self._begun[:] = False  # steps are missing: nothing may follow them in these episodes
            raise


def _autoreset_mode(env: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    mode = (env.metadata or {}).get("autoreset_mode", getattr(env.unwrapped, "autoreset_mode", None))
    try:
        return AutoresetMode(mode)
    except ValueError:
        raise InvalidArgument(
            f"{env} does not say how it resets (metadata['autoreset_mode'] is {mode!r}): set it to one of gymnasium.vector.AutoresetMode"
        ) from None


def _seed_of(seed: Any, index: int) -> int | None:
    if seed is None:
        return None
    return int(seed) + index if np.ndim(seed) == 0 else None if seed[index] is None else int(seed[index])


def _row(tree: Any, index: int) -> Any:
    """Sub-environment `index` of batched nested observations."""
    if isinstance(tree, Mapping):
        return {key: _row(part, index) for key, part in tree.items()}
    if isinstance(tree, tuple | list):
        return tuple(_row(part, index) for part in tree)
    return tree[index]


def _with_rows(observations: Any, which: list[int], infos: Mapping[str, Any]) -> Any:
    """A copy of the batched observations in which the sub-environments `which` have their episode's true last one."""
    final = infos.get("final_obs")
    if final is None:
        raise InvalidArgument(f"sub-environments {which} were reset in the same step, but info has no 'final_obs': the last step is lost")
    copy = _copied(observations)
    for index in which:
        row = _row(final, index) if isinstance(final, Mapping | tuple | list) else final[index]
        if row is None:
            raise InvalidArgument(f"sub-environment {index} was reset in the same step, but info['final_obs'][{index}] is None")
        _assign(copy, index, row)
    return copy


def _copied(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _copied(part) for key, part in tree.items()}
    if isinstance(tree, tuple | list):
        return tuple(_copied(part) for part in tree)
    return np.array(tree)


def _assign(tree: Any, index: int, value: Any) -> None:
    if isinstance(tree, dict):
        for key, part in tree.items():
            _assign(part, index, value[key])
    elif isinstance(tree, tuple):
        for part, piece in zip(tree, value, strict=True):
            _assign(part, index, piece)
    else:
        tree[index] = value
