"""What the benchmarks share: paired rounds, pools, rows, tables, plots."""
