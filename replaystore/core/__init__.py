"""Decisions: what is sampled, what a view is made of, who may go on. No I/O, no threads, no clock: NumPy and numba only."""
