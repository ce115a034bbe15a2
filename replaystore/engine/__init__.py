"""One table at work: storage and core behind one lock, opening and recovery, group commit, views. Knows nothing of networks."""
