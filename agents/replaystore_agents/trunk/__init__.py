"""What the algorithms share: networks, heads, schedules, evaluation, run folders, feeding. Knows nothing of any algorithm."""
