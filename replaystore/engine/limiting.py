"""The rate limiter of one table, with its counters: who may go on now, and if not, why. Under the table's lock."""

from __future__ import annotations

from replaystore.core.limiter import Limiter
from replaystore.engine.population import Population
from replaystore.schema.limiters import RateLimiter
from replaystore.storage.table_files import TableFiles
from replaystore.turns import Ticket, WaitQueue


class Limiting:
    """A `Limiter` and the counters that it decides by: those of the state page, and what the table holds."""

    def __init__(self, config: RateLimiter, files: TableFiles, population: Population) -> None:
        self._limiter, self._files, self._population = Limiter(config), files, population
        self._least = config.min_size_to_sample
        self.wanted = 1
        """Anchors without which the sampler whose turn it was cannot go on; until they are there, inserts may."""
        self.asked = 1
        """Items that the sampler wanted which was held back last."""
        self._starving: Ticket | None = None
        self._checked = 0

    def change(self, config: RateLimiter) -> None:
        """A new limiter counts from now on, as if what is there had just been inserted: what was sampled under another does not bind it."""
        state = self._files.state
        state["limiter_inserted"] = state["inserted_steps"] - min(self._population.steps, config.min_size_to_sample)
        state["limiter_sampled"] = state["sampled_items"]
        self._limiter, self._least, self._checked = Limiter(config), config.min_size_to_sample, 0

    def _counted(self) -> tuple[int, int, int, int]:
        """Steps inserted, items sampled, both since the limiter was set; steps and anchors kept."""
        state, population = self._files.state, self._population
        since = state["inserted_steps"] - state["limiter_inserted"], state["sampled_items"] - state["limiter_sampled"]
        return *since, population.steps, population.anchors

    def starve(self, ticket: Ticket) -> None:
        """There are too few anchors of the kind that the holder of `ticket` wants, say first steps of finished episodes.

        Only more rows can help, unless others are served: so the limiter lets rows in, until somebody is. Else an episode longer than its
        bounds would make both sides wait for ever.
        """
        served = self._files.state["sampled_items"]
        if ticket.served is None:
            ticket.served = served
        if ticket.served == served:
            self._starving, self.wanted = ticket, max(self.wanted, self._population.anchors + 1)

    def look_after(self, samplers: WaitQueue) -> None:
        """Holds inserts back again when the sampler for which they pass has left."""
        if self._starving is not None and self._starving not in samplers:
            self._starving, self.wanted = None, 1

    def check_sample(self, n: int) -> None:
        """See `Limiter.check_sample`."""
        if n != self._checked:
            self._limiter.check_sample(n)
            self._checked = n

    def may_insert(self) -> bool:
        """Whether a block may come in."""
        return self._limiter.may_insert(*self._counted(), self.wanted)

    def may_sample(self, n: int) -> bool:
        """Whether `n` items may be drawn; what is refused is remembered, to say what a waiting sampler waits for."""
        allowed = self._population.steps >= self._least if self._limiter.boundless else self._limiter.may_sample(*self._counted(), n)
        if not allowed:
            self.asked = n
        return allowed

    def let_through(self, n: int, most: int) -> int:
        """How many batches of `n` items in a row, `most` at most, may be drawn now, the first having been let through."""
        inserted, sampled, steps, anchors = self._counted()
        batches = 1
        while batches < most and self._limiter.may_sample(inserted, sampled + batches * n, steps, anchors, n):
            batches += 1
        return batches

    def explain(self, action: str, n: int) -> str:
        """See `Limiter.explain`; also says where retention leaves no room for what the limiter wants."""
        text = self._limiter.explain(*self._counted(), action=action, n=n, wanted=self.wanted)
        population, most = self._population, self._population.retention.max_steps
        if action == "sample" and population.steps < self._least and most is not None and self._files.next_step - population.first >= most:
            text += (
                f"; but max_steps={most} rows are kept already, with closing and deleted rows among them: a higher max_steps may be needed"
            )
        return text
