"""One sampler over several tables, stores or servers: shares, joined batches, and what happens when a source goes away."""
