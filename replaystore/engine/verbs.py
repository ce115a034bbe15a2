"""What is done with one table of a store, by the table's name: the verbs of `replaystore.Store` that it hands on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from replaystore.batch import Batch, RewardFunction, check_reward_function
from replaystore.engine.sampler import EmbeddedSampler
from replaystore.engine.table import Table
from replaystore.federated.sampler import MixtureSampler, sample_mixture
from replaystore.sample_log import Log
from replaystore.sampling import SampleRequest, anchors_of
from replaystore.schedules import Beta, beta_at
from replaystore.schema.filters import Filter
from replaystore.schema.mixture import Mixture
from replaystore.schema.selectors import FreeSelector
from replaystore.schema.views import Transition, View
from replaystore.steps import DeleteCounts, UpdateCounts

Array = npt.NDArray[Any]

DEFAULT_TIMEOUT_S = 10.0

_TRANSITION = Transition()


class TableVerbs:
    """Whoever has tables inherits this."""

    def table(self, name: str) -> Table:
        """The table object; NotFound lists what there is."""
        raise NotImplementedError

    def sample(
        self,
        name: str | Mixture,
        batch_size: int,
        view: View | None = None,
        beta: float = 0.0,
        seed: int | None = None,
        selector: str | FreeSelector | None = None,
        columns: Any = None,
        where: Filter | None = None,
        normalise: str = "batch",
        timeout_s: float = DEFAULT_TIMEOUT_S,
        reward_fn: RewardFunction | None = None,
    ) -> Batch:
        """Draws a batch.

        Args:
            name: the table, or a `replaystore.Mixture` of several.
            batch_size: items.
            view: what each anchor expands to; `Transition()` by default.
            beta: exponent of the importance weights.
            seed: draws with this seed instead of the table's own stream of random numbers.
            selector: name of one of the table's selectors, or one that needs no priorities, such as ``Uniform()``.
            columns: reads only these.
            where: draws only anchors that pass this filter; probabilities are those among them.
            normalise: divides the weights by the batch's largest, or (``"table"``) by the largest that any anchor could have.
            timeout_s: how long to wait for the rate limiter.
            reward_fn: gives `Hindsight` batches their rewards: ``reward_fn(achieved_goal, desired_goal, info)``, called once.

        Raises:
            NotReady: the rate limiter blocked for `timeout_s`; the text says why and who has to act.
        """
        if isinstance(name, Mixture):
            return sample_mixture(
                self, name, batch_size, view=view, beta=beta, seed=seed, selector=selector, columns=columns, where=where,
                normalise=normalise, timeout_s=timeout_s, reward_fn=reward_fn,
            )  # fmt: skip
        request = SampleRequest(batch_size, view or _TRANSITION, selector, beta, seed, columns, where, normalise)
        if reward_fn is not None:
            check_reward_function(request.view, reward_fn)
        batch = self.table(name).sample(request, timeout_s)
        return batch if reward_fn is None else batch.relabel(reward_fn)

    def sample_at(
        self,
        name: str,
        step_ids: Any,
        view: View | None = None,
        seed: int | None = None,
        columns: Any = None,
        as_of: int | None = None,
    ) -> Batch:
        """Reads exactly these anchors, in this order: no draw, nothing counted, no limiter. Probabilities are 0, weights 1.

        Args:
            name: the table.
            step_ids: ``(n,)`` integers, as in ``batch.step_ids``.
            view: what each expands to; `Transition()` by default.
            seed: for what the view chooses at random, as of the batch that the ids are from; None is 0.
            columns: reads only these.
            as_of: rows from this id on are not seen, as if they had not been written yet: ``batch.next_step`` of that batch.

        Raises:
            NotFound: one of them is no anchor that is kept, or none that the view can begin at; names the first such.
        """
        ids = anchors_of(step_ids)
        return self.table(name).sample_at(SampleRequest(len(ids), view or Transition(), seed=seed, columns=columns), ids, as_of)

    def sampler(
        self,
        name: str | Mixture,
        batch_size: int,
        view: View | None = None,
        beta: Beta = 0.0,
        seed: int | None = None,
        selector: str | FreeSelector | None = None,
        columns: Any = None,
        where: Filter | None = None,
        normalise: str = "batch",
        prefetch: int = 4,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        log: Log | None = None,
        reward_fn: RewardFunction | None = None,
    ) -> EmbeddedSampler | MixtureSampler:
        """An endless iterator of batches with `update_priorities`; `prefetch` matters only over the network.

        Arguments as for `sample`; `beta` may be a schedule, called with the batch's index; `log`, a path or `SampleLog`, notes every batch.
        """
        if isinstance(name, Mixture):
            return MixtureSampler(
                self, name, batch_size, log=log, view=view, beta=beta, seed=seed, selector=selector, columns=columns, where=where,
                normalise=normalise, prefetch=prefetch, timeout_s=timeout_s, reward_fn=reward_fn,
            )  # fmt: skip
        request = SampleRequest(batch_size, view or Transition(), selector, beta_at(beta, 0), seed, columns, where, normalise)
        return EmbeddedSampler(self.table(name), request, timeout_s, prefetch, beta, log, reward_fn)

    def update_priorities(self, name: str, step_ids: Any, priorities: Any, selector: str | None = None) -> UpdateCounts:
        """Sets the priorities of steps; counts how many were applied, are gone (evicted) or were rejected (NaN, negative)."""
        return self.table(name).update_priorities(step_ids, priorities, selector)

    # -- changing rows that are there

    def update_columns(self, name: str, step_ids: Any, values: Mapping[str, Any]) -> UpdateCounts:
        """Writes columns declared with ``Column(..., writable=True)`` of rows that are there: annotations, advantages, relabelled rewards.

        Durable like inserts. A batch gathered at the same moment may hold old values or new ones. What an episode's return was is not
        changed by rewards written later.

        Args:
            name: the table.
            step_ids: ``(n,)`` integers; where one comes twice, its last value stays.
            values: by column, ``(n, *shape)``, checked like what is appended.

        Returns:
            Rows written (`applied`), and ids that are evicted, unknown or deleted (`gone`).

        Raises:
            InvalidArgument: a column that there is not, or that is not writable.
            SchemaMismatch: values that do not fit.
        """
        return self.table(name).changing.update_columns(step_ids, values)

    def delete_steps(self, name: str, step_ids: Any = None, where: Filter | None = None) -> DeleteCounts:
        """Deletes steps: they are sampled no more from now on, nor is a step whose next observation they hold; views end before them.

        Durable like inserts. Their bytes go with their files.

        Args:
            name: the table.
            step_ids: ``(n,)`` integers; closing rows may be among them.
            where: instead of ids, every step that meets these conditions.

        Returns:
            Rows deleted now, and ids that were gone already.
        """
        return self.table(name).changing.delete_steps(step_ids, where)

    def delete_episodes(self, name: str, episodes: Any = None, where: Filter | None = None) -> DeleteCounts:
        """Deletes the rows of whole episodes, likewise. Rows that an episode gets later, while it goes on, stay.

        Args:
            name: the table.
            episodes: ``(n,)`` numbers of episodes (``meta/episode``, or ``episode`` of `episodes`).
            where: instead, every finished episode all of whose kept steps meet these conditions.

        Returns:
            Rows deleted now, and episodes of which nothing was left.
        """
        return self.table(name).changing.delete_episodes(episodes, where)

    # -- reading

    def why_blocked(self, name: str) -> str:
        """Whether inserting and sampling wait now, and why: which limiter, its cursor and bounds, what is missing, and who must act."""
        return self.table(name).stats().why_blocked()

    def read_steps(self, name: str, start: int, stop: int, columns: Any = None) -> dict[str, Array]:
        """Rows [start, stop) as far as they are kept: ``step_id`` and an array per column; bookkeeping under ``meta/…``."""
        return self.table(name).read_steps(start, stop, columns)

    def episodes(self, name: str, start: int | None = None, stop: int | None = None) -> dict[str, Array]:
        """Finished episodes in the order of their ends; negative positions count from the newest."""
        return self.table(name).episodes(start, stop)
