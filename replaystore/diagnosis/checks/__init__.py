"""Checks: functions from facts to findings. The docstring of each is its section of docs/DOCTOR.md: a title, what it means, what to do."""
