"""What the agents reach, beside what others publish: the rows of docs/RESULTS.md, each made by one command."""
