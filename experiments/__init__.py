"""Programs: one to train, one a table of a paper, and the benchmarks."""
