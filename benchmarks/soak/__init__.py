"""Hundreds of actors, some learners, tables that come and go, and clients that are killed, for as long as asked, with everything counted.

``python -m benchmarks.soak --minutes 3`` starts a real ``replaystore serve``, loads it from processes of their own and looks at it from
outside. What must hold, each with the reason when it does not:

- **Every step is there.** Each actor numbers its steps in a column. An auditor reads every row before retention drops it: the numbers of
  an actor are 0, 1, 2, … in order, each once; what was acknowledged is there, and nothing that was never sent. Actors that were killed too.
- **Nobody starves.** Whoever waits for an answer while the median of those like him gets `Fairness.STARVED` of them is starving. That is
  a comparison, so a slow machine alone fails nothing.
- **Nothing grows.** After a warm-up of a third of the time, the robust line (Theil-Sen) through memory, descriptors, threads, files and
  journal bytes rises by less than a fixed amount until the end. Memory is the server's own, not the files that it maps. The amounts do not
  depend on the time: what three minutes show is a leak of 180 MB an hour, what ten hours show one of 1 MB an hour.
- **It ends well.** When the clients have gone their connections have; SIGTERM ends the server with 0 and its log has no error;
  ``replaystore verify`` finds nothing.
"""
